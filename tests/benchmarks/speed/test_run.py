"""The suite `speed`: its arithmetic on contenders that pretend, and that all contenders do the same work."""

from __future__ import annotations

import json

import pytest
from rich.console import Console

from benchmarks import cli
from benchmarks.report import document
from benchmarks.speed import report as speed_report
from benchmarks.speed import run as speed
from benchmarks.speed.contender import (
    NUMPYRO,
    PYRO,
    TORCH_EAGER,
    ZOO_EAGER,
    Contender,
    Unavailable,
)
from benchmarks.speed.run import run_speed
from benchmarks.speed.suite import DUELS, SWEEPS, WORKLOADS, Duel, chosen
from benchmarks.speed.timing import Setting, measure, spread, time_to_target
from tests.benchmarks.speed.world import World
from zoo.errors import OptionError, UnknownNameError

# The harness, by a clock that only the contenders move.


# Names, options, records.


def test_unknown_names_and_useless_options_are_refused(tmp_path, capsys):
    assert chosen(None) == [*WORKLOADS, *DUELS, *SWEEPS]
    assert chosen("vae-128, eight-schools") == ["eight-schools", "vae-128"]
    with pytest.raises(UnknownNameError, match="eight-schools"):
        run_speed(tmp_path, only="eight-school")
    with pytest.raises(OptionError, match="threads must be from 1"):
        run_speed(tmp_path, threads=0)
    for arguments in (["speed", "--seeds", "2"], ["main", "--quick"]):
        with pytest.raises(SystemExit):
            cli.main(["bench", *arguments, "--out", str(tmp_path)])
        assert "does nothing for the suite" in capsys.readouterr().err


HEADER = {
    "device": "cpu", "date": "today", "load": None, "versions": {"torch": "2"}, "hardware": {"cpu": "fast", "cores": 1},
    "setting": {"threads": 1, "rounds": 3, "block_seconds": 0.1, "seed": 0},
}  # fmt: skip


def written(folder):
    """The report in Markdown; the page beside it has the same tables."""
    html = document.write(speed_report.build(folder), folder).read_text()
    text = (folder / "report.md").read_text()
    assert html.count("<table>") == text.count("\n|---")
    return text


def test_a_run_writes_records_and_a_report(tmp_path, monkeypatch):
    """In this process, by contenders that pretend; what was measured is not measured again."""
    seen = []

    def here(task, cache, setting, arguments, report):
        seen.append(task)
        workload = arguments[0]
        if workload.name == "hmm-chorales":
            return "unavailable", "the chorales are not on this machine"
        if task == "memory":
            return "result", {"memory_mib": 12.0}
        world = World()
        contenders = [world.contender(ZOO_EAGER, 0.01), world.contender(PYRO, 0.02)]
        found = measure([*contenders, Contender(NUMPYRO, list, absent="pip install it")], setting, clock=world.clock)
        time_to_target(contenders, found["contenders"], 20, report)
        return "result", {**found, "work": {"examples": 8}, "how": {PYRO: "plainly"}, "target": None}

    monkeypatch.setattr(speed, "_fresh", here)
    run_speed(tmp_path, only="eight-schools,hmm-chorales,growth-k", threads=1)
    assert seen == ["workload", "memory", "memory", "workload", *["workload"] * len(SWEEPS["growth-k"].values)]
    record = json.loads((tmp_path / "speed" / "eight-schools-cpu.json").read_text())
    assert record["hardware"]["threads"] == 1
    assert {"numpyro", "jax", "torch", "python"} <= set(record["versions"])
    assert record["contenders"][PYRO]["memory_mib"] == 12.0
    seen.clear()
    run_speed(tmp_path, only="eight-schools", threads=1)
    assert seen == []
    run_speed(tmp_path, only="eight-schools", quick=True, threads=1)
    assert seen == ["workload"]

    page = written(tmp_path)
    assert "| zoo, eager | 10 (10 to 10) | 2 (2 to 2) |" in page
    assert "Left out, NumPyro, fused loop: pip install it" in page
    assert "Was not measured: the chorales are not on this machine." in page
    assert "Where the CPU is the better choice" not in page
    for picture in ("steps-cpu.png", "growth-cpu.png"):
        assert f"plots/{picture}" in page
        assert (tmp_path / "plots" / picture).stat().st_size > 1000
    console = Console(width=80, record=True)
    document.print_report(speed_report.build(tmp_path), console)
    shown = console.export_text()
    assert "zoo, eager" in shown
    assert "not measured: the chorales are not on this machine" in " ".join(shown.split())

    # With both devices, the page says where the CPU is the better choice.
    on_gpu = {**record, "device": "cuda"}
    on_gpu["contenders"] = {ZOO_EAGER: {**record["contenders"][ZOO_EAGER], "per_step": spread([0.05])}}
    (tmp_path / "speed" / "eight-schools-cuda.json").write_text(json.dumps(on_gpu))
    page = written(tmp_path)
    assert "| Eight schools | 10 | 50 | the CPU |" in page


