"""The Bayesian programs: closed forms against quadrature, posteriors as guides, SVI against analytic gaps."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import integrate
from scipy.stats import kstest
from sklearn.linear_model import LogisticRegression as SklearnLogistic
from torch import Tensor
from torch.distributions import Beta, Dirichlet, kl_divergence

from inference import fit
from inference.guides.grid import grid_posterior
from inference.particles import log_joint, log_weights
from tests.conftest import FAILURE_RATE
from zoo import datasets
from zoo.bayes.banana import Banana
from zoo.bayes.coin import BetaBernoulli
from zoo.bayes.dirichlet_categorical import DirichletCategorical
from zoo.bayes.eight_schools import EightSchools, TauPosterior
from zoo.bayes.logistic import LogisticRegression
from zoo.bayes.normal import NormalUnknown
from zoo.bayes.regression import BayesianLinearRegression
from zoo.bayes.two_modes import TwoModes
from zoo.datasets import Data
from zoo.errors import OptionError, ShapeError
from zoo.program import ExactEvidence, ExactPosterior, Program
from zoo.testing import checks

PROGRAMS = {
    "coin": lambda: BetaBernoulli(2.0, 3.0),
    "categories": lambda: DirichletCategorical(4, 0.7),
    "normal": NormalUnknown,
    "normal3": lambda: NormalUnknown([3], prior_mean=1.0),
    "regression": lambda: BayesianLinearRegression(3),
    "logistic": lambda: LogisticRegression(3),
    "schools": lambda: EightSchools(centered=False),
    "schools-centered": lambda: EightSchools(centered=True),
    "banana": Banana,
    "two-modes": TwoModes,
}
CONJUGATE = [name for name in PROGRAMS if name not in ("banana", "two-modes", "logistic")]


@pytest.mark.parametrize("check", list(checks()), ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", PROGRAMS)
def test_contract(name, check):
    check(PROGRAMS[name]())


def data_for(program: Program, n: int = 9) -> Data:
    context = program.example_context(n)
    return Data(program.generate(n, context), context)


@pytest.mark.parametrize("name", CONJUGATE)
def test_posterior_is_exact_at_every_draw(name):
    program = PROGRAMS[name]()
    data = data_for(program)
    assert isinstance(program, ExactPosterior)
    assert isinstance(program, ExactEvidence)
    weights = log_weights(program, program.posterior, 64, *data)[1].total
    torch.testing.assert_close(weights, program.log_evidence(*data).expand(64), rtol=0, atol=1e-8)


def legendre(low: float, high: float, n: int = 200) -> tuple[Tensor, Tensor]:
    """Nodes (n,) and log weights (n,) of Gauss-Legendre quadrature on [low, high]."""
    nodes, weights = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(n))
    half = (high - low) / 2
    return low + half * (nodes + 1), (half * weights).log()


def integral(program: Program, data: Data, values: Callable[[Tensor, Tensor], dict[str, Tensor]], a, b) -> float:
    """log of the integral of p(x, values(s, t)) over the nodes and log weights a and b of s and t."""
    s, t = torch.meshgrid(a[0], b[0], indexing="ij")
    log_weight = (a[1][:, None] + b[1]).flatten()
    given = values(s.reshape(-1, 1), t.reshape(-1, 1))
    return float((log_joint(program, given, *data).total + log_weight).logsumexp(0))


def test_coin_evidence_equals_quadrature():
    program, data = BetaBernoulli(1.5, 2.0), datasets.load("coin").train

    def density(p: float) -> float:
        return float(log_joint(program, {"p": torch.tensor([[p]])}, *data).total.exp())

    got, _ = integrate.quad(density, 0, 1, epsabs=0, epsrel=1e-9)
    assert float(program.log_evidence(*data)) == pytest.approx(math.log(got), abs=1e-6)


def test_two_categories_are_the_coin():
    data = datasets.load("coin").train
    coin, categories = BetaBernoulli(0.7, 0.7), DirichletCategorical(2, 0.7)
    torch.testing.assert_close(categories.log_evidence(*data), coin.log_evidence(*data))


def test_three_categories_equal_quadrature():
    program, data = DirichletCategorical(3, 1.5), Data(torch.tensor([0.0, 2.0, 2.0, 1.0, 2.0]))
    # Stick breaking makes the triangle a square: the Jacobian is 1 - s.
    nodes, log_weight = legendre(0, 1)
    got = integral(
        program,
        data,
        lambda s, t: {"probs": torch.stack([s, (1 - s) * t, (1 - s) * (1 - t)], -1)},
        (nodes, log_weight + (1 - nodes).log()),
        (nodes, log_weight),
    )
    assert float(program.log_evidence(*data)) == pytest.approx(got, abs=1e-4)


def test_normal_evidence_equals_quadrature():
    program = NormalUnknown(prior_mean=0.5, prior_weight=0.3, concentration=2.0, rate=1.5)
    data = Data(torch.tensor([0.3, -0.8, 1.9, 0.4]))
    log_precision, log_weight = legendre(-7, 4)
    got = integral(
        program,
        data,
        lambda s, t: {"precision": s.exp(), "mean": t},
        (log_precision, log_weight + log_precision),
        legendre(-15, 15),
    )
    assert float(program.log_evidence(*data)) == pytest.approx(got, abs=1e-4)


def test_regression_evidence_equals_quadrature():
    program = BayesianLinearRegression(2, prior_scale=1.5, noise_scale=0.8)
    context = torch.tensor([[1.0, 0.2], [1.0, -1.0], [1.0, 2.0], [1.0, 0.5]])
    data = Data(torch.tensor([0.5, -0.3, 2.2, 0.9]), context)
    got = integral(program, data, lambda s, t: {"w": torch.stack([s, t], -1)}, legendre(-5, 5), legendre(-5, 5))
    assert float(program.log_evidence(*data)) == pytest.approx(got, abs=1e-4)


@pytest.mark.parametrize("level", [0.0, 1e5])
def test_closed_forms_hold_in_float32_far_from_zero(level):
    rows = torch.randn(200)
    x = (rows + level).float()
    truth = NormalUnknown(prior_mean=level, prior_weight=0.5)
    program = copy.deepcopy(truth).float()
    got, want = program.updated(x), truth.updated(x.double())
    assert float(got.loc) == pytest.approx(float(want.loc), abs=1e-7 * level + 1e-6)
    assert float(got.rate) == pytest.approx(float(want.rate), rel=1e-4)
    assert float(program.log_evidence(x)) == pytest.approx(float(truth.log_evidence(x.double())), abs=0.05)
    context = torch.stack([torch.ones(200), rows], -1).float()
    double = BayesianLinearRegression(2, prior_scale=1e5)
    single = copy.deepcopy(double).float()
    want = float(double.log_evidence(x.double(), context.double()))
    assert float(single.log_evidence(x, context)) == pytest.approx(want, abs=0.01)


def test_eight_schools_evidence_equals_quadrature_over_mu_and_tau():
    # Another route than the program's: theta integrated out school by school, then mu and tau by adaptive quadrature.
    data = datasets.load("eight_schools").train
    y, sigma = data.x.numpy(), data.context.numpy()

    def density(log_tau: float, mu: float) -> float:
        tau = math.exp(log_tau)
        variance = sigma**2 + tau**2
        likelihood = np.exp(-0.5 * (y - mu) ** 2 / variance) / np.sqrt(2 * np.pi * variance)
        prior = math.exp(-0.5 * (mu / 5) ** 2) / (5 * math.sqrt(2 * math.pi)) * 2 / (math.pi * 5 * (1 + (tau / 5) ** 2))
        return float(likelihood.prod()) * prior * tau

    got, _ = integrate.dblquad(density, -30, 40, -16, 7, epsabs=0, epsrel=1e-7)
    for centered in (False, True):
        assert float(EightSchools(centered).log_evidence(*data)) == pytest.approx(math.log(got), abs=1e-5)


def test_tau_draws_follow_their_density():
    data = datasets.load("eight_schools").train
    tau = TauPosterior(*data, torch.tensor(5.0), torch.tensor(5.0))
    draws = tau.sample((20_000,))
    # Kolmogorov-Smirnov against the distribution function by quadrature of the density.
    grid = torch.linspace(0, 200, 400_001)
    density = tau.log_prob(grid.clamp(min=1e-12)).exp()
    below = torch.cat([torch.zeros(1), torch.cumulative_trapezoid(density, grid)])
    result = kstest(draws.numpy(), lambda t: np.interp(t, grid.numpy(), below.numpy()))
    assert result.pvalue > FAILURE_RATE


def test_transformed_gives_theta_in_both_parametrisations():
    mu, tau, eta = torch.randn(5, 1), torch.rand(5, 1), torch.randn(5, 8)
    theta = EightSchools(False).transformed({"mu": mu, "tau": tau, "eta": eta})["theta"]
    torch.testing.assert_close(theta, mu + tau * eta)
    same = EightSchools(True).transformed({"mu": mu, "tau": tau, "theta": theta})["theta"]
    torch.testing.assert_close(same, theta)


def test_banana_evidence_equals_quadrature():
    program, x = Banana(), torch.tensor([[0.3, -0.4], [1.0, 2.0]])
    vague, sharp = (float(s) for s in program.noise_scale)

    def normal(value: float, mean: float, sd: float) -> float:
        return math.exp(-0.5 * ((value - mean) / sd) ** 2) / (sd * math.sqrt(2 * math.pi))

    evidence = grid_posterior(program, x).log_evidence
    for (a, b), got in zip(x.tolist(), evidence.tolist(), strict=True):
        # z_2 integrated by hand: x_2 | z_1 ~ N(z_1^2, 1 + sharp^2).
        want, _ = integrate.quad(
            lambda z, a=a, b=b: normal(z, 0, 1) * normal(a, z, vague) * normal(b, z * z, math.hypot(1, sharp)), -8, 8
        )
        assert got == pytest.approx(math.log(want), abs=1e-6)


def test_two_modes_has_two_modes():
    program, x = TwoModes(), torch.tensor([[2.0, 1.5]])
    grid = grid_posterior(program, x)
    torch.testing.assert_close(grid.mean, torch.zeros(1, 2), rtol=0, atol=1e-10)
    z = grid.points[grid.log_mass[:, 0].argmax(), 0]
    root = np.sqrt(2.0 + 1.5j)
    assert abs(abs(z[0]) - abs(root.real)) < 0.2
    at_mode, between = (
        float(log_joint(program, {"z": value.reshape(1, 1, 2)}, x).total) for value in (z, torch.zeros(2))
    )
    assert at_mode - between > 5  # e^5 times less probable in between


# SVI. Its end is a random walk around the optimum, damped by the cosine schedule.


def gaussian_kl(loc: Tensor, covariance: Tensor, to_loc: Tensor, to_precision: Tensor) -> float:
    """KL(N(loc, covariance) || N(to_loc, to_precision^-1))."""
    shift = to_loc - loc
    quadratic = shift @ to_precision @ shift + (to_precision @ covariance).trace() - len(loc)
    return 0.5 * float(quadratic - torch.logdet(to_precision) - torch.logdet(covariance))


def regression(*sizes: float) -> tuple[BayesianLinearRegression, Data, Tensor, Tensor]:
    """A program, its data in columns of these sizes, and the mean and precision of its posterior, by hand."""
    design = torch.randn(60, 4)
    design[:, 1] = design[:, 0] + 0.3 * design[:, 1]  # correlated columns: mean-field has something to lose
    x = design @ torch.tensor([1.0, -0.5, 0.3, 0.0]) + 0.7 * torch.randn(60)
    design = design * torch.tensor(sizes or [1.0])
    program = BayesianLinearRegression(4)
    precision = design.T @ design / program.noise_scale**2 + torch.diag(program.prior_scale**-2)
    return program, Data(x, design), torch.linalg.solve(precision, design.T @ x / program.noise_scale**2), precision


def test_full_rank_svi_reaches_the_regression_posterior():
    program, data, loc, precision = regression()
    found = fit(program, data, "svi", guide="multivariate_normal", steps=1500, lr=0.05, particles=8, device="cpu")
    q = found.guide.get_posterior()
    assert gaussian_kl(q.mean.detach(), q.covariance_matrix.detach(), loc, precision) < 1e-2


@pytest.mark.parametrize("sizes", [(), (1000.0, 30.0, 0.1, 1.0)], ids=["standardised", "raw"])
def test_mean_field_svi_has_the_analytic_gap(sizes: tuple[float, ...]):
    """In columns of any size."""
    program, data, loc, precision = regression(*sizes)
    found = fit(program, data, "svi", guide="own", steps=1500, lr=0.05, particles=8, device="cpu")
    unit, q = found.program.unit, found.program
    kl = gaussian_kl(unit * q.loc.detach(), torch.diag((unit * q.scale.detach()) ** 2), loc, precision)
    # The best diagonal Gaussian has the right mean and precisions diag(precision).
    analytic = 0.5 * float(precision.diagonal().log().sum() - torch.logdet(precision))
    assert analytic > 0.5
    assert kl == pytest.approx(analytic, rel=0.05)


def test_own_guides_contain_the_conjugate_posteriors():
    # The parameters of the guides converge slowly along a ridge, so the KL is judged and not they.
    data = datasets.load("coin").train
    options = {"steps": 1000, "lr": 0.05, "particles": 8, "device": "cpu"}
    coin = fit(BetaBernoulli(), data, "svi", **options).program
    sides = fit(DirichletCategorical(2), data, "svi", **options).program
    with torch.no_grad():
        q, p = Beta(coin.guide_alpha, coin.guide_beta), Beta(10.0, 4.0)
        assert float(kl_divergence(q, p)) < 1e-2
        q, p = Dirichlet(sides.guide_concentration), Dirichlet(torch.tensor([4.0, 10.0]))
        assert float(kl_divergence(q, p)) < 1e-2


def test_logistic_joint_is_the_formula():
    program = LogisticRegression(2, prior_scale=1.5, bias_scale=3.0)
    context, x = torch.randn(7, 2), torch.tensor([1.0, 0, 0, 1, 1, 0, 1])
    w, b = torch.randn(4, 1, 2), torch.randn(4, 1)
    want = []
    for i in range(4):
        logits = context @ w[i, 0] + b[i]
        likelihood = (x * logits - logits.exp().log1p()).sum()
        prior = -((w[i] / 1.5) ** 2).sum() / 2 - (b[i] / 3.0) ** 2 / 2 - 1.5 * math.log(2 * math.pi)
        want.append(likelihood + prior.squeeze() - 2 * math.log(1.5) - math.log(3.0))
    got = log_joint(program, {"w": w, "b": b}, x, context).total
    torch.testing.assert_close(got, torch.stack(want))


def test_logistic_mode_is_that_of_scikit_learn():
    data = datasets.load("breast-cancer").train
    program = LogisticRegression(30, prior_scale=0.5, bias_scale=30.0)
    found = fit(program, data, "svi", guide="delta", steps=1500, lr=0.2, batch_size=1000, device="cpu")
    mode = found.guide.median()
    # The penalty |w|^2 / (2 C) is the log prior of scale sqrt(C); scikit-learn leaves the intercept free,
    # which at a scale of 30 moves it by less than 1e-4.
    sklearn = SklearnLogistic(C=0.25, tol=1e-10, max_iter=1000).fit(data.context.numpy(), data.x.numpy())
    torch.testing.assert_close(mode["w"].detach(), torch.from_numpy(sklearn.coef_[0]), rtol=0, atol=1e-3)
    assert float(mode["b"]) == pytest.approx(float(sklearn.intercept_[0]), abs=1e-3)


def test_options_and_data_are_checked():
    with pytest.raises(OptionError, match="bias_scale must be positive"):
        LogisticRegression(2, bias_scale=0.0)
    with pytest.raises(ShapeError, match="needs a design matrix"):
        LogisticRegression.for_data(torch.zeros(3))
    with pytest.raises(OptionError, match="noise_scale must be positive"):
        BayesianLinearRegression(2, noise_scale=0.0)
    with pytest.raises(OptionError, match="values must be at least 2"):
        DirichletCategorical(1)
    with pytest.raises(ShapeError, match="design matrix"):
        BayesianLinearRegression.for_data(torch.zeros(3))


@pytest.mark.parametrize("name", PROGRAMS)
def test_builds_for_its_default_data(name):
    cls = type(PROGRAMS[name]())
    data = datasets.load(cls.dataset).train
    program = cls.for_data(*data)
    program.check(*data)
    with torch.no_grad():
        program.initialise(*data)
    assert torch.isfinite(log_weights(program, program.guide, 4, *data)[1].total).all()
