r"""A source, an architecture, an objective and an augmentation of one's own: trained, saved, loaded and used."""

from __future__ import annotations

import sys
import types
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

pytest.importorskip("lightning")

from captum_dcf import DiffeomorphicCounterfactual, Generator, zoo
from captum_dcf.data import sources
from captum_dcf.data.files import write_image
from captum_dcf.models import registry
from captum_dcf.training import recipes
from captum_dcf.training.objectives import Reconstruction
from captum_dcf.training.recipes import Recipe
from captum_dcf.training.run import train

pytestmark = pytest.mark.filterwarnings("ignore")

COUNT = 24


class Dots(Dataset[tuple[Tensor, int]]):
    r"""Images of one bright pixel, at the place of their number; three classes, in order of the numbers."""

    def __init__(self, split: str) -> None:
        self.targets = [number // (COUNT // 3) for number in range(COUNT if split == "train" else 6)]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = torch.zeros(1, 6, 6)
        image.view(-1)[index] = 1
        return image, self.targets[index]


def open_dots(root: object, split: str, image_shape: object) -> Dots:
    return Dots(split)


class Linear(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Flatten(), nn.Linear(36, width))
        self.decode = nn.Sequential(nn.Linear(width, 36), nn.Unflatten(1, (1, 6, 6)))

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))


class Coordinates(Generator):
    def __init__(self, model: Linear) -> None:
        super().__init__()
        self.model = model

    def encode(self, x: Tensor) -> Tensor:
        return self.model.encode(x)

    def decode(self, z: Tensor) -> Tensor:
        return self.model.decode(z)


class Spy(Reconstruction):
    r"""Keeps which images are trained on and the norms of the gradients; its metric is a random number."""

    metric_name = "chance"
    trained: list[Tensor] = []
    tested: list[Tensor] = []
    norms: list[float] = []
    decays: list[float] = []

    def on_train_start(self) -> None:
        # What the trial before the training has left.
        for kept in (self.trained, self.tested, self.norms, self.decays):
            kept.clear()

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        self.trained.append(images)
        return 1e6 * super().loss(images, labels)

    def metric(self, images: Tensor, labels: Tensor) -> Tensor:
        self.tested.append(images)
        return torch.rand(())

    def on_train_batch_end(self, *_: object) -> None:
        gradients = torch.cat([parameter.grad.flatten() for parameter in self.parameters()])
        self.norms.append(gradients.norm().item())
        self.decays.append(self.optimizers().param_groups[0]["weight_decay"])


def twice(images: Tensor) -> Tensor:
    return 2 * images


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Recipe:
    # pytest does not import test modules by name, so this one is put where imports look.
    module = types.ModuleType("of_ones_own")
    module.open_dots, module.Linear, module.Coordinates, module.Spy = open_dots, Linear, Coordinates, Spy
    module.twice = twice
    monkeypatch.setitem(sys.modules, "of_ones_own", module)
    for place, name in (
        (sources, "SOURCES"),
        (registry, "ARCHITECTURES"),
        (recipes, "RECIPES"),
        (recipes, "OBJECTIVES"),
        (recipes, "AUGMENTATIONS"),
    ):
        # What a test adds is taken out again at its end.
        for added in ("dots", "linear", "spy", "twice"):
            monkeypatch.setitem(getattr(place, name), added, None)
            monkeypatch.delitem(getattr(place, name), added)
    for kept in (Spy.trained, Spy.tested, Spy.norms, Spy.decays):
        kept.clear()
    sources.register("dots", sources.Source("of_ones_own:open_dots", (1, 6, 6), "classes", None, "dots, by nobody"))
    registry.register("linear", registry.Architecture("of_ones_own:Linear", "generator", "of_ones_own:Coordinates"))
    recipes.register_objective("spy", "of_ones_own:Spy")
    recipes.register_augmentation("twice", "of_ones_own:twice")
    return Recipe("linear", {"width": 4}, "dots", "spy", epochs=1, batch_size=4, learning_rate=1e-2)


def places(images: list[Tensor]) -> list[int]:
    r"""Where the bright pixels are, that is, the numbers of the images."""
    return torch.cat(images).flatten(1).argmax(1).tolist()


def test_what_is_one_s_own_is_trained_saved_loaded_and_used(recipe: Recipe, tmp_path: Path):
    recipes.register("dots", recipe)
    card = train("dots", None, tmp_path)
    assert card.data == "24 training images of dots, by nobody"
    assert "6 test images" in card.measured
    generator = zoo.load("dots", tmp_path)
    assert isinstance(generator, Coordinates)
    generator.data_range = (0.0, 1.0)
    method = DiffeomorphicCounterfactual(lambda x: x.flatten(1)[:, :2], generator)
    result = method.counterfactual(torch.stack([Dots("test")[0][0]]), target=1, confidence=0.4, max_steps=50)
    assert result.counterfactuals.shape == (1, 1, 6, 6)


