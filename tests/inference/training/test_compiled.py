"""Compiled steps: the same numbers as Python's, the same fits, and a clear notice where that is impossible."""

from __future__ import annotations

import random
import re
import time
import warnings

import pytest
import scipy.stats as stats
import torch

import inference.training.compiled
from inference.checkpoint import CHECKPOINT
from inference.fit import fit_many
from inference.training.compiled import Compiled, CompileNotice, NotStatic, gear, reference
from inference.training.loop import Loop
from tests import processes
from tests.conftest import FAILURE_RATE
from tests.inference.factors import steps_done
from tests.inference.killed import killed_after
from tests.inference.steps import ready
from tests.inference.training.lines import Line, fitted, line_data, numbers
from zoo.datasets import Card, Data, Dataset
from zoo.errors import DivergenceError

# Whole fits, through the loop, with the operations run one by one by TorchScript.


@pytest.fixture
def made(monkeypatch):
    """The gear of each fit that left Python; the C++ compiler is spared."""
    gears = []

    def make(loops, references, gear):
        gears.append(gear)
        return Compiled(loops, references, "scripted")

    monkeypatch.setattr("inference.training.loop.Compiled", make)
    return gears


def test_the_same_loss_in_the_end_as_eagerly(made):
    """Seed by seed, with the same start and minibatches and other noise."""
    given = {"steps": 60, "batch_size": 32, "lr": 0.05}
    compiled = fit_many(Line(), line_data(), "svi", seeds=range(8), compile="always", **given)
    eager = [fitted("never", seed, **given) for seed in range(8)]
    assert len(made) == 1
    with torch.no_grad():
        losses = [
            torch.stack([-found.program.log_prob(line_data()).mean() for found in fits]) for fits in (compiled, eager)
        ]
        start = -Line().log_prob(line_data()).mean()
    differences = losses[0] - losses[1]
    assert bool((differences != 0).all())
    assert stats.ttest_1samp(differences, 0.0).pvalue > FAILURE_RATE
    # Training moves the loss by far more than the ways differ.
    assert start - losses[1].max() > 10 * differences.abs().max()


@pytest.mark.parametrize("kill_at", [1, 7])
def test_resumed_anywhere_on_the_way(made, tmp_path, kill_at):
    """Killed right after a checkpoint, the first of which is before the step is compiled."""
    with killed_after(Loop, "save", kill_at):
        fitted("always", steps=40, checkpoint_seconds=0.0, out=tmp_path)
    assert kill_at > 1 or steps_done(tmp_path / CHECKPOINT) == 1
    resumed, straight = fitted("always", steps=40, out=tmp_path), fitted("always", steps=40)
    assert numbers(resumed) == numbers(straight)


def test_validation_and_early_stopping(made):
    """The answer is the best state that was seen, and both ways see the same: the exact bound draws no noise."""
    train, valid = line_data(60)[:20], line_data(60)[20:]
    card = Card("test", "made up", (3,), "real", {"train": 20, "valid": 40, "test": 1}, "here", "none")
    data = Dataset(card, Data(train), Data(valid), Data(valid[:1]))
    given = {"elbo": "exact", "lr": 0.05, "decay": "constant", "validate_every": 20, "patience": 3}
    found, eager = (fitted(way, data=data, steps=4000, batch_size=8, **given) for way in ("always", "never"))
    assert len(made) == 1
    steps, losses = found.history.series("validation_loss")
    assert steps[-1] < 4000
    assert -found.program.log_prob(valid).mean().item() == pytest.approx(min(losses), abs=1e-12)
    assert steps == eager.history.series("validation_loss")[0]
    assert losses == pytest.approx(eager.history.series("validation_loss")[1], rel=1e-8)


@pytest.mark.filterwarnings("ignore:Encountered NaN")
def test_divergence_is_noticed_and_says_what_to_do(made):
    with pytest.raises(DivergenceError, match=r"step \d+ of 300.*'.*'.*learning rate"):
        fitted("always", steps=300, lr=3.0, optimizer="sgd", decay="constant")
    assert len(made) == 1


# The rule of 'auto'.


@pytest.mark.parametrize("clock", ["as it is", "mad"])
def test_auto_traces_a_run_by_its_length_alone(monkeypatch, made, clock):
    if clock == "mad":
        monkeypatch.setattr(time, "perf_counter", lambda: random.random() * 1e6)
    monkeypatch.setattr(inference.training.compiled, "TRACED_FROM", 30)
    monkeypatch.setattr(inference.training.compiled, "COMPILED_FROM", 10**12)
    short, eager = fitted("auto", steps=29), fitted("never", steps=29)
    assert not made
    assert numbers(short) == numbers(eager)
    long, traced = fitted("auto", steps=30), fitted("traced", steps=30)
    assert made == ["scripted"] * 2
    assert numbers(long) == numbers(traced)


