r"""The run itself: shard after shard, by one process or many, and the tables at the end."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from captum_dcf.benchmark.plan import Plan
from captum_dcf.benchmark.processes import is_first, processes
from captum_dcf.benchmark.report import write_report
from captum_dcf.benchmark.rows import shard_rows
from captum_dcf.benchmark.shards import ShardFolder
from captum_dcf.outputs import refuse_existing

__all__ = ["run"]

FILES = ("settings.json", "table.csv", "table.parquet", "summary.csv", "report.md", "report.html")


def run(plan: Plan, out: str | Path, show_progress: bool = False) -> Path:
    r"""Runs a benchmark, or what is missing of it, and writes its tables.

    Started by ``torchrun``, the processes share the shards; whatever their number, the tables are the same but for
    times, memory and, where they use another number of threads, rounding. A run that was ended goes on where it
    stopped. Images that a method failed on have rows that say so, and are not tried again: delete their shard for that.
    Into ``out`` come

    - ``table.csv`` (and ``table.parquet`` where pyarrow is installed): a row per example and method;
    - ``summary.csv``: a row per method and measure;
    - ``report.md`` and ``report.html``: the summary to read;
    - ``settings.json`` and ``shards/``, by which it goes on.

    Args:
        plan: What to run.
        out: A folder, new or that of the same run.
        show_progress: Show a progress bar, counting shards.

    Returns:
        The folder.

    Raises:
        ValueError: The folder holds a run with other settings, or a method or a measure fails on all images of the
            first shard.
        FileExistsError: One of these files is there already, in a folder that is no run's.
        OSError: The folder cannot be written to, or the disk is full; finished shards are intact.
    """
    folder = ShardFolder(out)
    shards = plan.shards()
    with processes() as group:
        # In the folder of a run, one with shards/, these files are the run's own.
        if not (folder.path / "shards").is_dir():
            refuse_existing([folder.path / name for name in FILES])
        folder.check(plan.described())
        if group.rank == 0:
            folder.claim(plan.described())
        mine = group.share(folder.missing(shards))
        for number in _shown(mine, show_progress and is_first()):
            folder.write(number, shard_rows(plan, number, shards[number]))
        group.wait()
        if group.rank == 0:
            write_report(folder, plan.columns)
        group.wait()
    return folder.path


def _shown(numbers: list[int], show: bool) -> Iterable[int]:
    if not show:
        return numbers
    from tqdm.auto import tqdm

    return tqdm(numbers, desc="benchmark", unit="shard")
