"""The runner: resumes after SIGKILL without duplicates, writes failures down, drops what a crash left half written."""

from __future__ import annotations

import signal
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path

import pytest

from benchmarks import suite as suite_module
from benchmarks.results import latest, read_results
from benchmarks.run import run_suite
from benchmarks.suites import get_suite
from tests import processes
from tests.benchmarks.tiny import tiny
from zoo import folders
from zoo.errors import CheckpointError, OptionError, UnknownNameError

ROOT = Path(__file__).parents[2]


def test_every_record_says_what_was_measured_on_what(stub: None, tmp_path: Path) -> None:
    run_suite(tiny(), tmp_path, jobs=1)
    records = read_results(tmp_path)
    assert len(records) == 2 * 2 * 3
    wanted = {
        "suite", "program", "method", "dataset", "split", "metric", "value", "standard_error", "seed", "seconds",
        "device", "versions", "hardware", "budget", "how",
    }  # fmt: skip
    assert all(wanted <= set(record) for record in records)
    assert {"torch", "pyro-ppl", "python"} <= set(records[0]["versions"])
    assert records[0]["hardware"]["cpu"]
    assert records[0]["value"] == 4.0
    assert records[0]["standard_error"] == 0.1
    # Strict JSON has no infinity: the value is empty and the reason says so.
    infinite = next(r for r in records if r["metric"] == "k_hat")
    assert infinite["value"] is None
    assert infinite["how"].startswith("not finite (inf)")


def test_a_failed_cell_is_written_down_and_the_run_goes_on(stub: None, tmp_path: Path) -> None:
    run_suite(tiny(("sad", "svi"), seeds=3), tmp_path, jobs=1)
    records = read_results(tmp_path)
    failed = [r for r in records if r.get("failed")]
    assert {(r["program"], r["seed"]) for r in failed} == {("coin", 1), ("hmm", 1)}
    assert all(r["failed"] == "ValueError: sad on purpose" and r["value"] is None for r in failed)
    assert len({r["cell"] for r in records}) == 2 * 2 * 3


def test_a_second_run_does_only_what_is_missing(stub: None, tmp_path: Path) -> None:
    run_suite(tiny(("sad", "svi")), tmp_path, select=("coin",), jobs=1)
    before = read_results(tmp_path)
    run_suite(tiny(("sad", "svi")), tmp_path, jobs=1)
    after = read_results(tmp_path)
    assert after[: len(before)] == before
    again = {r["cell"] for r in after[len(before) :]}
    # What was done is not done again, but the failed cell is tried again; its last attempt counts.
    assert again == {r["cell"] for r in after if r["program"] == "hmm"} | {r["cell"] for r in before if r.get("failed")}
    assert len([r for r in latest(after) if r.get("failed")]) == 2


def test_mistakes_are_named(stub: None, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="matches nothing-like-it"):
        run_suite(tiny(), tmp_path, select=("nothing-like-it",))
    with pytest.raises(OptionError, match="seeds must be at least 1"):
        run_suite(tiny(), tmp_path, seeds=0)
    with pytest.raises(OptionError, match="jobs must be at least 1"):
        run_suite(tiny(), tmp_path, jobs=0)
    with pytest.raises(UnknownNameError, match=r"executor 'rya'\. Did you mean 'ray'"):
        run_suite(tiny(), tmp_path, executor="rya")
    with pytest.raises(OptionError, match="gpus says what each cell of a cluster takes"):
        run_suite(tiny(), tmp_path, gpus=1)
    with pytest.raises(UnknownNameError, match="Did you mean 'posterior'"):
        get_suite("posteriors")
    with pytest.raises(CheckpointError, match="does not exist"):
        read_results(tmp_path / "nowhere")


def test_a_folder_takes_one_run_at_a_time(stub: None, tmp_path: Path) -> None:
    """Two at once would do all cells twice. Here the other is a thread; the lock makes no difference between them."""
    with folders.held(tmp_path), ThreadPoolExecutor(1) as pool, pytest.raises(CheckpointError, match="in use"):
        pool.submit(run_suite, tiny(), tmp_path, jobs=1).result()
    assert not (tmp_path / "results.jsonl").exists()
    run_suite(tiny(), tmp_path, jobs=1)
    assert len(read_results(tmp_path)) == 12


def test_a_folder_that_cannot_be_written_is_refused(stub: None, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="Cannot write into the folder"):
        run_suite(tiny(), tmp_path / "file", jobs=1)


SLOW_SUITE = textwrap.dedent(
    """
    import sys, time
    from multiprocessing import get_context
    import benchmarks.run
    from benchmarks.metrics import Measurement
    from benchmarks.run import run_suite
    from benchmarks.suite import KINDS, Grid, MethodSpec, ProgramSpec, Suite

    def measure(cell, artifacts, device):
        time.sleep(0.15)
        value = float(cell.seed) + len(cell.method.label)
        return [Measurement("elbo", value), Measurement("k_hat", 2 * value)]

    KINDS["posterior"] = f"{__name__}:measure"

    methods = tuple(MethodSpec("m" * i, "svi") for i in (1, 2, 3))
    SUITE = Suite("slow", "", "", (Grid("posterior", (ProgramSpec("coin"),), methods, ("elbo", "k_hat"), seeds=4),))

    if __name__ == "__main__":
        # Imports of a fresh worker would take longer than all cells.
        benchmarks.run.get_context = lambda method: get_context("fork")
        run_suite(SUITE, sys.argv[1], jobs=int(sys.argv[2]))
    """
)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_run_killed_by_sigkill_continues_and_loses_at_most_the_cells_in_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int
) -> None:
    script = tmp_path / "slow_suite.py"
    script.write_text(SLOW_SUITE)
    killed = processes.start(script, [str(tmp_path / "killed"), str(jobs)])
    path = tmp_path / "killed" / "results.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (path.exists() and len(path.read_text().splitlines()) >= 6):
        time.sleep(0.02)
    killed.kill()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    before = read_results(tmp_path / "killed")
    assert 6 <= len(before) < 24

    # The uninterrupted run, here, and the resumed one.
    monkeypatch.setitem(suite_module.KINDS, "posterior", "slow_suite:measure")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "slow_suite", raising=False)
    run_suite(import_module("slow_suite").SUITE, tmp_path / "straight", jobs=1)
    done = processes.run(script, [str(tmp_path / "killed"), str(jobs)], scratch=tmp_path / "printed")
    assert done.returncode == 0, done.stderr
    resumed, straight = read_results(tmp_path / "killed"), read_results(tmp_path / "straight")
    assert resumed[: len(before)] == before  # what was written stays

    def numbers(records: list[dict[str, object]]) -> list[tuple[object, ...]]:
        return sorted((r["cell"], r["metric"], r["value"]) for r in records)

    assert numbers(resumed) == numbers(straight)
    assert len({(r["cell"], r["metric"]) for r in resumed}) == len(resumed) == 24