def test_closed_forms_beside_other_libraries(tmp_path):
    pytest.importorskip("hmmlearn")
    duels = (
        Duel("em", "EM", "em", {"full": {"covariance": "full"}}, {"n": 500, "dim": 2, "components": 2}),
        Duel("hmm", "HMM", "hmm", {"b": {"task": "baum-welch"}}, {"sequences": 5, "steps": 7, "states": 2}),
    )
    for duel in duels:
        found = speed.run_duel(duel, Setting.quick(threads=1), lambda note: None)
        assert found["rows"][0]["seconds"]["ours"] > 0
        assert abs(found["rows"][0]["difference"]) < 1e-6
        record = {**HEADER, "kind": "duel", "workload": duel.name, "title": duel.title, **found}
        (tmp_path / "speed").mkdir(exist_ok=True)
        (tmp_path / "speed" / f"{duel.name}-cpu.json").write_text(json.dumps(record))
    page = written(tmp_path)
    assert "x faster than theirs" in page
    with pytest.raises(Unavailable, match="CPU alone"):
        speed.run_duel(duels[0], Setting(device="cuda"), lambda note: None)


def test_each_problem_of_a_duel_runs_by_itself(monkeypatch):
    """What one cannot do costs no other its row; the page has an empty cell where a side took no part."""
    duel = Duel("nuts", "NUTS", "nuts", {"a": {"model": "hmm"}, "b": {}, "c": {}})

    def fresh(task, cache, setting, arguments, report):
        ((label, options),) = arguments[0].problems.items()
        report("seen")
        if label == "b":
            return "error", "Traceback ...\nMemoryError: no room"
        sides = {"ours": 1.0, "Pyro": 5.0} if label == "a" else {"ours": 2.0}
        row = {"label": label, "problem": options, "seconds": sides, "difference": 0.01}
        return "result", {"rows": [{**row, "ratio": {"median": 2.0, "low": 1.0, "high": 3.0}}]}

    notes = []
    monkeypatch.setattr(speed, "_fresh", fresh)
    found = speed._duel(duel, Setting(), "", notes.append)
    assert [row["label"] for row in found["rows"]] == ["a", "c"]
    assert found["missing"] == ["b: MemoryError: no room"]
    assert notes == ["a: seen", "b: seen", "c: seen"]
    section = speed_report._duel({**HEADER, **found})
    assert [[cell.text for cell in row[:3]] for row in section.tables[0].rows] == [["a", "1", "5"], ["c", "2", ""]]
    assert section.remarks[-1] == "Was not measured: b: MemoryError: no room."
    monkeypatch.setattr(speed, "_fresh", lambda *given: ("unavailable", "no data"))
    assert speed._duel(duel, Setting(), "", notes.append)["skipped"] == "a: no data; b: no data; c: no data"


# The same work. Full batches, so that no choice of rows differs.


@pytest.mark.slow
def test_a_fresh_process_measures_a_workload(tmp_path):
    """The whole of it, PyTorch compiled and NumPyro included."""
    run_speed(tmp_path, only="eight-schools", quick=True, threads=1)
    record = json.loads((tmp_path / "speed" / "eight-schools-cpu.json").read_text())
    assert {ZOO_EAGER, PYRO, TORCH_EAGER} <= set(record["contenders"])
    assert not any(why.startswith("failed") for why in record["absent"].values())
