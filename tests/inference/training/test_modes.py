"""Modes and their Gaussians, where both are known; in any units."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import zoo
from inference.training.modes import around, find_modes
from inference.training.target import Target
from tests.inference.posteriors import correlated
from zoo.bayes.eight_schools import EightSchools
from zoo.bayes.regression import BayesianLinearRegression
from zoo.datasets.data import Data


def square(y: Tensor) -> None:
    """z ~ N(0, 3), y | z ~ N(z^2, 0.5): two modes, one for each sign."""
    z = pyro.sample("z", dist.Normal(0.0, 3.0))
    pyro.sample("y", dist.Normal(z**2, 0.5), obs=y)


@pytest.mark.parametrize("factor", [1.0, 1e-6, 1e6])
def test_the_gaussian_posterior_of_a_regression_whatever_the_units(factor: float) -> None:
    rows = torch.randn(30, 3) * torch.tensor([1.0, factor, 1.0])
    rows[:, 2] += 0.9 * rows[:, 0]
    program = BayesianLinearRegression(3, prior_scale=1e7, noise_scale=0.5)
    x = rows @ torch.tensor([1.0, 2.0 / factor, -1.0]) + 0.5 * torch.randn(30)
    (mode,) = find_modes(target := Target(program, Data(x, rows)), target.starts(4))
    precision = rows.T @ rows / 0.25 + torch.eye(3) / 1e14
    sd = torch.linalg.inv(precision).diagonal().sqrt()
    torch.testing.assert_close(mode.place / sd, torch.linalg.solve(precision, rows.T @ x / 0.25) / sd)
    torch.testing.assert_close(
        mode.factor @ mode.factor.T / sd / sd[:, None], torch.linalg.inv(precision) / sd / sd[:, None]
    )
    torch.testing.assert_close(mode.precision_scale(), precision.diagonal().rsqrt())
    assert float(mode.factor.triu(1).abs().max()) == 0.0
    assert mode.log_evidence == pytest.approx(float(program.log_evidence(x, rows)), abs=1e-4)


def test_both_modes_are_found_once_each() -> None:
    program = zoo.adopt(square)
    target = Target(program, program.take({"y": torch.tensor(4.0)}))
    found = find_modes(target, torch.linspace(-5, 5, 9, dtype=torch.float64)[:, None])
    places = sorted(float(mode.place) for mode in found)
    # (4 - z^2) 2 z / 0.25 = z / 9
    best = math.sqrt(4 - 0.25 / 18)
    assert places == pytest.approx([-best, best])
    assert found[0].log_evidence == pytest.approx(found[1].log_evidence)


def test_a_density_without_a_maximum_has_no_mode() -> None:
    """Of eight schools centred, where the density grows without end as tau shrinks."""
    program = EightSchools(centered=True)
    data = Data(torch.tensor([28.0, 8, -3, 7, -1, 1, 18, 12]), torch.tensor([15.0, 10, 16, 11, 9, 11, 10, 18]))
    target = Target(program, data)
    assert find_modes(target, target.starts(4)) == []
    base = around(target, target.starts(1)[0])
    assert bool(torch.isfinite(base.factor).all())
    assert float(base.factor.diagonal().min()) > 0


def test_a_flat_direction_is_no_mode() -> None:
    def unsure(y: Tensor) -> None:
        a = pyro.sample("a", dist.ImproperUniform(dist.constraints.real, (), ()))
        b = pyro.sample("b", dist.ImproperUniform(dist.constraints.real, (), ()))
        pyro.sample("y", dist.Normal(a + b, 1.0), obs=y)

    program = zoo.adopt(unsure)
    target = Target(program, program.take({"y": torch.tensor(4.0)}))
    assert find_modes(target, target.starts(4)) == []


def test_a_slope_whose_square_is_too_large_for_a_number() -> None:
    """From far off, where nothing is known but that the density is finite; y ~ N(z, 1e-5) beside z ~ N(0, 1)."""

    def precise(y: Tensor) -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(z, 1e-5), obs=y)

    program = zoo.adopt(precise)
    target = Target(program, program.take({"y": torch.tensor(3.0)}))
    (mode,) = find_modes(target, torch.tensor([[1e148], [0.0]]))
    assert float(mode.place) == pytest.approx(3e10 / (1e10 + 1), rel=1e-12)
    assert float(mode.factor) == pytest.approx((1e10 + 1) ** -0.5)


@pytest.mark.parametrize("start", [[0.5], [0.5, 3.0], [3.0, 0.5, -2.0]])
def test_a_start_where_a_matrix_has_no_decomposition_ends_no_other(start: list[float]) -> None:
    """1 - z^2 times the density of N(0, 0.2) has its mode at 0 with curvature 25 + 2."""
    program = zoo.adopt(correlated)
    target = Target(program, program.take({"y": torch.tensor(3.0)}))
    (mode,) = find_modes(target, torch.tensor(start)[:, None])
    assert float(mode.place) == pytest.approx(0.0, abs=1e-8)
    assert float(mode.factor) == pytest.approx(27**-0.5)
    assert find_modes(target, torch.tensor([[3.0], [-2.0]])) == []
