"""The suite `speed`: its arithmetic on contenders that pretend, and that all contenders do the same work."""

from __future__ import annotations

import json
import math
from importlib import import_module
from importlib.util import find_spec

import pyro
import pytest
import torch
from rich.console import Console

from benchmarks import cli
from benchmarks.report import document
from benchmarks.speed import report as speed_report
from benchmarks.speed import run as speed
from benchmarks.speed.contender import (
    NUMPYRO,
    NUMPYRO_CALLS,
    PYRO,
    TORCH_EAGER,
    ZOO_COMPILED,
    ZOO_EAGER,
    Contender,
    Unavailable,
)
from benchmarks.speed.run import run_speed
from benchmarks.speed.suite import DUELS, SWEEPS, WORKLOADS, Duel, chosen
from benchmarks.speed.timing import Setting, measure, spread, steps_to_target, time_to_target
from zoo.errors import CheckpointError, OptionError, UnknownNameError

# The harness, by a clock that only the contenders move.


class World:
    """A clock, and contenders whose steps take a known time that grows from call to call by `drift`."""

    def __init__(self, drift: float = 1.0):
        self.now, self.drift, self.pace, self.calls = 0.0, drift, 1.0, []

    def clock(self) -> float:
        return self.now

    def contender(self, name: str, seconds: float, compile_seconds: float = 0.0) -> Contender:
        def prepare():
            self.now += compile_seconds
            steps = 0

            def advance(n: int) -> float:
                nonlocal steps
                self.calls.append((name, n))
                self.now += n * seconds * self.pace
                self.pace *= self.drift
                steps += n
                return 100.0 / steps

            return advance

        return Contender(name, prepare)


def test_ratios_are_taken_within_rounds():
    world = World()
    three = [world.contender(ZOO_EAGER, 0.01), world.contender(PYRO, 0.04), world.contender(TORCH_EAGER, 0.02)]
    found = measure(three, Setting(rounds=5, block_seconds=0.3), clock=world.clock)["contenders"]
    assert found[ZOO_EAGER]["per_step"]["median"] == pytest.approx(0.01)
    assert found[ZOO_EAGER]["over_pyro"]["median"] == pytest.approx(4)
    assert found[ZOO_EAGER]["over_best_peer"]["median"] == pytest.approx(2)
    assert found[PYRO]["over_best_peer"]["median"] == pytest.approx(0.5)
    assert found[TORCH_EAGER]["over_best_peer"]["median"] == pytest.approx(1)


def test_a_machine_that_slows_down_moves_times_but_hardly_ratios():
    world = World(drift=1.02)
    two = [world.contender(ZOO_EAGER, 0.01), world.contender(PYRO, 0.04)]
    found = measure(two, Setting(rounds=9, block_seconds=0.1), clock=world.clock)["contenders"]
    times = found[ZOO_EAGER]["seconds"]
    assert times[-1] > 1.3 * times[0]
    assert found[ZOO_EAGER]["over_pyro"]["median"] == pytest.approx(4, rel=0.03)
    # The order rotates: in some rounds ours came first, in some Pyro, and the drift shows on both sides of 4.
    ratios = [a / b for a, b in zip(found[PYRO]["seconds"], times, strict=True)]
    assert min(ratios) < 4 < max(ratios)


def test_blocks_last_long_enough_and_take_turns():
    world = World()
    two = [world.contender("slow", 0.05), world.contender("fast", 0.0001)]
    found = measure(two, Setting(rounds=3, block_seconds=0.3), clock=world.clock)["contenders"]
    for row, seconds in ((found["slow"], 0.05), (found["fast"], 0.0001)):
        assert 0.3 <= row["block"] * seconds < 1.0
    assert [name for name, _ in world.calls[-6:]] == ["slow", "fast", "fast", "slow", "slow", "fast"]


