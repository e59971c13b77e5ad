r"""With torch.compile a search gives the same; where it fails, it warns once and goes on without."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_dcf.generators import NormalizingFlowGenerator
from captum_dcf.generators.compiled import CompiledCall
from captum_dcf.models.glow import glow


def broken(function: Callable[..., Any], dynamic: bool) -> Callable[..., Any]:
    def fail(*arguments: Any) -> Any:
        raise OSError("no compiler here")

    return fail


def decoded(compiled: bool) -> Tensor:
    torch.manual_seed(0)
    generator = NormalizingFlowGenerator(glow((1, 4, 4), (2,), (4,)).eval(), compiled=compiled)
    generator.encode(torch.rand(8, 1, 4, 4))
    z = torch.randn(3, 16)
    with generator.constant():
        return generator.decode(z)


def test_all_coupling_networks_go_through_one_compiled_function(monkeypatch: pytest.MonkeyPatch):
    compilations: list[bool] = []
    networks: list[nn.Module] = []

    def recorded(function: Callable[..., Any], dynamic: bool) -> Callable[..., Any]:
        compilations.append(dynamic)
        return lambda network, x: (networks.append(network), function(network, x))[1]

    monkeypatch.setattr(torch, "compile", recorded)
    expected = decoded(compiled=False)
    assert compilations == []
    torch.testing.assert_close(decoded(compiled=True), expected)
    assert compilations == [True]
    assert len(networks) == 2


def test_a_failing_compiler_is_warned_of_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch, "compile", broken)
    expected = decoded(compiled=False)
    with pytest.warns(RuntimeWarning, match="torch.compile failed, going on without it: no compiler here") as caught:
        result = decoded(compiled=True)
    assert len(caught) == 1
    torch.testing.assert_close(result, expected)


@pytest.mark.filterwarnings("error")
def test_a_failing_network_is_not_blamed_on_the_compiler(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch, "compile", lambda function, dynamic: function)
    call = CompiledCall()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        call(nn.Linear(2, 2), torch.zeros(1, 3))
