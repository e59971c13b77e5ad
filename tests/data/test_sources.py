r"""Sources by name: what each gives, and sources of one's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from pkgutil import resolve_name

import pytest
import torch
from idx import write_mnist
from torch import Tensor
from torch.utils.data import Dataset

from captum_dcf.data import chest_sample, faces_sample, mnist_sample
from captum_dcf.data.helix import helix_distance
from captum_dcf.data.sources import SOURCES, Source, labels_of, of_classes, open_source, read_all, register


class Ramp(Dataset[tuple[Tensor, float]]):
    r"""Five images, each of one grey level, which is its value; not a TensorDataset, and without targets."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> tuple[Tensor, float]:
        return torch.full((1, 2, 2), index / 4), index / 4


def open_ramp(root: object, split: object, image_shape: object) -> Ramp:
    return Ramp()


RAMP = Source(f"{__name__}:open_ramp", (1, 2, 2), "value", None, "nobody")


@pytest.fixture
def ramp(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(SOURCES, "ramp", RAMP)
    # pytest does not import test modules by name.
    monkeypatch.setattr("captum_dcf.registry.imported", lambda place: open_ramp)
    return "ramp"


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_what_opens_a_source_is_there(source: Source):
    assert callable(resolve_name(source.open))
    assert source.credit


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(
    ("name", "sample"), [("mnist", mnist_sample), ("faces", faces_sample), ("chest", chest_sample)]
)
def test_the_bundled_samples_are_sources(name: str, sample: Callable[[bool], tuple[Tensor, Tensor]], split: str):
    dataset = open_source(name, None, split)
    images, labels = sample(split == "train")
    assert images.shape[1:] == SOURCES[name].image_shape
    assert torch.equal(dataset[7][0], images[7])
    assert torch.equal(labels_of(dataset), labels)
    assert labels.unique().tolist() == list(range(len(SOURCES[name].classes)))


def test_mnist_of_a_root_is_a_source(tmp_path: Path):
    pytest.importorskip("torchvision")
    written = write_mnist(tmp_path, train=12, test=5)
    for split in ("train", "test"):
        images, labels = read_all(open_source("mnist", tmp_path, split, (1, 28, 28)))
        assert torch.equal((images * 255).to(torch.uint8).squeeze(1), written[split == "train"][0])
        assert torch.equal(labels, written[split == "train"][1].long())


def test_the_helix_is_a_source():
    train, test = (open_source("helix", None, split) for split in ("train", "test"))
    points, classes = read_all(test)
    assert points.shape[1:] == SOURCES["helix"].image_shape
    assert helix_distance(points).max() < 1e-5
    assert torch.equal(classes, (points[:, 2] > 0).long())
    assert len(train) > len(test)
    assert not torch.equal(train[0][0], test[0][0])
    assert torch.equal(test[0][0], open_source("helix", None, "test")[0][0])


@pytest.mark.parametrize(
    ("arguments", "received"),
    [
        (
            ("cifar",),
            r"'cifar'.*\['celeba', 'celeba-hq', 'chest', 'chexpert', .*'mnist', 'nih-chest'\]",
        ),
        (("mnist", None, "all"), "'all'"),
        (("mnist", None, None), "None"),
        (("mnist", None, "test", (1, 32, 32)), r"\(1, 32, 32\)"),
        (("faces", None, None), "None"),
        (("chest", None, "test", (1, 64, 64)), r"\(1, 64, 64\)"),
        (("helix", None, None), "None"),
        (("helix", None, "test", (1, 3)), r"\(1, 3\)"),
    ],
)
def test_what_a_source_does_not_have_is_refused(arguments: tuple, received: str):
    with pytest.raises(ValueError, match=received):
        open_source(*arguments)


def test_arguments_are_handed_to_the_source_that_takes_them(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(TypeError, match="column"):
        open_source("mnist", column="age")
    monkeypatch.setitem(SOURCES, "ramp", RAMP)
    monkeypatch.setattr("captum_dcf.registry.imported", lambda place: lambda *given, **named: (given, named))
    assert open_source("ramp", "root", "test", (1, 2, 2), steps=3) == (("root", "test", (1, 2, 2)), {"steps": 3})


def test_a_source_of_one_s_own(ramp: str):
    dataset = open_source(ramp)
    images, values = read_all(dataset)
    assert images.shape == (5, 1, 2, 2)
    torch.testing.assert_close(values, torch.linspace(0, 1, 5))
    torch.testing.assert_close(labels_of(dataset).float(), values)
    torch.testing.assert_close(labels_of(of_classes(dataset, [1])).float(), torch.ones(1))


def test_a_name_is_given_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(SOURCES, "ramp", RAMP)
    register("ramp", RAMP)
    with pytest.raises(ValueError, match="'mnist'"):
        register("mnist", RAMP)
    assert SOURCES["mnist"] != RAMP
    for name, error in ((3, TypeError), ("", ValueError)):
        with pytest.raises(error, match=repr(name)):
            register(name, RAMP)


@pytest.mark.parametrize("place", ["open_ramp", "module:", ":open", "", 3])
def test_a_place_that_is_none_is_refused(place: str):
    with pytest.raises(ValueError, match=f'"module:name", received {place!r}'):
        Source(place, None, "classes", None, "nobody")


def test_labels_of_another_kind_are_refused():
    with pytest.raises(ValueError, match="'words'"):
        Source("a:b", None, "words", None, "nobody")


@pytest.mark.parametrize("place", ["captum_dcf.nowhere:open", "captum_dcf.data.mnist:nothing", "nowhere.at.all:open"])
def test_a_place_where_nothing_is(monkeypatch: pytest.MonkeyPatch, place: str):
    monkeypatch.setitem(SOURCES, "broken", Source(place, None, "classes", None, "nobody"))
    with pytest.raises(ImportError, match=place):
        open_source("broken")
