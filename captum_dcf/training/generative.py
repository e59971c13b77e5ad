r"""What latent variable models minimise: a variational autoencoder, and a GAN with its encoder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from captum_dcf.training.objectives import Reconstruction

__all__ = ["Adversarial", "Variational", "divergence_from_prior"]

# Mean square of rounding to 256 grey levels.
_ROUNDING = 1 / 12 / 255**2


class Variational(Reconstruction):
    r"""The negative evidence lower bound of a VAE, in nats per pixel value, its divergence weighted by ``model.beta``.

    Pixels are normal around the decoded image with one deviation, that of greatest likelihood for the batch: the
    root of its mean squared error (Rybkin et al., 2021, "Simple and effective VAE training with calibrated decoders").
    So the weight of the reconstruction needs no setting. A deviation is at least that of rounding to 8 bits.

    The metric is the mean squared error of reconstructions from the mean of the posterior, lower is better.
    """

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        model: Any = self.model
        mean, log_variance = model.posterior(images)
        latents = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        error = nn.functional.mse_loss(model.decoder(latents), images)
        divergence = divergence_from_prior(mean, log_variance).mean() / images[0].numel()
        # Up to a constant.
        bound: Tensor = 0.5 * error.clamp_min(_ROUNDING).log() + model.beta * divergence
        return bound


class Adversarial(Reconstruction):
    r"""The non-saturating losses of a GAN (Goodfellow et al., 2014) with an R1 penalty, and those of its encoder.

    One sum, of which each network sees its own part only, so that one optimizer steps all of them at once:

    - discriminator: softplus(-d(x)) + softplus(d(g(z))) + ``penalty`` / 2 · ‖∇d(x)‖², the penalty of Mescheder et al.
      (2018) on the gradient at real images, without which the two do not converge;
    - generator: softplus(-d(g(z)));
    - encoder: mean squares of e(g(z)) - z and, ten times, of g(e(x)) - x.

    The metric is the mean squared error of the reconstructions g(e(x)), lower is better.
    """

    penalty = 1.0
    # With the usual memory of 0.9, training oscillates (Radford et al., 2016).
    betas = (0.5, 0.99)

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        model: Any = self.model
        latents = torch.randn(len(images), model.latent, device=images.device, dtype=images.dtype)
        generated = model.decoder(latents)
        fooled = nn.functional.softplus(-_fixed(model.discriminator)(generated)).mean()
        samples = generated.detach()
        return self._discrimination(images, samples) + fooled + self._inversion(images, samples, latents)

    def _discrimination(self, images: Tensor, samples: Tensor) -> Tensor:
        discriminator: Any = self.model.discriminator
        real = images.detach().requires_grad_()
        logits = discriminator(real)
        [slope] = torch.autograd.grad(logits.sum(), real, create_graph=True)
        loss = nn.functional.softplus(-logits) + nn.functional.softplus(discriminator(samples))
        return loss.mean() + 0.5 * self.penalty * slope.square().flatten(1).sum(1).mean()

    def _inversion(self, images: Tensor, samples: Tensor, latents: Tensor) -> Tensor:
        model: Any = self.model
        found = nn.functional.mse_loss(model.encoder(samples), latents)
        # As a search decodes, with the batch norm of all samples.
        with _evaluating(model.decoder):
            decoded = _fixed(model.decoder)(model.encoder(images))
        return found + 10 * nn.functional.mse_loss(decoded, images)


def divergence_from_prior(mean: Tensor, log_variance: Tensor) -> Tensor:
    r"""Kullback-Leibler divergence of normal distributions from the standard normal one, in nats, (N, D) to (N,)."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)


def _fixed(network: nn.Module) -> Callable[[Tensor], Tensor]:
    """The network as a function in which its parameters have no gradients, though its input has."""
    parameters = {name: parameter.detach() for name, parameter in network.named_parameters()}
    return lambda x: functional_call(network, parameters, (x,))


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(training)
