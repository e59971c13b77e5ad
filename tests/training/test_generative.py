r"""What a VAE, a GAN and a regressor minimise and are measured by, beside references, and a few steps of each."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset, Subset, TensorDataset

pytest.importorskip("lightning")

import lightning
from torch.utils.data import DataLoader

from captum_dcf.models.classifier import ConvRegressor
from captum_dcf.models.gan import ConvGAN
from captum_dcf.models.vae import ConvVAE
from captum_dcf.training.generative import Adversarial, Variational, divergence_from_prior
from captum_dcf.training.objectives import Objective, Regression

SHAPE = (1, 8, 8)


def bars(count: int = 64) -> tuple[Tensor, Tensor]:
    r"""Images of one bright column each, and its number from 0 to 7."""
    labels = torch.arange(count) % 8
    return functional.one_hot(labels, 8).float()[:, None, None].expand(count, 1, 8, 8).contiguous(), labels.double()


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def descend(
    objective: Objective, batch: Callable[[], tuple[Tensor, Tensor]] = bars, steps: int = 150, rate: float = 3e-3
) -> list[float]:
    r"""The metric before and after some steps of Adam."""
    optimizer = torch.optim.Adam(objective.parameters(), rate, betas=objective.betas)
    measured = []
    for count in (0, steps):
        for _ in range(count):
            optimizer.zero_grad()
            objective.loss(*batch()).backward()
            optimizer.step()
        with torch.no_grad():
            objective.eval()
            measured.append(float(objective.metric(*batch())))
            objective.train()
    return measured


def test_the_divergence_from_the_prior_is_that_of_torch():
    mean, log_variance = torch.randn(5, 3), torch.randn(5, 3)
    posterior = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    expected = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(divergence_from_prior(mean, log_variance), expected)


@pytest.mark.parametrize("beta", [1.0, 4.0])
def test_a_vae_maximises_the_evidence_lower_bound(beta: float):
    model, (images, labels) = ConvVAE(SHAPE, 3, [4], beta), bars()
    torch.manual_seed(1)
    loss = Variational(model, 1e-3).loss(images, labels)
    torch.manual_seed(1)
    posterior = torch.distributions.Normal(
        *(f(x) for f, x in zip((lambda m: m, lambda v: (v / 2).exp()), model.posterior(images)))
    )
    decoded = model.decoder(posterior.rsample())
    # Any deviation but the root of the mean squared error gives a smaller likelihood.
    best = max(
        torch.distributions.Normal(decoded, deviation).log_prob(images).mean()
        for deviation in (decoded - images).square().mean().sqrt() * torch.linspace(0.9, 1.1, 21)
    )
    divergence = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).sum(1).mean()
    constant = 0.5 * (1 + math.log(2 * math.pi))
    torch.testing.assert_close(loss + constant, beta * divergence / 64 - best)


def test_a_vae_learns_and_its_latents_are_near_the_prior():
    model = ConvVAE(SHAPE, 6, [16])
    images, _ = bars()
    noisy = (0.25 + 0.5 * images + 0.1 * torch.randn_like(images)).clamp(0, 1)
    before, after = descend(Variational(model, 1e-3), lambda: (noisy, noisy))
    assert after < 0.7 * before
    mean, log_variance = model.posterior(noisy)
    # Of the latents of all images together; 1 for the prior.
    moments = mean.square().mean(0) + log_variance.exp().mean(0)
    assert float(moments.mean()) == pytest.approx(1, abs=0.4)


def test_latents_that_the_data_do_not_need_stay_standard_normal():
    model = ConvVAE(SHAPE, 6, [16], beta=5.0)
    images, _ = bars(1)

    def noisy() -> tuple[Tensor, Tensor]:
        batch = 0.25 + 0.5 * images + 0.1 * torch.randn(64, *SHAPE)
        return batch, batch

    descend(Variational(model, 1e-3), noisy, rate=1e-2)
    mean, log_variance = model.posterior(noisy()[0])
    # Images do not differ but by noise, and neither do their latents.
    assert mean.std(0).max() < 0.2
    assert (log_variance.exp() - 1).abs().mean() < 0.2


def test_a_vae_that_reproduces_its_images_has_a_finite_loss():
    class Copy(nn.Module):
        beta = 1.0
        decoder = nn.Identity()

        def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x.flatten(1), torch.full_like(x.flatten(1), -200.0)

    images = torch.rand(3, 1, 1, 4).flatten(1)
    assert Variational(Copy(), 1e-3).loss(images, images).isfinite()


def gradients(network: nn.Module) -> list[Tensor]:
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in network.parameters()]


def test_each_network_of_a_gan_learns_from_its_own_loss_alone():
    model, (images, labels) = ConvGAN(SHAPE, 3, [4, 5]), bars(16)
    objective = Adversarial(model, 1e-3)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    torch.manual_seed(2)
    objective.loss(images, labels).backward()
    found = {name: gradients(getattr(model, name)) for name in ("discriminator", "decoder", "encoder")}
    model.load_state_dict(buffers, strict=False)
    torch.manual_seed(2)
    z = torch.randn(16, 3)
    generated = model.decoder(z)
    real = images.clone().requires_grad_()
    logits = model.discriminator(real)
    [slope] = torch.autograd.grad(logits.sum(), real, create_graph=True)
    one, zero = torch.ones(16, 1), torch.zeros(16, 1)
    with_logits = functional.binary_cross_entropy_with_logits
    losses = {
        "discriminator": with_logits(logits, one)
        + with_logits(model.discriminator(generated.detach()), zero)
        + objective.penalty / 2 * slope.flatten(1).norm(dim=1).square().mean(),
        "decoder": with_logits(model.discriminator(generated), one),
    }
    model.decoder.eval()
    losses["encoder"] = functional.mse_loss(model.encoder(generated.detach()), z) + 10 * functional.mse_loss(
        model(images), images
    )
    for name, loss in losses.items():
        expected = torch.autograd.grad(loss, list(getattr(model, name).parameters()), retain_graph=True)
        for one_found, one_expected in zip(found[name], expected):
            torch.testing.assert_close(one_found, one_expected, rtol=1e-3, atol=1e-6)


def test_the_encoder_of_a_gan_learns_to_find_images_again():
    before, after = descend(Adversarial(ConvGAN(SHAPE, 4, [8]), 1e-3), steps=100)
    assert after < 0.7 * before


def test_the_decoder_of_a_gan_is_left_in_training_mode():
    model, (images, labels) = ConvGAN(SHAPE, 3, [4]).train(), bars(4)
    model.encoder = nn.Linear(1, 1)
    with pytest.raises(RuntimeError):
        Adversarial(model, 1e-3).loss(images, labels)
    assert all(module.training for module in model.modules())


def regressor() -> ConvRegressor:
    return ConvRegressor(in_channels=1, image_size=8, blocks=[[4, 8]], hidden=[16], dropout=0.0)


def test_a_regressor_learns_values_in_their_units():
    values = torch.linspace(3000, 5000, 64)
    images = ((values - 3000) / 2000).view(-1, 1, 1, 1).expand(-1, *SHAPE)
    model = regressor()
    model.set_units(values)
    objective = Regression(model, 1e-3)
    # Half of the values' range, while nothing is known of the images.
    before, after = descend(objective, lambda: (images, values))
    assert 300 < before < 1500
    assert after < 150
    torch.testing.assert_close(
        objective.loss(images, values), (objective.metric(images, values) / values.std(correction=0)) ** 2
    )


class Batches(Dataset[Any]):
    r"""A data set whose index is a list of numbers; it has no length."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    def __getitem__(self, numbers: list[int]) -> Any:
        return self.dataset[numbers]


