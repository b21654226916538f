"""The command `zoo bench`: who runs the cells, and what is said of a run; suites have tests of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import cluster
from benchmarks.run import run_suite
from tests.benchmarks.tiny import tiny
from zoo.errors import OptionError


def test_status_says_how_far_a_run_came(stub: None, zoo: Any, tmp_path: Path) -> None:
    run_suite(tiny(("sad", "svi")), tmp_path, jobs=1)
    code, printed, error = zoo("bench", "--status", "--out", tmp_path)
    assert code == 0, error
    assert "tiny (local) from " in printed
    assert ": finished, " in printed
    assert "8 cells: 6 done, 2 failed, 0 running, 0 waiting" in printed
    assert f"zoo report {tmp_path}" in printed.replace("\n", "")
    found = json.loads(zoo("bench", "--status", "--out", tmp_path, "--json")[1])
    assert (found["state"], found["failed"]) == ("finished", 2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--status",), "holds no run"),
        ((), "Name a suite"),
        (("main", "--executor", "slurm"), "Unknown executor 'slurm'"),
        (("main", "--gpus", "1"), "it needs executor='ray' (--executor ray)"),
        (("speed", "--executor", "ray"), "--executor does nothing for the suite 'speed'"),
        (("main", "--executor", "ray", "--device", "cuda:1"), "Ray says which GPU"),
        (("main", "--executor", "ray", "--gpus", "0.5"), "device 'cuda'"),
    ],
)
def test_mistakes_get_one_line(zoo: Any, tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    code, printed, error = zoo("bench", *words, "--out", tmp_path / "out")
    assert (code, printed, error.count("\n")) == (2, "", 1)
    assert message in error
    assert not (tmp_path / "out").exists()


def test_without_ray_it_is_said_how_to_get_it(zoo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(cluster, "guest", missing)
    code, _, error = zoo("bench", "main", "--executor", "ray", "--out", tmp_path)
    assert (code, error.count("\n")) == (2, 1)
    assert "pip install 'pyro-model-zoo[cluster]'" in error


def test_what_is_asked_for_reaches_the_runner(zoo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def told(suite: Any, out: Path, *words: Any, **named: Any) -> None:
        raise OptionError(f"{suite.name} {words} {named['executor']} {named['gpus']}")

    monkeypatch.setattr("benchmarks.run.run_suite", told)
    words = ("bench", "main", "--executor", "ray", "--device", "cuda", "--gpus", "0.5", "--jobs", "3")
    assert "main ((), None, 3, 'cuda') ray 0.5" in zoo(*words, "--out", tmp_path)[2]
    assert "main ((), None, None, 'cpu') local None" in zoo("bench", "main", "--out", tmp_path)[2]
