r"""What of Captum our classes must work with, and what Captum expects of an attribution class."""

from __future__ import annotations

import inspect

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from captum.attr import GradientAttribution, Mean, NoiseTunnel, Summarizer
from captum.attr import visualization as captum_visualization
from captum.metrics import infidelity, sensitivity_max
from captum.robust import AttackComparator, MinParamPerturbation, Perturbation
from torch import Tensor
from toys import Mnist, images

from captum_dcf import DiffeomorphicCounterfactual
from captum_dcf.attr import _captum


def test_it_is_a_gradient_attribution_and_a_perturbation(method: DiffeomorphicCounterfactual):
    assert isinstance(method, GradientAttribution)
    assert isinstance(method, Perturbation)
    assert method.get_name() == "Diffeomorphic Counterfactual"
    # x' - x is no decomposition of a score.
    assert not method.has_convergence_delta()
    assert not method.multiplies_by_inputs
    with pytest.raises(NotImplementedError):
        method.attribute_future(images(1), target=1)


def test_arguments_come_in_captums_order():
    names = list(inspect.signature(DiffeomorphicCounterfactual.attribute).parameters)
    assert names == ["self", "inputs", "target", "additional_forward_args", "options"]
    assert list(inspect.signature(DiffeomorphicCounterfactual.perturb).parameters) == names
    assert list(inspect.signature(DiffeomorphicCounterfactual.counterfactual).parameters) == names
    # NoiseTunnel calls what log_usage wraps.
    assert hasattr(DiffeomorphicCounterfactual.attribute, "__wrapped__")


def test_the_private_names_of_captum_are_where_they_were():
    from captum._utils.typing import TargetType

    assert _captum.TargetType is TargetType
    assert _captum.__all__ == ["TargetType"]


def test_a_tensor_gives_a_tensor_and_a_tuple_of_one_a_tuple_of_one(method: DiffeomorphicCounterfactual):
    x = images(2)
    for ask in (method.attribute, method.perturb, method):
        plain, in_tuple = ask(x, target=1), ask((x,), target=1)
        assert isinstance(plain, Tensor)
        assert isinstance(in_tuple, tuple)
        assert len(in_tuple) == 1
        assert torch.equal(in_tuple[0], plain)


def test_attributions_are_detached_contiguous_and_like_the_inputs(method: DiffeomorphicCounterfactual):
    x = images(3).requires_grad_()
    for received in (method.attribute(x, target=1), method.perturb(x, target=1)):
        assert not received.requires_grad
        assert received.grad_fn is None
        assert received.is_contiguous()
        assert (received.shape, received.dtype, received.device) == (x.shape, x.dtype, x.device)


@pytest.mark.parametrize("target", [1, [0, 1, 2], torch.tensor([0, 1, 2])])
@pytest.mark.parametrize("nt_type", ["smoothgrad", "smoothgrad_sq", "vargrad"])
def test_noise_tunnel(method: DiffeomorphicCounterfactual, nt_type: str, target: object):
    x = images(3)
    smoothed = NoiseTunnel(method).attribute(x, nt_type=nt_type, nt_samples=4, stdevs=0.01, target=target)
    assert smoothed.shape == x.shape
    assert smoothed.isfinite().all()
    if nt_type == "smoothgrad":
        # Little noise leaves little of a difference.
        plain = method.attribute(x, target=target)
        assert torch.nn.functional.cosine_similarity(smoothed.flatten(1), plain.flatten(1)).min() > 0.9


def test_noise_tunnel_without_noise_changes_nothing(method: DiffeomorphicCounterfactual):
    x, scale = images(3), torch.tensor([1.0, 2.0, 3.0])
    scaled = DiffeomorphicCounterfactual(lambda x, s: s[:, None] * method.forward_func(x), method.generator)
    smoothed = NoiseTunnel(scaled).attribute(
        x, nt_samples=4, nt_samples_batch_size=3, stdevs=0.0, target=[0, 1, 2], additional_forward_args=scale
    )
    torch.testing.assert_close(smoothed, scaled.attribute(x, [0, 1, 2], scale), rtol=1e-4, atol=1e-4)


