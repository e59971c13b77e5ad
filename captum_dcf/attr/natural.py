r"""NaturalCounterfactual: samples around the latent of the input, in shells (Zhao et al., 2018)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from captum_dcf.attr._checks import check_choice
from captum_dcf.attr.counterfactual import ModelOptions
from captum_dcf.attr.spaces import LatentMethod
from captum_dcf.search import Coordinates, Options, Problem, Searcher
from captum_dcf.search.numbers import check_int, check_real
from captum_dcf.search.shells import BLOCK, Shells

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["NaturalCounterfactual"]

STRATEGIES = ("hybrid", "iterative")
# The published radii are those of a latent space of 64 dimensions, in which a standard normal has this typical length.
PUBLISHED_LENGTH = 8.0


class NaturalCounterfactual(LatentMethod):
    r"""Counterfactuals by sampling: the valid sample nearest to z = g⁻¹(x) among g(z + r d).

    Directions d are uniform on the unit sphere, radii r uniform in a shell (l, h), ``samples`` of them in a shell.

    - ``"iterative"``: shells of width Δr from z outwards, until one holds a valid sample.
    - ``"hybrid"`` (hybrid shrinking search): begins with the whole ball. While nothing is valid, the outer half of the
      shell; once something is, at distance r, the shell (r/2, r). When the shell is thinner than Δr, shells of width Δr
      inwards from the best, until ``patience`` of them in a row held nothing.

    No gradients are taken. Samples are decoded from the innermost outwards, at most 32 of each example at a time, which
    is one step of the result, and only up to the first valid one. Each example draws the same directions as any other,
    so results repeat and do not depend on the batch. ``internal_batch_size`` times 32 samples are decoded at a time.

    Zhao, Dua and Singh, "Generating Natural Adversarial Examples", ICLR 2018, https://arxiv.org/abs/1710.11342

    Args:
        forward_func: The model: images (N, ...), and additional arguments, to outputs.
        generator: Coordinates of the data.
        strategy: ``"hybrid"`` or ``"iterative"``.
        samples: Samples of one shell.
        shell_width: Δr, for a latent space of 64 standard normal dimensions; scaled with the length that latents of
            this generator typically have (:meth:`Generator.typical_length`), √D/√64 for D standard normal dimensions.
        outermost: The greatest radius that is tried, scaled likewise.
        patience: B, the empty shells in a row after which the hybrid search ends.
        max_samples: Most samples of one example; no further shell is begun that would need more.
        seed: What the samples are drawn with.
        model_options: ``output``, ``select``, ``normalize``: see :class:`CounterfactualAttribution`.
    """

    def __init__(
        self,
        forward_func: Callable[..., Any],
        generator: Coordinates,
        strategy: Literal["hybrid", "iterative"] = "hybrid",
        samples: int = 5000,
        shell_width: float = 0.01,
        outermost: float = 10.0,
        patience: int = 5,
        max_samples: int = 100_000,
        seed: int = 0,
        **model_options: Unpack[ModelOptions],
    ) -> None:
        super().__init__(forward_func, generator, **model_options)
        check_choice("strategy", strategy, STRATEGIES)
        self.strategy = strategy
        self.shell_width = check_real("shell_width", shell_width, above=0.0)
        self.outermost = check_real("outermost", outermost, above=0.0)
        if not shell_width < outermost:
            raise ValueError(f"shell_width must be less than outermost, received {shell_width} and {outermost}")
        self.samples = check_int("samples", samples, at_least=1)
        self.max_samples = check_int("max_samples", max_samples, at_least=1)
        if samples > max_samples:
            raise ValueError(f"samples must be at most max_samples, received {samples} and {max_samples}")
        self.patience = check_int("patience", patience, at_least=1)
        self.seed = check_int("seed", seed, at_least=0)
        self.default_max_steps = (self.max_samples // self.samples) * -(-self.samples // BLOCK)

    def check_options(self, options: Options) -> None:
        if options.refine:
            raise ValueError(
                "NaturalCounterfactual accepts refine=False only: its shells already narrow the distance down"
            )

    def searcher(self, problem: Problem, max_steps: int) -> Searcher:
        return Shells(
            width=self.shell_width / PUBLISHED_LENGTH,
            outermost=self.outermost / PUBLISHED_LENGTH,
            samples=self.samples,
            shells=self.max_samples // self.samples,
            hybrid=self.strategy == "hybrid",
            patience=self.patience,
            seed=self.seed,
        )
