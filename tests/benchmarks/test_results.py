"""The results file: cells appended whole, what a crash left half written dropped."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from benchmarks.results import append_cell, declared, finished, load, read_results, repair
from benchmarks.run import run_suite
from tests.benchmarks.report.made_up import record
from tests.benchmarks.tiny import tiny
from zoo.errors import CheckpointError


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
    append_cell(tmp_path, [record(m, 1.0, cell="a", started=1) for m in ("x", "y")])
    append_cell(tmp_path, [record("x", None, cell="b", started=2, failed="it did")])
    assert [r["records"] for r in read_results(tmp_path)] == [2, 2, 1]
    assert finished(read_results(tmp_path), {}) == {"a"}
    assert finished(read_results(tmp_path), {"a": {"code": "another"}}) == set()


def without(name: str) -> str:
    return json.dumps({key: value for key, value in {**record("x", 1.0), "records": 1}.items() if key != name})


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"[]", "JSON list"),
        (b"3", "JSON int"),
        (b"null", "JSON NoneType"),
        (b"{}", "no suite, kind, program"),
        (without("cell").encode(), "no cell, or of another kind"),
        (without("records").encode(), "no records"),
        (without("value").encode(), "no value"),
        (json.dumps({**record("x", 1.0), "records": "1"}).encode(), "no records, or of another kind"),
        (json.dumps({**record("x", 1.0), "records": 1, "cell": []}).encode(), "no cell, or of another kind"),
        (json.dumps({**record("x", float("nan")), "records": 1}).encode(), "NaN is not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b'{"suite": ', "not JSON"),
    ],
)
@pytest.mark.parametrize("last", [False, True])
def test_a_line_that_no_crash_explains_is_named_and_stays(tmp_path: Path, line: bytes, says: str, last: bool) -> None:
    append_cell(tmp_path, [record("x", 1.0, cell="a")])
    path = tmp_path / "results.jsonl"
    whole = path.read_bytes()
    damaged = whole + line + b"\n" if last else line + b"\n" + whole
    path.write_bytes(damaged)
    if last and says == "not JSON":  # what a crash leaves
        assert [r["cell"] for r in read_results(tmp_path)] == ["a"]
        return
    for reader in (read_results, repair):
        with pytest.raises(CheckpointError, match=f"line {1 + last}: .*{says}.*Delete the line"):
            reader(tmp_path)
    assert path.read_bytes() == damaged


@pytest.mark.parametrize("kind", ["pipe", "folder", "link"])
def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "results.jsonl"
    {"pipe": os.mkfifo, "folder": os.mkdir, "link": lambda p: os.symlink(tmp_path / "nowhere", p)}[kind](path)
    for reader in (read_results, repair):
        with pytest.raises(CheckpointError, match=r"results\.jsonl"):
            reader(tmp_path)


def test_a_record_that_could_not_be_read_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no suite"):
        append_cell(tmp_path, [{"cell": "a", "started": 1, "metric": "x", "value": 1.0}])
    assert not list(tmp_path.iterdir())


def test_results_are_a_data_frame(stub: None, tmp_path: Path) -> None:
    run_suite(tiny(("svi", "sad")), tmp_path, jobs=1)
    frame = load(tmp_path).frame()
    assert len(frame) == 2 * 2 * 3 + 2 * (3 + 1)  # metrics of svi; of sad, which fails for one seed of two
    elbo = frame[(frame.metric == "elbo") & (frame.method == "svi")].set_index(["program", "seed"]).value
    assert elbo.to_dict() == {("coin", 0): 4.0, ("coin", 1): 5.0, ("hmm", 0): 3.0, ("hmm", 1): 4.0}
    assert frame[frame.metric == "c2st"].value.isna().all()
    assert set(frame.failed.dropna()) == {"ValueError: sad on purpose"}
    assert frame.groupby("program").value.max()["coin"] == 5.0
    # Of a cell that was tried again only the last attempt counts.
    append_cell(tmp_path, [record("elbo", 9.0, cell=read_results(tmp_path)[0]["cell"], started=10**30)])
    assert len(load(tmp_path).frame()) == len(frame) - 2


def test_a_folder_says_what_its_suites_are(stub: None, tmp_path: Path) -> None:
    run_suite(tiny(), tmp_path, jobs=1)
    assert declared(tmp_path) == {"tiny": {"title": "Tiny", "question": "Does it run?", "files": {}}}
    (tmp_path / "suites.json").write_text('{"tiny": 3}')
    with pytest.raises(CheckpointError, match="damaged or none of ours"):
        declared(tmp_path)
    assert declared(tmp_path / "nowhere") == {}