@pytest.mark.parametrize("wrap", [lambda dataset: dataset, Batches])
def test_units_are_those_of_the_training_labels_and_never_taken_again(wrap: Any):
    labels = torch.tensor([2.0, 4.0, 100.0, 6.0])
    dataset = wrap(Subset(TensorDataset(torch.zeros(4, *SHAPE), labels), [0, 1, 3]))
    for step, mean in ((0, 4.0), (1, 0.0)):
        objective = Regression(regressor(), 1e-3)
        objective._trainer = SimpleNamespace(global_step=step, train_dataloader=SimpleNamespace(dataset=dataset))
        objective.on_train_start()
        assert objective.model.mean == mean


@pytest.mark.parametrize("column", [False, True])
def test_the_error_of_a_regressor_is_that_of_all_images_whatever_their_batches(column: bool):
    class Zero(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.zeros(len(x), 1) if column else torch.zeros(len(x))

    labels = torch.tensor([0.0, 0.0, 0.0, 0.0, 10.0], dtype=torch.float64)
    loader = DataLoader(TensorDataset(torch.zeros(5, *SHAPE), labels), batch_size=4)
    trainer = lightning.Trainer(
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
    )
    [metrics] = trainer.validate(Regression(Zero(), 1e-3), loader, verbose=False)
    assert metrics == {"root_mean_squared_error": pytest.approx(math.sqrt(20))}