def test_auto_compiles_a_longer_one(monkeypatch, made):
    calls = reference(ready(Line(), Data(line_data()), batch_size=32)).calls
    monkeypatch.setattr(inference.training.compiled, "STEPS_PER_CALL", 0)
    monkeypatch.setattr(inference.training.compiled, "COMPILED_FROM", 30 * calls)
    long, always = fitted("auto", steps=30), fitted("always", steps=30)
    assert made == ["library"] * 2
    assert numbers(long) == numbers(always)


@pytest.mark.parametrize(
    ("steps", "calls", "expected"),
    [
        (999, 1, "eager"),
        (999, 10_000, "eager"),
        (1000, 300, "scripted"),
        (22_000, 300, "scripted"),  # 20 x 300 + 5,000,000 / 300 = 22,667
        (23_000, 300, "library"),
        (60_000, 3000, "scripted"),  # 60,000 + 1,667
        (62_000, 3000, "library"),
        (5_000_020, 1, "library"),
        (5_000_019, 1, "scripted"),
    ],
)
def test_the_rule_weighs_steps_against_the_calls_in_them(steps, calls, expected):
    assert gear(steps, calls) == expected


# What cannot be compiled goes on eagerly, and says why.


def notices(caught) -> list[str]:
    return [str(w.message) for w in caught if issubclass(w.category, CompileNotice)]


@pytest.mark.parametrize(
    ("twist", "says"),
    [
        ("branch", "looks at the value of a tensor, .*lines.py, line"),
        ("item", "looks at the value of a tensor, .*lines.py, line"),
        ("poisson", "poisson"),
    ],
)
def test_a_step_that_is_not_static_goes_on_as_if_it_had_not_been_asked(twist, says):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = fitted("always", twist=twist, steps=60)
    (notice,) = notices(caught)
    assert re.search(f"goes on eagerly: .*{says}", notice), notice
    assert numbers(found) == numbers(fitted("never", twist=twist, steps=60))


@pytest.mark.parametrize(
    ("twist", "says"),
    [
        ("counter", "does not do the same every time"),
        ("random", "does not do the same every time"),
        ("number of draws", "another number of random numbers"),
    ],
)
def test_a_step_that_changes_from_call_to_call_is_caught(monkeypatch, twist, says):
    """By two steps in Python. What such a step keeps for itself has moved on by then, so fits are not compared."""
    random.seed(1)
    compiled = Counter()
    monkeypatch.setattr(
        "inference.training.loop.Compiled", lambda loops, references, _: Compiled(loops, references, "scripted")
    )
    monkeypatch.setattr(Compiled, "advance", compiled)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = fitted("always", twist=twist, steps=60)
    (notice,) = notices(caught)
    assert says in notice
    assert compiled.calls == 0
    assert len(found.history.rows) > 10


class Counter:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, *args):
        self.calls += 1
        raise AssertionError("a step that was found out went on compiled")


WITHOUT_A_COMPILER = """
import os, sys, torch
from torch._inductor import config
config.cpp.cxx, os.environ["XDG_CACHE_HOME"] = (None, "/no/such/compiler"), sys.argv[1]
from tests.inference.training.lines import fitted, numbers
torch.set_default_dtype(torch.float64)
assert numbers(fitted("always", steps=60)) == numbers(fitted("never", steps=60))
"""


def test_without_a_compiler_fits_go_on_eagerly(tmp_path):
    """In a process of its own: what inductor has found out about the machine it does not ask again."""
    found = processes.run(WITHOUT_A_COMPILER, [str(tmp_path)], scratch=tmp_path)
    assert found.returncode == 0, found.stderr
    assert found.stderr.count("CompileNotice: svi Line goes on eagerly: it cannot be compiled on this machine") == 1
    assert "C++ compiler" in found.stderr


def test_a_step_that_is_compiled_gives_no_notice(made):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted("always", steps=20)
    assert len(made) == 1


def test_the_check_finds_wrong_code_out(monkeypatch):
    """Were one operation compiled wrongly, its numbers would not be used."""
    right = inference.training.compiled.scripted_loop

    def wrong(*args):
        run = right(*args)
        return lambda *given: [v * 1.001 if v.is_floating_point() else v for v in run(*given)]

    monkeypatch.setattr(inference.training.compiled, "scripted_loop", wrong)
    loop = ready(Line(), Data(line_data()), batch_size=32)
    with pytest.raises(NotStatic, match="where Python gives"):
        Compiled([loop], [reference(loop)], gear="scripted")


# The same on the GPU, where a CUDA graph is replayed.
