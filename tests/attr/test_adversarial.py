r"""The adversarial baseline is our search in pixels; latents are added on request."""

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
    ours = AdversarialExample(classifier, step_rule=Adam(5e-3)).counterfactual(x, target=2, confidence=0.9)
    for name in ("counterfactuals", "steps", "status", "end_scores"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name))
    assert ours.start_latents is None
    assert ours.end_latents is None
    assert torch.equal(ours.reconstructions, x)
    told = ours.with_latents(generator)
    torch.testing.assert_close(told.start_latents, generator.encode(x))
    torch.testing.assert_close(told.end_latents, generator.encode(ours.counterfactuals))


def test_it_leaves_the_data_but_not_the_range(classifier: nn.Module):
    x = images(3)
    for data_range, low, high in (((0.0, 1.0), 0.0, 1.0), ((0.2, 0.7), 0.2, 0.7), (None, -9.0, 9.0)):
        method = AdversarialExample(classifier, data_range, Adam(0.05))
        result = method.counterfactual(x, target=1, confidence=0.9)
        assert result.reached.all()
        assert low <= float(result.counterfactuals.min())
        assert float(result.counterfactuals.max()) <= high


def test_the_defaults_are_the_papers(classifier: nn.Module):
    method = AdversarialExample(classifier)
    rule = method.step_rule
    assert isinstance(rule, Adam)
    assert (rule.lr, rule.betas, rule.eps) == (5e-4, (0.9, 0.999), 1e-8)
    assert (method.default_max_steps, method.softening, method.data_range) == (2000, 0.0, (0.0, 1.0))


def test_a_step_rule_that_is_none_is_refused(classifier: nn.Module):
    with pytest.raises(TypeError, match="received float"):
        AdversarialExample(classifier, step_rule=5e-4)