def test_compiling_is_apart_and_who_fails_is_left_out():
    def broken():
        raise RuntimeError("no compiler here")

    world = World()
    contenders = [
        world.contender(PYRO, 0.01, compile_seconds=7.0),
        Contender("broken", broken),
        Contender("absent", broken, absent="pip install it"),
    ]
    found = measure(contenders, Setting(rounds=1), clock=world.clock)
    assert found["contenders"][PYRO]["prepare_seconds"] == pytest.approx(7.02)
    assert found["contenders"][PYRO]["per_step"]["median"] == pytest.approx(0.01)
    assert found["absent"] == {"broken": "failed: RuntimeError: no compiler here", "absent": "pip install it"}


def test_steps_to_a_target():
    advance = World().contender("a", 0.01).prepare()
    assert steps_to_target(advance, 2.5, chunk=10, most=1000) == (40, True)
    assert steps_to_target(advance, 0.0, chunk=10, most=50) == (50, False)


def test_time_to_the_target_of_our_eager_fit():
    world = World()
    two = [world.contender(ZOO_EAGER, 0.01, 3.0), world.contender(PYRO, 0.02)]
    found = measure(two, Setting(rounds=1), clock=world.clock)["contenders"]
    target = time_to_target(two, found, 100, lambda note: None)
    assert target == {"loss": 1.0, "steps": 100, "chunk": 5}
    assert found[PYRO]["target"] == pytest.approx(
        {"steps": 100, "reached": True, "seconds": 2.0, "seconds_with_prepare": 2.04}
    )
    assert found[ZOO_EAGER]["target"]["seconds_with_prepare"] == pytest.approx(4.02)


def test_spread_is_median_and_quartiles():
    assert spread([5.0, 1.0, 2.0, 4.0, 3.0]) == {"median": 3.0, "low": 2.0, "high": 4.0}


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


def test_no_records_no_report(tmp_path):
    (tmp_path / "speed").mkdir()
    with pytest.raises(CheckpointError, match="no results of the suite speed"):
        speed_report.build(tmp_path)
    (tmp_path / "speed" / "eight-schools-cpu.json").write_text("{")
    with pytest.raises(CheckpointError, match="damaged"):
        speed_report.build(tmp_path)


def test_every_workload_of_a_sweep_exists():
    for sweep in SWEEPS.values():
        assert callable(import_module(f"benchmarks.speed.workloads.{sweep.module}").work)
        assert [sweep.workload(v).options[sweep.over] for v in sweep.values] == list(sweep.values)


# The same work. Full batches, so that no choice of rows differs.

SMALL = {
    "eight-schools": {},
    "logistic-10k": {"n": 200, "d": 7, "batch_size": 200},
    "mixture": {"n": 300, "d": 4, "k": 3, "batch_size": 300},
    "hmm-chorales": {"k": 4, "batch_size": 224},
    "vae-128": {"rows": 64, "batch_size": 64},
    "vae-conv": {"rows": 32, "batch_size": 32, "network": "conv"},
}
EXACT = ("mixture", "hmm-chorales")
"""Workloads without noise."""


@pytest.fixture
def float32():
    torch.set_default_dtype(torch.float32)
    yield
    pyro.clear_param_store()  # the contender that is plain Pyro keeps its parameters there


def build(name: str, **options):
    module = import_module(f"benchmarks.speed.workloads.{WORKLOADS[name].module}")
    try:
        job = module.work(**SMALL[name], **options)
    except Unavailable as error:
        pytest.skip(str(error))
    return {contender.name: contender for contender in module.contenders(job)}


def losses(contender: Contender, steps: int, same_noise: bool = True) -> list[float]:
    """Losses of single steps, the noise from torch's generator in a known state: the same in every step, or not."""
    advance, found = contender.prepare(), []
    for step in range(steps):
        torch.manual_seed(1 if same_noise else 1 + step)
        found.append(advance(1))
    return found


def test_every_workload_is_tested():
    assert {WORKLOADS[name].module for name in SMALL} == {w.module for w in WORKLOADS.values()}


