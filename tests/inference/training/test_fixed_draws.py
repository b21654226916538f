"""The best Gaussian of each family, where it is known; and the optimiser on a function whose maximum is."""

from __future__ import annotations

import itertools
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import zoo
from inference.training.fixed_draws import CALM, FAMILIES, LowRank, climb, normal_draws, settle
from inference.training.modes import find_modes
from inference.training.target import Target
from zoo.bayes.regression import BayesianLinearRegression
from zoo.datasets.data import Data


def regression() -> tuple[Target, Tensor, Tensor, float]:
    """Four correlated weights: the posterior, its mean and precision, and the evidence."""
    rows = torch.randn(20, 4)
    rows[:, 3] = rows[:, 0] + 0.2 * rows[:, 3]
    program = BayesianLinearRegression(4, prior_scale=10.0, noise_scale=0.5)
    x = rows @ torch.tensor([1.0, 2.0, -1.0, 0.0]) + 0.5 * torch.randn(20)
    precision = rows.T @ rows / 0.25 + torch.eye(4) / 100
    mean = torch.linalg.solve(precision, rows.T @ x / 0.25)
    return Target(program, Data(x, rows)), mean, precision, float(program.log_evidence(x, rows))


@pytest.mark.parametrize("n", [4, 64, 4096])
def test_draws_are_symmetric_and_of_unit_variance(n: int) -> None:
    e = normal_draws(n, 3, seed=1)
    assert e.shape == (n, 3)
    assert float(e.mean(0).abs().max()) < 1e-12
    torch.testing.assert_close(e.square().mean(0), torch.ones(3))
    assert torch.equal(e, normal_draws(n, 3, seed=1))
    assert not torch.equal(e, normal_draws(n, 3, seed=2))
    if n > 4:
        torch.testing.assert_close(e.T @ e / n, torch.eye(3))
    if n == 4096:
        assert float((e**4).mean(0).sub(3).abs().max()) < 0.05


@pytest.mark.parametrize("away", [0.0, 3.0])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_best_of_a_gaussian_posterior(name: str, away: float) -> None:
    """From its own Gaussian, and from one that is off by some standard deviations and ten times too narrow."""
    target, mean, precision, evidence = regression()
    (mode,) = find_modes(target, target.starts(2))
    shrunk = 1.0 if away == 0 else 0.1
    base = FAMILIES[name](mode.place + away * mode.factor.sum(1), shrunk * mode.factor, shrunk * mode.precision_scale())
    found = settle(target, base, seed=0, most=500)
    assert found.arrived
    assert found.gain < 0.01
    torch.testing.assert_close(
        found.gaussian["loc"], mean, rtol=0, atol=0.02 * float(precision.diagonal().rsqrt().min())
    )
    # What a factorised Gaussian lacks is half the log ratio of the determinants; the full one lacks nothing.
    lacks = float(precision.diagonal().log().sum() - torch.logdet(precision)) / 2
    if name == "low_rank":
        assert evidence - lacks < found.bound <= evidence + 1e-6
    else:
        assert found.bound == pytest.approx(evidence - (lacks if name == "normal" else 0.0), abs=2e-3)


@pytest.mark.parametrize("name", FAMILIES)
def test_entropies_are_those_of_torch(name: str) -> None:
    factor = torch.randn(5, 5).tril(-1) + torch.eye(5)
    family = FAMILIES[name](torch.randn(5), factor, torch.rand(5) + 0.5)
    theta = family.start() + 0.3 * torch.randn_like(family.start())
    q = family.gaussian(theta)
    known = {
        "normal": lambda: dist.Normal(q["loc"], q["scale"]).to_event(1),
        "multivariate_normal": lambda: dist.MultivariateNormal(q["loc"], scale_tril=q["scale_tril"]),
        "low_rank": lambda: dist.LowRankMultivariateNormal(
            q["loc"], q["cov_factor"] * q["scale"][:, None], q["scale"].square()
        ),
    }[name]()
    torch.testing.assert_close(family.entropy(theta), known.entropy())
    z = family.draws(theta, normal_draws(4096, family.noise(), 0))
    covariance = (z - q["loc"]).T @ (z - q["loc"]) / len(z)
    expected = known.base_dist.variance.diag() if name == "normal" else known.covariance_matrix
    torch.testing.assert_close(covariance, expected, rtol=1e-8, atol=1e-8)


