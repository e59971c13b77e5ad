from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from captum_dcf.search import Counterfactual, Status


def result(count: int, frames: int | None = None) -> Counterfactual:
    source = torch.Generator().manual_seed(count)
    inputs, counterfactuals, reconstructions = torch.randn(3, count, 1, 2, 2, generator=source)
    return Counterfactual(
        inputs=inputs,
        counterfactuals=counterfactuals,
        reconstructions=reconstructions,
        start_latents=torch.zeros(count, 2),
        end_latents=torch.tensor([3.0, 4.0]).expand(count, 2),
        status=torch.arange(count) % 6,
        steps=torch.arange(count),
        start_scores=torch.rand(count, generator=source),
        end_scores=torch.rand(count, generator=source),
        path=None if frames is None else torch.randn(frames, count, 1, 2, 2, generator=source),
    )


def test_the_change_is_the_sum_of_what_the_search_and_the_generator_did():
    one = result(6)
    torch.testing.assert_close(one.attributions, one.counterfactuals - one.inputs)
    torch.testing.assert_close(one.latent_change + one.reconstruction_error, one.attributions)
    torch.testing.assert_close(one.reconstruction_error, one.reconstructions - one.inputs)
    assert len(one) == 6


def test_found_and_already_there_are_reached():
    one = result(6)
    assert one.statuses() == list(Status)
    assert [status.name for status in one.statuses()] == [
        "FOUND",
        "ALREADY_THERE",
        "BEST_EFFORT",
        "STALLED",
        "NOT_FINITE",
        "NOT_RECONSTRUCTED",
    ]
    assert one.reached.tolist() == [True, True, False, False, False, False]


@pytest.mark.parametrize("frames", [None, 3])
def test_what_is_saved_is_loaded(tmp_path: Path, frames: int | None):
    one = result(4, frames)
    one.save(tmp_path / "run.safetensors")
    again = Counterfactual.load(tmp_path / "run.safetensors")
    for name, value in vars(one).items():
        if value is None:
            assert getattr(again, name) is None
        else:
            assert torch.equal(getattr(again, name), value)
            assert getattr(again, name).dtype == value.dtype


def test_what_was_not_saved_by_us_is_not_loaded(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"none\.safetensors"):
        Counterfactual.load(tmp_path / "none.safetensors")
    (tmp_path / "text").write_text("no tensors here, only words")
    with pytest.raises(ValueError, match="text"):
        Counterfactual.load(tmp_path / "text")
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="weight"):
        Counterfactual.load(tmp_path / "other.safetensors")


def test_a_frame_has_one_row_per_example():
    pytest.importorskip("pandas")
    one = result(3)
    frame = one.to_frame()
    assert frame["status"].tolist() == ["FOUND", "ALREADY_THERE", "BEST_EFFORT"]
    assert frame["steps"].tolist() == [0, 1, 2]
    assert frame["l2_latent"].tolist() == [5.0, 5.0, 5.0]
    by_hand = [float((x - y).square().sum() ** 0.5) for x, y in zip(one.counterfactuals, one.inputs)]
    assert frame["l2_input"].tolist() == pytest.approx(by_hand)


def test_a_frame_without_pandas_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        result(1).to_frame()


def test_batches_are_joined_in_their_order():
    first, second = result(2), result(3)
    joined = Counterfactual.concatenate([first, second])
    assert len(joined) == 5
    assert joined.path is None
    for name in ("inputs", "end_latents", "status", "start_scores"):
        assert torch.equal(getattr(joined, name), torch.cat((getattr(first, name), getattr(second, name))))


def test_the_shorter_path_rests_at_its_last_image_when_joined():
    first, second = result(2, frames=2), result(3, frames=4)
    path = Counterfactual.concatenate([first, second]).path
    assert path.shape == (4, 5, 1, 2, 2)
    assert torch.equal(path[:, 2:], second.path)
    assert torch.equal(path[:2, :2], first.path)
    assert torch.equal(path[3, :2], first.path[-1])
