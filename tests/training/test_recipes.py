r"""Recipes: they can be written as JSON, name what is there, and a user adds their own."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pkgutil import resolve_name

import pytest
import torch
from torch import nn

from captum_dcf import zoo
from captum_dcf.data.sources import SOURCES
from captum_dcf.models.registry import architecture
from captum_dcf.registry import imported
from captum_dcf.training import recipes
from captum_dcf.training.recipes import RECIPES, Recipe


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_recipe_is_what_its_json_says(recipe: Recipe):
    assert Recipe(**json.loads(json.dumps(asdict(recipe)))) == recipe


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_recipe_names_what_is_there(recipe: Recipe):
    assert recipe.source in SOURCES
    assert architecture(recipe.architecture)
    assert recipe.objective in recipes.OBJECTIVES
    assert set(recipe.augment) <= set(recipes.AUGMENTATIONS)


def test_what_is_registered_is_there():
    pytest.importorskip("lightning")
    for place in (*recipes.OBJECTIVES.values(), *recipes.AUGMENTATIONS.values()):
        assert callable(resolve_name(place))


@pytest.mark.parametrize("name", zoo.names())
def test_shipped_models_are_of_their_recipes(name: str):
    card, recipe = zoo.read_card(name), RECIPES[name]
    assert (card.architecture, card.arguments) == (recipe.architecture, recipe.arguments)
    for part in ("batch_size", "learning_rate"):
        assert card.training[part] == getattr(recipe, part)


def test_classifiers_of_small_grey_images_see_them_shifted_and_nothing_else_does():
    shifted = {name for name, recipe in RECIPES.items() if recipe.augment == ["shift_two_pixels"]}
    assert shifted == {"mnist-cnn", "mnist-oracle", "chest-cnn", "chest-oracle"}


@pytest.mark.parametrize("data", ["celeba", "chexpert"])
def test_the_paper_s_networks_are_as_published(data: str):
    flow, classifier = RECIPES[f"{data}-glow"], RECIPES[f"{data}-cnn"]
    channels, side, bits = {"celeba": (3, 64, 5), "chexpert": (1, 128, 8)}[data]
    for recipe in (flow, classifier, RECIPES[f"{data}-oracle"], RECIPES[f"{data}-ae-0"]):
        assert recipe.source == data
        assert recipe.image_shape == [channels, side, side]
    assert flow.arguments["image_shape"] == [channels, side, side]
    assert flow.arguments["steps"] == [32] * 4
    assert flow.arguments["hidden_channels"] == [512] * 4
    assert flow.arguments.get("bins", 256) == 2**bits
    with torch.device("meta"):
        model = imported(architecture(classifier.architecture).build)(**classifier.arguments)
    linear = [(layer.in_features, layer.out_features) for layer in model.modules() if isinstance(layer, nn.Linear)]
    assert linear == [(4096 if side == 64 else 36_864, 1024), (1024, 512), (512, 2)]
    widths = [layer.out_channels for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    assert widths == [32, 64, 128, 128, 256, 256]


@pytest.mark.parametrize("name", [name for name in RECIPES if name.startswith(("celeba-", "chexpert-"))])
def test_the_paper_s_models_take_their_images(name: str):
    objectives = pytest.importorskip("captum_dcf.training.objectives")
    recipe = RECIPES[name]
    if name.endswith("-glow"):
        # The same without most of its weights.
        small = {**recipe.arguments, "steps": [1] * 4, "hidden_channels": [2] * 4}
        recipe = replace(recipe, arguments=small)
    model = imported(architecture(recipe.architecture).build)(**recipe.arguments).eval()
    images = torch.rand(1, *recipe.image_shape)
    with torch.no_grad():
        output = objectives.bits_per_dimension(model, images) if name.endswith("-glow") else model(images)
    expected = {"glow": (1,), "cnn": (1, 2), "oracle": (1, 2)}.get(name.split("-")[1], images.shape)
    assert output.shape == expected
    assert output.isfinite().all()


@pytest.mark.parametrize("part", ["epochs", "batch_size", "learning_rate"])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_a_recipe_that_trains_nothing_is_refused(part: str, value: float):
    with pytest.raises(ValueError, match=f"{part} must be positive, received {value}"):
        replace(RECIPES["mnist-cnn"], **{part: value})


def test_names_are_given_once(monkeypatch: pytest.MonkeyPatch):
    for registry in ("RECIPES", "OBJECTIVES", "AUGMENTATIONS"):
        monkeypatch.setattr(recipes, registry, dict(getattr(recipes, registry)))
    mine = replace(RECIPES["mnist-cnn"], epochs=1)
    recipes.register("mine", mine)
    recipes.register_objective("mine", "mine:Objective")
    recipes.register_augmentation("mine", "mine:augment")
    assert recipes.RECIPES["mine"] == mine
    assert recipes.OBJECTIVES["mine"] == "mine:Objective"
    assert recipes.AUGMENTATIONS["mine"] == "mine:augment"
    with pytest.raises(ValueError, match="'mnist-cnn'"):
        recipes.register("mnist-cnn", mine)
    with pytest.raises(ValueError, match="'likelihood'"):
        recipes.register_objective("likelihood", "mine:Objective")
    with pytest.raises(ValueError, match="'shift_two_pixels'"):
        recipes.register_augmentation("shift_two_pixels", "mine:augment")
    for add in (recipes.register_objective, recipes.register_augmentation):
        with pytest.raises(ValueError, match="received 'nowhere'"):
            add("other", "nowhere")
