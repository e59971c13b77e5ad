r"""The paper's tables for MNIST, made again beside the published figures: the bundled plan ``paper``."""

from __future__ import annotations

from pathlib import Path

from captum_dcf.benchmark.comparison import comparison_records, comparison_tables
from captum_dcf.benchmark.processes import is_first
from captum_dcf.benchmark.run import run, summaries
from captum_dcf.benchmark.shards import whole_file, write_whole
from captum_dcf.benchmark.tables import write_csv
from captum_dcf.benchmark.toml import make_plan, read_table
from captum_dcf.outputs import refuse_existing

__all__ = ["reproduce_mnist"]


def reproduce_mnist(
    out: Path,
    root: Path | None = None,
    source: int = 4,
    target: int = 9,
    limit: int | None = None,
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
    plan = make_plan(table, folder, "paper", root, limit)
    name = f"mnist-{source}-to-{target}"
    if not (out / name).is_dir():
        # Beside the folder of a run these files are its own.
        refuse_existing([out / f"{name}.md", out / f"{name}.csv"])
    found = summaries(plan, run(plan, out / name, show_progress))
    head = f"# {plan.title}, {plan.length} test images, Λ = {table['confidences'][0]}"
    parts = [head, "Metrics are of the counterfactuals that were found."]
    for part in comparison_tables(found, plan.published, plan.expected):
        parts += [f"## {part.title}", part.markdown()]
    text = "\n\n".join(parts)
    if is_first():
        write_whole(out / f"{name}.md", text + "\n")
        records = comparison_records(found, plan.published)
        with whole_file(out / f"{name}.csv") as file:
            write_csv(file, list(records[0]), records)
    return text