def test_a_low_rank_start_is_the_factor_analysis_that_made_it() -> None:
    columns = torch.tensor([[2.0], [1.0], [-1.0], [0.0]])
    covariance = columns @ columns.T + torch.eye(4)
    sd = covariance.diagonal().sqrt()
    q = (family := LowRank(torch.zeros(4), torch.linalg.cholesky(covariance), sd)).gaussian(family.start())
    found = (
        q["scale"].square().diag() + (q["cov_factor"] * q["scale"][:, None]) @ (q["cov_factor"] * q["scale"][:, None]).T
    )
    torch.testing.assert_close(found.diagonal(), covariance.diagonal(), rtol=0.5, atol=0)
    assert float(torch.linalg.eigvalsh(found).min()) > 0


def test_a_skewed_posterior_takes_more_draws_and_beats_the_mode() -> None:
    """log p(z) = 3 z - exp(z) up to a constant: log of a Gamma(3, 1). The best Gaussian solves two equations:
    exp(m + s^2 / 2) = 3 and s^2 exp(m + s^2 / 2) = 1, so s^2 = 1/3 and m = log 3 - 1/6; the mode is at log 3."""

    def gamma(y: Tensor) -> None:
        rate = pyro.sample("rate", dist.Gamma(torch.tensor(2.0), torch.tensor(0.5)))
        pyro.sample("y", dist.Poisson(rate / 2), obs=y)  # posterior Gamma(3, 1)

    program = zoo.adopt(gamma)
    target = Target(program, program.take({"y": torch.tensor(1.0)}))
    (mode,) = find_modes(target, target.starts(2))
    assert float(mode.place) == pytest.approx(math.log(3.0))
    family = FAMILIES["normal"](mode.place, mode.factor, mode.precision_scale())
    found = settle(target, family, seed=0, most=500)
    assert float(found.gaussian["loc"]) == pytest.approx(math.log(3.0) - 1 / 6, abs=5e-3)
    assert float(found.gaussian["scale"]) == pytest.approx(3**-0.5, rel=1e-2)
    cut = settle(target, family, seed=0, most=1)
    assert not cut.arrived
    assert cut.bound < found.bound + 1e-3


def test_climbing_rosenbrocks_valley() -> None:
    def slope(z: Tensor) -> tuple[Tensor, Tensor]:
        at = z.clone().requires_grad_()
        value = -((1 - at[0]) ** 2 + 100 * (at[1] - at[0] ** 2) ** 2)
        return value.detach(), torch.autograd.grad(value, at)[0]

    start = torch.tensor([-1.2, 1.0])
    found, values, arrived = climb(slope, start, 200)
    assert arrived
    torch.testing.assert_close(found, torch.ones(2), rtol=0, atol=math.sqrt(CALM) * 10)
    assert all(b >= a for a, b in itertools.pairwise(values))
    found, values, arrived = climb(slope, start, 3)
    assert not arrived
    assert len(values) == 4


def test_climbing_stays_where_values_are_finite() -> None:
    def slope(z: Tensor) -> tuple[Tensor, Tensor]:
        value = z.log().sum() - z.sum() if bool((z > 0).all()) else torch.tensor(-math.inf)
        return value, 1 / z - 1

    found, _, arrived = climb(slope, torch.tensor([0.01, 5.0]), 200)
    assert arrived
    torch.testing.assert_close(found, torch.ones(2), rtol=0, atol=1e-2)


def test_a_slope_whose_square_is_too_large_for_a_number() -> None:
    found, _, arrived = climb(lambda z: (-5e199 * (z - 1).square().sum(), 1e200 * (1 - z)), torch.tensor([5.5]), 200)
    assert arrived
    torch.testing.assert_close(found, torch.ones(1))


def test_a_step_out_of_a_wall_tells_nothing_of_what_is_beyond() -> None:
    """-(z - 1)^2 / 2 - exp(200 (z - 3)) / 200: from 3.9 a step of 1 leads to where the curvature is 1, and not 1e80."""

    def slope(z: Tensor) -> tuple[Tensor, Tensor]:
        wall = (200 * (z - 3)).exp()
        return -((z - 1).square() / 2 + wall / 200).sum(), 1 - z - wall

    found, _, arrived = climb(slope, torch.tensor([3.9]), 200)
    assert arrived
    torch.testing.assert_close(found, torch.ones(1), rtol=0, atol=1e-4)
