r"""Recipes: they can be written as JSON, name what is there, and a user adds their own."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pkgutil import resolve_name

import pytest

from captum_dcf import zoo
from captum_dcf.data.sources import SOURCES
from captum_dcf.models.registry import architecture
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


def test_classifiers_of_digits_see_them_shifted_and_nothing_else_does():
    shifted = {name for name, recipe in RECIPES.items() if recipe.augment == ["shift_two_pixels"]}
    assert shifted == {"mnist-cnn", "mnist-oracle"}


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
