r"""What a review of the whole search found: each of these was wrong once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from cases import MAX_STEPS
from torch import Tensor, nn
from toys import Rotated, RowClassifier, images

from captum_dcf import (
    Adam,
    AdversarialExample,
    AtLeast,
    Counterfactual,
    DiffeomorphicCounterfactual,
    Generator,
    LatentShift,
    LeaveClass,
    Pixels,
    PrototypeCounterfactual,
    StepRule,
)
from captum_dcf.generators import AutoencoderGenerator
from captum_dcf.search.noise import noise
from captum_dcf.testing import check_method


class Buffered(nn.Module):
    r"""Gives the same memory at each call without a gradient, as a captured CUDA graph does."""

    def __init__(self) -> None:
        super().__init__()
        self.model = RowClassifier()
        self.memory: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        output = self.model(x)
        if torch.is_grad_enabled():
            if self.memory is not None and self.memory.shape == output.shape:
                self.memory.copy_(output.detach())
            return output
        self.memory = output.clone()
        return self.memory


class Mirrored(Rotated):
    def decode(self, z: Tensor) -> Tensor:
        return 1 - super().decode(z)


def test_the_output_for_the_inputs_is_not_that_of_a_later_call():
    x = images(8)
    plain, buffered = (
        DiffeomorphicCounterfactual(model.eval(), Mirrored()).counterfactual(x, 1, max_steps=MAX_STEPS)
        for model in (RowClassifier(), Buffered())
    )
    assert "NOT_RECONSTRUCTED" in [status.name for status in plain.statuses()]
    assert torch.equal(plain.status, buffered.status)


class Unready(Rotated):
    def check_ready(self) -> None:
        raise ValueError("has seen no data")


def test_every_generator_that_is_called_has_to_be_ready():
    x = images(3)
    result = AdversarialExample(RowClassifier().eval()).counterfactual(x, 1, max_steps=2)
    with pytest.raises(ValueError, match="has seen no data"):
        result.with_latents(Unready().eval())
    with pytest.raises(ValueError, match="has seen no data"):
        PrototypeCounterfactual(RowClassifier().eval(), x, Unready().eval()).counterfactual(x, 1, max_steps=2)


def test_latents_of_a_generator_in_training_mode_are_refused():
    training = AutoencoderGenerator(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16)), nn.Unflatten(1, (1, 4, 4)))
    result = AdversarialExample(RowClassifier().eval()).counterfactual(images(3), 1, max_steps=2)
    mean = training.encoder[1].running_mean.clone()
    with pytest.raises(ValueError, match="training mode"):
        result.with_latents(training)
    assert torch.equal(training.encoder[1].running_mean, mean)
    with pytest.raises(TypeError, match="int"):
        result.with_latents(3)


def test_a_line_goes_on_in_half_precision():
    model, generator = (part.to(torch.bfloat16).eval() for part in (RowClassifier(), Pixels((1, 4, 4), None)))
    method = LatentShift(model, generator, step_length=0.001)
    x = torch.full((1, 1, 4, 4), 0.5, dtype=torch.bfloat16)
    result = method.counterfactual(x, 1, confidence=0.9, max_steps=2000)
    assert result.steps > 256
    assert result.reached.all()


class Small(RowClassifier):
    r"""Has memory for two images where no gradient is taken, and for any number where one is."""

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 2 and not torch.is_grad_enabled() and self.is_full:
            raise torch.cuda.OutOfMemoryError("out of memory")
        return super().forward(x)

    is_full = False


def test_refining_goes_on_with_fewer_images_when_memory_runs_out():
    x, model = images(5), Small().eval()
    method = DiffeomorphicCounterfactual(model, Rotated().eval())
    asked = {"target": 1, "confidence": 0.8, "refine": True, "internal_batch_size": "auto"}
    plain = method.counterfactual(x, **asked)
    model.is_full = True
    full = method.counterfactual(x, **asked)
    assert torch.equal(full.status, plain.status)
    torch.testing.assert_close(full.counterfactuals, plain.counterfactuals, atol=1e-4, rtol=0)


def test_numbers_of_any_kind_can_be_saved(tmp_path: Path):
    method = DiffeomorphicCounterfactual(RowClassifier().eval(), Rotated().eval())
    result = method.counterfactual(images(2), 1, max_steps=2, max_seconds=np.float32(50))
    result.save(tmp_path / "result.safetensors")
    assert Counterfactual.load(tmp_path / "result.safetensors").about["settings"]["max_seconds"] == 50


class Counting(StepRule):
    r"""Walks in circles, and writes down how many steps it remembers at the start."""

    patience = 3

    def __init__(self) -> None:
        self.at_start: list[float] = []

    def start(self, z: Tensor) -> dict[str, Tensor]:
        return {"length": torch.ones_like(z[:, :1]), "count": torch.zeros_like(z[:, :1]), "begun": z}

    def step(
        self, z: Tensor, gradient: Tensor, scale: Tensor, state: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        if torch.equal(z, state["begun"]):
            self.at_start.append(float(state["count"]))
        side = 1 - 2 * (state["count"] % 2)
        return z + 0.01 * side, {**state, "count": state["count"] + 1}


def test_a_search_that_restarts_has_a_fresh_memory():
    rule = Counting()
    method = DiffeomorphicCounterfactual(RowClassifier().eval(), Rotated().eval(), step_rule=rule)
    method.counterfactual(images(1), 1, confidence=0.9999, max_steps=20)
    assert 0.0 in rule.at_start[1:]


def test_a_target_that_is_out_of_range_is_told_before_a_search():
    seen: list[int] = []

    def model(x: Tensor) -> Tensor:
        seen.append(len(x))
        return torch.stack((x.flatten(1)[:, :3], x.flatten(1)[:, 3:6]), 2)

    method = DiffeomorphicCounterfactual(model, Rotated().eval())
    with pytest.raises(ValueError, match="out of range"):
        method.counterfactual(images(4), [(1, 0)] * 3 + [(1, 7)], internal_batch_size=1)
    assert sum(seen) == 1


def test_an_infinite_output_is_not_there_already():
    method = DiffeomorphicCounterfactual(lambda x: x.flatten(1).sum(1) * torch.inf, Rotated().eval())
    result = method.counterfactual(images(2), goal=AtLeast(0.5), max_steps=2)
    assert [status.name for status in result.statuses()] == ["NOT_FINITE"] * 2
    assert not result.reached.any()


def test_noise_is_drawn_on_the_cpu_whatever_the_default_device():
    with torch.device("meta"):
        seeds, like = torch.zeros(2, dtype=torch.int64, device="cpu"), torch.ones(1, device="cpu")
        drawn = noise(seeds, lambda source: torch.randn(3, generator=source), like)
    assert drawn.device.type == "cpu"
    assert torch.equal(drawn[0], drawn[1])


def test_a_file_of_another_format_is_refused(tmp_path: Path):
    from safetensors.torch import load_file, save_file

    result = DiffeomorphicCounterfactual(RowClassifier().eval(), Rotated().eval()).counterfactual(
        images(2), 1, max_steps=1
    )
    result.save(tmp_path / "own.safetensors")
    save_file(load_file(tmp_path / "own.safetensors"), tmp_path / "other.safetensors", {"format": "other 9"})
    with pytest.raises(ValueError, match="other 9"):
        Counterfactual.load(tmp_path / "other.safetensors")


def test_start_latents_are_checked_with_a_method():
    x, generator = images(3).double(), Rotated().double().eval()
    method = DiffeomorphicCounterfactual(RowClassifier().double().eval(), generator)
    latents = generator.encode(x).detach()
    assert len(check_method(method, x, 1, 1e-6, latents=latents, confidence=0.6, max_steps=MAX_STEPS)) == 9


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda x: DiffeomorphicCounterfactual(RowClassifier(), Rotated), "class Rotated"),
        (lambda x: DiffeomorphicCounterfactual(RowClassifier(), Rotated(), step_rule=Adam), "Adam"),
        (lambda x: AdversarialExample(RowClassifier().eval()).counterfactual(x, goal=LeaveClass), "LeaveClass"),
        (lambda x: AdversarialExample(RowClassifier().eval()).counterfactual(x, 1, max_step=3), "max_step;.*max_steps"),
        (lambda x: Counterfactual.concatenate([1]), "int"),
        (lambda x: check_method("x", x), "str"),
    ],
)
def test_what_was_given_is_named(call: object, word: str):
    with pytest.raises(TypeError, match=word):
        call(images(2))  # type: ignore[operator]


def test_a_goal_of_its_own_is_not_what_a_result_names():
    from captum_dcf import ContrastiveCounterfactual

    result = ContrastiveCounterfactual(RowClassifier().eval()).counterfactual(images(2), 1, max_steps=2)
    assert result.about["goal"].startswith("ReachClass(label=1")
    assert isinstance(Rotated(), Generator)
