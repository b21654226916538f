"""Calibration of a critic as a log density ratio: the exact one of two Gaussians passes, distorted ones do not."""

from __future__ import annotations

import math

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from inference.evaluation.critic_calibration import MeanWeight, ratio_calibration
from zoo.errors import EmptyDataError, NonFiniteError, OptionError, ShapeError

P, Q = dist.Normal(0.0, 1.0), dist.Normal(0.7, 1.2)


def log_ratio(x: Tensor) -> Tensor:
    return P.log_prob(x) - Q.log_prob(x)


def draws(n: int, m: int) -> tuple[Tensor, Tensor]:
    return P.sample((n,)), Q.sample((m,))


@pytest.mark.parametrize("sizes", [(20_000, 20_000), (20_000, 4_000)])
def test_the_exact_log_ratio_is_calibrated(sizes: tuple[int, int]) -> None:
    real, fake = draws(*sizes)
    found = ratio_calibration(log_ratio(real), log_ratio(fake))
    # Four standard errors of three tests: a false alarm once in 8,000 seeds.
    assert found.calibrated, found.problems()
    assert found.verdict().startswith(f"Calibrated as far as {sum(sizes)} draws can tell")
    # The JSD by quadrature.
    line = torch.linspace(-12, 12, 20_001)
    p, q = P.log_prob(line), Q.log_prob(line)
    m = torch.logaddexp(p, q) - math.log(2)
    exact = float(torch.trapezoid(p.exp() * (p - m) + q.exp() * (q - m), line)) / 2
    # |log s(T)| has a standard deviation below 0.5: five standard errors.
    assert abs(found.divergence - exact) < 5 * 0.5 / min(sizes) ** 0.5


def test_the_error_of_a_calibrated_critic_is_that_of_chance() -> None:
    """Over 200 repetitions mean and spread of the ECE are those that each repetition predicts."""
    found = [ratio_calibration(*(log_ratio(x) for x in draws(1000, 1500))) for _ in range(200)]
    ece = torch.tensor([each.reliability.error for each in found])
    predicted, error = found[0].reliability.if_calibrated, found[0].reliability.deviation
    assert abs(float(ece.mean()) - predicted) < 4.3 * error / 200**0.5 + 0.02 * predicted
    # The standard deviation of 200 values is known to 5%; its prediction is for bins with fixed edges.
    assert abs(float(ece.std()) / error - 1) < 0.25


@pytest.mark.parametrize(
    ("distort", "says"),
    [
        (lambda t: 2 * t, "too sure of itself"),
        (lambda t: 0.5 * t, "not sure enough"),
        (lambda t: t + 0.3, "that of a ratio of densities is 1"),
        (lambda t: -t, "too sure of itself"),
    ],
)
def test_a_distorted_ratio_is_found(distort, says: str) -> None:
    real, fake = draws(5000, 5000)
    found = ratio_calibration(distort(log_ratio(real)), distort(log_ratio(fake)))
    assert not found.calibrated
    assert found.verdict().startswith("Not a log ratio: ")
    assert says in found.verdict()


def test_a_critic_that_sees_nothing_is_calibrated_and_says_so() -> None:
    found = ratio_calibration(torch.zeros(500), torch.zeros(500))
    assert found.calibrated
    assert abs(found.divergence) < 1e-12
    assert found.ratio.mean == found.inverse.mean == 1


def test_a_part_of_the_ratio_is_calibrated() -> None:
    """The ratio of one coordinate of two: true of what the critic sees, with less divergence."""
    other = [dist.Normal(0.0, 1.0), dist.Normal(1.0, 1.0)]
    real, fake = draws(5000, 5000)
    more = [log_ratio(x) + other[0].log_prob(y) - other[1].log_prob(y)
            for x, y in ((real, other[0].sample((5000,))), (fake, other[1].sample((5000,))))]  # fmt: skip
    part, whole = ratio_calibration(log_ratio(real), log_ratio(fake)), ratio_calibration(*more)
    assert part.calibrated
    assert whole.calibrated
    assert part.divergence < whole.divergence


def test_means_of_weights_without_overlap_are_not_believed() -> None:
    far = dist.Normal(8.0, 1.0)
    ratio = lambda x: P.log_prob(x) - far.log_prob(x)  # noqa: E731
    found = ratio_calibration(ratio(P.sample((1000,))), ratio(far.sample((1000,))))
    # Here the mean is far from 1 with a small error: all of it is in draws that did not come.
    assert found.ratio.size < MeanWeight.LEAST_SIZE
    assert "hardly overlap" in found.verdict()


def test_bins_hold_equally_many_draws() -> None:
    found = ratio_calibration(*(log_ratio(x) for x in draws(1500, 1500)), bins=10)
    assert found.reliability.count.tolist() == [300.0] * 10
    assert bool((found.reliability.confidence.diff() > 0).all())


@pytest.mark.parametrize(
    ("real", "fake", "bins", "error"),
    [
        (torch.zeros(500, 1), torch.zeros(500), 15, ShapeError),
        (torch.zeros(149), torch.zeros(500), 15, EmptyDataError),
        (torch.zeros(500), torch.full((500,), float("nan")), 15, NonFiniteError),
        (torch.zeros(500), torch.zeros(500), 1, OptionError),
    ],
)
def test_what_cannot_be_checked_is_refused(real: Tensor, fake: Tensor, bins: int, error: type[Exception]) -> None:
    with pytest.raises(error):
        ratio_calibration(real, fake, bins=bins)