def test_infidelity(method: DiffeomorphicCounterfactual):
    x = images(3)

    def perturbed(inputs: Tensor) -> tuple[Tensor, Tensor]:
        noise = 0.05 * torch.randn_like(inputs)
        return noise, inputs - noise

    attributions = method.attribute(x, target=1)
    values = infidelity(method.forward_func, perturbed, x, attributions, target=1, n_perturb_samples=5, normalize=True)
    assert values.shape == (3,)
    assert values.isfinite().all()
    assert (values >= 0).all()


@pytest.mark.parametrize("target", [1, [0, 1, 2], torch.tensor([0, 1, 2])])
def test_sensitivity_max(method: DiffeomorphicCounterfactual, target: object):
    values = sensitivity_max(method.attribute, images(3), n_perturb_samples=3, target=target, max_steps=100)
    assert values.shape == (3,)
    assert values.isfinite().all()
    # It calls the method with its arguments copied, and gets the same again where there is no perturbation; but for
    # rounding, which differs between the 3 images it begins with and the 6 it compares them with.
    still = sensitivity_max(method.attribute, images(3), lambda x: x, n_perturb_samples=2, target=target)
    assert still.max() <= 1e-4


@pytest.mark.parametrize("kind", ["heat_map", "blended_heat_map", "original_image", "masked_image"])
def test_visualize_image_attr(method: DiffeomorphicCounterfactual, kind: str):
    x = images(1)
    attribution = method.attribute(x, target=1)[0].permute(1, 2, 0).numpy()
    sign = "positive" if kind == "masked_image" else "all"
    figure, axes = captum_visualization.visualize_image_attr(
        attribution, x[0].permute(1, 2, 0).numpy(), kind, sign, use_pyplot=False
    )
    [shown, *_] = axes.get_images()
    assert np.asarray(shown.get_array()).shape[:2] == (4, 4)
    plt.close(figure)


def is_class_0(logits: Tensor, **_: object) -> Tensor:
    return (logits.argmax(1) == 0).float()


def test_attack_comparator(method: DiffeomorphicCounterfactual):
    x = images(4)
    x[:, :, 0] = 0.8
    comparator = AttackComparator(method.forward_func, metric=is_class_0)
    comparator.add_attack(method, "counterfactual", additional_attack_arg_names=["target"])
    summary = comparator.evaluate(x, target=1)
    assert summary["Original"].tolist() == [1.0] * 4
    assert summary["counterfactual"]["mean"].tolist() == [0.0] * 4


@pytest.mark.filterwarnings("ignore::captum_dcf.CounterfactualWarning")
def test_min_param_perturbation(method: DiffeomorphicCounterfactual):
    x = images(1)
    x[:, :, 0] = 0.8
    finder = MinParamPerturbation(
        forward_func=method.forward_func, attack=method, arg_name="max_steps", arg_min=1, arg_max=64, arg_step=1
    )
    found, steps = finder.evaluate(x, target=0, perturbations_per_eval=1, attack_kwargs={"target": 1})
    assert method.forward_func(found).argmax().item() != 0
    # With one step less the model still says 0.
    with pytest.warns(UserWarning, match="no counterfactual was found"):
        assert method.forward_func(method.perturb(x, target=1, max_steps=steps - 1)).argmax().item() == 0


def test_summarizer_takes_attributions(method: DiffeomorphicCounterfactual):
    summarizer = Summarizer([Mean()])
    attributions = method.attribute(images(3), target=1)
    summarizer.update(attributions)
    torch.testing.assert_close(summarizer.summary["mean"], attributions)


@pytest.mark.filterwarnings("ignore::captum_dcf.CounterfactualWarning")
def test_noise_that_leaves_the_range_of_pixels_does_not_lose_the_flow(mnist: Mnist):
    # A quarter of the noisy background lies where the flow's logit has no value.
    tunnel = NoiseTunnel(DiffeomorphicCounterfactual(mnist.classifier, mnist.generator))
    fours = mnist.images[mnist.labels == 4][:2]
    attributions = tunnel.attribute(fours, nt_samples=2, stdevs=0.1, target=9)
    assert attributions.isfinite().all()
    assert (attributions.flatten(1).norm(dim=1) > 1).all()
