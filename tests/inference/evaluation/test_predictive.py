"""The log predictive density against the ratio of evidences, which is it: log p(train, x_n) - log p(train)."""

from __future__ import annotations

import pyro
import pyro.distributions as pdist
import pytest
import torch
import torch.distributions as dist
from torch.distributions import constraints

import zoo
from inference import Fit, fit
from inference.evaluation.likelihood import log_evidence, log_likelihood
from inference.evaluation.predictive import log_predictive_density, pointwise
from inference.particles import log_joint, prior_draws
from tests.inference.toys import SIGMAS, Pair, Sampler, linear
from zoo import catalogue, datasets
from zoo.datasets import Data
from zoo.errors import CapabilityError, ImplicitDensityError, OptionError
from zoo.program import Program

CONJUGATE = ("coin", "dirichlet-categorical", "normal", "linear-regression", "eight-schools")


def one_more(found: Fit, test: Data) -> torch.Tensor:
    """log p(x_n | training data) of each example, by two evidences."""
    program, train = found.program, found.train
    before = program.log_evidence(*train)
    together = []
    for i in range(test.size):
        row = test.rows(slice(i, i + 1))
        context = None if train.context is None else torch.cat([train.context, row.context])
        together.append(program.log_evidence(torch.cat([train.x, row.x]), context) - before)
    return torch.stack(together).detach()


def agrees(found, truth: torch.Tensor) -> None:
    """Within the Monte Carlo error, each value and the mean; less the bias of a log, half the squared error."""
    error = found.monte_carlo_error
    off = found.values + error.square() / 2 - truth
    assert bool((off.abs() < SIGMAS * error).all()), (off / error).abs().max()
    assert abs(float(off.mean())) < SIGMAS * found.mean_error


@pytest.mark.parametrize("name", CONJUGATE)
def test_predictive_density_is_the_ratio_of_evidences(name: str) -> None:
    found = fit(name, None, "exact")
    test = Data(*found.program.accept(*datasets.load(found.data).test)).rows(slice(0, 12))
    scored = log_likelihood(found, test, particles=20_000)
    agrees(scored, one_more(found, test))
    assert scored.values.shape == (test.size,)
    assert not scored.bound
    assert float(scored.monte_carlo_error.max()) < 0.05
    assert scored.how.startswith("predictive-20000")


def test_a_guide_is_scored_for_its_own_predictions() -> None:
    """Its Beta(a, b) predicts heads with a / (a + b), right or wrong."""
    found = fit("coin", torch.ones(10), "svi", steps=1)
    heads = found.program.guide_alpha / (found.program.guide_alpha + found.program.guide_beta)
    agrees(
        log_predictive_density(found, torch.tensor([1.0, 0.0]), draws=20_000),
        torch.stack([heads, 1 - heads]).log().detach(),
    )


def test_a_point_is_scored_as_the_point_that_it_is() -> None:
    found = fit("coin", torch.ones(3), "svi", guide="delta", steps=5)
    scored = log_likelihood(found, torch.tensor([1.0]))
    p = found.draw(1)["p"]
    assert float(scored.values) == pytest.approx(float(p.log()))
    assert not scored.bound
    assert scored.mean_error == pytest.approx(0.0, abs=1e-6)
    with pytest.raises(CapabilityError, match="no bound on the evidence"):
        log_evidence(found, torch.ones(3), how="iwae")


@pytest.mark.parametrize(("guide", "source"), [("own", "guide"), ("multivariate_normal", "model")])
def test_local_latents_are_integrated_out(guide: str, source: str) -> None:
    """The same global draws, and the local integral in closed form: x | mu, tau ~ N(mu, sigma^2 + tau^2)."""
    found = fit("eight-schools", None, "svi", guide=guide, steps=50)
    x, sigma = torch.tensor([10.0, -20.0]), torch.tensor([10.0, 12.0])
    scored = log_predictive_density(found, (x, sigma), draws=20_000)
    assert scored.how == f"predictive-20000, local latents from the {source}"
    draws = found.draw(200_000, seed=1)
    scale = (sigma**2 + draws["tau"][:, None] ** 2).sqrt()
    each = dist.Normal(draws["mu"][:, None], scale).log_prob(x)
    agrees(scored, each.logsumexp(0) - torch.tensor(200_000.0).log())


