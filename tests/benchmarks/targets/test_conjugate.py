"""Conjugate targets against formulas written out, from the data as they were printed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from scipy.special import betaln, gammaln

from benchmarks.targets import conjugate
from benchmarks.targets.conjugate import EARTH_DENSITY, HORSE_KICKS


def test_the_coin_is_a_beta():
    target = conjugate.coin()
    posterior = stats.beta(1 + 9, 1 + 3)
    assert float(target.log_evidence) == pytest.approx(betaln(10, 4) - betaln(1, 1))
    assert float(target.mean["p"]) == pytest.approx(posterior.mean())
    assert float(target.sd["p"]) == pytest.approx(posterior.std())


def test_horse_kicks_are_those_of_two_hundred_corps_years():
    assert sum(HORSE_KICKS) == 200
    assert sum(k * n for k, n in enumerate(HORSE_KICKS)) == 122  # deaths, as von Bortkiewicz has them
    target = conjugate.horse_kicks()
    counts = np.array(HORSE_KICKS, dtype=float)
    # Uniform Dirichlet: the ordered outcomes have probability B(1 + n) / B(1).
    exact = gammaln(5) - gammaln(205) + gammaln(1 + counts).sum()
    assert float(target.log_evidence) == pytest.approx(exact)
    (site,) = target.mean
    np.testing.assert_allclose(target.mean[site], (1 + counts) / 205)


def test_the_density_of_the_earth_is_a_student_t():
    x = np.array(EARTH_DENSITY)
    assert len(x) == 29
    target = conjugate.earth_density()
    k0, a0, b0, m0, n = 0.1, 1.0, 0.1, 5.0, len(x)
    k, a = k0 + n, a0 + n / 2
    b = b0 + ((x - x.mean()) ** 2).sum() / 2 + k0 * n * (x.mean() - m0) ** 2 / (2 * k)
    exact = gammaln(a) - gammaln(a0) + a0 * math.log(b0) - a * math.log(b)
    exact += 0.5 * math.log(k0 / k) - n / 2 * math.log(2 * math.pi)
    assert float(target.log_evidence) == pytest.approx(exact)
    mean = stats.t(2 * a, (k0 * m0 + x.sum()) / k, math.sqrt(b / (a * k)))
    assert float(target.mean["mean"]) == pytest.approx(mean.mean())
    assert float(target.sd["mean"]) == pytest.approx(mean.std())
    precision = stats.gamma(a, scale=1 / b)
    assert float(target.mean["precision"]) == pytest.approx(precision.mean())
    assert float(target.sd["precision"]) == pytest.approx(precision.std())


def test_the_regression_is_a_gaussian_of_all_weights():
    target = conjugate.diabetes()
    y, features = target.data.x.numpy(), target.data.context.numpy()
    covariance = 0.49 * np.eye(len(y)) + features @ features.T
    found = stats.multivariate_normal(np.zeros(len(y)), covariance).logpdf(y)
    bias = stats.multivariate_normal(np.zeros(len(y)), covariance + 1.0).logpdf(y)  # with an intercept of its own
    assert float(target.log_evidence) in (pytest.approx(found), pytest.approx(bias))
