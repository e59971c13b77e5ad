from __future__ import annotations

import pytest
import torch
from torch import nn

from captum_dcf import Generator
from captum_dcf.metrics import off_manifold


class Plane(Generator):
    r"""Images of four pixels whose last two hardly depend on the latents."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([3.0, 2.0, 1e-3, 1e-3]))

    def encode(self, x):
        return x.flatten(1) / self.scale

    def decode(self, z):
        return (z * self.scale).view(-1, 1, 2, 2)


def test_share_is_the_sine_of_the_angle():
    attributions = torch.tensor([[1.0, -2.0, 0.0, 0.0], [3.0, 0.0, 4.0, 0.0], [0.0, 0.0, 0.0, 5.0], [0.0] * 4])
    shares = off_manifold(Plane(), torch.rand(4, 1, 2, 2), attributions.view(4, 1, 2, 2), dimension=2)
    torch.testing.assert_close(shares, torch.tensor([0.0, 0.8, 1.0, 0.0]), rtol=0, atol=1e-5)
    assert not shares.requires_grad


def test_wrong_dimension_and_shapes_are_refused():
    x = torch.rand(2, 1, 2, 2)
    with pytest.raises(ValueError, match="received 5"):
        off_manifold(Plane(), x, x, dimension=5)
    with pytest.raises(ValueError, match=r"\(2, 1, 2, 2\) and \(1, 1, 2, 2\)"):
        off_manifold(Plane(), x, x[:1], dimension=2)
