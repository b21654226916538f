"""Laplace's approximation is exact where the posterior is Gaussian, and what the textbook says elsewhere."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import zoo
from benchmarks import targets
from inference import Fit, fit
from inference.evaluation import log_evidence
from tests.inference.posteriors import FAR, FAR_EVIDENCE, FAR_MEAN, FAR_SD, dense, far, flat, slopes_counted, square
from tests.inference.toys import Sampler
from zoo import create, datasets
from zoo.bayes.coin import BetaBernoulli
from zoo.bayes.eight_schools import EightSchools
from zoo.errors import CapabilityError, OptionError
from zoo.program import Program


def moments(found: Fit) -> tuple[Tensor, Tensor]:
    """Of the unconstrained Gaussian, (D,) and (D, D)."""
    q = found.guide.get_posterior()
    return q.mean.detach(), q.covariance_matrix.detach()


def test_a_datum_far_from_the_prior() -> None:
    found = fit(zoo.adopt(far), FAR, "laplace")
    mean, covariance = moments(found)
    assert float(mean) == pytest.approx(FAR_MEAN, abs=1e-6)
    assert float(covariance) == pytest.approx(FAR_SD**2, abs=1e-6)
    assert found.info["log_evidence"] == pytest.approx(FAR_EVIDENCE, abs=1e-6)
    assert found.info["k_hat"] == 0.0
    assert found.info["convergence"] == {"verdict": "converged"}
    assert "warning" not in found.info


def test_a_gaussian_of_several_numbers() -> None:
    program, data = dense()
    found = fit(program, data, "laplace")
    mean, covariance = moments(found)
    wanted = targets_of(program, data)
    torch.testing.assert_close(mean, wanted[0], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(covariance, wanted[1], rtol=1e-6, atol=1e-9)
    assert found.info["log_evidence"] == pytest.approx(float(program.log_evidence(*data)), abs=1e-6)


def targets_of(program: Program, data) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the weights by the normal equations, noise 0.5 and prior 10."""
    rows = data.context
    precision = rows.T @ rows / 0.25 + torch.eye(rows.shape[1]) / 100
    return torch.linalg.solve(precision, rows.T @ data.x / 0.25), torch.linalg.inv(precision)


def test_a_beta_posterior_in_logits() -> None:
    """With a successes and b failures under a uniform prior the mode of the logit is log((a + 1) / (b + 1))."""
    x = datasets.load("coin").train.x.double()
    a, b = float(x.sum()) + 1, float((1 - x).sum()) + 1
    found = fit(BetaBernoulli(), x, "laplace")
    mean, covariance = moments(found)
    assert float(mean) == pytest.approx(math.log(a / b), abs=1e-6)
    assert float(covariance) == pytest.approx((a + b) / (a * b), abs=1e-6)
    height = a * math.log(a / (a + b)) + b * math.log(b / (a + b))
    assert found.info["log_evidence"] == pytest.approx(height + math.log(2 * math.pi * (a + b) / (a * b)) / 2, abs=1e-6)
    exact = targets.load("coin").total_log_evidence
    assert abs(found.info["log_evidence"] - exact) < 0.1


def test_it_is_pyros() -> None:
    """Mode and Hessian of `AutoLaplaceApproximation`, at the mode that was found."""
    program = BetaBernoulli()
    x = datasets.load("coin").train.x.double()
    found = fit(program, x, "laplace")
    guide = pyro.infer.autoguide.AutoLaplaceApproximation(program.model)
    guide(x, None, None)
    with torch.no_grad():
        guide.loc.copy_(moments(found)[0])
    theirs = guide.laplace_approximation(x, None, None)
    torch.testing.assert_close(
        theirs.get_posterior().covariance_matrix.detach(), moments(found)[1], rtol=1e-6, atol=1e-8
    )


def test_gradients_are_counted(monkeypatch) -> None:
    program, data = dense()
    with slopes_counted(monkeypatch) as seen:
        found = fit(program, data, "laplace", starts=3)
    assert found.gradient_evaluations == sum(seen) > 0


def test_two_modes_are_said() -> None:
    found = fit(zoo.adopt(square), {"y": torch.tensor(4.0)}, "laplace")
    assert found.info["modes"] == 2
    assert found.info["warning"].startswith("2 modes were found")
    assert abs(abs(float(moments(found)[0])) - math.sqrt(4 - 0.25 / 18)) < 1e-6


def heavy(y: Tensor) -> None:
    """A posterior with Cauchy tails, which no Gaussian has."""
    m = pyro.sample("m", dist.Cauchy(torch.tensor(0.0), 1.0))
    pyro.sample("y", dist.Cauchy(m, 10.0), obs=y)


def test_a_posterior_that_is_no_gaussian_is_said() -> None:
    found = fit(zoo.adopt(heavy), {"y": torch.tensor(0.0)}, "laplace")
    assert found.info["k_hat"] > 0.7
    assert "k-hat" in found.info["warning"]


def test_latents_of_examples_under_a_global_one_and_what_can_be_done_with_the_fit(tmp_path) -> None:
    found = fit("eight-schools", None, "laplace", out=tmp_path)
    draws = found.draw(50)
    assert {name: tuple(value.shape) for name, value in draws.items()} == {"mu": (50,), "tau": (50,), "eta": (50, 8)}
    again = Fit.load(tmp_path)
    assert all(torch.equal(value, again.draw(50)[name]) for name, value in draws.items())
    assert again.info["log_evidence"] == found.info["log_evidence"]
    # Weights mend what the Gaussian gets wrong.
    estimate = log_evidence(found.program, found.train, guide=found.guide, particles=2000)
    exact = targets.load("eight-schools").total_log_evidence
    assert abs(float(estimate.values) - exact) < 0.2


def test_the_program_stays_as_it_is() -> None:
    program, data = dense()
    before = {name: value.clone() for name, value in program.state_dict().items()}
    fit(program, data, "laplace")
    assert all(torch.equal(value, before[name]) for name, value in program.state_dict().items())


def test_what_it_refuses() -> None:
    with pytest.raises(CapabilityError, match="minus the Hessian of the log density is positive definite"):
        fit(EightSchools(centered=True), "eight_schools", "laplace", initialise=False)
    with pytest.raises(CapabilityError, match="minus the Hessian"):
        fit(zoo.adopt(flat), {"y": torch.tensor(0.0)}, "laplace")
    with pytest.raises(CapabilityError, match="it is implicit"):
        fit(Sampler(), torch.zeros(3), "laplace")
    with pytest.raises(CapabilityError, match="no continuous latent is global"):
        fit(create("ppca", event_shape=[4], latent_dim=2), torch.zeros(5, 4), "laplace")
    with pytest.raises(OptionError, match="starts must be at least 1, got 0"):
        fit(BetaBernoulli(), "coin", "laplace", starts=0)
