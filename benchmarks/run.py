"""The runner: does the cells of a suite, several at a time, and writes each as it finishes.

A run that was killed continues: cells whose results are written are not run again, unless the code of their program or
method or the content of their data has changed since. A cell that fails is written down
as failed, with its error, and the run goes on. Who runs the cells is an *executor*: processes of this machine, or a
cluster; whoever it is, this process alone writes, results as well as what is under way (`benchmarks.status`).
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from functools import partial
from multiprocessing import connection, get_context, parent_process
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from threading import Thread

import torch

from benchmarks import status
from benchmarks.freshness import bases, own_files
from benchmarks.machine import cores
from benchmarks.measuring import ARTIFACTS, run_cell
from benchmarks.results import Record, append_cell, declare, declared, finished, read_results, repair
from benchmarks.status import Driver, News, Start
from benchmarks.suite import Cell, Suite
from inference.environment import resolve_device
from inference.training.loop import progress_bar
from zoo import folders
from zoo.errors import OptionError, UnknownNameError

__all__ = ["EXECUTORS", "run_suite"]

EXECUTORS = ("local", "ray")
"""Who runs cells: processes of this machine, or a Ray cluster."""
LOOK = 1.0
"""Seconds after which this process looks which cells its workers have started."""

Execute = Callable[[list[Cell], Path], Iterator[News]]
"""Runs cells, whose artifacts go into the folder; says when they start, and what they found."""


def run_suite(
    suite: Suite,
    out: str | Path,
    select: tuple[str, ...] = (),
    seeds: int | None = None,
    jobs: int | None = None,
    device: str = "cpu",
    progress: bool = False,
    executor: str = "local",
    gpus: float | None = None,
) -> Path:
    """Runs the cells of a suite that `out` does not hold yet; returns the folder.

    Args:
        suite: What to run.
        out: Folder for results.jsonl, status.json and artifacts/; results already there are kept.
        select: Patterns on 'suite/program/method/dataset'; see `Suite.cells`.
        seeds: How many seeds instead of the declared number.
        jobs: Cells at a time, each in a process of its own with one thread; None is one a core, or with 'ray' as many
            as the cluster has room for. With 1 the cells of 'local' run in this process.
        device: 'cpu', 'cuda', ...
        progress: Shows a bar on standard error.
        executor: 'local', or 'ray': the cluster that RAY_ADDRESS names, else one on this machine.
        gpus: With 'ray' and 'cuda', what each cell takes of a GPU; None is one.

    Raises: OptionError when nothing is selected, Ray is missing or has not what is asked for; UnknownNameError for
        another executor; CheckpointError when another process runs into the folder, it cannot be written, or its
        results are damaged.
    """
    if jobs is not None and jobs < 1:
        raise OptionError(f"jobs must be at least 1, got {jobs}.")
    execute, cells = _executor(executor, jobs, device, gpus), suite.cells(select, seeds)
    folder = Path(out)
    with folders.held(folder):
        _run_missing(suite, cells, folder, execute, executor, progress)
    return folder


def _executor(name: str, jobs: int | None, device: str, gpus: float | None) -> Execute:
    if name not in EXECUTORS:
        raise UnknownNameError("executor", name, EXECUTORS)
    if name == "ray":
        from benchmarks import cluster

        return cluster.executor(jobs, device, gpus)
    if gpus is not None:
        raise OptionError("gpus says what each cell of a cluster takes: it needs executor='ray' (--executor ray).")
    return partial(_run_here, device=str(resolve_device(device)), jobs=jobs)


def _run_missing(
    suite: Suite, cells: list[Cell], folder: Path, execute: Execute, executor: str, progress: bool
) -> None:
    folders.remove(folder / status.FILE)  # of the run before
    (folder / ARTIFACTS).mkdir(parents=True, exist_ok=True)
    repair(folder)
    there = read_results(folder) if (folder / "results.jsonl").exists() else []
    _note(suite, folder, declared(folder).get(suite.name, {}).get("files", own_files(suite)))
    done = finished(there, bases(cells) if there else {})
    todo = [cell for cell in cells if cell.key not in done]
    driver = Driver(folder, suite.name, executor, cells=[cell.key for cell in cells], done=done)
    with progress_bar(progress) as bar:
        task = bar.add_task(f"bench {suite.name}", total=len(cells), completed=len(cells) - len(todo), note="")
        for news in execute(todo, folder) if todo else ():
            for records in news.finished:
                append_cell(folder, records)
            driver.take(news)
            for records in news.finished:
                last = f"{records[0]['program']}: {records[0]['method']}"
                bar.update(task, advance=1, note=last + (f" ({driver.failed} failed)" if driver.failed else ""))
    # Only now is nothing left that was measured under older files, unless some cells were left out.
    if {record["cell"] for record in there if record["suite"] == suite.name} <= {cell.key for cell in cells}:
        _note(suite, folder, own_files(suite))


def _note(suite: Suite, folder: Path, files: Mapping[str, str]) -> None:
    declare(folder, suite.name, suite.title, suite.question, files)


# On this machine.


def _run_here(cells: list[Cell], folder: Path, device: str, jobs: int | None) -> Iterator[News]:
    """The executor 'local'; cells in the order in which they finish."""
    jobs = min(jobs or cores(), len(cells))
    if jobs == 1:
        for cell in cells:
            yield News(started=[_start(cell)])
            yield News(finished=[run_cell(cell, folder, device)])
        return
    context = get_context("spawn")
    starts = context.SimpleQueue()
    with ProcessPoolExecutor(jobs, context, _start_worker, (starts,)) as pool:
        pending = {pool.submit(_run_in_worker, cell, folder, device) for cell in cells}
        while pending:
            done, pending = wait(pending, LOOK, FIRST_COMPLETED)
            started = []
            while not starts.empty():
                started.append(starts.get())
            if started or done:
                yield News(started, [future.result() for future in done])


def _start(cell: Cell) -> Start:
    return Start(cell.key, node=platform.node(), pid=os.getpid(), since=time.time())


_starts: SimpleQueue[Start]
"""Of a worker: tells the driver which cell it begins."""


def _run_in_worker(cell: Cell, folder: Path, device: str) -> list[Record]:
    _starts.put(_start(cell))
    return run_cell(cell, folder, device)


def _start_worker(starts: SimpleQueue[Start]) -> None:
    """One thread a worker; and a worker whose parent was killed goes as well (it would wait for work for ever)."""
    global _starts
    _starts = starts
    torch.set_num_threads(1)
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    Thread(target=watch, daemon=True).start()
