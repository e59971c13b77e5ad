r"""A plan from a TOML file, a bundled one or a user's own."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset, TensorDataset

from captum_dcf import zoo
from captum_dcf.benchmark.catalog import Setup, as_generator, make_measure, make_methods
from captum_dcf.benchmark.class_folders import ClassFolders
from captum_dcf.benchmark.plan import Plan
from captum_dcf.benchmark.processes import check_device, local_device
from captum_dcf.data import mnist, mnist_sample

__all__ = ["bundled", "read_plan"]

REQUIRED = ("model", "generators", "target", "data", "methods", "measures")
KNOWN = (*REQUIRED, "title", "confidences", "shard_size", "seed", "weights")
# So many images of a whole training set serve as reference.
REFERENCE_IMAGES = 10_000


def read_plan(
    name: str | Path,
    root: str | Path | None = None,
    images: int | None = None,
    confidences: Sequence[float] = (),
    device: str = "cpu",
) -> Plan:
    r"""The benchmark that a TOML file describes.

    Args:
        name: A bundled benchmark, one of :func:`bundled`, or the path of a TOML file.
        root: Folder of the whole data set, for those that come with a sample.
        images: Only so many of the images, from the first on.
        confidences: Λ, instead of those of the file.
        device: Where to run it.

    Raises:
        FileNotFoundError: There is no such file, or data or weights that it names are missing.
        ValueError: The file is no TOML, or says something unknown or too little.
    """
    text, folder = _read(name)
    described = {"confidences": [0.99], "shard_size": 32, "seed": 0, **_parsed(text, str(name))}
    _check(described, str(name))
    if confidences:
        described["confidences"] = list(confidences)
    where = local_device(device)
    check_device(where)
    weights = folder / described["weights"] if "weights" in described else zoo.store.SHIPPED
    if not weights.is_dir():
        raise FileNotFoundError(f"{name}: there is no folder of weights {str(weights)!r}")
    load = cache(partial(_load, weights, where))
    generators = {name: as_generator(name, load(name)) for name in described["generators"]}
    dataset, reference, source = _data(described, folder, root, weights)
    if images is not None:
        dataset = Subset(dataset, range(min(images, len(dataset))))  # type: ignore[arg-type]
    setup = Setup(
        model=load(described["model"]),
        generators=generators,
        confidences=described["confidences"],
        load=load,
        reference=reference,
        device=where,
    )
    return Plan(
        images=dataset,
        model=setup.model,
        target=described["target"],
        methods=[
            method
            for label, kind, arguments in _entries(described, "methods", "method")
            for method in make_methods(setup, label, kind, arguments)
        ],
        measures={
            label: make_measure(setup, label, kind, arguments)
            for label, kind, arguments in _entries(described, "measures", "measure")
        },
        title=described.get("title", Path(name).stem),
        shard_size=described["shard_size"],
        seed=described["seed"],
        device=device,
        settings={
            "plan": described,
            "data": source,
            "files": _files(folder, described["data"]),
            "weights": _weights_used(described, weights),
        },
    )


def bundled() -> list[str]:
    r"""Names of the bundled benchmarks."""
    names = [path.name for path in files("captum_dcf.benchmark").iterdir()]
    return sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml"))


def _read(name: str | Path) -> tuple[str, Path]:
    path = Path(name)
    if str(name) in bundled():
        return files("captum_dcf.benchmark").joinpath(f"{name}.toml").read_text(encoding="utf-8"), Path()
    if not path.is_file():
        raise FileNotFoundError(f"no benchmark {str(name)!r}: it is neither a file nor one of {bundled()}")
    try:
        return path.read_text(encoding="utf-8"), path.parent
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not TOML: it is not UTF-8 ({error})") from error


def _parsed(text: str, name: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        try:
            import tomli as tomllib
        except ModuleNotFoundError as error:
            raise ImportError('reading a benchmark needs tomli: pip install "captum_dcf[benchmark]"') from error
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{name} is not TOML: {error}") from error


def _check(described: Mapping[str, Any], name: str) -> None:
    unknown = sorted(set(described) - set(KNOWN))
    if unknown:
        raise ValueError(f"{name} says {', '.join(unknown)}; known are {', '.join(KNOWN)}")
    absent = [part for part in REQUIRED if not described.get(part) and described.get(part) != 0]
    if absent:
        raise ValueError(f"{name} does not say {', '.join(absent)}")
    generators = described["generators"]
    if not isinstance(generators, list) or not all(isinstance(one, str) for one in generators):
        raise ValueError(f"{name}: generators must be a list of names, received {generators!r}")
    if len(set(generators)) < len(generators):
        raise ValueError(f"{name}: generators must differ, received {generators!r}")
    for part in ("title", "model", "weights"):
        if not isinstance(described.get(part, ""), str):
            raise ValueError(f"{name}: {part} must be a string, received {described[part]!r}")
    if not isinstance(described["confidences"], list) or not described["confidences"]:
        raise ValueError(f"{name}: confidences must be a list of at least one Λ, received {described['confidences']!r}")
    _check_table(f"{name}: data", described["data"])
    for part, kind in (("methods", "method"), ("measures", "measure")):
        _check_table(f"{name}: {part}", described[part])
        for label, entry in described[part].items():
            _check_table(f"{name}: {part}.{label}", entry)
            if not isinstance(entry.get(kind, label), str):
                raise ValueError(f"{name}: {part}.{label}: {kind} must be a name, received {entry[kind]!r}")


def _check_table(what: str, received: Any) -> None:
    if not isinstance(received, dict):
        raise ValueError(f"{what} must be a TOML table, received {received!r}")


def _entries(described: Mapping[str, Any], part: str, kind: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Label, kind (the label where none is given) and arguments of each method or measure."""
    return [
        (label, table.get(kind, label), {name: value for name, value in table.items() if name != kind})
        for label, table in described[part].items()
    ]


