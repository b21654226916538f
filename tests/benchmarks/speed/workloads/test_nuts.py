"""The comparison of NUTS: every side samples the same posterior, and the worst parameter counts."""

from __future__ import annotations

import time
from pathlib import Path

import pyro
import pytest
import torch

from benchmarks.speed.contender import Unavailable
from benchmarks.speed.workloads import nuts
from benchmarks.targets.posteriordb import time_series
from zoo.errors import OptionError

SMALL = nuts.Problem(n=60, d=2, warmup=40, draws=60, chains=1)


@pytest.fixture(autouse=True)
def single_precision() -> None:
    """As the workloads' data have it."""
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("model", sorted(set(nuts.MODELS) - set(nuts.REFERENCES)))
def test_all_sides_sample_the_same_posterior(model: str) -> None:
    problem = nuts.replace(SMALL, model=model)
    found = {side: work(problem, problem.data()) for side, work in nuts.SIDES.items()}
    assert {"ours", "Pyro"} <= set(found)
    # Five standard errors of a difference of means of the worst parameter.
    least = min(each.effective for each in found.values())
    assert least > 8
    assert nuts._difference(found) < 5 * (2 / least) ** 0.5
    assert all(each.total > 0 for each in found.values())


@pytest.mark.parametrize("model", nuts.REFERENCES)
def test_all_sides_have_the_same_numbers(model: str, zoo_data: Path) -> None:
    """Of posteriordb's posteriors, whose densities are compared elsewhere: Pyro takes minutes for draws enough."""
    problem = nuts.replace(SMALL, model=model, warmup=3, draws=4)
    found = {side: work(problem, problem.data()) for side, work in nuts.SIDES.items()}
    assert {each.means.shape for each in found.values()} == {found["ours"].means.shape}
    assert all(each.means.dtype == torch.float64 for each in found.values())
    assert torch.get_default_dtype() == torch.float32


def test_pyros_hmm_has_the_density_of_ours(zoo_data: Path) -> None:
    with nuts.precision(torch.float64):
        made = nuts.Problem("hmm").posterior()
        apart = []
        for low in (0.1, 0.3):
            at = {"mu": torch.tensor([2.0 + low, 9.0])}
            at |= {f"theta{k}": torch.tensor([low * k, 1 - low * k]) for k in (1, 2)}
            values = [
                pyro.poutine.trace(pyro.poutine.condition(model, at)).get_trace(**made.given).log_prob_sum()
                for model in (made.model, time_series.hmm_example)
            ]
            apart.append(float(values[0] - values[1]))
    assert apart == pytest.approx([0.0, 0.0], abs=1e-9)


@pytest.mark.parametrize(("model", "pyro_runs"), [("hmm", False), ("test-scores", False), ("mesquite", True)])
def test_who_takes_part(model: str, pyro_runs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pyro once, and not where it takes a quarter of an hour."""
    asked = {}
    monkeypatch.setattr(nuts, "SIDES", dict.fromkeys(("ours", "Pyro", "NumPyro", "BlackJAX")))
    monkeypatch.setattr(nuts, "warm_up", lambda problem, sides: asked.update(warm=sides))
    monkeypatch.setattr(
        nuts.duel, "compare", lambda *given, once: asked.update(sides=given[1], against=given[2], once=once)
    )
    nuts.compare(nuts.replace(SMALL, model=model))
    assert list(asked["sides"]) == asked["warm"] == ["ours", *(["Pyro"] if pyro_runs else []), "NumPyro", "BlackJAX"]
    assert asked["against"] == tuple(asked["warm"][1:])
    assert asked["once"] == ("Pyro",)


def test_seconds_are_for_effective_draws_of_the_worst_parameter() -> None:
    generator = torch.Generator().manual_seed(0)
    good = torch.randn(2, 400, 3, generator=generator)
    steps = torch.randn(2, 400, generator=generator)
    slow = steps.cumsum(1) * 0.1
    alone = nuts.Result.of(time.perf_counter(), {"a": good})
    both = nuts.Result.of(time.perf_counter(), {"a": good, "b": slow})
    assert alone.effective > 300
    assert both.effective < 30
    assert both.seconds == pytest.approx(1000 * both.total / both.effective)
    assert both.means.shape == (4,)


def test_nothing_is_downloaded_to_be_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nuts, "local", lambda file: None)
    with pytest.raises(Unavailable, match="low_dim_gauss_mix is not on this machine: set ZOO_DATA"):
        nuts.Problem("gaussian-mixture").data()


def test_a_model_that_is_none_is_refused() -> None:
    with pytest.raises(OptionError, match="got 'radon'"):
        nuts.replace(SMALL, model="radon")