def test_discrete_local_latents_are_summed_out() -> None:
    program = catalogue.create("bayesian-gaussian-mixture", event_shape=[1], components=2)
    n = 3
    samples = {
        "weights": torch.tensor([0.25, 0.75]).expand(n, 2), "means": torch.tensor([[0.0], [2.0]]).expand(n, 2, 1),
        "precisions": torch.ones(n, 2, 1),
    }  # fmt: skip
    found = Fit(program=program, method="nuts", data="", seed=0, samples=samples, train=Data(torch.zeros(2, 1)))
    x = torch.tensor([[0.2], [3.0], [-1.0]])
    truth = (torch.tensor([0.25, 0.75]) * dist.Normal(torch.tensor([0.0, 2.0]), 1.0).log_prob(x).exp()).sum(1).log()
    scored = log_predictive_density(found, x, draws=7)
    torch.testing.assert_close(scored.values, truth)
    assert scored.how == "predictive-3"  # samples of a chain are taken as they are
    torch.testing.assert_close(
        pointwise(program, {name: value[:, None] for name, value in samples.items()}, x), truth.expand(n, 3)
    )


def test_pointwise_density_is_that_of_x_given_local_latents() -> None:
    program, x = Pair(), torch.randn(3)
    values = prior_draws(program.model, 5, x)
    given = {name: values[name] for name in ("scale", "z")}
    truth = dist.Normal(values["z"], values["scale"]).log_prob(x)
    torch.testing.assert_close(pointwise(program, given, x), truth)
    torch.testing.assert_close(pointwise(program, given, x, chunk=3), truth)
    prior = dist.Normal(0.0, 1.0).log_prob(values["z"])
    torch.testing.assert_close(log_joint(program, given, x).local, truth + prior)


def test_adopted_code_is_scored_by_observed_value_or_by_example() -> None:
    def model(x):
        mu = pyro.sample("mu", pdist.Normal(torch.tensor(0.0), 1.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("seen", pdist.Normal(mu, 1.0), obs=x)

    train, test = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.0, 1.0, 2.5, 4.0])
    # mu | train ~ N(1.5, 1/4), so x | train ~ N(1.5, 5/4)
    truth = dist.Normal(torch.tensor(1.5), torch.tensor(1.25).sqrt()).log_prob(test)
    samples = {"mu": 1.5 + 0.5 * torch.randn(2000)}
    for examples in (None, "rows"):
        program = zoo.adopt(model, examples=examples)
        found = Fit(program=program, method="nuts", data="", seed=0, samples=samples, train=program.take({"x": train}))
        agrees(log_likelihood(found, {"x": test}, particles=2000), truth)


def test_the_error_of_the_mean_counts_what_the_examples_share() -> None:
    """Ten times the same example has the error of one, not a tenth of its square."""
    found = fit("coin", torch.tensor([1.0, 0.0, 1.0]), "exact")
    one, ten = (log_predictive_density(found, torch.ones(n), draws=500) for n in (1, 10))
    assert ten.mean_error == pytest.approx(one.mean_error)
    assert ten.mean_error == pytest.approx(float(ten.monte_carlo_error[0]), rel=0.01)


class Upto(Program):
    """top ~ Exponential(1), x_i | top ~ Uniform(0, top)."""

    support = constraints.nonnegative

    def model(self, x=None, context=None, size=None):
        top = pyro.sample("top", pdist.Exponential(torch.tensor(1.0)))
        with self.plate(x, context, size):
            return pyro.sample("x", pdist.Uniform(torch.zeros_like(top), top), obs=x)


def test_what_no_draw_allows_is_infinitely_improbable_and_so_is_the_error() -> None:
    samples = {"top": torch.tensor([1.0, 2.0])}
    found = Fit(program=Upto(), method="nuts", data="", seed=0, samples=samples, train=Data(torch.ones(2)))
    scored = log_predictive_density(found, torch.tensor([0.5, 1.5, 3.0]), draws=2)
    torch.testing.assert_close(scored.values, torch.tensor([0.75, 0.25, 0.0]).log())
    assert scored.monte_carlo_error.isinf().tolist() == [False, False, True]
    assert scored.mean_error == torch.inf


def test_wrong_requests_say_what_to_do() -> None:
    found = fit("coin", torch.ones(3), "exact")
    with pytest.raises(CapabilityError, match="hand over the fit"):
        log_likelihood(found.program, torch.ones(3))
    with pytest.raises(OptionError, match="call log_evidence"):
        log_likelihood(found, torch.ones(3), how="exact")
    with pytest.raises(CapabilityError, match="use log_likelihood"):
        log_predictive_density(fit(linear(), linear().generate(5), "svi", steps=1), linear().generate(3))
    sampler = Fit(program=Sampler(), method="gan", data="", seed=0)
    with pytest.raises(ImplicitDensityError, match="implicit"):
        log_predictive_density(sampler, torch.zeros(3, 2))
    with pytest.raises(OptionError, match="draws"):
        log_predictive_density(found, torch.ones(3), draws=0)
