r"""What holds for every searcher: an example gets what it gets alone, calls repeat, steps are pure."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import pytest
import torch
from plane import bent, problem, run, three_logits
from torch import Tensor

from captum_dcf.search import Adam, Ascent, Counterfactual, Goal, LeaveClass, Near, ReachClass, Searcher, UnitGradient
from captum_dcf.search.external import External
from captum_dcf.search.fista import Fista
from captum_dcf.search.line import Line
from captum_dcf.search.record import RUNNING
from captum_dcf.search.shells import Shells
from captum_dcf.search.term import SquaredDistance

EXAMPLES = 11


def _attack(images: Tensor, rows: Tensor) -> Tensor:
    return torch.where(images[:, :1] > 0.4, torch.inf, images + images.flip(1).sin())


SEARCHERS: dict[str, Searcher] = {
    "unit steps": Ascent(UnitGradient(0.3)),
    "unit steps that restart": Ascent(UnitGradient(0.6, patience=4)),
    "adam": Ascent(Adam(0.1)),
    "line": Line(0.2),
    "hybrid shells": Shells(width=0.1, outermost=3.0, samples=40, shells=12, patience=3),
    "outward shells": Shells(width=0.2, outermost=3.0, samples=7, shells=12, hybrid=False),
    "fista": Fista(beta=0.01, lr=0.2, iterations=6, runs=4, c=0.3),
    "external": External(_attack),
}
# Shells and runs of FISTA narrow the distance down themselves.
REFINED = {"unit steps", "unit steps that restart", "adam", "line"}


@dataclass
class Case:
    r"""A searcher and starts of many kinds, in double precision."""

    name: str
    goal_of: type[ReachClass] | type[LeaveClass] | None = ReachClass

    def __post_init__(self) -> None:
        source = torch.Generator().manual_seed(11)
        self.start = torch.randn(EXAMPLES, 2, generator=source, dtype=torch.float64)
        self.targets = torch.arange(EXAMPLES) % 3

    def __str__(self) -> str:
        return f"{self.name}, {'Near' if self.goal_of is None else self.goal_of.__name__}"

    def goal(self, keep: Tensor) -> Goal:
        if self.goal_of is None:
            return Near(self.targets[keep].double() - 1, tolerance=0.1)
        return self.goal_of(self.targets[keep], 0.95)

    def predict(self, points: Tensor, rows: Tensor) -> Tensor:
        logits = three_logits(points, rows)
        return logits[:, 0] if self.goal_of is None else logits

    def decode(self, points: Tensor) -> Tensor:
        return torch.where(points.norm(dim=1, keepdim=True) > 2.5, torch.nan, bent(points))

    def problem_of(self, keep: Tensor) -> dict[str, Any]:
        start = self.start[keep]
        terms = (SquaredDistance(start),) if self.name == "fista" else ()
        return {
            "start": start,
            "decode": self.decode,
            "predict": self.predict,
            "goal": self.goal(keep),
            "terms": terms,
            "data_range": (-1.25, 1.25),
        }

    def run(self, keep: Tensor, **options: Any) -> Counterfactual:
        # The model may change its mind on reconstructions here: more searches are more to compare.
        options = {"search_unreconstructed": True, "refine": self.name in REFINED, "keep_path": True, **options}
        return run(**self.problem_of(keep), searcher=SEARCHERS[self.name], max_steps=30, **options)


CASES = [Case(name) for name in SEARCHERS] + [Case("unit steps", LeaveClass), Case("adam", None), Case("line", None)]
each_case = pytest.mark.parametrize(
    "case", CASES, ids=lambda case: f"{case.name} {getattr(case.goal_of, '__name__', 'Near')}"
)
EVERYONE = torch.arange(EXAMPLES)


def _rows(result: Counterfactual) -> list[dict[str, Tensor]]:
    """All that a result says of each example."""
    paths = result.path or [None] * len(result)
    named = {one.name: getattr(result, one.name) for one in fields(result) if one.name not in ("frames", "frame_rows")}
    tensors = {name: value for name, value in named.items() if isinstance(value, Tensor)}
    return [{**{name: value[row] for name, value in tensors.items()}, "path": path} for row, path in enumerate(paths)]


def _assert_same(received: list[dict[str, Tensor]], expected: list[dict[str, Tensor]], tolerance: float) -> None:
    for row, (one, other) in enumerate(zip(received, expected)):
        for name in one:
            torch.testing.assert_close(
                one[name],
                other[name],
                rtol=0,
                atol=tolerance,
                equal_nan=True,
                msg=lambda text, name=name, row=row: f"{name} of example {row}: {text}",
            )


@each_case
def test_each_example_gets_what_it_gets_alone_whatever_window_and_order(case: Case):
    alone = [_rows(case.run(EVERYONE[row : row + 1]))[0] for row in range(EXAMPLES)]
    for name in ("steps", "status"):
        assert len({int(row[name]) for row in alone}) > 1
    for window in (1, 2, 3, None, "auto"):
        _assert_same(_rows(case.run(EVERYONE, internal_batch_size=window)), alone, 1e-9)
    order = torch.randperm(EXAMPLES, generator=torch.Generator().manual_seed(3))
    shuffled = _rows(case.run(order, internal_batch_size=4))
    _assert_same(shuffled, [alone[row] for row in order.tolist()], 1e-9)


@each_case
def test_two_calls_are_equal_to_the_bit(case: Case):
    first, second = (_rows(case.run(EVERYONE, internal_batch_size=5)) for _ in range(2))
    _assert_same(first, second, 0.0)


@each_case
def test_a_step_repeats_and_leaves_its_arguments_alone(case: Case):
    searcher, options = SEARCHERS[case.name], case.problem_of(EVERYONE)
    asked = problem(**options)
    at = asked.evaluate(asked.inputs, EVERYONE, searcher.gradient)
    state = searcher.start(asked, at)
    for _ in range(6):
        before = {name: value.clone() for name, value in state.items()}
        seen = {one.name: getattr(at, one.name) for one in fields(at)}
        seen_before = {name: None if value is None else value.clone() for name, value in seen.items()}
        first, second = searcher.step(asked, at, state), searcher.step(asked, at, state)
        for name, value in before.items():
            torch.testing.assert_close(state[name], value, rtol=0, atol=0, equal_nan=True)
        for name, value in seen_before.items():
            if value is not None:
                torch.testing.assert_close(seen[name], value, rtol=0, atol=0, equal_nan=True)
        torch.testing.assert_close(first.points, second.points, rtol=0, atol=0, equal_nan=True)
        torch.testing.assert_close(first.state, second.state, rtol=0, atol=0, equal_nan=True)
        assert first.state.keys() == state.keys()
        assert all(len(value) == len(at.rows) for value in first.state.values())
        if first.ended is not None:
            assert torch.equal(first.ended, second.ended)
        state = first.state
        at = asked.evaluate(first.points, EVERYONE, searcher.gradient)


@each_case
def test_what_is_returned_was_judged_and_is_what_it_says(case: Case):
    result = case.run(EVERYONE, internal_batch_size=6)
    assert result.counterfactuals.isfinite().all()
    verdict = case.goal(EVERYONE).judge(case.predict(result.counterfactuals, EVERYONE), EVERYONE)
    assert torch.equal(result.reached, verdict.reached)
    torch.testing.assert_close(result.end_scores, verdict.score, rtol=0, atol=1e-9)
    moved = (result.steps > 0) & (result.end_latents != result.start_latents).any(1)
    torch.testing.assert_close(
        case.decode(result.end_latents).clamp(-1.25, 1.25)[moved], result.counterfactuals[moved], rtol=0, atol=1e-3
    )
    torch.testing.assert_close(result.latent_change + result.reconstruction_error, result.attributions)
    assert (result.steps <= 30).all()
    assert (result.status != RUNNING).all()
