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
from inference.training.scripted import Scripted
from tests.conftest import FAILURE_RATE
from tests.inference.latents import Shifted
from zoo import datasets
from zoo.bayes.coin import BetaBernoulli
from zoo.bayes.eight_schools import EightSchools
from zoo.errors import CapabilityError, DivergenceError, OptionError
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


class Supports(Program):
    """Latents on a simplex, above zero and of a correlation, of which x informs the second: x ~ Poisson(rate)."""

    def model(self, x=None, context=None, size=None):
        pyro.sample("p", dist.Dirichlet(torch.tensor([2.0, 3.0, 4.0])))
        rate = pyro.sample("rate", dist.Gamma(3.0, 2.0))
        pyro.sample("factor", dist.LKJCholesky(3, 2.0))
        with self.plate(x, context, size):
            return pyro.sample("x", dist.Poisson(rate), obs=x)


class Means(Program):
    """A mean of means: m ~ N(0, 1), z_i ~ N(m, 1), x_i ~ N(z_i, 1)."""

    def model(self, x=None, context=None, size=None):
        m = pyro.sample("m", dist.Normal(0.0, 1.0))
        with self.plate(x, context, size):
            z = pyro.sample("z", dist.Normal(m, 1.0))
            return pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def check(values, mean, sd, chains, what):
    """Mean and spread of draws (n,), within the Monte Carlo error of chains of their own effective size."""
    for found, truth in ((values, mean), ((values - mean).square(), sd**2)):
        error = float(found.std() / ess(found.reshape(chains, -1)).sqrt())
        assert abs(float(found.mean()) - truth) < LIMIT * error, what


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


@pytest.mark.parametrize("draws", [20, 90])
def test_gradient_evaluations_are_counted_exactly(monkeypatch, draws):
    """Of one chain, which no other makes wait: by Python alone, and by TorchScript after a few by Python; those of the
    modes where it starts."""
    calls, scripted, grad, call, within = 0, 0, torch.autograd.grad, Scripted.__call__, False

    def by_python(outputs, at, *args, **options):
        nonlocal calls, within
        if within:  # the tracer hands it on to itself
            return grad(outputs, at, *args, **options)
        each = at.shape[1] if options.get("is_grads_batched") else 1  # rows of a curvature, in the search for modes
        calls, within = calls + each * len(at), True
        found = grad(outputs, at, *args, **options)
        within = False
        return found

    def by_script(*args):
        nonlocal scripted
        scripted += 1
        return call(*args)

    monkeypatch.setattr(torch.autograd, "grad", by_python)
    monkeypatch.setattr(Scripted, "__call__", by_script)
    found = fit(BetaBernoulli(), "coin", "nuts", warmup=20, draws=draws, chains=1, device="cpu")
    compared = 3 if scripted else 0  # calls that only look whether both ways agree
    assert found.gradient_evaluations == calls + scripted - compared
    assert (scripted > 0) == (draws == 90)


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


def test_a_discrete_latent_of_all_examples_is_summed_out():
    x = torch.tensor([0.3, 1.4, 2.2])
    found = fit(Shifted(), x, "nuts", warmup=200, draws=500, chains=2, device="cpu")
    grid = torch.linspace(-10, 10, 8001)
    each = [math.log(p) + dist.Normal(grid[:, None] + 3 * k, 1.0).log_prob(x).sum(-1) for k, p in ((0, 0.7), (1, 0.3))]
    mass = (dist.Normal(0.0, 2.0).log_prob(grid) + torch.logaddexp(*each)).softmax(0)
    mean = float(mass @ grid)
    check(found.samples["mean"], mean, float((mass @ (grid - mean).square()).sqrt()), 2, "mean")


