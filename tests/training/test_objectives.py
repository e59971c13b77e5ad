r"""What is optimised and measured, each by itself; no training."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("lightning")

from captum_dcf.models.glow import CouplingNetwork, PixelLogit
from captum_dcf.training.augment import shift_two_pixels
from captum_dcf.training.objectives import (
    Classification,
    Likelihood,
    PointLikelihood,
    Reconstruction,
    bits_per_dimension,
)


class UniformFlow(nn.Module):
    r"""The uniform density on dequantised 8-bit images: half a grey level more than [0, 1] on either side."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def log_prob(self, x: Tensor, _: None = None) -> Tensor:
        self.seen.append(x)
        return torch.full((len(x),), -x[0].numel() * math.log(256 / 255))


def test_the_uniform_density_takes_eight_bits_per_dimension():
    for bins, bits in ((256, 8.0), (2, 1.0)):
        flow = UniformFlow()
        flow.log_prob = lambda x, _, bins=bins: torch.full((len(x),), -x[0].numel() * math.log(bins / (bins - 1)))
        torch.testing.assert_close(bits_per_dimension(flow, torch.rand(3, 2, 4, 4), bins), torch.full((3,), bits))


def test_dequantisation_is_uniform_in_one_grey_level_around_each_pixel():
    flow, images = UniformFlow(), torch.randint(0, 256, (50, 1, 8, 8)) / 255
    bits_per_dimension(flow, images)
    noise = 255 * (flow.seen[0] - images)
    assert noise.min() >= -0.5001
    assert noise.max() <= 0.5001
    # Of 3,200 values the mean is within five of its deviations, √(1 / 12 / 3200).
    assert abs(noise.mean()) < 0.026
    assert abs(noise.var() - 1 / 12) < 0.01


def test_images_of_five_bits_are_rounded_to_the_levels_that_their_flow_was_made_for():
    flow, images = UniformFlow(), torch.randint(0, 256, (50, 1, 8, 8)) / 255
    flow.transform = PixelLogit(bins=32)
    flow.log_prob = lambda x, _: (flow.seen.append(x), torch.full((len(x),), -64 * math.log(32 / 31)))[1]
    torch.testing.assert_close(bits_per_dimension(flow, images), torch.full((50,), 5.0))
    levels = 31 * flow.seen[0]
    # What is 8-bit still lies in the grey level that it was rounded to, up to that level's edges.
    assert (levels.round() - 31 * images).abs().max() <= 0.5 + 1e-3
    assert len(levels.round().unique()) == 32
    assert levels.min() >= -0.5001
    assert levels.max() <= 31.5001
    assert bits_per_dimension(flow, images, bins=256).mean() > 5


