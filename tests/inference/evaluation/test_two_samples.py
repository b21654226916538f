"""Distances between draws: zero for equals, the known value for Gaussians, and honest p-values."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.evaluation import two_samples
from inference.evaluation.two_samples import c2st, gaussian_kl, mmd, sliced_wasserstein
from zoo.errors import EmptyDataError, NonFiniteError, OptionError, ShapeError, SupportError


def test_sliced_wasserstein_of_a_shift_is_the_projected_shift():
    a = torch.randn(500, 3)
    assert sliced_wasserstein(a, a.flip(0)) == 0
    # A shift by v moves each projection by <v, u>; over directions E <v, u>^2 = |v|^2 / 3.
    found = sliced_wasserstein(a, a + torch.tensor([3.0, 0.0, 0.0]), projections=4000)
    assert found == pytest.approx(math.sqrt(3), rel=0.05)


def test_sliced_wasserstein_of_unequal_sizes():
    a = torch.randn(3000, 1)
    b = 2 * torch.randn(1000, 1)
    # W2 of N(0, 1) and N(0, 4) is 1; both empirical quantile functions carry an error of order n^-1/2.
    assert sliced_wasserstein(a, b) == pytest.approx(1.0, abs=0.15)


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 30), st.integers(2, 30), st.integers(1, 4))
def test_sliced_wasserstein_is_symmetric_and_not_negative(n, m, d):
    a, b = torch.randn(n, d), torch.randn(m, d)
    assert sliced_wasserstein(a, b) == pytest.approx(sliced_wasserstein(b, a))
    assert sliced_wasserstein(a, b) >= 0


def test_mmd_is_the_closed_form_for_gaussians():
    n, h, shift = 1000, 1.5, 1.0
    a, b = torch.randn(n, 1), torch.randn(n, 1) + shift
    found = mmd(a, b, bandwidth=h)
    # E k(x, y) for x - y ~ N(m, 2) under exp(-t^2 / 2h^2) is h / sqrt(h^2 + 2) exp(-m^2 / (2 (h^2 + 2))).
    truth = 2 * h / math.sqrt(h**2 + 2) * (1 - math.exp(-(shift**2) / (2 * (h**2 + 2))))
    assert found.value == pytest.approx(truth, rel=0.3)
    assert found.p_value == pytest.approx(1 / 201)


def test_mmd_is_unbiased_and_its_p_value_uniform_under_the_null():
    runs = [mmd(torch.randn(40, 2), torch.randn(30, 2), permutations=99, seed=i) for i in range(120)]
    values = np.array([r.value for r in runs])
    assert abs(values.mean()) < 4.3 * values.std() / math.sqrt(len(values))
    assert (values < 0).any()
    p = np.array([r.p_value for r in runs])
    assert abs((p <= 0.2).mean() - 0.2) < 4.3 * math.sqrt(0.2 * 0.8 / len(p))


def test_mmd_by_its_definition():
    a, b = torch.randn(7, 2), torch.randn(5, 2)

    def mean(x, y, skip):
        k = [
            math.exp(-float((u - v).square().sum()) / 2)
            for i, u in enumerate(x)
            for j, v in enumerate(y)
            if not (skip and i == j)
        ]
        return sum(k) / len(k)

    by_hand = mean(a, a, True) + mean(b, b, True) - 2 * mean(a, b, False)
    assert mmd(a, b, bandwidth=1.0, permutations=5).value == pytest.approx(by_hand)


@pytest.fixture
def few_rounds(monkeypatch):
    """The network sees what there is to see long before it has converged."""
    monkeypatch.setattr(two_samples, "ROUNDS", 100)


@pytest.mark.parametrize("classifier", ["mlp", "quadratic"])
def test_c2st_is_half_for_equals_and_the_bayes_rate_for_shifts(few_rounds, classifier):
    n = 400
    same = c2st(torch.randn(n, 2), torch.randn(n, 2), classifier=classifier)
    assert abs(same.accuracy - 0.5) < 4.3 * same.standard_error
    a, b = torch.randn(n, 2), torch.randn(n, 2) + torch.tensor([2.0, 0.0])
    found = c2st(a, b, classifier=classifier)
    bayes = float(torch.distributions.Normal(0.0, 1.0).cdf(torch.tensor(1.0)))
    # A trained classifier can only be worse than Bayes, by the cost of learning it.
    assert bayes - 0.05 - 4.3 * found.standard_error < found.accuracy < bayes + 4.3 * found.standard_error


def test_quadratic_c2st_sees_a_wrong_width_and_mlp_sees_shape(few_rounds):
    narrow = c2st(torch.randn(500, 1), 0.5 * torch.randn(500, 1), classifier="quadratic")
    assert narrow.accuracy > 0.5 + 4.3 * narrow.standard_error
    # Two modes with the mean and variance of a Gaussian: means and covariances alone cannot tell.
    modes = torch.sign(torch.randn(300, 2)) * 0.98 + 0.2 * torch.randn(300, 2)
    assert c2st(torch.randn(300, 2), modes).accuracy > 0.65


def test_c2st_balances_unequal_sizes():
    found = c2st(torch.randn(900, 1), torch.randn(300, 1), classifier="quadratic")
    assert abs(found.accuracy - 0.5) < 4.3 * found.standard_error


def test_gaussian_kl_of_draws():
    a, b = torch.randn(20_000, 2), 2 * torch.randn(20_000, 2)
    assert gaussian_kl(a, b) == pytest.approx(2 * (math.log(2) + 1 / 8 - 1 / 2), abs=0.02)
    with pytest.raises(OptionError, match="more than d"):
        gaussian_kl(torch.randn(3, 4), torch.randn(9, 4))


@pytest.mark.parametrize("level", [0.0, 1e5])
def test_a_collapsed_generator_is_far_from_the_data(level):
    collapsed, data = torch.full((60, 3), level), torch.randn(20, 3) + level
    found = mmd(collapsed, data)  # most pairs are of equal draws
    apart = torch.cdist(torch.cat([collapsed[:1], data]), data, compute_mode="donot_use_mm_for_euclid_dist")
    assert 0.1 * apart.max() < found.bandwidth < apart.max()
    assert found.value > 0.1
    assert found.p_value == 1 / 201
    assert gaussian_kl(collapsed, data) == gaussian_kl(data, collapsed) == math.inf
    assert sliced_wasserstein(collapsed, data) > 0.5
    assert c2st(collapsed, data, classifier="quadratic").accuracy > 0.8


def test_two_collapsed_sides_are_the_same_or_not():
    zeros = torch.zeros(30, 2)
    same, apart = mmd(zeros, zeros), mmd(zeros, zeros + 1)
    assert (same.value, same.p_value) == (0.0, 1.0)
    assert apart.value > 0.5
    assert apart.p_value == 1 / 201


def test_wrong_draws_are_named():
    with pytest.raises(ShapeError, match="flatten_draws"):
        mmd(torch.zeros(3, 2), torch.zeros(3, 1))
    with pytest.raises(EmptyDataError, match="at least 2"):
        sliced_wasserstein(torch.zeros(1, 2), torch.zeros(3, 2))
    with pytest.raises(OptionError, match="classifier"):
        c2st(torch.zeros(3, 2), torch.zeros(3, 2), classifier="svm")
    with pytest.raises(OptionError, match="bandwidth"):
        mmd(torch.zeros(3, 2), torch.zeros(3, 2), bandwidth=0.0)


@pytest.mark.parametrize("distance", [sliced_wasserstein, mmd, c2st, gaussian_kl])
def test_draws_that_are_no_numbers_have_no_distance(distance):
    good, bad = torch.randn(30, 2), torch.randn(30, 2)
    bad[3, 1] = torch.nan
    with pytest.raises(NonFiniteError, match="1 of 60"):
        distance(good, bad)
    with pytest.raises(SupportError, match="complex"):
        distance(good, good + 0j)
