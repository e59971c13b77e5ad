r"""Prototypes: which latents they are the mean of, and that the search goes towards them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from toys import Rotated, images

from captum_dcf import ContrastiveCounterfactual, Generator, LeaveClass, PrototypeCounterfactual, ReachClass, Status
from captum_dcf.attr.contrastive import Lead
from captum_dcf.attr.prototype import nearest_mean
from captum_dcf.search import Model


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


def prototypes_of(method: PrototypeCounterfactual, x: Tensor, labels: Tensor) -> Tensor:
    r"""Those that a search of these examples is drawn to."""
    model = Model(method.forward_func, len(x), kind=method.output)
    [*_, term] = method.terms(x, model, Lead(ReachClass(labels)), method.coordinates(x))
    return term.prototypes


@pytest.mark.parametrize("neighbors", [1, 5, 1000])
def test_prototypes_are_those_of_a_brute_force_search(classifier: nn.Module, generator: Generator, neighbors: int):
    x, labels = images(7), torch.tensor([0, 1, 2, 2, 1, 0, 1])
    # More than are encoded at a time.
    references = reference(300)
    method = PrototypeCounterfactual(classifier, references, generator, neighbors=neighbors)
    with torch.no_grad():
        encodings, classes, latents = (
            generator.encode(references),
            classifier(references).argmax(1),
            generator.encode(x),
        )
    expected = brute_force(latents, labels, encodings, classes, neighbors)
    torch.testing.assert_close(nearest_mean(latents, labels, encodings, classes, neighbors), expected)
    torch.testing.assert_close(prototypes_of(method, x, labels), expected)


def test_distances_are_exact_far_from_the_origin_too():
    # By way of a matrix product, squares of 10⁴ would leave nothing of differences of 1, in large batches alone.
    encodings = 1e4 + torch.randn(40, 4)
    latents, classes = encodings[:30] + 0.01, torch.zeros(40, dtype=torch.int64)
    found = nearest_mean(latents, classes[:30], encodings, classes, 1)
    assert torch.equal(found, encodings[:30])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_c14_distances_in_half_precision(dtype: torch.dtype):
    latents, encodings = torch.randn(3, 8).to(dtype), torch.randn(20, 8).to(dtype)
    labels, classes = torch.tensor([0, 1, 1]), torch.arange(20) % 2
    found = nearest_mean(latents, labels, encodings, classes, 3)
    expected = brute_force(latents.float(), labels, encodings.float(), classes, 3)
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), expected, rtol=0.02, atol=0.02)


def test_a_reference_that_cannot_be_encoded_is_no_prototype(classifier: nn.Module):
    class Blind(Rotated):
        def encode(self, x: Tensor) -> Tensor:
            return torch.where(x[:, :1, 0, 0] > 0.6, torch.nan, super().encode(x))

    method = PrototypeCounterfactual(classifier, reference(), Blind(), neighbors=1000)
    assert Blind().encode(reference()).isnan().any()
    x = images(3)
    assert prototypes_of(method, x, torch.tensor([0, 1, 2])).isfinite().all()


def test_r2_reference_images_are_classified_by_the_model_as_it_is_now(classifier: nn.Module, generator: Generator):
    x, labels = images(3), torch.tensor([0, 1, 2])
    method = PrototypeCounterfactual(classifier, reference(), generator)
    before = prototypes_of(method, x, labels)
    method.counterfactual(x, labels, max_steps=4)
    with torch.no_grad():
        classifier.linear.weight.copy_(classifier.linear.weight.roll(1, 0))
        generator.turn.neg_()
        encodings, classes = generator.encode(reference()), classifier(reference()).argmax(1)
        expected = brute_force(generator.encode(x), labels, encodings, classes, 5)
    assert not torch.allclose(before, -expected)
    torch.testing.assert_close(prototypes_of(method, x, labels), expected)


def test_r2_nothing_is_kept_between_calls(classifier: nn.Module, generator: Generator):
    method = PrototypeCounterfactual(classifier, reference(), generator)
    before = {key: id(value) for key, value in vars(method).items()}
    method.counterfactual(images(2), target=1, max_steps=4)
    assert {key: id(value) for key, value in vars(method).items()} == before


def test_no_more_than_256_reference_images_are_encoded_at_a_time(classifier: nn.Module):
    class Watched(Rotated):
        def encode(self, x: Tensor) -> Tensor:
            sizes.append(len(x))
            return super().encode(x)

    sizes: list[int] = []
    method = PrototypeCounterfactual(classifier, reference(600), Watched(), theta=1.0)
    method.counterfactual(images(2), target=1, max_steps=1)
    assert sizes[:3] == [256, 256, 88]
    assert max(sizes[3:]) == 2


def test_c6_references_are_classified_by_the_methods_kind_of_output(generator: Generator):
    def bright(x: Tensor) -> Tensor:
        return (x.flatten(1).mean(1, keepdim=True) - 0.5) * 40

    dark = torch.rand(20, 1, 4, 4) * 0.3
    references = torch.cat((dark, dark + 0.7))
    x = torch.full((2, 1, 4, 4), 0.8)
    # The model is so sure of 1 that its own gradient vanishes: only the prototype leads to 0.
    for goal in ({"target": 0}, {"goal": ReachClass(0)}):
        method = PrototypeCounterfactual(bright, references, generator, output="binary_logit")
        assert method.counterfactual(x, **goal, max_steps=200).statuses() == [Status.FOUND] * 2
        prototypes = prototypes_of(method, x, torch.tensor([0, 1]))
        assert generator.decode(prototypes).flatten(1).mean(1).gt(0.5).tolist() == [False, True]


def test_an_autoencoder_with_latents_of_its_own_gives_the_prototypes(classifier: nn.Module):
    class Means(Rotated):
        r"""Latents are the means of the four rows."""

        exact = False

        def encode(self, x: Tensor) -> Tensor:
            return x.mean((1, 3))

        def decode(self, z: Tensor) -> Tensor:
            return z.view(-1, 1, 4, 1).expand(-1, 1, 4, 4)

    x = images(2)
    method = PrototypeCounterfactual(classifier, reference(), Means(), theta=1.0, gamma=0.1, c=100.0)
    result = method.counterfactual(x, target=1, confidence=0.5, max_steps=60)
    assert result.reached.all()
    assert prototypes_of(method, x, torch.tensor([1, 1])).shape == (2, 4)
    torch.testing.assert_close(result.with_latents(Means()).start_latents, x.mean((1, 3)))


def test_the_weight_of_the_prototype_draws_the_counterfactual_to_it(classifier: nn.Module, generator: Generator):
    x = images(4)
    distances = []
    for theta in (0.0, 1.0, 10.0):
        method = PrototypeCounterfactual(classifier, reference(), generator, theta=theta, c=100.0)
        result = method.counterfactual(x, target=1, confidence=0.5, max_steps=100).with_latents(generator)
        assert result.reached.all()
        prototypes = prototypes_of(method, x, torch.ones(4, dtype=torch.int64))
        distances.append(float((result.end_latents - prototypes).norm(dim=1).mean()))
    assert distances[0] > distances[1] > distances[2]


def test_without_the_weight_it_is_the_contrastive_search(classifier: nn.Module, generator: Generator):
    x = images(4)
    ours = PrototypeCounterfactual(classifier, reference(), generator, theta=0.0, c=50.0)
    theirs = ContrastiveCounterfactual(classifier, generator, c=50.0, outer_steps=2)
    first, second = (method.perturb(x, target=1, confidence=0.5, max_steps=60) for method in (ours, theirs))
    assert torch.equal(first, second)


def test_the_defaults_are_the_papers(classifier: nn.Module, generator: Generator):
    method = PrototypeCounterfactual(classifier, reference(), generator)
    settings = (method.kappa, method.beta, method.gamma, method.theta, method.c, method.outer_steps, method.lr)
    assert settings == (0.0, 0.1, 100.0, 100.0, 1.0, 2, 0.01)
    assert (method.default_max_steps, method.neighbors) == (2000, 5)


def test_a_class_without_reference_is_refused(classifier: nn.Module, generator: Generator):
    never_two = torch.rand(10, 1, 4, 4) * torch.tensor([1.0, 1, 0, 1]).view(1, 1, 4, 1)
    method = PrototypeCounterfactual(classifier, never_two, generator)
    with pytest.raises(ValueError, match="none of the 10 reference images 2"):
        method.attribute(images(2), target=2)


def test_what_has_no_prototype_is_refused(classifier: nn.Module, generator: Generator):
    method = PrototypeCounterfactual(classifier, reference(), generator)
    with pytest.raises(ValueError, match="received LeaveClass"):
        method.counterfactual(images(2), goal=LeaveClass(1))
    with pytest.raises(ValueError, match=r"reference images have the shape \(1, 5, 5\), the inputs \(1, 4, 4\)"):
        PrototypeCounterfactual(classifier, torch.rand(3, 1, 5, 5), generator).perturb(images(1), target=1)


def test_c27_arguments_of_the_examples_are_none_of_reference_images(classifier: nn.Module, generator: Generator):
    def scaled(x: Tensor, scale: Tensor | float) -> Tensor:
        return scale * classifier(x) if isinstance(scale, float) else scale[:, None] * classifier(x)

    method = PrototypeCounterfactual(scaled, reference(), generator, theta=1.0, c=100.0)
    settings = {"target": 1, "confidence": 0.5, "max_steps": 80}
    assert method.counterfactual(images(2), additional_forward_args=1.0, **settings).reached.all()
    with pytest.raises(ValueError, match=r"one entry for each of the 2 examples, and none for reference images"):
        method.counterfactual(images(2), additional_forward_args=torch.ones(2), **settings)
