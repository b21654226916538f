"""Estimates say what they are and how far off; bounds and densities of guides are those of closed forms."""

from __future__ import annotations

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from inference import fit
from inference.evaluation import estimates
from inference.evaluation.estimates import Estimate, checked, density, elbo, importance_log_weights, log_mean_exp
from inference.evaluation.likelihood import log_evidence
from inference.guides.named import AUTOGUIDES, build_guide
from inference.particles import draw
from tests.inference.toys import Mean, Pair, Rate, Sampler, gaussian_kl, linear, posterior_moments, within
from zoo import catalogue, datasets
from zoo.datasets import Data, Dataset
from zoo.errors import CapabilityError, EmptyDataError, ImplicitDensityError, NonFiniteError, OptionError


def test_estimate_reports_mean_error_and_bits():
    found = Estimate(torch.tensor([-1.0, -3.0]), "exact", False)
    assert found.mean == -2.0
    assert found.standard_error == pytest.approx(1.0)
    assert found.bits_per_dim(4) == pytest.approx(2 / (4 * math.log(2)))
    assert Estimate(torch.tensor([-1.0]), "exact", False).standard_error is None


def test_elbo_is_evidence_minus_closed_form_kl():
    program = linear()
    x = program.generate(50)
    found = elbo(program, None, Data(x), 4000)
    mean, covariance = posterior_moments(program, x)
    kl, _ = gaussian_kl(program.encoder(x).detach(), program.encoder_scale.detach(), mean, covariance)
    assert within(found, program.log_prob(x).detach() - kl)
    assert found.values.shape == (50,)


@pytest.mark.parametrize(("numbers", "runs"), [(5, 2), (784, 2), (3 * 784, 6)])
def test_memory_is_bounded_for_long_examples_too(numbers, runs, monkeypatch):
    """Of 24 pairs at a time, 2 examples have 12 particles each; examples three times as long have 4."""
    program, seen = linear(numbers), list[int]()
    monkeypatch.setattr(estimates, "draw", lambda guide, n, *batch: seen.append(n) or draw(guide, n, *batch))
    weights = importance_log_weights(program, None, Data(program.generate(2)), 24, chunk=24)
    assert weights.shape == (24, 2)
    assert seen == [24 // runs] * runs


# A point has no density, and Pyro's AutoIAFNormal needs two dimensions.
CASES = [(n, m) for n in AUTOGUIDES for m in (Rate, Mean, Pair) if n != "delta" and (n, m) != ("iaf", Mean)]


@pytest.mark.parametrize(("name", "make"), CASES)
def test_density_of_autoguides_agrees_with_their_own_draws(name, make):
    program = make()
    x = program.generate(4)
    guide = build_guide({"kind": "auto", "name": name}, program, Data(x))
    with torch.no_grad():
        for parameter in guide.parameters():  # where it starts, what hangs on what is zero
            parameter.add_(0.1 * torch.randn_like(parameter))
        draws = draw(guide, 6, x)
        found = density(guide, draws.values, x)
    torch.testing.assert_close(found.total, draws.log_prob.total)
    assert found.joint == draws.log_prob.joint


def test_density_of_a_point_guide_is_refused():
    program = Mean()
    x = program.generate(4)
    guide = build_guide({"kind": "auto", "name": "delta"}, program, Data(x))
    with pytest.raises(CapabilityError, match="point"):
        density(guide, {"mu": torch.zeros(3, 1)}, x)


class Point(Mean):
    """Its guide is the mode, as one writes it by hand."""

    def guide(self, x=None, context=None, size=None):
        pyro.sample("mu", dist.Delta(pyro.param("mode", torch.zeros(()))))


@pytest.mark.parametrize("kind", ["delta", "own"])
def test_a_point_is_refused_by_whatever_calls_itself_a_bound(kind):
    program = Point()
    data = Data(program.generate(6))
    spec = {"kind": "own"} if kind == "own" else {"kind": "auto", "name": kind}
    guide = build_guide(spec, program, data)
    for ask in (elbo, importance_log_weights, lambda *given: log_evidence(program, data, guide=guide, how="iwae")):
        with pytest.raises(CapabilityError, match=r"is a point.*guide='normal'"):
            ask(program, guide, data)
    for bound in ("iwae", "renyi", "score"):
        with pytest.raises(CapabilityError, match="is a point"):
            fit(program, data.x, "svi", guide=kind, elbo=bound, particles=3, alpha=0.5)
    fit(program, data.x, "svi", guide=kind, steps=1)  # a fit of the mode is what it is for


def test_weights_of_zero_make_no_nan():
    weights = torch.stack([torch.zeros(10), torch.full((10,), -torch.inf), torch.zeros(10)], 1)
    weights[0, 2] = -torch.inf
    value, error = log_mean_exp(weights)
    assert value.tolist() == pytest.approx([0.0, -torch.inf, math.log(0.9)])
    # Nine of ten alike: the delta method's sqrt((1/0.9 - 1) / 9).
    assert error.tolist() == pytest.approx([0.0, torch.inf, ((1 / 0.9 - 1) / 9) ** 0.5])


def test_wrong_requests_say_what_to_do():
    program = Rate()
    with pytest.raises(OptionError, match="at least 1"):
        elbo(program, None, Data(program.generate(5)), 0)
    with pytest.raises(ImplicitDensityError, match="Parzen"):
        importance_log_weights(Sampler(), Sampler().guide, Data(torch.zeros(3, 2)))


def test_instruments_take_what_fit_takes(tmp_path):
    program = catalogue.create("ppca", event_shape=[4], latent_dim=1)
    x = torch.randn(6, 4)
    np.save(tmp_path / "mine.npy", x.numpy())
    of_test = datasets.load(tmp_path / "mine.npy").test.x
    assert torch.equal(checked(program, x.double()).x, x)
    assert torch.equal(checked(program, tmp_path / "mine.npy").x, of_test)
    assert torch.equal(checked(program, str(tmp_path / "mine.npy")).x, of_test)
    assert torch.equal(checked(program, Dataset.of(x[:3], test=x[3:])).x, x[3:])
    with pytest.raises(EmptyDataError, match="has no test split"):
        checked(program, Dataset.of(x))
    x[0, 1] = torch.nan
    assert checked(program, x).x.isnan().sum() == 1
    with pytest.raises(NonFiniteError, match="1 values are missing"):
        checked(program, x, complete=True)


def test_the_perplexity_of_a_fair_die_is_six():
    rolls = Estimate(torch.full((10,), 4 * math.log(1 / 6)), "exact", False)  # four rolls each
    assert rolls.perplexity(4) == pytest.approx(6.0)
