r"""The paper's tables made again beside the published figures: for MNIST, and for data that a user has."""

from __future__ import annotations

from pathlib import Path

from captum_dcf.benchmark.comparison import comparison_records, comparison_tables
from captum_dcf.benchmark.plan import Plan
from captum_dcf.benchmark.processes import is_first
from captum_dcf.benchmark.run import run, summaries
from captum_dcf.benchmark.shards import whole_file, write_whole
from captum_dcf.benchmark.tables import write_csv
from captum_dcf.benchmark.toml import make_plan, read_table
from captum_dcf.data.sources import open_source
from captum_dcf.outputs import refuse_existing
from captum_dcf.training.recipes import RECIPES
from captum_dcf.zoo.card import weights_path

__all__ = ["PLANS", "reproduce_mnist", "reproduce_trained"]

# The bundled plans of each data set.
PLANS = {"celeba": ("celeba", "celeba-rivals"), "chexpert": ("chexpert",)}


def reproduce_mnist(
    out: Path,
    root: Path | None = None,
    source: int = 4,
    target: int = 9,
    limit: int | None = None,
    device: str = "cpu",
    show_progress: bool = False,
) -> str:
    r"""Runs the paper's comparison on MNIST and writes ``mnist-S-to-T.md`` and ``.csv`` into ``out``.

    Searched are all images of the class ``source`` in MNIST's test set, or without ``root`` the bundled hundred. The
    oracle is fitted and neighbours are looked for among training images: the whole training set, or the bundled 2,000.
    The run itself is in the folder ``mnist-S-to-T``, and goes on where it was stopped.

    Args:
        out: Folder to write to.
        root: A torchvision root with MNIST.
        source: Class of the images that are searched.
        target: Class to reach.
        limit: Search only so many images, for a trial.
        device: Where to search: ``"cpu"``, ``"cuda"`` or ``"mps"``.
        show_progress: Show a progress bar, counting shards.

    Returns:
        The table in Markdown.

    Raises:
        FileNotFoundError: There is no MNIST in ``root``.
        ValueError: ``source`` is ``target``.
    """
    if source == target:
        raise ValueError(f"source and target must be two classes, received {source} twice")
    table, folder = read_table("paper")
    if (source, target) != (table["data"]["classes"][0], table["goal"]["reach"]):
        table["published"] = {}
    table["data"]["classes"], table["goal"]["reach"] = [source], target
    table["title"] = f"MNIST {source} → {target}"
    plan = make_plan(table, folder, "paper", root, limit, device)
    return _reproduced(plan, out, f"mnist-{source}-to-{target}", show_progress)


def reproduce_trained(
    data: str,
    out: Path,
    root: Path | None,
    weights: Path | None,
    limit: int | None = 500,
    device: str = "cpu",
    show_progress: bool = False,
) -> str:
    r"""Runs the paper's comparison on another data set, with models that a user has trained by its recipes.

    Of each bundled plan of the data set, ``celeba`` and ``celeba-rivals`` or ``chexpert``, the tables are written to
    ``out`` under its name; its run is in the folder of that name, and goes on where it was stopped.

    Args:
        data: ``"celeba"`` or ``"chexpert"``.
        out: Folder to write to.
        root: Folder of the data set, see :class:`captum_dcf.data.CelebA` and :class:`captum_dcf.data.CheXpert`.
        weights: Folder of the models, ``celeba-glow`` and all others whose names begin so.
        limit: Search only so many images; 500, as in the paper's table of rivals.
        device: Where to search: ``"cpu"``, ``"cuda"`` or ``"mps"``.
        show_progress: Show a progress bar, counting shards.

    Returns:
        The tables in Markdown.

    Raises:
        FileNotFoundError: A file of the data set is missing, or a model; all that are missing are named.
        ValueError: There is no such data set, no ``root`` is given, or a file is damaged.
    """
    if data not in PLANS:
        raise ValueError(f"data must be one of {', '.join(PLANS)}, received {data!r}")
    # Before minutes are spent: open_source says which files of the data set are missing.
    open_source(data, root, "test")
    folder = _folder_of_models(data, weights)
    texts = []
    for name in PLANS[data]:
        table, _ = read_table(name)
        plan = make_plan({**table, "weights": "."}, folder, name, root, limit, device)
        texts.append(_reproduced(plan, out, name, show_progress))
    return "\n\n".join(texts)


def _folder_of_models(data: str, weights: Path | None) -> Path:
    needed = [name for name in RECIPES if name.startswith(f"{data}-")]
    missing = needed if weights is None else [name for name in needed if not weights_path(name, weights).is_file()]
    if missing or weights is None:
        raise FileNotFoundError(
            f"{data} needs models that you train first, in a folder of weights, received {weights and str(weights)!r}: "
            f"missing {', '.join(missing)}. Each comes from `captum-dcf train NAME --root ROOT --out WEIGHTS`"
        )
    return weights


def _reproduced(plan: Plan, out: Path, name: str, show_progress: bool) -> str:
    """Runs a plan and writes its tables beside the published figures; gives them as Markdown."""
    if not (out / name).is_dir():
        # Beside the folder of a run these files are its own.
        refuse_existing([out / f"{name}.md", out / f"{name}.csv"])
    found = summaries(plan, run(plan, out / name, show_progress))
    confidence = plan.settings["plan"]["confidences"][0]
    head = f"# {plan.title}, {plan.length} test images, Λ = {confidence}"
    parts = [head, "Metrics are of the counterfactuals that were found."]
    for part in comparison_tables(found, plan.published, plan.expected, plan.published_are):
        parts += [f"## {part.title}", part.markdown()]
    text = "\n\n".join(parts)
    if is_first():
        write_whole(out / f"{name}.md", text + "\n")
        records = comparison_records(found, plan.published)
        with whole_file(out / f"{name}.csv") as file:
            write_csv(file, list(records[0]), records)
    return text
