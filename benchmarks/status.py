"""Which cells of a run are done, failed, running (where, since when) or waiting: status.json, beside the results.

The driver of a run, the one process that writes results, notes it as cells start and finish. A driver that was killed
leaves its last note behind; it is known for that by the lock on the folder, which nobody holds then.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.results import Record
from zoo import folders
from zoo.errors import CheckpointError

__all__ = ["FILE", "Driver", "News", "Start", "read_status"]

FILE = "status.json"


@dataclass(frozen=True)
class Start:
    """A cell has started, perhaps not for the first time."""

    cell: str
    """Its key."""
    node: str
    """The name of the machine."""
    pid: int
    since: float
    """Seconds since 1970, by the clock of that machine."""


@dataclass(frozen=True)
class News:
    """What has happened since the last news."""

    started: Sequence[Start] = ()
    finished: Sequence[list[Record]] = ()
    """The records of each cell."""


class Driver:
    """What the driver of a run notes.

    Args:
        folder: Of the results.
        suite: Its name.
        executor: Who runs the cells.
        cells: The keys of all that the run is to leave done.
        done: Of those that were done before.
    """

    def __init__(self, folder: Path, suite: str, executor: str, cells: Iterable[str], done: Iterable[str]):
        self.folder = folder
        self.left = set(cells)
        self.running: dict[str, Start] = {}
        total, self.left = len(self.left), self.left - set(done)
        self.note: dict[str, Any] = {
            "suite": suite,
            "executor": executor,
            "node": platform.node(),
            "pid": os.getpid(),
            "since": time.time(),
            "cells": total,
            "done": total - len(self.left),
            "failed": 0,
        }
        self._write()

    def take(self, news: News) -> None:
        """Notes what happened, once it is in the results."""
        for start in news.started:
            if start.cell in self.left:  # news of a start may come after those of the end
                self.running[start.cell] = start
        for records in news.finished:
            cell = records[0]["cell"]
            self.running.pop(cell, None)
            if cell in self.left:
                self.left.remove(cell)
                self.note["failed" if records[0].get("failed") else "done"] += 1
        self._write()

    @property
    def failed(self) -> int:
        """How many cells of this run failed."""
        return int(self.note["failed"])

    def _write(self) -> None:
        running = [asdict(start) for start in self.running.values()]
        note = {**self.note, "written": time.time(), "running": running}
        folders.write_bytes(self.folder / FILE, json.dumps(note).encode())


def read_status(folder: str | Path) -> dict[str, Any]:
    """What is known of the last run into a folder.

    Returns:
        state: 'running'; 'finished', where every cell was tried; 'stopped', where the driver ended before (killed).
        suite, executor: What runs, and who runs the cells ('local', 'ray').
        node, pid, since, written: The driver, when it started, and when it wrote this (seconds since 1970).
        cells, done, failed, waiting: How many there are, were done (in earlier runs too), failed in this run, and are
            still to be started; a stopped run's cells in progress wait again.
        running: cell (its key), node, pid, since, for each.
        lost: The same of a stopped run: the cells that were in progress.

    Raises: CheckpointError where no run is noted, or the note is damaged.
    """
    path = folders.as_path(folder) / FILE
    # Whether somebody drives is asked first: a run that ends in between is then told from its note to be finished.
    driven = folders.is_held(folder)
    if not os.path.lexists(path):
        what = "a run that is about to start" if driven else f"no run: `zoo bench SUITE --out {folder}` starts one"
        raise CheckpointError(f"{folder} holds {what}.")
    note = folders.from_json(folders.read_bytes(path), path)
    try:
        running = [asdict(Start(**each)) for each in note.pop("running")]
        left = note["cells"] - note["done"] - note["failed"]
        found = {name: note[name] for name in ("suite", "executor", "node", "pid", "since", "written")}
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged or none of ours; the next `zoo bench` writes it again.") from error
    counts = {name: note[name] for name in ("cells", "done", "failed")}
    alive = {"running": running, "lost": []} if driven else {"running": [], "lost": running}
    state = "finished" if not left else "running" if driven else "stopped"
    return {"state": state, **found, **counts, "waiting": left - len(alive["running"]), **alive}
