r"""DiffeomorphicCounterfactual: the search in the coordinates of a generative model."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from captum_dcf.attr._checks import check_step_rule
from captum_dcf.attr.counterfactual import ModelOptions
from captum_dcf.attr.spaces import LatentMethod
from captum_dcf.search import Ascent, Coordinates, Problem, Searcher, StepRule, UnitGradient
from captum_dcf.search.numbers import check_real

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["DiffeomorphicCounterfactual"]


class DiffeomorphicCounterfactual(LatentMethod):
    r"""Counterfactuals by gradient steps in the latent space of a generator.

    From z = g⁻¹(x) the search follows the gradient of the goal, ∇_z log f(g(z))_t for a class t, until f says t with
    the wanted confidence, and returns x' - x with x' = g(z). One step of size λ in z moves x by λ J Jᵀ ∇_x f with the
    Jacobian J of g, which suppresses directions that leave the data: x' stays plausible, where the same walk in pixels
    (:class:`AdversarialExample`) ends in an adversarial example. The paper asks for x' in the support of the data:
    where the generator knows it (``generator.support``), what is found is more plausible to the generator than 1 % of
    its training images, see ``min_percentile`` of :class:`~captum_dcf.search.Options`.

    Dombrowski, Gerken, Müller and Kessel, "Diffeomorphic Counterfactuals with Generative Models", IEEE TPAMI 46(5),
    2024, algorithm 1, https://arxiv.org/abs/2206.05075

    Args:
        forward_func: The model: images (N, ...), and additional arguments, to outputs.
        generator: Coordinates of the data: exact for a flow, approximate for an autoencoder or a GAN.
        step_rule: How latents move. By default a step of fixed length along the gradient: 1/28 of the length a latent
            of this generator typically has (:meth:`Generator.typical_length`, √D for standard normal latents), but no
            more than a quarter of loss / ‖∇loss‖ at the start, so that no search takes fewer than about four steps. The
            paper's is ``Adam(0.05)`` for MNIST and ``Adam(0.005)`` for larger images.
        softening: How much the cross-entropy is softened, see :class:`ReachClass`. 0 is the paper's. With it one four
            or seven in twenty of MNIST takes more than 60 steps to become a nine.
        model_options: ``output``, ``select``, ``normalize``: see :class:`CounterfactualAttribution`.

    Examples:
        >>> from captum_dcf import zoo
        >>> from captum_dcf.data import mnist_sample
        >>> images, labels = mnist_sample()
        >>> method = DiffeomorphicCounterfactual(zoo.load("mnist-cnn"), zoo.load("mnist-glow"))
        >>> attributions = method.attribute(images[labels == 4][:2], target=9)
        >>> attributions.shape
        torch.Size([2, 1, 28, 28])
    """

    default_min_percentile = 1.0

    def __init__(
        self,
        forward_func: Callable[..., Any],
        generator: Coordinates,
        step_rule: StepRule | None = None,
        softening: float = 1.5,
        **model_options: Unpack[ModelOptions],
    ) -> None:
        super().__init__(forward_func, generator, **model_options)
        check_step_rule(step_rule)
        self.step_rule = step_rule
        self.softening = check_real("softening", softening, at_least=0.0)

    def searcher(self, problem: Problem, max_steps: int) -> Searcher:
        if self.step_rule is not None:
            return Ascent(self.step_rule)
        return Ascent(UnitGradient(self.default_length), careful=True)