@pytest.mark.parametrize("name", SMALL)
def test_ours_pyro_and_pytorch_train_alike_under_the_same_noise(name, float32):
    """The losses of five steps of training: equal losses, gradients, optimizers and parametrisations."""
    contenders = build(name)
    ours, theirs, by_hand = (losses(contenders[who], 5) for who in (ZOO_EAGER, PYRO, TORCH_EAGER))
    assert all(math.isfinite(loss) for loss in ours)
    assert abs(ours[-1] / ours[0] - 1) > 5e-3  # five steps lead somewhere
    # Sums of float32 in other orders; Adam's normalised steps carry what that does to small gradients.
    assert theirs == pytest.approx(ours, rel=2e-4)
    assert by_hand == pytest.approx(ours, rel=2e-4)


@pytest.mark.skipif(find_spec("numpyro") is None, reason="NumPyro is not installed (extra `peers`)")
@pytest.mark.parametrize("name", SMALL)
def test_numpyro_has_the_same_loss(name, float32):
    """At the starting point (with a learning rate of nearly nothing): to rounding, or within the Monte Carlo error."""
    contenders = build(name, lr=1e-12)
    by_hand, fused, calls = (contenders[who] for who in (TORCH_EAGER, NUMPYRO, NUMPYRO_CALLS))
    if name in EXACT:
        want = losses(by_hand, 1)[0]
        assert losses(fused, 1)[0] == pytest.approx(want, rel=1e-4)
        assert losses(calls, 1)[0] == pytest.approx(want, rel=1e-4)
        return
    draws = {"vae-conv": 20, "logistic-10k": 1000}.get(name, 200)
    want = torch.tensor(losses(by_hand, draws, same_noise=False)).double()
    # Both means have the spread of `want`; five standard errors fail once in a million.
    error = float(want.std()) * math.sqrt(2 / draws)
    assert error < 0.05 * abs(float(want.mean()))
    # XLA is slow at convolutions inside a loop on a CPU.
    theirs = calls if name == "vae-conv" else fused
    assert theirs.prepare()(draws) == pytest.approx(float(want.mean()), abs=5 * error)


@pytest.mark.slow
# torch's compiler warns of its own parts.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", SMALL)
def test_our_compiled_step_has_the_same_loss(name, float32):
    """As NumPyro's: at the starting point, to rounding or within the Monte Carlo error. Compiles for seconds each."""
    contenders = build(name, lr=1e-12)
    draws = 1 if name in EXACT else {"logistic-10k": 1000}.get(name, 200)
    want = torch.tensor(losses(contenders[ZOO_EAGER], draws, same_noise=False)).double()
    advance = contenders[ZOO_COMPILED].prepare()
    advance(2)  # the first step is Python's, the second compiles
    tolerance = {"rel": 1e-4} if name in EXACT else {"abs": 5 * float(want.std()) * math.sqrt(2 / draws)}
    assert advance(draws) == pytest.approx(float(want.mean()), **tolerance)


def test_missing_data_skip_a_workload(monkeypatch):
    from benchmarks.speed.workloads import chorales, vae

    monkeypatch.setattr(chorales.sources, "local", lambda file: None)
    with pytest.raises(Unavailable, match="ZOO_DATA"):
        chorales.work()
    assert vae.work(rows=256).facts["data"] == "random pixels"


def test_minibatches_are_rows_without_replacement():
    from benchmarks.speed.workloads import logistic

    job = logistic.work(n=100, d=2, batch_size=30)
    batch = job.batches()
    rows = torch.cat([batch().context for _ in range(3)])
    assert rows.shape == (90, 2)
    assert len(rows.unique(dim=0)) == 90


@pytest.mark.slow
def test_a_fresh_process_measures_a_workload(tmp_path):
    """The whole of it, PyTorch compiled and NumPyro included."""
    run_speed(tmp_path, only="eight-schools", quick=True, threads=1)
    record = json.loads((tmp_path / "speed" / "eight-schools-cpu.json").read_text())
    assert {ZOO_EAGER, PYRO, TORCH_EAGER} <= set(record["contenders"])
    assert not any(why.startswith("failed") for why in record["absent"].values())
