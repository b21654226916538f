"""Chains start around the modes of a posterior, each as often as it is probable, and need no units."""

from __future__ import annotations

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import init_to_value
from scipy import stats

import zoo
from benchmarks import targets
from inference import fit
from inference.chains import ess
from inference.methods.chain_starts import Starts
from inference.methods.nuts import NUTS
from inference.no_u_turn import Chain
from inference.training.target import Target
from tests.conftest import FAILURE_RATE
from zoo.bayes.eight_schools import EightSchools
from zoo.datasets.data import Data
from zoo.errors import UnknownNameError
from zoo.program import Program

LIMIT = stats.norm.isf(FAILURE_RATE / 2)


class Islands(Program):
    """A place on one of two islands, -10 with probability 0.2 and 10 with 0.8, each with sd 0.1; x does not matter."""

    def model(self, x=None, context=None, size=None):
        at = pyro.sample("at", dist.Normal(0.0, 10.0))
        islands = dist.MixtureSameFamily(
            dist.Categorical(torch.tensor([0.2, 0.8])), dist.Normal(torch.tensor([-10.0, 10.0]), 0.1)
        )
        pyro.factor("islands", islands.log_prob(at))  # as far from the prior's mean as each other
        with self.plate(x, context, size):
            return pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)


def target() -> Target:
    return Target(Islands(), Data.of(torch.zeros(2)))


def chain(i: int) -> Chain:
    seed = np.random.SeedSequence(0, spawn_key=(i,))
    return Chain(1, seed, warmup=1, draws=4, target_accept=0.8, max_tree_depth=10)


def test_chains_start_at_each_mode_as_often_as_it_is_probable():
    n, starts = 300, Starts(Islands(), target(), init=None, seed=0)
    assert starts.how == "around its 2 modes, as probable as each is"
    at = np.array([starts.propose(chain(i))[0] for i in range(n)])
    assert abs((at > 0).mean() - 0.8) < LIMIT * math.sqrt(0.2 * 0.8 / n)
    upper = at[at > 0]
    assert abs(upper.mean() - 10.0) < LIMIT * 0.1 / math.sqrt(len(upper))


def test_a_start_at_modes_needs_no_units():
    """Of a regression on years, which are all but the intercept, and on large numbers; its posterior is known."""
    year = torch.linspace(1950, 2010, 40)
    design = torch.stack([torch.ones(40), year, 1e6 * year.cos()], 1)
    sd = torch.tensor([1e3, 10.0, 1.0])

    def trend(y):
        w = pyro.sample("w", dist.Normal(torch.zeros(3), sd).to_event(1))
        with pyro.plate("years", 40):
            pyro.sample("y", dist.Normal(design @ w, 0.3), obs=y)

    y = 8.0 + 0.03 * (year - 1980) + 0.3 * torch.sin(year)
    found = fit(zoo.adopt(trend), y, "nuts", warmup=100, draws=250, chains=2, device="cpu")
    precision = design.mT @ design / 0.3**2 + torch.diag(sd**-2)
    mean = torch.linalg.solve(precision, design.mT @ y / 0.3**2)
    factor = torch.linalg.cholesky(precision)
    white = (found.samples["w"] - mean) @ factor
    for values in white.T:
        for moment, truth in ((values, 0.0), (values.square(), 1.0)):
            error = float(moment.std() / ess(moment.reshape(2, -1)).sqrt())
            assert abs(float(moment.mean()) - truth) < LIMIT * error
    assert found.info["start"] == "around its mode"
    assert found.gradient_evaluations < 2 * 350 * 8
    assert "warning" not in found.info


def test_where_chains_start_can_be_said():
    few = {"warmup": 5, "draws": 5, "chains": 2, "device": "cpu"}
    for init in ("uniform", "sample"):
        found = fit(Islands(), torch.zeros(3), "nuts", init_strategy=init, **few)
        assert found.info["start"] == "where init_strategy says"
    here = Starts(Islands(), target(), init=init_to_value(values={"at": torch.tensor(3.0)}), seed=0)
    assert here.propose(chain(0)) == pytest.approx(3.0)
    with pytest.raises(UnknownNameError, match="uniform"):
        NUTS(init_strategy="unifrom")


def test_without_a_mode_chains_start_at_random():
    """The density of centred eight schools grows without end as tau shrinks."""
    found = fit(EightSchools(centered=True), None, "nuts", warmup=5, draws=5, chains=1, device="cpu")
    assert found.info["start"] == "at random: its density has no maximum that could be reached"
    local = fit(targets.load("banana").program(), targets.load("banana").data, "nuts", warmup=5, draws=5, chains=1)
    assert local.info["start"] == "at random: no continuous latent is global"
