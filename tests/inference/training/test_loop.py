"""The loop: how long it runs, when it stops, what it leaves when it is killed."""

from __future__ import annotations

import itertools
import time

import pytest
import torch
from rich.progress import BarColumn

from inference import SVI, fit
from inference.training.loop import Schedule, progress_bar
from tests import processes
from tests.inference.factors import data, ppca, same, state, steps_done


def test_early_stopping_restores_the_best_state():
    program = ppca()
    x = data(40)
    method = SVI(steps=4000, lr=0.05, decay="constant", elbo="exact", validate_every=20, patience=3)
    found = fit(program, _dataset(x[:20], x[20:]), method)
    steps, losses = found.history.series("validation_loss")
    assert steps[-1] < 4000
    assert -program.log_prob(x[20:]).mean().item() == pytest.approx(min(losses), abs=1e-12)


@pytest.mark.parametrize(("kl_anneal", "end"), [(0.0, 20), (0.5, 60)])
def test_nothing_stops_while_the_weight_of_the_kl_grows(monkeypatch, kl_anneal, end):
    """The bound on validation data falls from the first look on, as it may while codes come into use."""
    looks = itertools.count()
    monkeypatch.setattr("inference.methods.svi.evaluate_objective", lambda *_: float(next(looks)))
    method = SVI(steps=100, elbo="mean_field", validate_every=10, patience=1, kl_anneal=kl_anneal)
    found = fit(ppca(), _dataset(data(20), data(20)), method)
    assert found.history.series("validation_loss")[0][-1] == end


def _dataset(train: torch.Tensor, valid: torch.Tensor):
    from zoo.datasets import Card, Data, Dataset

    card = Card("test", "made up", (6,), "real", {"train": len(train), "valid": len(valid), "test": 1}, "here", "none")
    return Dataset(card, Data(train), Data(valid), Data(valid[:1]))


def test_the_bar_tells_how_long_a_step_has_been_in_preparation(monkeypatch):
    """While nothing is done, as when a compiler runs: the time that has passed is all that moves."""
    with progress_bar(True) as bar:
        bar.disable = False
        task = bar.add_task("svi Line", total=10, note="preparing the step ...")
        started = bar.tasks[0].start_time
        for seconds, shown in ((0.0, "0:00:00"), (75.0, "0:01:15")):
            monkeypatch.setattr(bar.tasks[0], "get_time", lambda seconds=seconds: started + seconds)
            text = "".join(str(column(bar.tasks[task])) for column in bar.columns if not isinstance(column, BarColumn))
            assert shown in text
            assert "preparing the step" in text


def test_schedule_counts_epochs():
    assert Schedule(epochs=3, batch_size=100).total_steps(250) == 8
    assert Schedule(epochs=3, batch_size=1000).total_steps(250) == 3
    assert Schedule().total_steps(250) == 2000


KILLED = """
import sys, torch
from inference import fit
from tests.inference import factors as t
torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)
fit(t.ppca(), t.data(), "svi", steps=500, batch_size=64, checkpoint_seconds=0.0, out=sys.argv[1])
"""


def test_a_killed_fit_resumes_and_ends_with_the_same_numbers(tmp_path):
    process = processes.start(KILLED, [str(tmp_path / "killed")])
    checkpoint = tmp_path / "killed" / "checkpoint.pt"
    deadline = time.monotonic() + 120
    while not checkpoint.exists():
        assert process.is_alive(), "the fit ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.join()
    done = steps_done(checkpoint)
    assert 0 < done < 500
    resumed = fit(ppca(), data(), "svi", steps=500, batch_size=64, out=tmp_path / "killed")
    straight = fit(ppca(), data(), "svi", steps=500, batch_size=64)
    assert same(state(resumed.program), state(straight.program))
    assert [r["loss"] for r in resumed.history.rows] == pytest.approx([r["loss"] for r in straight.history.rows])
    assert not checkpoint.exists()
