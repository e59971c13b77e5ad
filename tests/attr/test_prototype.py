r"""Prototypes: which latents they are the mean of, and that the search goes towards them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from toys import Rotated, images

from captum_dcf import ContrastiveCounterfactual, Generator, LeaveClass, PrototypeCounterfactual
from captum_dcf.attr.prototype import nearest_mean


def reference(count: int = 120) -> Tensor:
    return torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(9))


def brute_force(latents: Tensor, labels: Tensor, encodings: Tensor, classes: Tensor, neighbors: int) -> Tensor:
    prototypes = []
    for latent, label in zip(latents, labels):
        ranked = []
        for encoding, called in zip(encodings, classes):
            if called == label:
                ranked.append((float(((latent - encoding) ** 2).sum()), encoding))
        ranked.sort(key=lambda pair: pair[0])
        prototypes.append(torch.stack([encoding for _, encoding in ranked[:neighbors]]).mean(0))
    return torch.stack(prototypes)


def test_prototypes_are_those_of_a_brute_force_search(classifier: nn.Module, generator: Generator):
    x, labels = images(7), torch.tensor([0, 1, 2, 2, 1, 0, 1])
    method = PrototypeCounterfactual(classifier, generator, reference())
    encodings, classes = method.encoded_reference(x)
    with torch.no_grad():
        torch.testing.assert_close(encodings, generator.encode(reference()))
        assert torch.equal(classes, classifier(reference()).argmax(1))
        latents = generator.encode(x)
    for neighbors in (1, 5, 1000):
        found = nearest_mean(latents, labels, encodings, classes, neighbors)
        torch.testing.assert_close(found, brute_force(latents, labels, encodings, classes, neighbors))


def test_a_reference_that_cannot_be_encoded_is_no_prototype(classifier: nn.Module):
    class Blind(Rotated):
        def encode(self, x: Tensor) -> Tensor:
            return torch.where(x[:, :1, 0, 0] > 0.5, torch.nan, super().encode(x))

    method = PrototypeCounterfactual(classifier, Blind(), reference(), neighbors=1000)
    encodings, classes = method.encoded_reference(images(3))
    assert encodings.isnan().any()
    labels = torch.tensor([0, 1, 2])
    assert nearest_mean(torch.zeros(3, 16), labels, encodings, classes, neighbors=1000).isfinite().all()


def test_the_reference_is_encoded_once(classifier: nn.Module):
    class Watched(Rotated):
        largest = 0

        def encode(self, x: Tensor) -> Tensor:
            self.largest = max(self.largest, len(x))
            return super().encode(x)

    generator = Watched()
    method = PrototypeCounterfactual(classifier, generator, reference())
    method.counterfactual(images(2), target=1, max_steps=4)
    assert generator.largest == 120
    generator.largest = 0
    method.counterfactual(images(2), target=2, max_steps=4)
    assert generator.largest == 2


def test_an_autoencoder_with_latents_of_its_own_gives_the_prototypes(classifier: nn.Module, generator: Generator):
    class Means(Rotated):
        r"""Latents are the means of the four rows."""

        exact = False

        def encode(self, x: Tensor) -> Tensor:
            return x.mean((1, 3))

        def decode(self, z: Tensor) -> Tensor:
            return z.view(-1, 1, 4, 1).expand(-1, 1, 4, 4)

    x = images(2)
    method = PrototypeCounterfactual(classifier, generator, reference(), Means(), theta=1.0, gamma=0.1, c=100.0)
    result = method.counterfactual(x, target=1, confidence=0.5, max_steps=60)
    assert result.reached.all()
    assert method.encoded_reference(x)[0].shape == (120, 4)
    torch.testing.assert_close(result.start_latents, generator.encode(x))


def test_the_weight_of_the_prototype_draws_the_counterfactual_to_it(classifier: nn.Module, generator: Generator):
    x = images(4)
    distances = []
    for theta in (0.0, 1.0, 10.0):
        method = PrototypeCounterfactual(classifier, generator, reference(), theta=theta, c=100.0)
        result = method.counterfactual(x, target=1, confidence=0.5, max_steps=100)
        assert result.reached.all()
        prototypes = nearest_mean(
            result.start_latents, torch.ones(4, dtype=torch.int64), *method.encoded_reference(x), method.neighbors
        )
        distances.append(float((result.end_latents - prototypes).norm(dim=1).mean()))
    assert distances[0] > distances[1] > distances[2]


def test_without_the_weight_it_is_the_contrastive_search(classifier: nn.Module, generator: Generator):
    x = images(4)
    ours = PrototypeCounterfactual(classifier, generator, reference(), theta=0.0, c=50.0)
    theirs = ContrastiveCounterfactual(classifier, generator, c=50.0, outer_steps=2)
    first, second = (method.perturb(x, target=1, confidence=0.5, max_steps=60) for method in (ours, theirs))
    assert torch.equal(first, second)


def test_the_defaults_are_the_papers(classifier: nn.Module, generator: Generator):
    method = PrototypeCounterfactual(classifier, generator, reference())
    settings = (method.kappa, method.beta, method.gamma, method.theta, method.c, method.outer_steps, method.lr)
    assert settings == (0.0, 0.1, 100.0, 100.0, 1.0, 2, 0.01)
    assert (method.default_max_steps, method.neighbors) == (2000, 5)


def test_a_class_without_reference_is_refused(classifier: nn.Module, generator: Generator):
    never_two = torch.rand(10, 1, 4, 4) * torch.tensor([1.0, 1, 0, 1]).view(1, 1, 4, 1)
    method = PrototypeCounterfactual(classifier, generator, never_two)
    with pytest.raises(ValueError, match="none of the 10 reference images 2"):
        method.attribute(images(2), target=2)


def test_what_has_no_prototype_is_refused(classifier: nn.Module, generator: Generator):
    method = PrototypeCounterfactual(classifier, generator, reference())
    with pytest.raises(ValueError, match="received LeaveClass"):
        method.counterfactual(images(2), goal=LeaveClass(1))
    with pytest.raises(TypeError, match="received list"):
        PrototypeCounterfactual(classifier, generator, [1, 2])
    with pytest.raises(ValueError, match="theta must be 0 or more"):
        PrototypeCounterfactual(classifier, generator, reference(), theta=-1.0)
    with pytest.raises(ValueError, match="neighbors must be at least 1"):
        PrototypeCounterfactual(classifier, generator, reference(), neighbors=0)
    with pytest.raises(ValueError, match=r"reference images have the shape \(1, 5, 5\), the inputs \(1, 4, 4\)"):
        PrototypeCounterfactual(classifier, generator, torch.rand(3, 1, 5, 5)).perturb(images(1), target=1)