def _load(weights: Path, device: str, name: str) -> nn.Module:
    if not isinstance(name, str):
        raise ValueError(f"a model must be given by its name, received {name!r}")
    return zoo.load(name, _place(weights, name)).to(device)


def _place(weights: Path, name: str) -> Path:
    return weights if (weights / f"{name}.json").is_file() else zoo.store.SHIPPED


def _weights_used(described: Mapping[str, Any], weights: Path) -> dict[str, str]:
    """The SHA-256 of every model that the file names, judges and their helpers too; {} stands for any class."""
    entries = [entry for part in ("methods", "measures") for entry in described[part].values()]
    said = [value for entry in entries for value in entry.values() if isinstance(value, str)]
    patterns = [name.replace("{}", "*") for name in (described["model"], *described["generators"], *said)]
    known = sorted({*zoo.names(weights), *zoo.names()})
    used = [name for name in known if any(fnmatchcase(name, pattern) for pattern in patterns)]
    return {name: zoo.read_card(name, _place(weights, name)).sha256 for name in used}


def _files(folder: Path, data: Mapping[str, Any]) -> str:
    """A hash of the image files, names and contents: a run must not go on with others."""
    places = [folder / data[part] for part in ("folder", "reference") if part in data]
    listed = [
        f"{path.relative_to(place).as_posix()} {_content(path)}"
        for place in places
        for path in sorted(place.rglob("*"))
        # File managers write hidden files of their own.
        if path.is_file() and not path.name.startswith(".")
    ]
    return hashlib.sha256("\n".join(listed).encode()).hexdigest() if listed else ""


def _content(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    # The row of such an image will say so.
    except OSError:
        return "cannot be read"


Reference = Callable[[], tuple[Tensor, Tensor]]


def _data(
    described: Mapping[str, Any], folder: Path, root: str | Path | None, weights: Path
) -> tuple[Dataset[Any], Reference, str]:
    """The images, the reference, and in words where they come from."""
    data = described["data"]
    for part in ("folder", "reference"):
        if not isinstance(data.get(part, ""), str):
            raise ValueError(f"{part} of the data must be a path, received {data[part]!r}")
    if data.get("set") == "mnist" and set(data) <= {"set", "source"}:
        return _mnist(data.get("source"), root)
    if "folder" in data and set(data) <= {"folder", "reference"}:
        if root is not None:
            raise ValueError(f"the images are in {data['folder']!r}, not in a data set: received root {str(root)!r}")
        generator = described["generators"][0]
        shape = zoo.read_card(generator, _place(weights, generator)).arguments["image_shape"]
        images = ClassFolders(folder / data["folder"], shape)
        return images, partial(_whole, folder, data.get("reference"), tuple(shape)), "a folder of images"
    raise ValueError(
        'data must say set = "mnist", and source = the class to search from, or folder = "..." with images in a folder '
        f'per class, and reference = "..." with others; received {data}'
    )


def _mnist(source: int | None, root: str | Path | None) -> tuple[Dataset[Any], Reference, str]:
    images, labels = mnist_sample() if root is None else mnist(root, train=False)
    if source is not None:
        if type(source) is not int or not 0 <= source <= 9:
            raise ValueError(f"source must be a class of MNIST, from 0 to 9, received {source!r}")
        images, labels = images[labels == source], labels[labels == source]

    @cache
    def reference() -> tuple[Tensor, Tensor]:
        if root is None:
            return mnist_sample(train=True)
        images, labels = mnist(root, train=True)
        return images[:REFERENCE_IMAGES], labels[:REFERENCE_IMAGES]

    return TensorDataset(images, labels), reference, "the bundled sample" if root is None else "the test set"


@cache
def _whole(folder: Path, name: str | None, image_shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    if name is None:
        raise ValueError('a method or a measure needs real images to compare with: say reference = "..." in [data]')
    real = ClassFolders(folder / name, image_shape)
    images, labels = zip(*(real[index] for index in range(len(real))))
    return torch.stack(images), torch.tensor(labels)
