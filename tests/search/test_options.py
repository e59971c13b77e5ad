r"""Options of a call: one list of names, and what each refuses."""

from __future__ import annotations

import inspect
from dataclasses import FrozenInstanceError, fields
from typing import Any, get_type_hints

import numpy as np
import pytest
import torch

from captum_dcf.search import AtLeast, Options, ReachClass
from captum_dcf.search.options import OptionNames


def test_names_and_types_for_editors_are_those_of_the_options():
    names = get_type_hints(OptionNames)
    assert list(names) == [one.name for one in fields(Options)]
    assert names == get_type_hints(Options)
    assert OptionNames.__optional_keys__ == frozenset(names)


def test_every_option_is_documented():
    for one in fields(Options):
        assert f"    {one.name}: " in inspect.getdoc(Options)


def test_options_are_named_and_do_not_change():
    with pytest.raises(TypeError):
        Options(AtLeast(1.0))
    with pytest.raises(FrozenInstanceError):
        Options().refine = True


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"goal": ReachClass(1)},
        {"confidence": 0.5},
        {"max_seconds": 3},
        {"max_seconds": np.float32(0.5)},
        {"max_seconds": float("inf")},
        {"latents": torch.zeros(2, 3)},
        {"latents": torch.zeros(2, 3, dtype=torch.float64)},
        {"internal_batch_size": "auto"},
        {"internal_batch_size": None},
    ],
)
def test_what_is_accepted(options: dict[str, Any]):
    received = Options(**options)
    for name, value in options.items():
        kept = getattr(received, name)
        assert kept is value or (isinstance(kept, float) and kept == value)


@pytest.mark.parametrize("name", ["max_steps", "internal_batch_size"])
def test_c40_counts_may_be_whole_numbers_of_any_kind(name: str):
    for value in (5, np.int64(5), np.uint8(5)):
        received = getattr(Options(**{name: value}), name)
        assert received == 5
        assert type(received) is int


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"goal": 1}, TypeError, "goal .*int"),
        ({"goal": ReachClass}, TypeError, "goal "),
        ({"max_steps": 0}, ValueError, "max_steps .*1.*0"),
        ({"max_steps": -3}, ValueError, "max_steps .*-3"),
        ({"max_steps": 2**70}, ValueError, "max_steps .*" + str(2**70)),
        ({"max_steps": 2.0}, TypeError, "max_steps .*float"),
        ({"max_steps": True}, TypeError, "max_steps .*bool"),
        ({"max_steps": torch.tensor(3)}, TypeError, "max_steps .*Tensor"),
        ({"max_steps": "many"}, ValueError, "max_steps .*'many'"),
        ({"max_steps": "auto"}, ValueError, "max_steps .*'auto'"),
        ({"internal_batch_size": 0}, ValueError, "internal_batch_size .*0"),
        ({"internal_batch_size": -3}, ValueError, "internal_batch_size .*-3"),
        ({"internal_batch_size": 2.0}, TypeError, "internal_batch_size .*'auto'.*float"),
        ({"internal_batch_size": True}, TypeError, "internal_batch_size .*bool"),
        ({"internal_batch_size": "big"}, ValueError, "internal_batch_size .*'auto'.*'big'"),
        ({"max_seconds": 0}, ValueError, "max_seconds .*positive.*0"),
        ({"max_seconds": -1.0}, ValueError, r"max_seconds .*-1\.0"),
        ({"max_seconds": float("nan")}, ValueError, "max_seconds .*nan"),
        ({"max_seconds": "soon"}, TypeError, "max_seconds .*str"),
        ({"max_seconds": True}, TypeError, "max_seconds .*bool"),
        ({"latents": [[1.0]]}, TypeError, "latents .*list"),
        ({"latents": torch.zeros(2, 3, dtype=torch.int64)}, TypeError, "latents .*int64"),
        ({"latents": torch.zeros(2)}, ValueError, r"latents .*\(2,\)"),
        ({"latents": torch.full((2, 3), torch.nan)}, ValueError, "latents .*finite"),
        ({"refine": 1}, TypeError, "refine .*1"),
        ({"keep_path": "yes"}, TypeError, "keep_path .*'yes'"),
        ({"show_progress": None}, TypeError, "show_progress .*None"),
        ({"search_unreconstructed": 0}, TypeError, "search_unreconstructed .*0"),
    ],
)
def test_what_is_refused_names_what_was_received(options: dict[str, Any], error: type[Exception], says: str):
    with pytest.raises(error, match=says):
        Options(**options)


@pytest.mark.parametrize("confidence", [0.5, 0.99, "abc"])
def test_c26_a_confidence_beside_a_goal_is_refused(confidence: object):
    with pytest.raises(ValueError, match=f"{confidence}.*goal"):
        Options(goal=ReachClass(1), confidence=confidence)


@pytest.mark.parametrize(
    ("confidence", "error", "says"),
    [
        ("abc", TypeError, "confidence .*str"),
        (True, TypeError, "confidence .*bool"),
        (1.0, ValueError, r"confidence .*1\.0"),
        (0.0, ValueError, r"confidence .*0\.0"),
    ],
)
def test_a_confidence_that_is_none_is_refused(confidence: object, error: type[Exception], says: str):
    with pytest.raises(error, match=says):
        Options(confidence=confidence)
