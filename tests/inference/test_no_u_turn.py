"""One chain, told densities by hand: its draws are those of the density, and it goes on from where it stood."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from scipy import stats

from inference.chains import ess
from inference.no_u_turn import Chain, Frame, Spread, Vector
from tests.conftest import FAILURE_RATE

LIMIT = stats.norm.isf(FAILURE_RATE / 2)
COVARIANCE = np.array([[1.0, 0.8, 0.0], [0.8, 1.0, 0.3], [0.0, 0.3, 4.0]])
PRECISION = np.linalg.inv(COVARIANCE)
Density = Callable[[Vector], tuple[float, Vector]]


def gaussian(place: Vector) -> tuple[float, Vector]:
    slope = -PRECISION @ place
    return 0.5 * float(place @ slope), slope


def log_gamma(place: Vector) -> tuple[float, Vector]:
    """Of the logarithm of a number from Gamma(2, 1): skew, with one steep side."""
    return float(2 * place[0] - math.exp(place[0])), 2 - np.exp(place)


def chain(size: int, density: Density, seed: int = 0, **changes: int | float) -> Chain:
    options = {"warmup": 300, "draws": 1500, "target_accept": 0.8, "max_tree_depth": 10, **changes}
    made = Chain(size, np.random.SeedSequence(seed), **options)  # type: ignore[arg-type]
    start = made.proposed_start()
    made.begin(start, *density(start))
    return made


WELL = Frame(np.array([0.3, 0.0, 0.0]), np.linalg.cholesky(COVARIANCE))
BADLY = Frame(np.zeros(3), np.array([[1.0, 0.0, 0.0], [3.0, 1.0, 0.0], [0.0, -2.0, 0.5]]))
"""In whose coordinates the Gaussian above is round, and is not."""


def framed(frame: Frame, seed: int = 0, **changes: int) -> Chain:
    made = chain(3, gaussian, seed, **changes)
    start = np.array([0.5, 1.0, -2.0])
    made.begin(start, *gaussian(start), frame)
    return made


def run(made: Chain, density: Density, until: int | None = None) -> Chain:
    path = made.run()
    place = next(path)
    while True:
        assert place is not None
        place = path.send(density(place))
        if place is None:
            if made.finished or made.done == until:
                return made
            place = next(path)


def check_mean(values: Vector, expected: float, what: object) -> None:
    """The mean of a chain, within its own Monte Carlo error."""
    error = values.std() / math.sqrt(float(ess(torch.from_numpy(values)[None])))
    assert abs(values.mean() - expected) < LIMIT * error, what


@pytest.mark.parametrize("direction", [1, -1])
def test_a_leap_keeps_the_energy_to_third_order_in_its_step(direction: int) -> None:
    """Draws would be right without, and dear: steps have to be small then."""
    made = chain(1, log_gamma)
    start, lost = made._pushed(), []
    for made.step in (0.02, 0.01, 0.005):
        leap = made._leap(start, direction)
        place = next(leap)
        assert place is not None
        with pytest.raises(StopIteration) as end:
            leap.send(log_gamma(place))
        lost.append(end.value.value.energy - start.energy)
    assert abs(lost[0]) > 1e-9
    assert lost[0] / lost[1] == pytest.approx(8.0, rel=0.1)
    assert lost[1] / lost[2] == pytest.approx(8.0, rel=0.05)


@pytest.fixture(scope="module")
def correlated() -> Chain:
    return run(chain(3, gaussian), gaussian)


def test_draws_have_the_moments_of_the_density(correlated: Chain) -> None:
    assert correlated.divergences == 0
    for i in range(3):
        check_mean(correlated.kept[:, i], 0.0, i)
        for j in range(i + 1):
            check_mean(correlated.kept[:, i] * correlated.kept[:, j], COVARIANCE[i, j], (i, j))


def test_places_and_slopes_of_a_frame() -> None:
    frame = Frame(np.array([1.0, -2.0]), np.array([[2.0, 0.0], [3.0, 4.0]]))
    u = np.array([0.5, -1.0])
    place = frame.place(u)
    assert place.tolist() == [2.0, -4.5]
    assert frame.coordinates(place).tolist() == u.tolist()

    # Of log p = -place . place / 2: the derivative along each coordinate, by differences.
    def log_p(at: Vector) -> float:
        return -float(np.square(frame.place(at)).sum()) / 2

    numeric = [(log_p(u + step) - log_p(u - step)) / 2e-4 for step in 1e-4 * np.eye(2)]
    assert frame.slope(-place) == pytest.approx(numeric)
    assert frame.slope_at_place(frame.slope(-place)) == pytest.approx(-place)


@pytest.mark.parametrize(("frame", "stays"), [(WELL, True), (BADLY, False)])
def test_a_frame_is_left_where_the_axes_suit_the_draws_better(frame: Frame, stays: bool) -> None:
    """And the draws are those of the density before and after, as its places."""
    made = framed(frame)
    assert made.where == pytest.approx([0.5, 1.0, -2.0])
    run(made, gaussian)
    assert (made.frame is frame, made.aside) == (stays, [])
    value, slope = gaussian(made.where)
    assert made.density == pytest.approx(value)
    assert made.slope == pytest.approx(frame.slope(slope) if stays else slope)
    assert made.kept[-1] == pytest.approx(made.where)
    for i in range(3):
        check_mean(made.kept[:, i], 0.0, i)
        check_mean(made.kept[:, i] ** 2, COVARIANCE[i, i], i)
    if stays:
        assert made.inverse_mass == pytest.approx(1.0, rel=1e-6)  # round: known from any draws
        assert made.gradients < 8 * 1800


def test_a_slope_that_does_not_vary_is_no_reason_to_leave_a_frame() -> None:
    made = framed(WELL)
    for each, slopes in ((made.spreads[0], (1.0, 2.0)), (made.aside[0], (1.0, 1.0))):
        for slope in slopes:
            each.add(slope * np.arange(3.0) + len(slopes) * np.ones(3) * each.count, np.full(3, slope))
    with np.errstate(divide="ignore"):
        assert made.aside[0].correlation() == -math.inf
        assert not made._judge()
    assert made.frame is WELL


def test_correlation_is_that_of_a_gaussian() -> None:
    """log(var(x) var(slope)) is log(C_ii P_ii), summed: of independent numbers nothing."""
    draws = np.random.default_rng(0).multivariate_normal(np.zeros(3), COVARIANCE, 20_000)
    along, white = Spread(3), Spread(3)
    for place in draws:
        along.add(place, -PRECISION @ place)
        white.add(WELL.coordinates(place), -WELL.coordinates(place))
    exact = float(np.log(np.diag(COVARIANCE) * np.diag(PRECISION)).sum())
    assert along.correlation() == pytest.approx(exact, abs=0.1)
    assert abs(white.correlation()) < 0.1 < exact / 10


@pytest.mark.parametrize("depth", [1, 2, 10])
def test_draws_follow_a_skew_density_whatever_the_depth(depth: int) -> None:
    made = run(chain(1, log_gamma, draws=4000, max_tree_depth=depth), log_gamma)
    values = made.kept[:, 0]
    thin = values[:: math.ceil(len(values) / float(ess(torch.from_numpy(values)[None])))]
    assert stats.kstest(np.exp(thin), stats.gamma(2).cdf).pvalue > FAILURE_RATE
    assert made.gradients <= 4300 * (2**depth - 1) + 200


def test_the_mass_matrix_is_the_spread_of_scales() -> None:
    scales = np.array([1e-3, 1.0, 1e3])

    def density(place: Vector) -> tuple[float, Vector]:
        return -0.5 * float(((place / scales) ** 2).sum()), -place / scales**2

    made = run(chain(3, density, draws=100), density)
    np.testing.assert_allclose(made.inverse_mass, scales**2, rtol=1e-6)
    assert made.gradients < 8 * 400, "a step of the right size turns after a few points"


@pytest.mark.parametrize("target", [0.6, 0.9])
def test_the_step_size_gives_the_acceptance_that_was_asked_for(target: float) -> None:
    """In many dimensions, where acceptance changes smoothly with the step."""

    def density(place: Vector) -> tuple[float, Vector]:
        return -0.5 * float(place @ place), -place

    made = chain(50, density, target_accept=target, warmup=300, draws=500)
    accepted, path = [], made.run()
    place = next(path)
    while not made.finished:
        place = path.send(density(place))
        if place is None:
            accepted.append(made.accepted / made.points)
            if not made.finished:
                place = next(path)
    assert abs(np.mean(accepted[300:]) - target) < 0.08


def test_a_wall_is_met_by_paths_that_diverge() -> None:
    def half(place: Vector) -> tuple[float, Vector]:
        return (-math.inf, place) if place[0] < 0 else (-0.5 * float(place @ place), -place)

    made = chain(1, half, warmup=50, draws=300)
    made.begin(np.ones(1), *half(np.ones(1)))
    run(made, half)
    assert made.divergences > 0
    assert (made.kept >= 0).all()


@pytest.mark.parametrize("frame", [None, WELL, BADLY])
@pytest.mark.parametrize("at", [1, 100, 200, 280])
def test_a_chain_goes_on_from_its_state(at: int, frame: Frame | None) -> None:
    """Before and after a frame is judged, and among the draws that are kept."""
    options = {"warmup": 250, "draws": 60}
    begun = partial(chain, 3, gaussian) if frame is None else partial(framed, frame)
    whole = run(begun(**options), gaussian)
    part = run(begun(**options), gaussian, until=at)
    other = chain(3, gaussian, seed=5, **options)
    other.restore(part.state())
    run(other, gaussian)
    np.testing.assert_array_equal(other.kept, whole.kept)
    assert other.gradients == whole.gradients
    assert other.divergences == whole.divergences


def test_seeds_are_told_apart() -> None:
    one, same, other = (run(chain(3, gaussian, seed, warmup=5, draws=5), gaussian).kept for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
