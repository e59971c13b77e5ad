r"""The models that are shipped: they load, they are what their cards say, and they turn fours into nines."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import Tensor
from toys import Mnist

from captum_dcf import DiffeomorphicCounterfactual, Status, zoo
from captum_dcf.zoo.store import SHIPPED, build, searchable


def test_the_models_of_the_examples_are_there():
    assert {"mnist-cnn", "mnist-glow"} <= set(zoo.names())


def test_every_file_has_its_card_and_every_card_its_file():
    files = {path for path in SHIPPED.iterdir() if path.suffix in (".json", ".safetensors")}
    assert files == {SHIPPED / f"{name}{suffix}" for name in zoo.names() for suffix in (".json", ".safetensors")}


@pytest.mark.parametrize("name", zoo.names())
def test_a_shipped_model_is_what_its_card_says(name: str):
    card = zoo.read_card(name)
    weights = SHIPPED / f"{name}.safetensors"
    assert card.name == name
    assert card.sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    for told in (card.data, card.training, card.figures, card.measured):
        assert told
    model = zoo.load(name)
    assert not model.training
    assert all(value.isfinite().all() for value in model.state_dict().values())
    # As it is used: the generator of a VAE has no network of variances.
    described = searchable(build(card), card.architecture)
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in described.parameters())


def test_shipped_weights_leave_room_in_the_wheel():
    sizes = {name: (SHIPPED / f"{name}.safetensors").stat().st_size for name in zoo.names()}
    assert sum(sizes.values()) < 25e6, sizes
    assert sizes["mnist-glow"] <= 8e6


def test_nothing_but_weights_and_cards_is_shipped():
    assert {path.suffix for path in Path(SHIPPED).iterdir()} <= {".json", ".safetensors"}


def test_mnist_glow_loses_nothing_of_the_bundled_digits(mnist: Mnist):
    worst = 0.0
    with torch.no_grad(), mnist.generator.constant():
        for part in mnist.images[::4].split(50):
            worst = max(worst, (mnist.generator(part) - part).abs().max().item())
    assert worst < 1e-4


def test_mnist_glow_finds_digits_likelier_than_noise(mnist: Mnist):
    with torch.no_grad():
        of_digits = mnist.generator.log_prob(mnist.images[::50])
        of_noise = mnist.generator.log_prob(torch.rand(20, 1, 28, 28))
    assert of_digits.min() > of_noise.max()


def test_mnist_cnn_knows_the_bundled_digits(mnist: Mnist):
    with torch.no_grad():
        predicted = torch.cat([mnist.classifier(part).argmax(1) for part in mnist.images.split(250)])
    assert (predicted == mnist.labels).float().mean() >= 0.985


def test_fours_become_nines(mnist: Mnist):
    fours = mnist.images[mnist.labels == 4][:32]
    result = DiffeomorphicCounterfactual(mnist.classifier, mnist.generator).counterfactual(fours, target=9)
    assert Counter(result.statuses()) == {Status.FOUND: 32}
    assert result.steps.float().mean() <= 10
    assert result.counterfactuals.min() >= 0
    assert result.counterfactuals.max() <= 1
    assert result.reconstruction_error.abs().max() < 1e-4
    with torch.no_grad():
        assert (mnist.classifier(result.counterfactuals).softmax(1)[:, 9] > 0.99).all()


def one_by_one(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    r"""The same function with arithmetic that does not depend on the size of the batch."""
    return lambda batch: torch.cat([function(row) for row in batch.split(1)])


def test_a_batch_of_digits_is_to_the_bit_what_each_is_alone_where_the_arithmetic_is(
    mnist: Mnist, monkeypatch: pytest.MonkeyPatch
):
    # Convolutions and matrix products of a library round differently for batches of different sizes. Without that,
    # nothing is left by which one example could feel another.
    monkeypatch.setattr(mnist.generator, "decode", one_by_one(mnist.generator.decode))
    monkeypatch.setattr(mnist.generator, "encode", one_by_one(mnist.generator.encode))
    monkeypatch.setattr(mnist.generator, "log_prob", one_by_one(mnist.generator.log_prob))
    told = mnist.generator.decode_with_log_prob
    monkeypatch.setattr(
        mnist.generator, "decode_with_log_prob", lambda z: tuple(map(torch.cat, zip(*map(told, z.split(1)))))
    )
    digits, targets = mnist.images[[400, 405, 300, 99]], [9, 9, 8, 5]
    method = DiffeomorphicCounterfactual(one_by_one(mnist.classifier), mnist.generator)
    together = method.counterfactual(digits, targets)
    assert len(set(together.steps.tolist())) > 2
    for row, target in enumerate(targets):
        alone = method.counterfactual(digits[row : row + 1], target)
        assert torch.equal(alone.counterfactuals[0], together.counterfactuals[row])
        assert torch.equal(alone.end_latents[0], together.end_latents[row])


def test_one_at_a_time_a_batch_of_digits_is_to_the_bit_what_each_is_alone(mnist: Mnist):
    digits, targets = mnist.images[[400, 405, 300, 99]], [9, 9, 8, 5]
    method = DiffeomorphicCounterfactual(mnist.classifier, mnist.generator)
    together = method.counterfactual(digits, targets, internal_batch_size=1)
    for row, target in enumerate(targets):
        alone = method.counterfactual(digits[row : row + 1], target)
        assert torch.equal(alone.counterfactuals[0], together.counterfactuals[row])


def test_a_batch_of_digits_gives_what_each_gives_alone_in_double_precision(mnist: Mnist):
    # In single precision a search of many steps amplifies the rounding by which convolutions of different batch sizes
    # differ, until it takes another turn; in double precision nothing of that is seen.
    digits, targets = mnist.images[400:404].double(), [9, 7, 1, 9]
    method = DiffeomorphicCounterfactual(deepcopy(mnist.classifier).double(), deepcopy(mnist.generator).double())
    together = method.counterfactual(digits, targets)
    for row, target in enumerate(targets):
        alone = method.counterfactual(digits[row : row + 1], target)
        assert (alone.counterfactuals - together.counterfactuals[row]).abs().max() <= 1e-4
