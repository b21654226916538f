"""Scores of samples: closed forms and counts by hand where there are any, and that each sees what it is for."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import linalg, stats

from inference.evaluation.samples.classifier import Classifier
from inference.evaluation.samples.quality import (
    frechet,
    frechet_gaussians,
    inception_score,
    manifold_scores,
    nearest_training,
)
from tests.conftest import FAILURE_RATE
from zoo import datasets
from zoo.errors import EmptyDataError, NonFiniteError, OptionError, ShapeError

Z = float(stats.norm.isf(FAILURE_RATE / 2))


def with_moments(n: int, mean: torch.Tensor, cov: torch.Tensor) -> torch.Tensor:
    """Rows whose own mean and covariance are exactly these."""
    x = torch.randn(n, len(mean))
    x = x - x.mean(0)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(torch.cov(x.T)), x.T, upper=False).T
    return white @ torch.linalg.cholesky(cov).T + mean


def random_moments(d: int) -> tuple[torch.Tensor, torch.Tensor]:
    root = torch.randn(d, d)
    return torch.randn(d), root @ root.T + 0.1 * torch.eye(d)


# Fréchet


def test_frechet_of_gaussians_that_commute_is_the_distance_of_means_and_deviations():
    a, b = torch.tensor([1.0, 4.0, 0.0]), torch.tensor([9.0, 4.0, 0.25])
    of_means, of_covariances = frechet_gaussians(torch.zeros(3), a.diag(), torch.tensor([3.0, 0.0, 4.0]), b.diag())
    assert of_means == pytest.approx(25)
    assert of_covariances == pytest.approx((1 - 3) ** 2 + 0 + 0.5**2)


def test_frechet_of_gaussians_is_the_formula_with_the_matrix_root():
    (mean_a, cov_a), (mean_b, cov_b) = random_moments(5), random_moments(5)
    cross = linalg.sqrtm(cov_a.numpy() @ cov_b.numpy())
    truth = float((mean_a - mean_b).square().sum()) + float(np.trace((cov_a + cov_b).numpy() - 2 * cross).real)
    assert sum(frechet_gaussians(mean_a, cov_a, mean_b, cov_b)) == pytest.approx(truth)
    found = frechet(with_moments(50, mean_a, cov_a), with_moments(70, mean_b, cov_b))
    assert found.value == pytest.approx(truth)
    assert found.value == found.of_means + found.of_covariances
    assert (found.samples, found.data, found.dimension, found.features) == (50, 70, 5, "as given")


def test_frechet_through_samples_has_the_error_of_its_moments():
    n, shift, s = 4000, 1.0, 2.0
    found = frechet(torch.randn(n, 1), shift + s * torch.randn(n, 1))
    # (m_a - m_b)^2 + (s_a - s_b)^2, by the delta method: a mean varies by s^2/n, a deviation by s^2/2n.
    truth = shift**2 + (s - 1) ** 2
    error = math.sqrt(4 * shift**2 * (1 + s**2) / n + 4 * (s - 1) ** 2 * (1 + s**2) / (2 * n))
    assert abs(found.value - truth) < Z * error


def test_frechet_is_zero_for_the_same_set_and_symmetric():
    a, b = torch.randn(30, 4), torch.randn(20, 4)
    assert frechet(a, a.flip(0)).value == pytest.approx(0, abs=1e-12)
    assert frechet(a, b).value == pytest.approx(frechet(b, a).value)
    assert frechet(a.reshape(30, 2, 2), b.reshape(20, 2, 2)).value == frechet(a, b).value


def test_frechet_bears_fewer_samples_than_dimensions():
    a = torch.randn(6, 20)
    assert frechet(a, a).value == pytest.approx(0, abs=1e-12)
    assert frechet(a, torch.randn(5, 20)).value > 0


def test_frechet_is_biased_upwards_and_its_limit_much_less():
    data = torch.randn(40_000, 12)
    found = [frechet(torch.randn(400, 12), data, extrapolate=True, seed=i) for i in range(10)]
    values, limits = (torch.tensor([getattr(f, name) for f in found]) for name in ("value", "limit"))
    assert (values > 0).all()
    assert limits.mean().abs() < values.mean() / 4
    assert frechet(data[:400], data).limit is None


# Precision, recall, density, coverage


def test_manifold_scores_of_disjoint_sets_are_zero_and_of_equal_sets_one():
    a = torch.randn(60, 3)
    found = manifold_scores(a, a + 100, k=3)
    assert (found.precision, found.recall, found.density, found.coverage) == (0, 0, 0, 0)
    found = manifold_scores(a, a[torch.randperm(60)], k=3)
    # A point lies in its own ball and in those of the points that it is among the k nearest of: k + 1 on average.
    assert (found.precision, found.recall, found.density, found.coverage) == (1, 1, pytest.approx(4 / 3), 1)
    assert (found.k, found.samples, found.data, found.features) == (3, 60, 60, "as given")


def test_manifold_scores_of_half_the_support_by_hand():
    data, samples = torch.arange(100.0)[:, None], torch.arange(50.0)[:, None] + 0.5
    found = manifold_scores(samples, data, k=1)
    # All radii are 1: the samples' balls reach from -0.5 to 50.5, so they hold the data 0 to 50; each sample lies in
    # the balls of the two data beside it.
    assert (found.precision, found.recall, found.density, found.coverage) == (1, 0.51, 2, 0.51)
    swapped = manifold_scores(data, samples, k=1)
    assert (swapped.precision, swapped.recall) == (found.recall, found.precision)


def test_manifold_scores_of_the_truth_have_their_expected_values():
    n, k = 100, 5
    found = [manifold_scores(torch.randn(n, 2), torch.randn(n, 2), k=k) for _ in range(60)]
    expected = {"density": 1.0, "coverage": 1 - math.prod((n - i) / (2 * n - i) for i in range(1, k + 1))}
    for name, truth in expected.items():
        values = torch.tensor([getattr(f, name) for f in found])
        assert abs(values.mean() - truth) < Z * values.std() / math.sqrt(len(values)), name
    assert expected["coverage"] == pytest.approx(0.97, abs=0.01)


def test_coverage_and_recall_see_dropped_modes_and_precision_bad_samples():
    centres = torch.arange(10.0)[:, None] * 1000
    data = (centres[:, None] + torch.rand(10, 20, 1)).reshape(-1, 1)
    kept = manifold_scores(data[:140], data)
    assert (kept.precision, kept.recall, kept.coverage) == (1, 0.7, 0.7)
    # A fifth of bad samples, far from data and from each other.
    bad = -1e6 * torch.arange(1, 41.0)[:, None]
    spoilt = manifold_scores(torch.cat([data[:160], bad]), data)
    assert (spoilt.precision, spoilt.coverage) == (0.8, 0.8)


def test_an_outlier_among_the_data_lifts_precision_but_hardly_density():
    data, samples = torch.randn(200, 2), torch.randn(200, 2) + 8
    outlier = torch.tensor([[30.0, 30.0]])
    before, after = manifold_scores(samples, data), manifold_scores(samples, torch.cat([data, outlier]))
    assert before.precision < 0.1
    assert after.precision == 1
    assert after.density < before.density + 0.25


def test_chunks_change_nothing(monkeypatch):
    a, b = torch.randn(40, 3), torch.randn(30, 3)
    before = manifold_scores(a, b), nearest_training(a, b, torch.randn(9, 3)).index
    monkeypatch.setattr("inference.evaluation.samples.quality.CHUNK", 70)
    assert manifold_scores(a, b) == before[0]
    assert torch.equal(nearest_training(a, b, torch.randn(9, 3)).index, before[1])


# Memorisation


def test_replayed_training_data_are_found_and_fresh_ones_are_not():
    digits = datasets.load("digits")
    train, held_out, fresh = digits.train.x, digits.test.x, digits.valid.x
    chosen = torch.randperm(len(train))[:200]
    copied = nearest_training(train[chosen], train, held_out)
    assert copied.ratio == 0
    assert copied.z < -15
    assert torch.equal(copied.index, chosen)
    noisy = nearest_training(train[chosen] + 0.02 * torch.randn(200, 8, 8), train, held_out)
    assert noisy.ratio < 0.3
    assert noisy.p_value < 1e-20
    assert torch.equal(noisy.index, chosen)
    new = nearest_training(fresh, train, held_out)
    assert abs(new.z) < Z
    assert new.ratio == pytest.approx(1, abs=0.1)
    assert (new.samples, new.train, new.held_out) == (250, 1297, 250)
    far = nearest_training(torch.rand(200, 8, 8), train, held_out)
    assert far.z > 15
    assert far.ratio > 1.5


def test_half_a_set_of_copies_is_found_and_comes_first():
    digits = datasets.load("digits")
    samples = torch.cat([digits.valid.x, digits.train.x[:250]])
    found = nearest_training(samples, digits.train.x, digits.test.x)
    assert found.z < -Z
    assert set(found.closest[:250].tolist()) == set(range(250, 500))
    torch.testing.assert_close(
        found.distances, (samples - digits.train.x[found.index]).flatten(1).norm(dim=1), atol=1e-12, rtol=0
    )


def test_the_z_of_fresh_draws_is_standard_normal():
    train = torch.randn(50, 2)
    z = torch.tensor([nearest_training(torch.randn(40, 2), train, torch.randn(30, 2)).z for _ in range(200)])
    assert abs(z.mean()) < Z / math.sqrt(200)
    assert FAILURE_RATE < stats.chi2.cdf(float(z.square().sum()), 200) < 1 - FAILURE_RATE


# Mistakes


def test_wrong_samples_are_named():
    x = torch.randn(10, 3)
    with pytest.raises(ShapeError, match="differ in shape"):
        frechet(x, torch.randn(10, 4))
    with pytest.raises(EmptyDataError, match="at least 2"):
        manifold_scores(x, x[:1])
    with pytest.raises(NonFiniteError, match=r"1 values.*diverged"):
        frechet(torch.cat([x[:5], torch.tensor([[0.0, torch.nan, 0.0]])]), x)
    for k in (0, 10):
        with pytest.raises(OptionError, match="k must be"):
            manifold_scores(x, x, k=k)


def test_what_samples_come_as_does_not_matter():
    a, b = torch.randn(50, 2, 2), torch.randn(40, 2, 2)
    single = frechet(a.float().requires_grad_(), b.float())
    assert single.value == pytest.approx(frechet(a, b).value, rel=1e-4)


def test_nearest_training_with_repeated_data():
    train = torch.arange(12.0).reshape(12, 1)
    held_out = torch.cat([train[:8], train[8:] + 0.25])  # most of it repeats training data
    found = nearest_training(train[:10], train, held_out)
    assert found.ratio == 1.0  # no copy, among data that repeat themselves, is more of a copy than they are
    # Ten zeros against eight zeros and four that are larger, by the definition: z^2 has the variance of ties.
    ranks = torch.cat([torch.full((18,), 9.5), torch.full((4,), 20.5)])
    variance = float(10 * 12 / (22 * 21) * ((ranks - 11.5) ** 2).sum())
    assert found.z == pytest.approx(10 * (9.5 - 11.5) / variance**0.5)
    assert 0.01 < found.p_value < 0.1
    away = nearest_training(train[:10] + 0.5, train, train)
    assert away.ratio == float("inf")
    every = nearest_training(train[:4], train, train)
    assert (every.ratio, every.z, every.p_value) == (1.0, 0.0, 1.0)


# Classes


class Sure(Classifier):
    """Gives an image of two pixels the classes whose logits they are."""

    def __init__(self):
        super().__init__((1, 2), 2)

    def forward(self, x):
        return x.flatten(1)


@pytest.mark.parametrize("p", [0.0, 0.2, 0.5])
def test_inception_score_is_that_of_a_binary_channel(p):
    """Each class is seen half of the time, with an error of p: the information is log 2 less the entropy of p."""
    right, wrong = math.log(1 - p), math.log(p) if p else -1e3
    samples = torch.tensor([[[right, wrong]], [[wrong, right]]]).repeat(5, 1, 1)
    entropy = -sum(q * math.log(q) for q in (p, 1 - p) if q)
    assert inception_score(samples, Sure()).value == pytest.approx(2 * math.exp(-entropy))


def test_inception_score_of_unequal_shares_is_the_entropy_of_them():
    samples = torch.tensor([[[0.0, -1e3]]] * 3 + [[[-1e3, 0.0]]])
    found = inception_score(samples, Sure())
    assert found.value == pytest.approx(0.75**-0.75 * 0.25**-0.25)
    assert found.samples == 4