def test_every_image_is_seen_once_in_an_epoch_in_no_order(recipe: Recipe, tmp_path: Path):
    recipes.register("dots", recipe)
    train("dots", None, tmp_path, epochs=2)
    seen = places(Spy.trained)
    first, second = seen[:COUNT], seen[COUNT:]
    assert sorted(first) == sorted(second) == list(range(COUNT))
    assert len({tuple(first), tuple(second), tuple(range(COUNT))}) == 3
    assert places(Spy.tested)[:6] == list(range(6))


def test_some_classes_are_trained_and_tested_on_by_themselves(recipe: Recipe, tmp_path: Path):
    recipes.register("dots", replace(recipe, classes=[0]))
    card = train("dots", None, tmp_path)
    assert sorted(places(Spy.trained)) == list(range(COUNT // 3))
    assert sorted(places(Spy.tested)[:6]) == list(range(6))
    assert card.data == "8 training images of dots, by nobody; its classes [0] only"
    assert card.training["classes"] == [0]


def test_training_images_are_augmented(recipe: Recipe, tmp_path: Path):
    recipes.register("dots", replace(recipe, augment=["twice"]))
    train("dots", None, tmp_path)
    assert {batch.max().item() for batch in Spy.trained} == {2.0}
    assert {batch.max().item() for batch in Spy.tested} == {1.0}


def test_gradients_are_clipped(recipe: Recipe, tmp_path: Path):
    recipes.register("dots", replace(recipe, clip=0.25))
    train("dots", None, tmp_path)
    assert Spy.norms == pytest.approx([0.25] * (COUNT // 4), rel=1e-4)


def test_weights_decay_as_the_recipe_says(recipe: Recipe, tmp_path: Path):
    recipes.register("dots", replace(recipe, weight_decay=0.125))
    train("dots", None, tmp_path)
    assert set(Spy.decays) == {0.125}


def test_a_file_that_appears_during_the_training_is_not_replaced(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    recipes.register("dots", recipe)
    theirs = tmp_path / "dots.json"
    monkeypatch.setattr(Spy, "on_train_end", lambda _: theirs.write_text("of the user"), raising=False)
    with pytest.raises(FileExistsError, match=r"dots\.json"):
        train("dots", None, tmp_path)
    assert theirs.read_text() == "of the user"


def test_a_metric_that_draws_noise_does_not_depend_on_what_was_drawn_before(recipe: Recipe, tmp_path: Path):
    recipes.register("dots", recipe)
    one, two = (train("dots", None, tmp_path / str(epochs), epochs=epochs, seed=3) for epochs in (1, 2))
    assert one.figures == two.figures
    assert one.figures != train("dots", None, tmp_path / "other", seed=4).figures


def test_a_folder_of_images_is_trained_on(recipe: Recipe, tmp_path: Path):
    pytest.importorskip("torchvision")
    for split, count in (("train", 3), ("test", 1)):
        for name, grey in (("cat", 0.25), ("dog", 0.75)):
            place = tmp_path / "data" / split / name
            place.mkdir(parents=True)
            for number in range(count):
                write_image(torch.full((3, 10, 12), grey), place / f"{number}.png")
    small = {"image_size": 8, "blocks": [[2, 3]], "hidden": [5], "num_classes": 2, "in_channels": 3}
    mine = Recipe("conv_classifier", small, "folder", "classification", 1, 4, 1e-3, image_shape=[3, 8, 8])
    recipes.register("dots", mine)
    card = train("dots", tmp_path / "data", tmp_path / "out")
    assert card.data.startswith("6 training images")
    assert card.training["image_shape"] == [3, 8, 8]
    assert zoo.load("dots", tmp_path / "out")(torch.rand(1, 3, 8, 8)).shape == (1, 2)


@pytest.mark.parametrize(
    ("part", "name"),
    [("architecture", "cubist"), ("source", "attic"), ("objective", "fame"), ("augment", ["glitter"])],
)
def test_a_recipe_that_names_nothing(recipe: Recipe, tmp_path: Path, part: str, name: str | list[str]):
    recipes.register("dots", replace(recipe, **{part: name}))
    with pytest.raises(ValueError, match=f"{name[0] if part == 'augment' else name!r}.*known are"):
        train("dots", None, tmp_path)


def test_a_checkpoint_of_other_settings_is_not_gone_on_from(recipe: Recipe, tmp_path: Path):
    recipes.register("dots", recipe)
    train("dots", None, tmp_path)
    recipes.RECIPES["dots"] = replace(recipe, batch_size=6)
    with pytest.raises(ValueError, match="began with batch_size 4, not 6"):
        train("dots", None, tmp_path, epochs=2)
