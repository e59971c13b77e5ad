r"""DiffeomorphicCounterfactual: the search in the coordinates of a generative model."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from captum_dcf.attr._outcome import latent_problem
from captum_dcf.attr.counterfactual import CounterfactualAttribution, Query
from captum_dcf.generators.base import Generator
from captum_dcf.search.ascent import ascend
from captum_dcf.search.goal import OutputKind
from captum_dcf.search.result import Counterfactual
from captum_dcf.search.step import StepRule, UnitGradient

__all__ = ["DiffeomorphicCounterfactual"]

# Steps that a search would need to walk the typical length of a latent. For a standard normal in the 784 dimensions of
# MNIST this is a step of length 1, the best of those tried there (0.5, 1, 2); elsewhere the length scales with √D.
STEPS_PER_TYPICAL_LENGTH = 28


class DiffeomorphicCounterfactual(CounterfactualAttribution):
    r"""Counterfactuals by gradient steps in the latent space of a generator.

    From z = g⁻¹(x) the search follows the gradient of the goal, ∇_z log f(g(z))_t for a class t, until f says t with
    the wanted confidence, and returns x' - x with x' = g(z). One step of size λ in z moves x by λ J Jᵀ ∇_x f with the
    Jacobian J of g, which suppresses directions that leave the data: x' stays plausible, where the same walk in pixels
    (:class:`~captum_dcf.generators.Pixels`) ends in an adversarial example.

    Dombrowski, Gerken, Müller and Kessel, "Diffeomorphic Counterfactuals with Generative Models", IEEE TPAMI 46(5),
    2024, algorithm 1, https://arxiv.org/abs/2206.05075

    Args:
        forward_func: The model: images (N, ...), and additional arguments, to outputs.
        generator: Coordinates of the data: exact for a flow, approximate for an autoencoder or a GAN.
        step_rule: How latents move. By default a step of fixed length along the gradient, 1/28 of the length a latent
            of this generator typically has (:meth:`Generator.typical_length`, √D for standard normal latents). The
            paper's is ``Adam(0.05)`` for MNIST and ``Adam(0.005)`` for larger images.
        output: What the model gives: ``"logits"``, ``"probabilities"`` or ``"binary_logit"``.
        softening: How much the cross-entropy is softened, see :class:`ReachClass`; a goal may say otherwise. 0 is the
            paper's. With it one four or seven in twenty of MNIST takes more than 60 steps to become a nine.

    Examples:
        >>> from captum_dcf import zoo
        >>> from captum_dcf.data import mnist_sample
        >>> images, labels = mnist_sample()
        >>> method = DiffeomorphicCounterfactual(zoo.load("mnist-cnn"), zoo.load("mnist-glow"))
        >>> attributions = method.attribute(images[labels == 4][:2], target=9)
        >>> attributions.shape
        torch.Size([2, 1, 28, 28])
    """

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        generator: Generator,
        step_rule: StepRule | None = None,
        output: OutputKind = "logits",
        softening: float = 1.5,
    ) -> None:
        super().__init__(forward_func, generator, output)
        if step_rule is not None and not isinstance(step_rule, StepRule):
            raise TypeError(f"step_rule must be a captum_dcf StepRule, received {type(step_rule).__name__}")
        self.step_rule = step_rule
        self.softening = softening

    def search(self, query: Query) -> Counterfactual:
        r"""The batched ascent, see :func:`captum_dcf.search.ascend`."""
        latents = self.encode(query.inputs)
        problem = latent_problem(self, query)
        rule = self.step_rule or UnitGradient(self.generator.typical_length(latents) / STEPS_PER_TYPICAL_LENGTH)
        return ascend(
            query.inputs, latents, problem, rule, query.max_steps, query.refine, query.keep_path, query.on_round
        )
