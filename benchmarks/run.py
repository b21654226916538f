"""The runner: does the cells of a suite, several at a time, and writes each as it finishes.

A run that was killed continues: cells whose results are written are not run again, unless the code of their program or
method or the content of their data has changed since. A cell that fails is written down
as failed, with its error, and the run goes on.
"""

from __future__ import annotations

import math
import os
import platform
import time
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib import import_module
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from threading import Thread

import torch

from benchmarks.freshness import basis, own_files
from benchmarks.machine import cores, hardware
from benchmarks.results import Record, append_cell, declare, declared, finished, read_results, repair
from benchmarks.suite import KINDS, Cell, Suite
from inference.environment import resolve_device, versions
from inference.training.loop import progress_bar
from zoo import folders
from zoo.errors import OptionError

__all__ = ["ARTIFACTS", "run_cell", "run_suite"]

ARTIFACTS = "artifacts"
"""Folder, beside the results, of draws and samples that pictures are made from."""


def run_suite(
    suite: Suite,
    out: str | Path,
    select: tuple[str, ...] = (),
    seeds: int | None = None,
    jobs: int | None = None,
    device: str = "cpu",
    progress: bool = False,
) -> Path:
    """Runs the cells of a suite that `out` does not hold yet; returns the folder.

    Args:
        suite: What to run.
        out: Folder for results.jsonl and artifacts/; results already there are kept.
        select: Patterns on 'suite/program/method/dataset'; see `Suite.cells`.
        seeds: How many seeds instead of the declared number.
        jobs: Cells at a time, each in a process of its own with one thread; None is one a core. With 1 the cells run
            in this process.
        device: 'cpu', 'cuda', ...
        progress: Shows a bar on standard error.

    Raises: OptionError when nothing is selected; CheckpointError when another process runs into the folder, it cannot
        be written, or its results are damaged.
    """
    if jobs is not None and jobs < 1:
        raise OptionError(f"jobs must be at least 1, got {jobs}.")
    folder, where, cells = Path(out), str(resolve_device(device)), suite.cells(select, seeds)
    with folders.held(folder):
        _run_missing(suite, cells, folder, where, jobs, progress)
    return folder


def _run_missing(suite: Suite, cells: list[Cell], folder: Path, where: str, jobs: int | None, progress: bool) -> None:
    (folder / ARTIFACTS).mkdir(parents=True, exist_ok=True)
    repair(folder)
    there = read_results(folder) if (folder / "results.jsonl").exists() else []
    _note(suite, folder, declared(folder).get(suite.name, {}).get("files", own_files(suite)))
    done = finished(there, {cell.key: basis(cell) for cell in cells} if there else {})
    todo = [cell for cell in cells if cell.key not in done]
    jobs = min(jobs or cores(), max(len(todo), 1))
    failures = 0
    with progress_bar(progress) as bar:
        task = bar.add_task(f"bench {suite.name}", total=len(cells), completed=len(cells) - len(todo), note="")
        for records in _run_all(todo, folder, where, jobs):
            append_cell(folder, records)
            failures += bool(records[0].get("failed"))
            last = f"{records[0]['program']}: {records[0]['method']}"
            bar.update(task, advance=1, note=last + (f" ({failures} failed)" if failures else ""))
    # Only now is nothing left that was measured under older files, unless some cells were left out.
    if {record["cell"] for record in there if record["suite"] == suite.name} <= {cell.key for cell in cells}:
        _note(suite, folder, own_files(suite))


def _note(suite: Suite, folder: Path, files: Mapping[str, str]) -> None:
    declare(folder, suite.name, suite.title, suite.question, files)


def _run_all(cells: list[Cell], folder: Path, device: str, jobs: int) -> Iterator[list[Record]]:
    """The records of every cell, in the order in which cells finish."""
    if jobs == 1:
        yield from (run_cell(cell, folder, device) for cell in cells)
        return
    with ProcessPoolExecutor(jobs, get_context("spawn"), _start_worker) as pool:
        for future in as_completed([pool.submit(run_cell, cell, folder, device) for cell in cells]):
            yield future.result()


def _start_worker() -> None:
    """One thread a worker; and a worker whose parent was killed goes as well (it would wait for work for ever)."""
    torch.set_num_threads(1)
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def run_cell(cell: Cell, folder: Path, device: str = "cpu") -> list[Record]:
    """Runs one cell; its records, or the one record that says how it failed."""
    common: Record = {
        "suite": cell.suite,
        "kind": cell.kind,
        "program": cell.program.title,
        "method": cell.method.label,
        "dataset": cell.dataset,
        "split": cell.split,
        "seed": cell.seed,
        "cell": cell.key,
        "started": time.time_ns(),
        "budget": {k: v for k, v in cell.method.options.items() if isinstance(v, (int, float, str, bool))},
        "device": device,
        "hardware": hardware(device),
        "versions": versions() | {"python": platform.python_version()},
        "basis": basis(cell),
    }
    module, name = KINDS[cell.kind].split(":")
    started = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they would tear the progress bar; the test suite treats them as errors
            found = getattr(import_module(module), name)(cell, folder / ARTIFACTS, device)
    except Exception as error:
        seconds = time.perf_counter() - started
        reason = f"{type(error).__name__}: {error}"
        return [
            {**common, "metric": "failed", "value": None, "standard_error": None, "seconds": seconds, "failed": reason}
        ]
    seconds = time.perf_counter() - started
    return [
        {
            **common,
            "metric": m.metric,
            "value": m.value if _finite(m.value) else None,
            "standard_error": m.standard_error if _finite(m.standard_error) else None,
            "how": m.how if m.value is None or _finite(m.value) else f"not finite ({m.value}). {m.how}".strip(),
            "seconds": seconds,
        }
        for m in found
    ]


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
