"""Flat priors: their posterior is found by SVI and NUTS, and only draws of the prior are refused."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor

import zoo
from inference import fit
from inference.particles import prior_draws
from zoo.errors import CapabilityError
from zoo.flat import FlatPriors
from zoo.program import Program

Y = torch.tensor([3.0, 5.0, 4.0, 8.0])
REAL, POSITIVE = dist.constraints.real, dist.constraints.positive


def flat(y: Tensor) -> None:
    """p(m, s) = 1: the posterior of m is Student's t about the mean of y."""
    m = pyro.sample("m", dist.ImproperUniform(REAL, (), ()))
    s = pyro.sample("s", dist.ImproperUniform(POSITIVE, (), ()))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(m, s), obs=y)


class Flat(Program):
    """A contract program: m flat, x_i ~ N(m, 2)."""

    event_shape = torch.Size([])

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        m = pyro.sample("m", dist.ImproperUniform(REAL, (), ()))
        with self.plate(x, context, size):
            return pyro.sample("x", dist.Normal(m, 2.0), obs=x)


@pytest.mark.parametrize("guide", ["normal", "multivariate_normal"])
def test_svi_has_the_mean_of_the_data(guide: str) -> None:
    found = fit(Flat(), Y, "svi", guide=guide)
    assert found.info["convergence"]["verdict"] == "converged"
    draws = found.draw(4000)["m"]
    assert float(draws.mean()) == pytest.approx(5.0, abs=0.08)
    assert float(draws.std()) == pytest.approx(1.0, rel=0.06)


def test_svi_of_adopted_code_learns_the_scale_too() -> None:
    """The best factorised Gaussian of (m, log s): E[(y - m)^2] / s^2 is a Gamma, in closed form below."""
    found = fit(zoo.adopt(flat), {"y": Y}, "svi")
    loc, scale = found.guide.locs.s.detach(), found.guide.scales.s.detach()
    # With v of m and t^2 of log s: E[s^-2] (ssq + n v) = n - 1 from the slope in log s, and 2 (n - 1) t^2 = 1.
    assert float(scale) == pytest.approx((2 * (len(Y) - 1)) ** -0.5, rel=0.02)
    precision = float((-2 * loc + 2 * scale**2).exp())
    variance = 1 / (len(Y) * precision)
    assert float(found.guide.scales.m.detach()) == pytest.approx(math.sqrt(variance), rel=0.02)
    squares = float((Y - Y.mean()).square().sum())
    assert precision * (squares + len(Y) * variance) == pytest.approx(len(Y) - 1, rel=0.02)


def test_nuts_has_the_posterior() -> None:
    found = fit(Flat(), Y, "nuts", warmup=200, draws=600, chains=1)
    assert float(found.samples["m"].mean()) == pytest.approx(5.0, abs=0.25)
    assert float(found.samples["m"].std()) == pytest.approx(1.0, rel=0.2)


def test_draws_of_the_prior_are_refused() -> None:
    for program in (Flat(), zoo.adopt(flat)):
        if not isinstance(program, Flat):
            program.take({"y": Y})
        assert program.sites()["m"].is_global
        with pytest.raises(CapabilityError, match="flat prior"):
            program.generate(3)
    with pytest.raises(CapabilityError, match="flat prior"):
        prior_draws(Flat().model, 3, Y)


def test_values_lie_in_the_support_and_others_are_drawn() -> None:
    def both() -> None:
        with pyro.plate("three", 3):
            pyro.sample("s", dist.ImproperUniform(POSITIVE, (), (2,)).mask(torch.tensor(True)))
        pyro.sample("z", dist.Normal(0.0, 1.0))

    trace = poutine.trace(FlatPriors()(both)).get_trace()
    assert torch.equal(trace.nodes["s"]["value"], torch.ones(3, 2))
    assert float(trace.nodes["z"]["value"]) != 0.0
    spread = poutine.trace(FlatPriors(2.0)(both)).get_trace().nodes["s"]["value"].log()
    assert 0.1 < float(spread.abs().max()) <= 2.0
