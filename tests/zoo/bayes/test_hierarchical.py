"""Hierarchical regression: densities by scipy, the evidence and NUTS by nested quadrature."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import logsumexp

from inference import fit
from inference.chains import ess
from inference.particles import log_joint, prior_and_likelihood, prior_draws
from zoo import datasets
from zoo.bayes.hierarchical import HierarchicalRegression
from zoo.datasets import Data
from zoo.errors import OptionError, ShapeError, SupportError
from zoo.testing import checks

PROGRAMS = {
    "poisson": lambda: HierarchicalRegression(2, 3),
    "negative-binomial": lambda: HierarchicalRegression(2, 3, "negative-binomial", "all"),
    "logistic": lambda: HierarchicalRegression(1, 4, "logistic", "all", correlated=True),
    "normal": lambda: HierarchicalRegression(1, 3, "normal"),
}


@pytest.mark.parametrize("check", list(checks()), ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", PROGRAMS)
def test_contract(name, check):
    check(PROGRAMS[name]())


def likelihood(name: str, x: np.ndarray, eta: np.ndarray, spread: float) -> float:
    if name == "poisson":
        return stats.poisson.logpmf(x, np.exp(eta)).sum()
    if name == "negative-binomial":  # mean m and variance m + m^2 / spread
        return stats.nbinom.logpmf(x, spread, spread / (spread + np.exp(eta))).sum()
    if name == "logistic":
        return stats.bernoulli.logpmf(x, 1 / (1 + np.exp(-eta))).sum()
    return stats.norm.logpdf(x, eta, spread).sum()


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_joint_density_is_that_of_the_formula(name):
    program = PROGRAMS[name]()
    context = program.example_context(7)
    x = program.generate(7, context)
    values = {site: factor().sample((5, 1)) for site, factor in program.factors.items() if site != "corr"}
    for site in {"tau", "spread"} & set(values):
        values[site] = values[site].exp()
    if "corr" in program.factors:
        rho = torch.rand(5, 1) * 1.8 - 0.9
        row = torch.stack([rho, (1 - rho**2).sqrt()], -1)
        values["corr"] = torch.stack([torch.tensor([1.0, 0.0]).expand_as(row), row], -2)
    got = log_joint(program, values, x, context).total
    group, rows = context[:, 0].long().numpy(), context[:, 1:].numpy()
    for i in range(5):
        b, w, tau, eta, *_ = (values[site][i, 0].numpy() for site in ("b", "w", "tau", "eta"))
        spread = float(values["spread"][i, 0]) if "spread" in values else 1.0
        effects = tau * (eta @ values["corr"][i, 0].numpy().T if "corr" in values else eta)
        design = np.column_stack([np.ones(7), rows])[:, : program.effects]
        predictor = b + rows @ w + (effects[group] * design).sum(1)
        want = likelihood(name, x.numpy(), predictor, spread)
        want += stats.norm.logpdf(b, 0, 2) + stats.norm.logpdf(w).sum() + stats.norm.logpdf(eta).sum()
        want += stats.halfnorm.logpdf(tau).sum()
        if "spread" in values:
            want += stats.lognorm.logpdf(spread, 1.0)
        if "corr" in values:  # LKJ(2) of two: density 3/4 (1 - rho^2) of rho, and of the factor it is that of rho
            want += math.log(0.75 * (1 - float(values["corr"][i, 0, 1, 0]) ** 2))
        assert float(got[i]) == pytest.approx(want, abs=1e-8)


# Two groups of a few counts; the covariate is zero, so that its weight is the prior's. Nested quadrature: each group's
# effect is integrated out alone, given the intercept and the scale of effects.

TINY = Data(torch.tensor([1, 0, 2, 4, 3, 6]).double(), torch.tensor([[0, 0]] * 3 + [[1, 0]] * 3).double())


def quadrature() -> dict[str, float]:
    """Log evidence, and mean and standard deviation of b and tau."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    log_weights = np.log(weights / weights.sum())
    b, tau = np.linspace(-4, 5, 181), np.linspace(0, 5, 202)[1:] - 0.5 * 5 / 201
    grid_b, grid_tau = np.meshgrid(b, tau, indexing="ij")
    total = stats.norm.logpdf(grid_b, 0, 2) + stats.halfnorm.logpdf(grid_tau)
    for g in range(2):
        counts = TINY.x[TINY.context[:, 0] == g].numpy()
        log_rate = grid_b[..., None] + grid_tau[..., None] * nodes
        each = sum(stats.poisson.logpmf(count, np.exp(log_rate)) for count in counts)
        total = total + logsumexp(each + log_weights, axis=-1)
    found = {"evidence": logsumexp(total) + np.log((b[1] - b[0]) * (tau[1] - tau[0]))}
    mass = np.exp(total - logsumexp(total))
    for name, values in (("b", grid_b), ("tau", grid_tau)):
        found[name] = (mass * values).sum()
        found[f"{name} sd"] = ((mass * values**2).sum() - found[name] ** 2) ** 0.5
    return found


