"""One cell: what it found, or how it failed, in records that say everything."""

from __future__ import annotations

from pathlib import Path

from benchmarks.measuring import failure, run_cell
from benchmarks.results import append_cell, latest, read_results
from benchmarks.suite import Cell, MethodSpec, ProgramSpec


def test_an_unknown_program_fails_its_cell_only(tmp_path: Path) -> None:
    cell = Cell("s", "density", ProgramSpec("no-such-program"), MethodSpec("SVI", "svi"), "digits", "test", (), 0)
    (record,) = run_cell(cell, tmp_path)
    assert record["failed"].startswith("UnknownNameError")


def test_a_cell_that_was_lost_has_a_record_like_any_other(tmp_path: Path) -> None:
    cell = Cell("s", "density", ProgramSpec("no-such-program"), MethodSpec("SVI", "svi"), "digits", "test", (), 0)
    (own,) = run_cell(cell, tmp_path)
    lost = failure(cell, "cuda", "WorkerCrashedError: gone")  # its device is none of this machine
    assert lost.keys() == own.keys()
    assert (lost["failed"], lost["device"], lost["basis"]) == ("WorkerCrashedError: gone", "cuda", own["basis"])
    append_cell(tmp_path, [own])
    append_cell(tmp_path, [lost])
    assert [record["failed"] for record in latest(read_results(tmp_path))] == [lost["failed"]]
