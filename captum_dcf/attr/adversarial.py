r"""AdversarialExample: the same walk in pixels, the baseline that counterfactuals are told from."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from captum_dcf.attr._outcome import told_in_latents
from captum_dcf.attr.counterfactual import CounterfactualAttribution, Query
from captum_dcf.attr.diffeomorphic import DiffeomorphicCounterfactual
from captum_dcf.generators.base import Generator
from captum_dcf.generators.pixels import Pixels
from captum_dcf.search.goal import OutputKind
from captum_dcf.search.result import Counterfactual
from captum_dcf.search.step import Adam, StepRule

__all__ = ["AdversarialExample"]


class AdversarialExample(CounterfactualAttribution):
    r"""Gradient steps on the pixels themselves until f says the target: x' is near x but leaves the data.

    :class:`DiffeomorphicCounterfactual` with the identity as generator. The defaults are the paper's for MNIST, Adam
    with learning rate 5e-4 and at most 2000 steps. Its others: 7e-4 and 1000 for CelebA, 5e-4 and 1000 for CheXpert,
    1e-4 and 5000 for Mall. ``Adam(5e-3)`` arrives in a tenth of the steps, at a distance that is somewhat greater.

    Dombrowski, Gerken, Müller and Kessel, "Diffeomorphic Counterfactuals with Generative Models", IEEE TPAMI 46(5),
    2024, section 4, https://arxiv.org/abs/2206.05075

    Args:
        forward_func: The model: images (N, ...), and additional arguments, to outputs.
        generator: Not searched with: says the range of pixels, and gives the reconstructions and latents of the result.
        step_rule: How pixels move; ``Adam(5e-4)`` by default.
        output: What the model gives: ``"logits"``, ``"probabilities"`` or ``"binary_logit"``.
    """

    default_max_steps = 2000

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        generator: Generator,
        step_rule: StepRule | None = None,
        output: OutputKind = "logits",
    ) -> None:
        super().__init__(forward_func, generator, output)
        if step_rule is not None and not isinstance(step_rule, StepRule):
            raise TypeError(f"step_rule must be a captum_dcf StepRule, received {type(step_rule).__name__}")
        self.step_rule = step_rule or Adam(5e-4)

    def search(self, query: Query) -> Counterfactual:
        r"""The search of :class:`DiffeomorphicCounterfactual` with pixels as latents."""
        pixels = Pixels(tuple(query.inputs.shape[1:]), self.generator.data_range)
        in_pixels = DiffeomorphicCounterfactual(self.forward_func, pixels, self.step_rule, self.output)
        return told_in_latents(self, in_pixels.search(query))
