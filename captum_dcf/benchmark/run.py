r"""The run itself: shard after shard, by one process or many, and the tables at the end."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from captum_dcf.benchmark.plan import Plan
from captum_dcf.benchmark.processes import is_first, processes
from captum_dcf.benchmark.rows import shard_rows
from captum_dcf.benchmark.sets import KeptImages
from captum_dcf.benchmark.shards import ShardFolder
from captum_dcf.benchmark.summary import MethodSummary, check_extra, summarize
from captum_dcf.outputs import refuse_existing

__all__ = ["run", "summaries"]

FILES = ("settings.json", "table.csv", "table.parquet", "summary.csv", "report.md", "report.html")


def run(plan: Plan, out: str | Path, show_progress: bool = False) -> Path:
    r"""Runs a benchmark, or what is missing of it, and writes its tables.

    Started by ``torchrun``, the processes share the shards; whatever their number, the tables are the same but for
    times and memory. A run that was ended goes on where it stopped, with the same number of threads, since another one
    rounds otherwise (torchrun sets one thread, unless OMP_NUM_THREADS says otherwise). Images that a method failed on
    have rows that say so, and are not tried again: delete their shard for that.

    Into ``out`` come

    - ``table.csv`` (and ``table.parquet`` where pyarrow is installed): a row per example and method;
    - ``summary.csv``: a row per method and metric;
    - ``report.md`` and ``report.html``: the summary to read;
    - ``settings.json`` and ``shards/``, by which it goes on.

    Args:
        plan: What to run.
        out: A folder, new or that of the same run.
        show_progress: Show a progress bar, counting shards.

    Returns:
        The folder.

    Raises:
        ValueError: The folder holds shards of a run with other settings, or a damaged one, or a method or a metric
            fails on all images of the first shard.
        FileExistsError: One of these files is there already, in a folder that is no run's.
        ImportError: An extra is missing.
        OSError: The folder cannot be written to, or the disk is full; finished shards are intact.
    """
    # Before anything is searched.
    check_extra()
    folder, images = ShardFolder(out), KeptImages(Path(out), plan)
    shards, described = plan.shards(), plan.described()
    with processes() as group:
        # In the folder of a run, one with shards/, these files are the run's own.
        if not (folder.path / "shards").is_dir():
            refuse_existing(folder.path / name for name in FILES)
        folder.check(described)
        if group.rank == 0:
            folder.claim(described)
        missing = [
            one for one, numbers in shards.items() if not (folder.has(one, plan.keys(numbers)) and images.has(one))
        ]
        mine = group.share(missing)
        for number in _shown(mine, show_progress and is_first()):
            rows = shard_rows(plan, number, shards[number], images.add)
            images.write(number)
            folder.write(number, rows, described)
        group.wait()
        if group.rank == 0:
            from captum_dcf.benchmark.report import write_report

            write_report(folder, plan, summaries(plan, folder.path))
        group.wait()
    return folder.path


def summaries(plan: Plan, out: str | Path) -> list[MethodSummary]:
    r"""The summary of each method of a finished run.

    Args:
        plan: What was run.
        out: Its folder.
    """
    shards = plan.shards()
    found = summarize(ShardFolder(out).rows(shards), list(plan.metrics_of("example")))
    of_set = KeptImages(Path(out), plan).measure(shards)
    for one in found:
        one.of_set.update(of_set.get(one.key, {}))
    return found


def _shown(numbers: list[int], show: bool) -> Iterable[int]:
    if not show:
        return numbers
    from tqdm.auto import tqdm

    shown: Iterable[int] = tqdm(numbers, desc="benchmark", unit="shard")
    return shown