def test_latents_keep_to_their_supports():
    x = torch.tensor([2.0, 0.0, 3.0, 1.0])
    found = fit(Supports(), x, "nuts", warmup=150, draws=300, chains=2, device="cpu")
    p, rate, factor = (found.samples[name] for name in ("p", "rate", "factor"))
    for i, alpha in enumerate((2.0, 3.0, 4.0)):
        check(p[:, i], alpha / 9, math.sqrt(alpha * (9 - alpha) / 810), 2, f"p[{i}]")
    check(rate, 9 / 6, math.sqrt(9) / 6, 2, "rate")
    correlation = factor @ factor.mT
    for i, j in ((1, 0), (2, 0), (2, 1)):  # 2 Beta(2.5, 2.5) - 1 each
        check(correlation[:, i, j], 0.0, math.sqrt(1 / 6), 2, (i, j))
    torch.testing.assert_close(p.sum(-1), torch.ones(600))


def test_latents_of_examples_are_sampled_with_those_of_all():
    x = torch.tensor([1.0, -0.5, 2.0])
    found = fit(Means(), x, "nuts", warmup=200, draws=500, chains=2, device="cpu")
    precision = torch.eye(4)  # of (m, z), with the prior of z about m and the x about z
    precision[0, 0] += 3
    precision[0, 1:] = precision[1:, 0] = -1
    precision[1:, 1:] += torch.eye(3)
    covariance = precision.inverse()
    mean = covariance @ torch.cat([torch.zeros(1), x])
    draws = torch.cat([found.samples["m"][:, None], found.samples["z"]], 1)
    for i in range(4):
        check(draws[:, i], float(mean[i]), float(covariance[i, i].sqrt()), 2, i)


def test_programs_in_single_precision():
    """And code that holds tensors of its own, which double precision does not go with."""
    design = torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]], dtype=torch.float32)

    def line(y):
        w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.plate("rows", 3):
            pyro.sample("y", dist.Normal(design @ w, 1.0), obs=y)

    torch.set_default_dtype(torch.float32)
    y = torch.tensor([0.5, 1.5, 1.0])
    found = fit(zoo.adopt(line), y, "nuts", warmup=200, draws=500, chains=2, device="cpu")
    assert found.samples["w"].dtype == torch.float32
    covariance = (torch.eye(2) + design.mT @ design).inverse()
    mean = covariance @ design.mT @ y
    for i in range(2):
        check(found.samples["w"][:, i], float(mean[i]), float(covariance[i, i].sqrt()), 2, i)
    plain = fit(Means(), y, "nuts", warmup=5, draws=5, chains=1, device="cpu").samples
    assert {value.dtype for value in plain.values()} == {torch.float32}


def test_how_the_density_was_run_is_said():
    def branching(y):
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(a if float(a.detach()) > 0 else 2 * a, 1.0), obs=y)

    few = {"warmup": 60, "draws": 60, "chains": 2, "device": "cpu"}
    found = fit(zoo.adopt(branching), torch.tensor(0.3), "nuts", **few)
    assert "looks at the value of a tensor" in found.info["density"]
    assert fit(Means(), torch.zeros(3), "nuts", **few).info["density"] == "run by TorchScript"


def test_no_start_is_said():
    class Nowhere(Means):
        def model(self, x=None, context=None, size=None):
            value = super().model(x, context, size)
            pyro.factor("never", torch.tensor(-math.inf))
            return value

    with pytest.raises(DivergenceError, match="found no start with a finite log density"):
        fit(Nowhere(), torch.zeros(3), "nuts", warmup=5, draws=5, chains=1)


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


def test_a_chain_does_not_depend_on_the_others():
    few = {"warmup": 20, "draws": 20, "device": "cpu"}
    alone, together = (fit(Means(), torch.zeros(3), "nuts", chains=n, **few).samples["m"][:20] for n in (1, 3))
    torch.testing.assert_close(alone, together)


def test_code_whose_sites_depend_on_draws_is_refused():
    def branching(y):
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        loc = pyro.sample("b", dist.Normal(0.0, 1.0)) if float(a) > 0 else a
        pyro.sample("y", dist.Normal(loc, 1.0), obs=y)

    with pytest.raises(CapabilityError, match="whether there are the sites b depends on what was drawn"):
        fit(zoo.adopt(branching), torch.tensor(0.3), "nuts", warmup=20, draws=4, chains=1)
