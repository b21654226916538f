"""`fit`: seeds, data and options that make no sense, checkpoints and resume, early stopping, divergence."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from inference import METHODS, SVI, Fit, fit, make_method
from inference.environment import seeded
from inference.training.loop import Schedule
from inference.training.optimizers import make_optimizer
from zoo import errors
from zoo.latent.ppca import PPCA


def data(n: int = 300) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    z = torch.randn(n, 2, generator=generator)
    return z @ torch.randn(2, 6, generator=generator) + 0.3 * torch.randn(n, 6, generator=generator)


def ppca() -> PPCA:
    torch.manual_seed(0)
    return PPCA([6], 2)


def state(program) -> list[torch.Tensor]:
    return [v.clone() for v in program.state_dict().values()]


def same(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_svi_reaches_the_maximum_likelihood():
    x = data()
    found = fit(ppca(), x, "svi", steps=2500, lr=0.02)
    eigenvalues = torch.linalg.eigvalsh(torch.cov(x.T, correction=0)).flip(0)
    rest = eigenvalues[2:].mean()
    # Tipping & Bishop 1999, eq. 3 at the maximum.
    best = -0.5 * (6 * torch.log(torch.tensor(2 * torch.pi)) + eigenvalues[:2].log().sum() + 4 * rest.log() + 6)
    # The guide contains the posterior, so only optimisation noise is left.
    assert best - 0.02 < found.program.log_prob(x).mean() <= best + 1e-9


def test_same_seed_same_numbers_and_the_callers_random_state_is_left_alone():
    before = torch.get_rng_state()
    a, b, c = (fit(ppca_copy, data(), "svi", steps=40, seed=s) for ppca_copy, s in ((P(), 1), (P(), 1), (P(), 2)))
    assert same(state(a.program), state(b.program))
    assert not same(state(a.program), state(c.program))
    assert [r["loss"] for r in a.history.rows] == [r["loss"] for r in b.history.rows]
    with seeded(3):
        torch.rand(5)
    torch.set_rng_state(before)
    first = torch.rand(1)
    torch.set_rng_state(before)
    with seeded(3):
        torch.rand(5)
    assert torch.equal(torch.rand(1), first)


def P() -> PPCA:
    return ppca()


def test_a_name_builds_the_program_for_the_data_from_the_seed():
    found, again = (fit("ppca", data(), "svi", steps=3, seed=4) for _ in range(2))
    assert found.program.event_shape == (6,)
    assert same(state(found.program), state(again.program))


@pytest.mark.parametrize(
    ("bad", "error", "says"),
    [
        (torch.zeros(0, 6), errors.EmptyDataError, "no examples"),
        (torch.zeros(5, 7), errors.ShapeError, r"\(6,\)"),
        (torch.full((5, 6), float("nan")), errors.NonFiniteError, "NaN"),
        (torch.full((5, 6), float("inf")), errors.NonFiniteError, "infinite"),
        ((torch.zeros(5, 6), torch.zeros(5, 1)), errors.ShapeError, "no context"),
        ("no-such-data", errors.UnknownNameError, "no-such-data"),
        (3.0, errors.OptionError, "float"),
    ],
)
def test_bad_data_is_refused_before_any_compute(bad, error, says):
    program = ppca()
    before = state(program)
    with pytest.raises(error, match=says):
        fit(program, bad, "svi")
    assert same(before, state(program))


@pytest.mark.parametrize(
    ("method", "options", "error", "says"),
    [
        ("sviy", {}, errors.UnknownNameError, "'svi'"),
        ("svi", {"learning_rate": 1.0}, errors.UnknownNameError, "learning_rate"),
        ("svi", {"lr": -1.0}, errors.OptionError, "positive"),
        ("svi", {"steps": 0}, errors.OptionError, "at least 1"),
        ("svi", {"steps": 5, "epochs": 5}, errors.OptionError, "not both"),
        ("svi", {"guide": "norml"}, errors.UnknownNameError, "'normal'"),
        ("svi", {"elbo": "tracee"}, errors.UnknownNameError, "'trace'"),
        ("svi", {"optimizer": "adamm"}, errors.OptionError, "adam"),
        ("svi", {"decay": "linear"}, errors.OptionError, "cosine"),
        ("svi", {"kl_anneal": 2.0}, errors.OptionError, "fraction"),
        ("gan", {}, errors.CapabilityError, "Methods that can"),
    ],
)
def test_bad_options_are_refused(method, options, error, says):
    with pytest.raises(error, match=says):
        fit(ppca(), data(20), method, **options)


def test_unavailable_device_is_refused():
    if torch.cuda.is_available():
        pytest.skip("CUDA is available here")
    with pytest.raises(errors.OptionError, match="not available"):
        fit(ppca(), data(20), device="cuda")


def test_every_method_is_there():
    for name in METHODS:
        assert make_method(name).name == name


def test_method_objects_take_no_second_options():
    with pytest.raises(errors.OptionError, match="SVI"):
        fit(ppca(), data(20), SVI(steps=3), lr=0.1)


@pytest.mark.filterwarnings("ignore:Encountered NaN")
def test_divergence_says_where_and_what_to_do():
    with pytest.raises(errors.DivergenceError, match=r"step \d+ of 300.*'.*'.*learning rate"):
        fit(ppca(), data(), "svi", steps=300, lr=1e8, optimizer="sgd")


def test_saved_fit_reproduces_its_predictions_bit_for_bit(tmp_path):
    x = data()
    for guide in ("own", "posterior"):
        found = fit(ppca(), x, SVI(guide=guide, steps=20, elbo="trace"), out=tmp_path / guide)
        again = Fit.load(tmp_path / guide)
        assert same(state(found.program), state(again.program))
        assert torch.equal(found.draw(4, x)["z"], again.draw(4, x)["z"])
        assert again.history.rows == found.history.rows
        assert again.seconds == found.seconds


@pytest.mark.parametrize("guide", ["normal", "multivariate_normal", "low_rank", "iaf", "delta"])
def test_autoguides_survive_a_checkpoint(tmp_path, guide):
    x = data(20)
    found = fit(ppca(), x, "svi", guide=guide, steps=10, out=tmp_path)
    again = Fit.load(tmp_path)
    assert torch.equal(found.draw(3, x)["z"], again.draw(3, x)["z"])


def test_autoguide_with_local_latents_refuses_minibatches():
    """A guide with one factor per example must not see another minibatch than its model (pyro#3468)."""
    with pytest.raises(errors.CapabilityError, match="batch_size >= 300"):
        fit(ppca(), data(300), "svi", guide="normal", batch_size=50)


def test_fit_of_another_version_and_half_a_fit_are_refused(tmp_path):
    fit(ppca(), data(20), "svi", steps=2, out=tmp_path)
    record = json.loads((tmp_path / "fit.json").read_text())
    (tmp_path / "fit.json").write_text(json.dumps({**record, "version": 99}))
    with pytest.raises(errors.CheckpointError, match="version 99"):
        Fit.load(tmp_path)
    (tmp_path / "fit.json").write_text("{")
    with pytest.raises(errors.CheckpointError, match="not a whole fit"):
        Fit.load(tmp_path)
    with pytest.raises(errors.CheckpointError, match="no saved program"):
        Fit.load(tmp_path / "nowhere")


def test_early_stopping_restores_the_best_state():
    program = ppca()
    x = data(40)
    method = SVI(steps=4000, lr=0.05, decay="constant", elbo="exact", validate_every=20, patience=3)
    found = fit(program, _dataset(x[:20], x[20:]), method)
    steps, losses = found.history.series("validation_loss")
    assert steps[-1] < 4000
    assert -program.log_prob(x[20:]).mean().item() == pytest.approx(min(losses), abs=1e-12)


def _dataset(train: torch.Tensor, valid: torch.Tensor):
    from zoo.datasets import Card, Data, Dataset

    card = Card("test", "made up", (6,), "real", {"train": len(train), "valid": len(valid), "test": 1}, "here", "none")
    return Dataset(card, Data(train), Data(valid), Data(valid[:1]))


def test_schedule_counts_epochs():
    assert Schedule(epochs=3, batch_size=100).total_steps(250) == 8
    assert Schedule(epochs=3, batch_size=1000).total_steps(250) == 3
    assert Schedule().total_steps(250) == 2000


KILLED = """
import sys, torch
from inference import fit
from tests.inference import test_fit as t
torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)
fit(t.ppca(), t.data(), "svi", steps=1500, batch_size=64, checkpoint_seconds=0.0, out=sys.argv[1])
"""


def test_a_killed_fit_resumes_and_ends_with_the_same_numbers(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", KILLED, str(tmp_path / "killed")]
    process = subprocess.Popen(command, env=environment)
    checkpoint = tmp_path / "killed" / "checkpoint.pt"
    deadline = time.monotonic() + 120
    while not checkpoint.exists():
        assert process.poll() is None, "the fit ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = torch.load(checkpoint, weights_only=True)["done"]
    assert 0 < done < 1500
    resumed = fit(ppca(), data(), "svi", steps=1500, batch_size=64, out=tmp_path / "killed")
    straight = fit(ppca(), data(), "svi", steps=1500, batch_size=64)
    assert same(state(resumed.program), state(straight.program))
    assert [r["loss"] for r in resumed.history.rows] == pytest.approx([r["loss"] for r in straight.history.rows])
    assert not checkpoint.exists()


def test_a_damaged_checkpoint_is_refused(tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(errors.CheckpointError, match="delete it"):
        fit(ppca(), data(20), "svi", steps=3, out=tmp_path)


def test_history_plots_itself(tmp_path):
    found = fit(ppca(), data(20), "svi", steps=20)
    found.history.plot(tmp_path / "history.png")
    assert (tmp_path / "history.png").stat().st_size > 1000


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_weight_decay_is_of_weights_alone(optimizer):
    matrix, vector = torch.nn.Parameter(torch.ones(2, 3)), torch.nn.Parameter(torch.ones(3))
    made = make_optimizer(optimizer, [matrix, vector], 0.1, weight_decay=0.5)
    (0 * matrix.sum() + 0 * vector.sum()).backward()
    made.step()
    torch.testing.assert_close(matrix.detach(), torch.full((2, 3), 1 - 0.1 * 0.5))
    torch.testing.assert_close(vector.detach(), torch.ones(3))
    with pytest.raises(errors.OptionError, match="weight_decay"):
        make_optimizer(optimizer, [matrix], 0.1, weight_decay=-1.0)
