"""A cell knows its program's code and what its data hold: a changed one is measured anew, and a report marks it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import freshness, run, targets
from benchmarks.freshness import bases, basis, own_files, stale
from benchmarks.results import declared, read_results
from benchmarks.run import run_suite
from benchmarks.suite import Cell, Grid, MethodSpec, ProgramSpec, Suite
from benchmarks.suites import SUITES, get_suite
from benchmarks.targets import trained
from tests.benchmarks.tiny import tiny
from zoo import catalogue

MODEL = """
from zoo.bayes.coin import BetaBernoulli

class Mine(BetaBernoulli):
    one_number = 1
"""


def cell(program: str = "coin", method: str = "svi", dataset: str = "coin", kind: str = "density") -> Cell:
    return Cell("mine", kind, ProgramSpec(program), MethodSpec(method, method), dataset, "test", ("elbo",), seed=0)


def test_the_code_of_program_and_method_counts(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(MODEL)
    before = basis(cell(f"{path}:Mine"))
    assert set(before) == {"code", "data"}
    path.write_text(MODEL + "# said better\n")
    assert basis(cell(f"{path}:Mine")) == before
    path.write_text(MODEL.replace("1", "2"))
    after = basis(cell(f"{path}:Mine"))
    assert after["code"] != before["code"]
    assert after["data"] == before["data"]
    assert basis(cell(method="nuts"))["code"] != basis(cell(method="svi"))["code"]
    assert set(basis(cell("no-such-program"))) == {"data"}


def test_the_content_of_data_counts(tmp_path: Path) -> None:
    path, found = tmp_path / "x.npy", []
    for value in (0.0, 1.0, 0.0):
        np.save(path, np.full(30, value))
        found.append(basis(cell(dataset=str(path)))["data"])
    assert found[0] == found[2] != found[1]
    assert basis(cell(dataset="digits"))["data"] == basis(cell(dataset="digits-binary"))["data"]
    assert basis(cell(dataset="digits"))["data"] != basis(cell(dataset="nltcs"))["data"]


@pytest.mark.parametrize("name", SUITES)
def test_every_cell_of_our_suites_has_a_basis(name: str) -> None:
    for each in get_suite(name).cells(seeds=1):
        is_program = each.program.name in {*catalogue.BUILTIN, *targets.TARGETS, *targets.REFERENCES, *trained.TRAINED}
        assert set(basis(each)) == ({"code", "data"} if is_program else {"data"}), each.name


def test_many_cells_hang_on_what_each_hangs_on() -> None:
    cells = [each for name in ("main", "density") for each in get_suite(name).cells(seeds=2)]
    assert bases(cells) == {each.key: basis(each) for each in cells}


def test_what_has_changed_is_measured_anew(stub: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def changed(cells: list[Cell]) -> dict[str, dict[str, str]]:
        of_coin = {each.key for each in cells if each.program.name == "coin"}
        return {
            key: {**found, **({"code": "another"} if key in of_coin else {})} for key, found in bases(cells).items()
        }

    run_suite(tiny(), tmp_path, jobs=1)
    before = read_results(tmp_path)
    run_suite(tiny(), tmp_path, jobs=1)
    assert read_results(tmp_path) == before
    monkeypatch.setattr(run, "bases", changed)
    run_suite(tiny(), tmp_path, jobs=1)
    again = read_results(tmp_path)[len(before) :]
    assert {r["cell"] for r in again} == {r["cell"] for r in before if r["program"] == "coin"}


def test_a_report_knows_what_is_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = get_suite("main").cells(seeds=1)[:2]
    common = {"suite": "main", "seed": 0, "started": 1, "records": 1}
    records = [{**common, "cell": each.key, "basis": basis(each)} for each in (first, second)]
    assert stale(records) == set()
    records[1] = {**records[1], "basis": {"code": "another", "data": "another"}}
    assert stale(records) == {second.key}
    # A later attempt counts; and of suites that are not ours nothing is known.
    assert stale([*records, {**records[1], "started": 2, "basis": basis(second)}]) == set()
    assert stale([{**records[1], "suite": "somebody's"}]) == set()
    monkeypatch.setattr(freshness, "basis", lambda each: {"code": "a third", "data": "a third"})
    assert stale(records) == {first.key, second.key}
    assert replace(second, seed=7).key not in stale(records)


def test_cells_of_ones_own_suite_are_stale_once_a_file_of_it_has_changed(tmp_path: Path) -> None:
    code, data = tmp_path / "mine.py", tmp_path / "x.npy"
    code.write_text("")
    np.save(data, np.zeros(3))
    grid = Grid("density", (ProgramSpec(f"{code}:Mine"),), (MethodSpec("svi", "svi"),), ("elbo",), (str(data),))
    files = own_files(Suite("mine", "", "", (grid,)))
    assert set(files) == {str(code), str(data)}
    assert own_files(Suite("mine", "", "", (), source=f"{code}:SUITE")) == {str(code): files[str(code)]}
    record = {"suite": "mine", "cell": "mine/1", "seed": 0, "started": 1}
    said = {"mine": {"title": "", "question": "", "files": files}}
    assert stale([record, {**record, "suite": "other", "cell": "other"}], said) == set()
    code.write_text("# 1")
    assert stale([record, {**record, "suite": "other", "cell": "other"}], said) == {"mine/1"}
    code.unlink()  # elsewhere nothing is known of it
    assert stale([record], said) == set()


def test_what_is_noted_of_files_follows_what_was_run(tmp_path: Path) -> None:
    path, out = tmp_path / "mine.py", tmp_path / "out"
    path.write_text(MODEL)
    two = (MethodSpec("exact", "exact"), MethodSpec("exact too", "exact"))
    grid = Grid("density", (ProgramSpec(f"{path}:Mine"),), two, ("log_likelihood",), ("coin",), seeds=1)
    mine = Suite("mine", "Mine", "", (grid,))

    def marked() -> int:
        return len(stale(read_results(out), declared(out)))

    run_suite(mine, out, jobs=1)
    assert marked() == 0
    path.write_text(MODEL + "# said better\n")
    assert marked() == 2
    run_suite(mine, out, select=("exact too",), jobs=1)  # the other cell may still be of the old file
    assert marked() == 2
    run_suite(mine, out, jobs=1)
    assert marked() == 0
