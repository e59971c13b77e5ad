r"""Counterfactual: what it holds, prints, saves and loads, joins and tabulates."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from plane import Plane
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from captum_dcf.search import Counterfactual, Status
from captum_dcf.search.result import FORMAT


def result(count: int, frames: int | None = None, latents: bool = True, **changes: Any) -> Counterfactual:
    source = torch.Generator().manual_seed(count)
    inputs, counterfactuals, reconstructions = torch.randn(3, count, 1, 2, 2, generator=source)
    status = torch.arange(count) % len(Status)
    made = Counterfactual(
        inputs=inputs,
        counterfactuals=counterfactuals,
        reconstructions=reconstructions,
        status=status,
        reached=(status < 2) | (status == Status.NOT_RECONSTRUCTED),
        steps=torch.arange(count),
        start_scores=torch.rand(count, generator=source),
        reconstruction_scores=torch.rand(count, generator=source),
        end_scores=torch.rand(count, generator=source),
        overshoot=torch.rand(count, generator=source),
        start_percentiles=torch.full((count,), 40.0) if latents else None,
        end_percentiles=torch.full((count,), 60.0) if latents else None,
        start_latents=torch.zeros(count, 2) if latents else None,
        end_latents=torch.tensor([3.0, 4.0]).expand(count, 2) if latents else None,
        frames=None if frames is None else torch.randn(frames, 1, 2, 2, generator=source),
        frame_rows=None if frames is None else (torch.arange(frames) % count).sort().values,
        about={"method": "Walk", "goal": "ReachClass(label=1)", "seeds": [1, 2], "versions": {"torch": "2"}},
    )
    return replace(made, **changes)


def assert_equal(one: Counterfactual, other: Counterfactual) -> None:
    for field in fields(Counterfactual):
        received, expected = getattr(one, field.name), getattr(other, field.name)
        if isinstance(expected, Tensor):
            assert torch.equal(received, expected), field.name
            assert received.dtype == expected.dtype, field.name
        else:
            assert received == expected, field.name


def test_the_change_is_the_sum_of_what_the_search_and_the_generator_did():
    one = result(6)
    torch.testing.assert_close(one.attributions, one.counterfactuals - one.inputs)
    torch.testing.assert_close(one.latent_change + one.reconstruction_error, one.attributions)
    torch.testing.assert_close(one.reconstruction_error, one.reconstructions - one.inputs)
    assert len(one) == 6


def test_statuses_have_the_numbers_that_files_hold():
    assert [(status.name, int(status)) for status in result(7).statuses()] == [
        ("FOUND", 0),
        ("ALREADY_THERE", 1),
        ("STEP_LIMIT", 2),
        ("STALLED", 3),
        ("NOT_FINITE", 4),
        ("NOT_RECONSTRUCTED", 5),
        ("TIME_LIMIT", 6),
    ]


def test_c8_whether_the_goal_is_reached_is_stored_not_derived():
    assert result(7).reached.tolist() == [True, True, False, False, False, True, False]


def test_c41_results_compare_by_identity():
    one, other = result(3), result(3)
    assert one == one
    assert one != other
    assert len({one, other}) == 2


def test_it_prints_in_two_lines():
    first, second = repr(result(7)).split("\n")
    assert "7 counterfactuals 1×2×2 by Walk to ReachClass(label=1)" in first
    for status in Status:
        assert f"1 {status.name}" in first
    assert "3 steps" in second
    assert "by a search to its goal" in repr(result(2, about={}))
    assert len(repr(result(1)).split("\n")) == 2


def test_latents_of_a_generator_can_be_added():
    one = result(3, latents=False)

    def encode(images: Tensor) -> Tensor:
        return 2 * images.flatten(1)

    added = one.with_latents(Plane(encode=encode))
    torch.testing.assert_close(added.start_latents, encode(one.inputs))
    torch.testing.assert_close(added.end_latents, encode(one.counterfactuals))
    assert one.start_latents is None
    assert torch.equal(added.status, one.status)


# The path


def test_each_example_has_a_path_of_its_own():
    one = result(3)
    assert one.path is None
    images = torch.randn(5, 1, 2, 2)
    path = replace(one, frames=images, frame_rows=torch.tensor([0, 0, 2, 2, 2])).path
    assert [len(frames) for frames in path] == [2, 0, 3]
    assert torch.equal(path[0], images[:2])
    assert torch.equal(path[2], images[2:])
    assert path[1].shape == (0, 1, 2, 2)


# Files


@pytest.mark.parametrize("latents", [True, False])
@pytest.mark.parametrize("frames", [None, 5])
def test_what_is_saved_is_loaded(tmp_path: Path, frames: int | None, latents: bool):
    one = result(4, frames, latents)
    one.save(tmp_path / "run.safetensors")
    assert_equal(Counterfactual.load(tmp_path / "run.safetensors"), one)
    assert_equal(Counterfactual.load(str(tmp_path / "run.safetensors")), one)


def test_about_is_json_in_the_metadata_of_the_file(tmp_path: Path):
    one = result(2, about={"method": "Größer", "target": 9})
    one.save(tmp_path / "run")
    with safe_open(tmp_path / "run", framework="pt") as file:
        assert json.loads(file.metadata()["about"]) == {"method": "Größer", "target": 9}


def test_c21_tensors_that_share_memory_or_are_views_are_saved(tmp_path: Path):
    one = result(4)
    shared = replace(one, counterfactuals=one.inputs, reconstructions=one.inputs, start_latents=one.inputs.flatten(1))
    shared = replace(shared, end_latents=one.inputs.flatten(1).T.contiguous().T)
    shared.save(tmp_path / "run")
    assert_equal(Counterfactual.load(tmp_path / "run"), shared)


def _file(folder: Path, one: Counterfactual, **changes: Tensor | None) -> Path:
    """A file of a result, in which some tensors are others, or are left away."""
    one.save(folder / "run")
    tensors = {**load_file(folder / "run"), **changes}
    save_file(
        {name: value for name, value in tensors.items() if value is not None},
        folder / "run",
        {"about": "{}", "format": FORMAT},
    )
    return folder / "run"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"status": torch.tensor([0, 1])}, r"status .*4.*\(2,\)"),
        ({"status": torch.tensor([0, 1, 18, 2])}, "status "),
        ({"status": torch.tensor([0, 1, -1, 2])}, "status "),
        ({"status": torch.tensor([0.0, 1.0, 1.5, 2.0])}, "status "),
        ({"status": torch.tensor(1)}, r"status .*\(\)"),
        ({"status": None}, "status"),
        ({"counterfactuals": torch.zeros(4, 1, 3, 3)}, r"counterfactuals .*\(4, 1, 2, 2\).*\(4, 1, 3, 3\)"),
        ({"reconstructions": torch.zeros(3, 1, 2, 2)}, r"reconstructions .*\(3, 1, 2, 2\)"),
        ({"reached": torch.zeros(4)}, "reached .*bool.*float32"),
        ({"end_scores": torch.zeros(5)}, r"end_scores .*\(5,\)"),
        ({"end_scores": torch.zeros(4, 4)}, r"end_scores .*\(4, 4\)"),
        ({"steps": torch.zeros(4)}, "steps .*int64.*float32"),
        ({"start_latents": torch.zeros(3, 2)}, r"start_latents .*\(3, 2\)"),
        ({"start_latents": torch.zeros(4)}, r"start_latents .*\(4,\)"),
        ({"frame_rows": None}, "frame_rows"),
        ({"frames": None}, "frames"),
        ({"frame_rows": torch.tensor([0, 1, 2])}, r"frame_rows .*6.*\(3,\)"),
        ({"frame_rows": torch.tensor([0, 1, 2, 3, 3, 4])}, "frame_rows "),
        ({"frame_rows": torch.tensor([-1, 1, 2, 3, 3, 3])}, "frame_rows "),
        ({"frame_rows": torch.tensor([0, 1, 2, 1, 3, 3])}, "frame_rows "),
        ({"frame_rows": torch.arange(6.0)}, "frame_rows "),
        ({"frames": torch.zeros(6, 1, 3, 3)}, r"frames .*\(6, 1, 3, 3\)"),
        ({"weight": torch.zeros(4)}, "weight"),
    ],
)
def test_c19_files_that_hold_no_whole_result_are_refused(tmp_path: Path, changes: dict[str, Any], says: str):
    path = _file(tmp_path, result(4, frames=6), **changes)
    with pytest.raises(ValueError, match=f"(?s)run.*{says}"):
        Counterfactual.load(path)


@pytest.mark.parametrize("about", ["[1]", "3", "no json", '"words"'])
def test_c19_an_about_that_is_none_is_refused(tmp_path: Path, about: str):
    result(2).save(tmp_path / "run")
    save_file(load_file(tmp_path / "run"), tmp_path / "run", {"about": about, "format": FORMAT})
    with pytest.raises(ValueError, match="run"):
        Counterfactual.load(tmp_path / "run")


def test_what_was_not_saved_by_us_is_not_loaded(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"none\.safetensors"):
        Counterfactual.load(tmp_path / "none.safetensors")
    (tmp_path / "text").write_text("no tensors here, only words")
    with pytest.raises(ValueError, match="text"):
        Counterfactual.load(tmp_path / "text")
    (tmp_path / "empty").touch()
    with pytest.raises(ValueError, match="empty"):
        Counterfactual.load(tmp_path / "empty")
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="format"):
        Counterfactual.load(tmp_path / "other.safetensors")


def test_c19_what_cannot_be_written_says_where(tmp_path: Path):
    with pytest.raises(OSError, match="missing"):
        result(2).save(tmp_path / "missing" / "run")


@pytest.mark.parametrize("call", [result(2).save, Counterfactual.load])
def test_c19_a_path_is_a_path(call: Callable[[Any], Any]):
    with pytest.raises(TypeError, match="int"):
        call(5)


# Several as one


def test_batches_are_joined_in_their_order():
    first, second = result(2), result(3)
    joined = Counterfactual.concatenate([first, second])
    assert len(joined) == 5
    assert joined.path is None
    for field in fields(Counterfactual):
        if isinstance(getattr(first, field.name), Tensor):
            both = getattr(first, field.name), getattr(second, field.name)
            assert torch.equal(getattr(joined, field.name), torch.cat(both))


def test_c22_paths_stay_as_long_as_they_are_when_joined():
    parts = [result(2, frames=3), result(3, frames=7), result(1, frames=2)]
    joined = Counterfactual.concatenate(parts)
    for received, expected in zip(joined.path, [path for part in parts for path in part.path]):
        assert torch.equal(received, expected)
    assert len(joined.path) == 6
    assert len(joined.frames) == 12


def test_of_about_the_common_part_remains():
    first, second = result(1, about={"a": 1, "b": 2}), result(1, about={"a": 1, "b": 3, "c": 4})
    assert Counterfactual.concatenate([first, second]).about == {"a": 1}


def test_c20_any_iterable_is_joined():
    parts = [result(2), result(3)]
    assert_equal(Counterfactual.concatenate(part for part in parts), Counterfactual.concatenate(parts))
    assert_equal(Counterfactual.concatenate(iter(parts[:1])), parts[0])


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ([], "none"),
        ([result(2), result(2, frames=3)], "frames"),
        ([result(2, frames=3), result(2)], "frames"),
        ([result(2), result(2, start_percentiles=None)], "start_percentiles"),
        ([replace(result(2), start_latents=None), result(2)], "start_latents"),
        (
            [result(2), replace(result(2), inputs=torch.zeros(2, 1, 3, 3))],
            r"inputs .*\(1, 2, 2\), \(1, 3, 3\)",
        ),
    ],
)
def test_c20_results_that_do_not_fit_together_are_refused(parts: list[Counterfactual], says: str):
    with pytest.raises(ValueError, match=says):
        Counterfactual.concatenate(parts)


# Tables


def test_a_frame_has_one_row_per_example():
    pytest.importorskip("pandas")
    one = result(6)
    frame = one.to_frame()
    assert frame["status"].tolist() == [status.name for status in one.statuses()]
    assert frame["reached"].tolist() == one.reached.tolist()
    assert frame["steps"].tolist() == [0, 1, 2, 3, 4, 5]
    assert frame["l2_latent"].tolist() == [5.0] * 6
    for name in ("start", "reconstruction", "end"):
        assert frame[f"{name}_score"].tolist() == pytest.approx(getattr(one, f"{name}_scores").tolist())
    for name, images in (("l2_input", one.counterfactuals), ("l2_reconstruction", one.reconstructions)):
        by_hand = [float((x - y).square().sum() ** 0.5) for x, y in zip(images, one.inputs)]
        assert frame[name].tolist() == pytest.approx(by_hand)
    assert "l2_latent" not in result(2, latents=False).to_frame()


def test_a_frame_without_pandas_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        result(1).to_frame()
