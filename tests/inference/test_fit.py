"""`fit`: seeds, data and options that make no sense, checkpoints and resume, early stopping, divergence."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from inference import METHODS, SVI, fit, fit_many, make_method
from inference.environment import seeded
from tests import processes
from tests.inference.factors import data, ppca, same, state
from zoo import catalogue, datasets, errors
from zoo.errors import OptionError, UnknownNameError
from zoo.latent.ppca import PPCA


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


@pytest.mark.parametrize(("method", "options"), [
    ("exact", {}), ("svi", {"train_program": False, "steps": 2}), ("avb", {"train_program": False, "steps": 2}),
])  # fmt: skip
def test_what_a_method_holds_is_not_set_by_the_data(method, options):
    program, x = ppca(), 5 + data()
    before = [value.detach().clone() for value in (program.mean, program.weight, program.scale)]
    fit(program, x, method, **options)
    assert same(before, (program.mean, program.weight, program.scale))
    fit(program, x, method, initialise=True, **options)
    assert not torch.equal(before[0], program.mean)
    by_name = fit("ppca", x, method, latent_dim=2, **options)  # there is nothing that somebody has set
    torch.testing.assert_close(by_name.program.mean.detach(), x.mean(0))


def test_seconds_are_those_that_passed():
    started = time.perf_counter()
    found = fit("coin", "coin", "svi", steps=5)
    assert 0 < found.seconds < time.perf_counter() - started


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
        ("svi", {"kl_anneal": 2.0}, errors.OptionError, r"in \[0, 1\]"),
        ("svi", {"num_restarts": 0}, errors.OptionError, "num_restarts must be at least 1"),
        ("svi", {"num_restarts": 2.5}, errors.OptionError, "num_restarts must be a whole number"),
        ("svi", {"progress": "yes"}, errors.OptionError, "progress must be true or false"),
        (3, {}, errors.OptionError, "method must be"),
        ("gan", {}, errors.CapabilityError, "Methods that can"),
    ],
)
def test_bad_options_are_refused(method, options, error, says):
    with pytest.raises(error, match=says):
        fit(ppca(), data(20), method, **options)


def test_every_method_is_there():
    for name in METHODS:
        assert make_method(name).name == name


def test_method_objects_take_no_second_options():
    with pytest.raises(errors.OptionError, match="SVI"):
        fit(ppca(), data(20), SVI(steps=3), lr=0.1)


def test_a_preset_says_program_method_options_and_data() -> None:
    preset = catalogue.get("gan").presets["ring"]
    found = fit("gan", preset="ring", steps=2, batch_size=16)
    assert (found.data, found.method) == ("ring", preset.method)
    assert found.program.config()["latent_dim"] == preset.program["latent_dim"]
    assert (found.options["lr"], found.options["steps"], found.options["batch_size"]) == (preset.fit["lr"], 2, 16)
    by_hand = catalogue.create_for("gan", datasets.load("ring").train, "ring")
    assert found.program.parameter_count() == by_hand.parameter_count()


def test_options_go_to_whom_they_belong() -> None:
    found = fit("vae", "digits-binary", latent_dim=3, hidden=[4], steps=1)
    assert found.program.config()["latent_dim"] == 3
    assert found.options["steps"] == 1
    # Both the VAE and SVI have a guide.
    with pytest.raises(OptionError, match=r"program\.guide or method\.guide"):
        fit("vae", "digits-binary", guide="full", steps=1)
    both = fit("vae", "digits-binary", steps=1, **{"program.guide": "full", "method.guide": "own", "hidden": [4]})
    assert both.program.config()["guide"] == "full"
    with pytest.raises(UnknownNameError, match="latent_dim"):
        fit("vae", "digits-binary", latent_dims=3)
    for scoped, named in (("program.latent_dims", "latent_dim"), ("method.stepps", "steps")):
        with pytest.raises(UnknownNameError, match=named):
            fit("vae", "digits-binary", **{scoped: 3})
    with pytest.raises(UnknownNameError, match="option of svi"):
        fit(catalogue.create("coin"), "coin", latent_dim=3)


def test_a_preset_of_a_built_program_is_refused() -> None:
    with pytest.raises(OptionError, match="give its name"):
        fit(catalogue.create("vae"), "digits-binary", preset="small")
    with pytest.raises(UnknownNameError, match="preset of VAE"):
        fit("vae", "digits-binary", preset="smal")


def test_scalars_of_numpy_are_taken_and_kept_as_numbers(tmp_path):
    found = fit("ppca", data(20), "svi", latent_dim=np.int64(1), steps=np.int32(2), seed=np.int64(3), out=tmp_path)
    assert (found.program.config()["latent_dim"], found.options["steps"], found.seed) == (1, 2, 3)
    (again,) = fit_many("ppca", data(20), "svi", latent_dim=1, steps=2, seeds=np.array([3]))
    assert same(state(found.program), state(again.program))


def test_no_name_of_a_folder_is_no_folder():
    with pytest.raises(errors.OptionError, match="out is ''"):
        fit("coin", "coin", "exact", out="")


REPEATED = {
    "traced": lambda seed: fit(ppca(), data(), "svi", steps=20, batch_size=20, compile="traced", seed=seed),
    "eager": lambda seed: fit(ppca(), data(), "svi", steps=20, batch_size=20, compile="never", seed=seed),
    "together": lambda seed: fit_many(ppca(), data(), "svi", seeds=[seed, seed + 1], steps=20, compile="traced"),
    "game": lambda seed: fit("gan", "digits", "gan", steps=5, batch_size=20, compile="traced", seed=seed),
    "nuts": lambda seed: fit("eight-schools", "eight_schools", "nuts", warmup=40, draws=40, chains=1, seed=seed),
}


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=pytest.mark.slow) for kind in REPEATED])
def test_fifty_fits_leave_nothing_behind(kind, tmp_path):
    """In a process of its own: what a traced function leaves for ever is 3 MiB a fit, 120 in forty of them."""
    done = processes.run(LEFT, [kind], scratch=tmp_path)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 20


LEFT = """
import gc, sys
from benchmarks.speed.resources import resident
from tests.inference.test_fit import REPEATED
for i in range(50):
    REPEATED[sys.argv[1]](i)
    gc.collect()
    if i == 9:
        before = resident()
print(resident() - before)
"""
