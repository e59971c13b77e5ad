r"""The adversarial baseline is our search in pixels, told in the latents of a generator."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from toys import images

from captum_dcf import Adam, AdversarialExample, DiffeomorphicCounterfactual, Generator, Pixels


def test_it_is_our_search_with_the_identity(classifier: nn.Module, generator: Generator):
    x = images(6)
    pixels = DiffeomorphicCounterfactual(classifier, Pixels((1, 4, 4)), Adam(5e-3), softening=0)
    theirs = pixels.counterfactual(x, target=2, confidence=0.9)
    ours = AdversarialExample(classifier, generator, Adam(5e-3)).counterfactual(x, target=2, confidence=0.9)
    for name in ("counterfactuals", "steps", "status", "end_scores"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name))
    torch.testing.assert_close(ours.start_latents, generator.encode(x))
    torch.testing.assert_close(ours.end_latents, generator.encode(ours.counterfactuals))
    torch.testing.assert_close(ours.reconstructions, x)


def test_the_defaults_are_the_papers(classifier: nn.Module, generator: Generator):
    method = AdversarialExample(classifier, generator)
    assert (method.step_rule, method.default_max_steps) == (Adam(5e-4), 2000)


def test_a_step_rule_that_is_none_is_refused(classifier: nn.Module, generator: Generator):
    with pytest.raises(TypeError, match="received float"):
        AdversarialExample(classifier, generator, 5e-4)