def test_the_evidence_over_draws_of_the_prior_is_that_of_quadrature():
    program = HierarchicalRegression(1, 2)
    values = prior_draws(program.model, 200_000, *TINY)
    latents = {name: values[name] for name in program.sites()}
    weights = prior_and_likelihood(program, latents, *TINY)[1].total.exp()
    error = float(weights.std() / len(weights) ** 0.5 / weights.mean())
    assert error < 0.02
    assert float(weights.mean().log()) == pytest.approx(quadrature()["evidence"], abs=4.5 * error)


@pytest.mark.slow
def test_nuts_finds_the_posterior_of_quadrature():
    found = fit(HierarchicalRegression(1, 2), TINY, "nuts", warmup=500, draws=1500, chains=2, target_accept=0.95)
    want = quadrature()
    for name in ("b", "tau"):
        draws = found.samples[name].reshape(2, 1500)
        error = want[f"{name} sd"] / float(ess(draws)) ** 0.5
        assert float(draws.mean()) == pytest.approx(want[name], abs=4.5 * error)
        assert float(draws.std()) == pytest.approx(want[f"{name} sd"], rel=0.15)


def test_effects_are_those_that_the_model_uses():
    program = PROGRAMS["logistic"]()
    context = program.example_context(8)
    x = program.generate(8, context)
    drawn = {
        name: torch.stack([factor().sample() for _ in range(3)])[:, None] for name, factor in program.factors.items()
    }
    drawn["tau"], rho = drawn["tau"].exp(), drawn.pop("corr").tanh()
    row = torch.cat([rho, (1 - rho**2).sqrt()], -1)
    drawn["corr"] = torch.stack([torch.tensor([1.0, 0.0]).expand_as(row), row], -2)
    effects = program.transformed(drawn)["effects"]
    assert effects.shape == (3, 1, 4, 2)
    # Without a prior correlation the same effects, of scale one, give the same likelihood.
    plain = HierarchicalRegression(1, 4, "logistic", "all")
    same = {"b": drawn["b"], "w": drawn["w"], "tau": torch.ones(3, 1, 2), "eta": effects}
    torch.testing.assert_close(log_joint(program, drawn, x, context).local, log_joint(plain, same, x, context).local)


def test_builds_for_horse_kicks_and_refuses_what_it_cannot_take():
    data = datasets.load("horse_kicks")
    program = HierarchicalRegression.for_data(*data.train)
    assert (program.features, program.groups) == (1, 14)
    with torch.no_grad():
        program.initialise(*data.train)
    assert program.factors["b"].loc.item() == pytest.approx(math.log(float(data.train.x.mean())))
    context = data.train.context.clone()
    for bad in (14.0, -1.0, 0.5):
        context[0, 0] = bad
        with pytest.raises(SupportError, match="begin with a group, 0 to 13"):
            program.check(data.train.x, context)
    with pytest.raises(SupportError, match="IntegerGreaterThan"):
        program.check(data.train.x - 5, data.train.context)
    with pytest.raises(ShapeError, match="at least one covariate"):
        HierarchicalRegression.for_data(torch.zeros(3), torch.zeros(3, 1))
    with pytest.raises(ShapeError, match="design matrix"):
        HierarchicalRegression.for_data(torch.zeros(3))
    with pytest.raises(OptionError, match="needs varying='all'"):
        HierarchicalRegression(correlated=True)
    with pytest.raises(OptionError, match="likelihood must be one of"):
        HierarchicalRegression(likelihood="gamma")


@pytest.mark.parametrize("varying", ["intercept", "all"])
def test_columns_as_they_come_are_learnt_from(varying: str) -> None:
    """Ages around fifty, whose exponential overflows by a weight of the usual start."""
    group, age = torch.arange(100) % 5, 50 + 10 * torch.randn(100)
    x = torch.poisson((0.5 + 0.3 * torch.randn(5)[group] + 0.02 * (age - 50)).exp())
    data = Data(x, torch.stack([group.double(), age], 1))
    found = fit(
        "hierarchical-regression", data, "svi", varying=varying, steps=500, lr=0.05, particles=2, compile="traced"
    )
    best = fit("hierarchical-regression", data, "svi", varying=varying, guide="normal")
    losses = [each.history.series("loss")[1] for each in (found, best)]
    assert sum(losses[0][-20:]) / 20 < losses[1][-1] + 0.1, "nats per example above the best of its family"