class Spied(UniformFlow):
    r"""Keeps what autocast its coupling network is set to, each time it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.network = CouplingNetwork(1, 2, 1)
        self.autocasts: list[bool] = []

    def log_prob(self, x: Tensor, _: None = None) -> Tensor:
        self.autocasts.append(self.network.autocast)
        if x.isnan().any():
            raise RuntimeError("not a number")
        return super().log_prob(x)


def test_coupling_networks_train_in_half_precision_and_are_measured_in_single():
    flow, images = Spied(), torch.rand(3, 1, 4, 4)
    objective = Likelihood(flow, 1e-3)
    objective.loss(images, torch.zeros(3))
    objective.metric(images, torch.zeros(3))
    with pytest.raises(RuntimeError, match="not a number"):
        objective.loss(images * math.nan, torch.zeros(3))
    assert flow.autocasts == [True, False, True]
    assert not flow.network.autocast


def test_scales_are_taken_from_the_first_batch_of_a_training_and_never_again():
    for step, times in ((0, 1), (1, 0)):
        flow = UniformFlow()
        objective = Likelihood(flow, 1e-3)
        objective._trainer = SimpleNamespace(
            global_step=step, train_dataloader=[(torch.rand(7, 1, 4, 4), torch.zeros(7))]
        )
        objective.on_train_start()
        assert [len(batch) for batch in flow.seen] == [7] * times


def rates(total: int) -> list[float]:
    objective = Classification(nn.Linear(2, 2), learning_rate=0.5, weight_decay=0.25)
    objective._trainer = SimpleNamespace(estimated_stepping_batches=total)
    configured = objective.configure_optimizers()
    optimizer, schedule = configured["optimizer"], configured["lr_scheduler"]
    assert schedule["interval"] == "step"
    assert all(group["weight_decay"] == 0.25 for group in optimizer.param_groups)
    steps = []
    for _ in range(total):
        steps.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule["scheduler"].step()
    return [*steps, optimizer.param_groups[0]["lr"]]


def test_the_learning_rate_warms_up_for_one_step_in_fifty_and_falls_along_a_cosine_to_zero():
    found = rates(200)
    assert found[:4] == pytest.approx([0.125, 0.25, 0.375, 0.5])
    assert max(found) == 0.5
    assert found[4:] == sorted(found[4:], reverse=True)
    assert found[102] == pytest.approx(0.25)
    assert found[-1] == pytest.approx(0, abs=1e-9)


def test_the_shortest_training_has_a_learning_rate():
    assert rates(1)[0] == 0.5


def test_a_shift_moves_all_images_by_up_to_two_pixels():
    images = torch.rand(4, 1, 9, 9) + 1
    padded = nn.functional.pad(images, (2, 2, 2, 2))
    places = {(top, left): padded[..., top : top + 9, left : left + 9] for top in range(5) for left in range(5)}
    found = set()
    for _ in range(400):
        shifted = shift_two_pixels(images)
        found |= {place for place, moved in places.items() if torch.equal(moved, shifted)}
    assert found == set(places)


def test_training_images_are_augmented_in_order_and_others_are_not():
    seen = []

    class Spy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            return x.flatten(1)

    objective = Classification(Spy(), 1e-3, augment=[lambda x: x + 1, lambda x: 2 * x])
    objective.log = lambda *_, **__: None
    batch = torch.zeros(2, 1, 1, 3), torch.tensor([0, 2])
    objective.training_step(batch, 0)
    objective.validation_step(batch, 0)
    assert [x.unique().tolist() for x in seen] == [[2.0], [0.0]]


def test_the_accuracy_is_in_per_cent():
    objective, x = Classification(nn.Identity(), 1e-3), torch.eye(4)
    assert objective.metric(x, torch.tensor([0, 1, 2, 0])) == 75
    assert objective.loss(20 * x, torch.arange(4)) < 1e-6


def test_one_logit_is_that_of_the_second_class():
    objective, logits, labels = Classification(nn.Identity(), 1e-3), torch.randn(6, 1), torch.tensor([0, 1, 1, 0, 1, 0])
    expected = nn.functional.binary_cross_entropy_with_logits(logits[:, 0], labels.float())
    torch.testing.assert_close(objective.loss(logits, labels), expected)
    assert objective.metric(logits, (logits[:, 0] > 0).long()) == 100


@pytest.mark.parametrize(("label", "width"), [(200, 10), (-1, 10), (10, 10), (2, 1)])
def test_a_label_without_a_logit_is_named(label: int, width: int):
    objective = Classification(nn.Identity(), 1e-3)
    for step in (objective.loss, objective.metric):
        with pytest.raises(ValueError, match=rf"from 0 to {max(width, 2) - 1}.* {label}\b"):
            step(torch.zeros(2, width), torch.tensor([0, label]))


def test_points_are_measured_as_they_are():
    normal = torch.distributions.Normal(0.0, 1.0)
    flow = nn.Module()
    flow.log_prob = lambda x: normal.log_prob(x).sum(1)
    objective, points = PointLikelihood(flow, 1e-3), torch.randn(5, 3)
    expected = -normal.log_prob(points).sum(1).mean()
    torch.testing.assert_close(objective.loss(points, None), expected)
    torch.testing.assert_close(objective.metric(points, None), expected)


def test_a_reconstruction_is_measured_by_its_mean_squared_error():
    class Darker(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x - 0.5

    objective, images = Reconstruction(Darker(), 1e-3), torch.rand(5, 1, 4, 4)
    assert objective.metric(images, None) == pytest.approx(0.25)
    assert objective.loss(images, None) == pytest.approx(0.25)
