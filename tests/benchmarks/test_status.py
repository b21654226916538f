"""What runs where: noted by the driver, read by anybody, and known for what it is when the driver is gone."""

from __future__ import annotations

import json
import os
import signal
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.run import run_suite
from benchmarks.status import FILE, Driver, News, Start, read_status
from tests import processes
from tests.benchmarks.tiny import tiny
from zoo import folders
from zoo.errors import CheckpointError


def start(cell: str, pid: int = 7) -> Start:
    return Start(cell, "a machine", pid, 1.0)


def done(cell: str, failed: str = "") -> list[dict[str, Any]]:
    return [{"cell": cell, "failed": failed} if failed else {"cell": cell}] * 2


def test_cells_start_finish_fail_and_start_again(tmp_path: Path) -> None:
    def counts() -> tuple[int, ...]:
        found = read_status(tmp_path)
        return (*(found[name] for name in ("cells", "done", "failed", "waiting")), len(found["running"]))

    with folders.held(tmp_path):
        driver = Driver(tmp_path, "tiny", "ray", "abcde", "ax")
        assert counts() == (5, 1, 0, 4, 0)
        driver.take(News([start("b"), start("c")]))
        assert counts() == (5, 1, 0, 2, 2)
        driver.take(News([start("b", pid=8)], [done("c")]))  # the worker of b was lost
        assert counts() == (5, 2, 0, 2, 1)
        assert [each["pid"] for each in read_status(tmp_path)["running"]] == [8]
        driver.take(News([], [done("b", "ValueError: sad")]))
        driver.take(News([start("b")]))  # late: it has ended
        assert counts() == (5, 2, 1, 2, 0)
        assert driver.failed == 1
        driver.take(News([], [done("b")]))  # declared twice
        assert counts() == (5, 2, 1, 2, 0)
        assert read_status(tmp_path)["state"] == "running"
        driver.take(News([start("d")], [done("e")]))
    # Nobody holds the folder: whoever wrote this is gone, and so is what it ran.
    found = read_status(tmp_path)
    assert (found["state"], found["running"], found["waiting"]) == ("stopped", [], 1)
    assert [each["cell"] for each in found["lost"]] == ["d"]


def test_a_run_that_ended_is_finished(stub: None, tmp_path: Path) -> None:
    run_suite(tiny(("sad", "svi"), seeds=2), tmp_path, jobs=1)
    found = read_status(tmp_path)
    assert {name: found[name] for name in ("state", "suite", "executor", "cells", "done", "failed", "waiting")} == {
        "state": "finished", "suite": "tiny", "executor": "local", "cells": 8, "done": 6, "failed": 2, "waiting": 0,
    }  # fmt: skip
    run_suite(tiny(("svi",), seeds=2), tmp_path, jobs=1)  # nothing to do
    assert (read_status(tmp_path)["done"], read_status(tmp_path)["cells"]) == (4, 4)


def test_what_is_no_status_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no run: `zoo bench SUITE --out"):
        read_status(tmp_path)
    assert list(tmp_path.iterdir()) == []  # looking leaves nothing
    with folders.held(tmp_path), pytest.raises(CheckpointError, match="about to start"):
        read_status(tmp_path)
    for damaged in ("{", "[]", "{}", json.dumps({"running": [{"cell": 3}]})):
        (tmp_path / FILE).write_text(damaged)
        with pytest.raises(CheckpointError, match=r"status\.json"):
            read_status(tmp_path)


PATIENT = textwrap.dedent(
    """
    import sys, time
    from multiprocessing import get_context
    import benchmarks.run
    from benchmarks.suite import KINDS
    from tests.benchmarks.tiny import tiny

    def measure(cell, artifacts, device):
        time.sleep(600)

    KINDS["posterior"] = f"{__name__}:measure"
    benchmarks.run.get_context = lambda method: get_context("fork")
    benchmarks.run.run_suite(tiny(), sys.argv[1], jobs=int(sys.argv[2]))
    """
)


@pytest.mark.parametrize("jobs", [1, 2])
def test_of_a_run_under_way_and_of_one_that_was_killed(tmp_path: Path, jobs: int) -> None:
    script = tmp_path / "patient.py"
    script.write_text(PATIENT)
    driver = processes.start(script, [str(tmp_path / "out"), str(jobs)])
    found: dict[str, Any] = {"running": []}
    deadline = time.monotonic() + 120
    while len(found["running"]) < jobs:
        assert time.monotonic() < deadline
        time.sleep(0.05)
        if (tmp_path / "out" / FILE).exists():
            found = read_status(tmp_path / "out")
    assert (found["state"], found["pid"], found["waiting"]) == ("running", driver.pid, 4 - jobs)
    assert len({each["pid"] for each in found["running"]}) == jobs
    assert (driver.pid in {each["pid"] for each in found["running"]}) == (jobs == 1)
    assert all(found["since"] <= each["since"] <= time.time() for each in found["running"])
    assert driver.pid is not None
    os.kill(driver.pid, signal.SIGKILL)
    driver.join()
    while folders.is_held(tmp_path / "out"):  # by workers, for the moment in which they see it
        assert time.monotonic() < deadline
        time.sleep(0.05)
    found = read_status(tmp_path / "out")
    assert (found["state"], found["waiting"], len(found["lost"])) == ("stopped", 4, jobs)
