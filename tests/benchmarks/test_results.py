"""The results file: cells appended whole, what a crash left half written dropped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.results import append_cell, finished, read_results, repair
from benchmarks.run import run_suite
from tests.benchmarks.tiny import tiny


@pytest.mark.parametrize("cut", [1, 40, 400])
def test_what_a_crash_left_half_written_is_dropped(stub: None, tmp_path: Path, cut: int) -> None:
    run_suite(tiny(), tmp_path, jobs=1)
    path = tmp_path / "results.jsonl"
    whole = path.read_bytes()
    cells = list(dict.fromkeys(r["cell"] for r in read_results(tmp_path)))
    path.write_bytes(whole[:-cut])
    # Without its last newline the last line can still be read; a cut line takes its whole cell with it.
    kept = cells if cut == 1 else cells[:-1]
    assert list(dict.fromkeys(r["cell"] for r in read_results(tmp_path))) == kept
    repair(tmp_path)
    assert path.read_bytes().endswith(b"\n")
    assert all(json.loads(line)["cell"] in kept for line in path.read_text().splitlines())
    run_suite(tiny(), tmp_path, jobs=1)
    assert sorted(dict.fromkeys(r["cell"] for r in read_results(tmp_path))) == sorted(cells)
    assert len(read_results(tmp_path)) == 12


def test_cells_are_appended_whole(tmp_path: Path) -> None:
    append_cell(tmp_path, [{"cell": "a", "started": 1, "metric": m, "value": 1.0} for m in ("x", "y")])
    append_cell(tmp_path, [{"cell": "b", "started": 2, "metric": "x", "value": None, "failed": "it did"}])
    assert [r["records"] for r in read_results(tmp_path)] == [2, 2, 1]
    assert finished(read_results(tmp_path)) == {"a"}
