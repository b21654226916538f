"""NUTS against exact posteriors and against the reference draws of eight schools."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats

import zoo
from benchmarks import targets
from inference import fit
from inference.chains import ess
from inference.methods.nuts import NUTS
from tests.conftest import FAILURE_RATE
from zoo import datasets
from zoo.bayes.coin import BetaBernoulli
from zoo.bayes.eight_schools import EightSchools
from zoo.errors import CapabilityError, OptionError
from zoo.mixtures.gaussian import GaussianMixture
from zoo.program import Implicit, ImplicitProgram, Program

LIMIT = stats.norm.isf(FAILURE_RATE / 2)


class Switch(Program):
    """A global mean and, for each example, a discrete latent that is summed out: x ~ N(mean + 3 z, 1), z fair."""

    def model(self, x=None, context=None, size=None):
        mean = pyro.sample("mean", dist.Normal(0.0, 2.0))
        with self.plate(x, context, size):
            z = pyro.sample("z", dist.Bernoulli(0.5))
            return pyro.sample("x", dist.Normal(mean + 3 * z, 1.0), obs=x)


class Counts(Program):
    """A Poisson latent, whose support is infinite."""

    def model(self, x=None, context=None, size=None):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with self.plate(x, context, size):
            z = pyro.sample("z", dist.Poisson(2.0))
            return pyro.sample("x", dist.Normal(mean + z, 1.0), obs=x)


class Pure(ImplicitProgram):
    def model(self, x=None, context=None, size=None):
        with self.plate(x, context, size):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            return pyro.sample("x", Implicit(z), obs=x)


@pytest.fixture(scope="module")
def coin_fit():
    torch.set_default_dtype(torch.float64)
    return fit(BetaBernoulli(), "coin", "nuts", warmup=200, draws=500, chains=2, device="cpu")


def test_coin_agrees_within_monte_carlo_error(coin_fit):
    target, p = targets.load("coin"), coin_fit.samples["p"]
    error = float(target.sd["p"]) / math.sqrt(coin_fit.info["ess"]["p"])
    assert abs(float(p.mean() - target.mean["p"])) < LIMIT * error
    # The standard error of a standard deviation is about sd / sqrt(2 n).
    assert abs(float(p.std() - target.sd["p"])) < LIMIT * error / math.sqrt(2)


def test_fit_carries_samples_diagnostics_and_cost(coin_fit):
    assert coin_fit.samples["p"].shape == (1000,)
    assert coin_fit.info["rhat"]["p"] < 1.02
    assert 100 < coin_fit.info["ess"]["p"] <= 1500
    assert coin_fit.info["divergences"] == 0
    assert coin_fit.gradient_evaluations > 1400  # at least one for each of 2 x 700 steps
    assert coin_fit.draw(7, *datasets.load("coin").train)["p"].shape == (7,)


def test_normal_agrees_within_monte_carlo_error():
    target = targets.load("earth-density")
    found = fit(target.program(), target.data, "nuts", warmup=200, draws=400, chains=2, device="cpu")
    for site in ("mean", "precision"):
        error = float(target.sd[site]) / math.sqrt(found.info["ess"][site])
        assert abs(float(found.samples[site].mean() - target.mean[site])) < LIMIT * error


def test_same_seed_same_chain():
    draws = [
        fit(BetaBernoulli(), "coin", "nuts", seed=seed, warmup=20, draws=20, chains=1, device="cpu").samples["p"]
        for seed in (3, 3, 4)
    ]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_gradient_evaluations_are_counted_exactly(monkeypatch):
    import pyro.ops.integrator as integrator
    from pyro.infer.mcmc import hmc, nuts

    calls = 0
    original = integrator.potential_grad

    def spy(*args):
        nonlocal calls
        calls += 1
        return original(*args)

    for module in (integrator, hmc, nuts):
        monkeypatch.setattr(module, "potential_grad", spy)
    found = fit(BetaBernoulli(), "coin", "nuts", warmup=20, draws=20, chains=2, device="cpu")
    assert found.gradient_evaluations == calls


def test_discrete_latents_are_summed_out():
    x = torch.tensor([0.3, 3.4, -0.5, 2.2, 3.9, 0.8])
    found = fit(Switch(), x, "nuts", warmup=200, draws=400, chains=2, device="cpu")
    assert set(found.samples) == {"mean"}
    # The posterior of the mean, on a grid.
    grid = torch.linspace(-8, 8, 4001)[:, None]
    mixture = torch.logaddexp(dist.Normal(grid, 1).log_prob(x), dist.Normal(grid + 3, 1).log_prob(x)).sum(-1)
    mass = (dist.Normal(0.0, 2.0).log_prob(grid[:, 0]) + mixture).softmax(0)
    mean = float(mass @ grid[:, 0])
    sd = float((mass @ (grid[:, 0] - mean) ** 2).sqrt())
    assert abs(float(found.samples["mean"].mean()) - mean) < LIMIT * sd / math.sqrt(found.info["ess"]["mean"])


def test_local_latents_have_the_examples_first():
    data = datasets.load("eight_schools").train
    found = fit(EightSchools(), data, "nuts", warmup=20, draws=10, chains=1, device="cpu")
    assert {name: tuple(v.shape) for name, v in found.samples.items()} == {"mu": (10,), "tau": (10,), "eta": (10, 8)}
    assert bool((found.samples["tau"] > 0).all())


def test_parameters_are_held_fixed():
    target = targets.load("diabetes")
    program = target.program()
    before = {k: v.clone() for k, v in program.state_dict().items()}
    fit(program, target.data, "nuts", warmup=5, draws=5, chains=1, device="cpu")
    assert all(torch.equal(before[k], v) for k, v in program.state_dict().items())


def test_too_short_a_run_says_so():
    found = fit(EightSchools(), None, "nuts", warmup=5, draws=8, chains=2, device="cpu")
    assert "R-hat" in found.info["warning"] or "effective sample size" in found.info["warning"]


def test_what_it_refuses():
    with pytest.raises(CapabilityError, match="implicit"):
        fit(Pure(), torch.zeros(3), "nuts")
    with pytest.raises(CapabilityError, match="no continuous latent"):
        fit(GaussianMixture(), torch.zeros(3, 2), "nuts")
    with pytest.raises(CapabilityError, match=r"'z'.*cannot be summed out"):
        fit(Counts(), torch.zeros(3), "nuts")
    with pytest.raises(OptionError, match="target_accept"):
        NUTS(target_accept=1.0)
    with pytest.raises(OptionError, match="draws must be at least"):
        NUTS(draws=1)


def test_eight_schools_agrees_with_the_reference_draws(zoo_data):
    """Means, and spreads about the reference's means, within Monte Carlo error; the reference's own is far smaller."""
    reference = datasets.reference_posterior("eight_schools")
    program, data = EightSchools(centered=False), datasets.load("eight_schools").train
    samples = fit(program, data, "nuts", warmup=150, draws=200, chains=2, device="cpu").samples
    wide = {name: value.reshape(len(value), -1) for name, value in samples.items()}
    theta = program.transformed(wide)["theta"]
    got = {"mu": samples["mu"], "tau": samples["tau"]} | {f"theta[{i + 1}]": theta[:, i] for i in range(8)}
    for name, values in got.items():
        mean, sd = reference.mean[name], reference.sd[name]
        for found, truth in ((values, mean), ((values - mean).square(), sd**2)):
            error = float(found.std() / ess(found.reshape(2, -1)).sqrt())
            assert abs(float(found.mean()) - truth) < LIMIT * error, name
            assert error < 0.3 * abs(truth), name


def test_code_whose_sites_depend_on_draws_is_refused():
    def branching(y):
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        loc = pyro.sample("b", dist.Normal(0.0, 1.0)) if float(a) > 0 else a
        pyro.sample("y", dist.Normal(loc, 1.0), obs=y)

    with pytest.raises(CapabilityError, match="whether there are the sites b depends on what was drawn"):
        fit(zoo.adopt(branching), torch.tensor(0.3), "nuts", warmup=20, draws=4, chains=1)
