r"""The run itself: shard after shard, by one process or many, and the tables at the end."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from captum_dcf.benchmark.plan import Plan
from captum_dcf.benchmark.processes import is_first, processes
from captum_dcf.benchmark.report import write_report
from captum_dcf.benchmark.rows import shard_rows
from captum_dcf.benchmark.shards import ShardFolder

__all__ = ["run"]


def run(plan: Plan, out: str | Path, show_progress: bool = False) -> Path:
    r"""Runs a benchmark, or what is missing of it, and writes its tables.

    Started by ``torchrun``, the processes share the shards; whatever their number, the tables are the same but for
    times and memory. A run that was ended goes on where it stopped, with the same number of threads (torchrun sets one,
    unless OMP_NUM_THREADS says otherwise), since another one rounds otherwise. Images that a method failed on have rows that say so, and are not tried again: delete their shard for that.
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
        ValueError: The folder holds shards of a run with other settings, or a damaged one, or a method or a measure
            fails on all images of the first shard.
        OSError: The folder cannot be written to, or the disk is full; finished shards are intact.
    """
    folder = ShardFolder(out)
    shards, described = plan.shards(), plan.described()
    with processes() as group:
        folder.check(described)
        if group.rank == 0:
            folder.claim(described)
        mine = group.share([number for number, images in shards.items() if not folder.has(number, plan.keys(images))])
        for number in _shown(mine, show_progress and is_first()):
            folder.write(number, shard_rows(plan, number, shards[number]), described)
        group.wait()
        if group.rank == 0:
            write_report(folder, plan.columns, shards)
        group.wait()
    return folder.path


def _shown(numbers: list[int], show: bool) -> Iterable[int]:
    if not show:
        return numbers
    from tqdm.auto import tqdm

    return tqdm(numbers, desc="benchmark", unit="shard")
