"""A posterior as one density of one vector: its values, slopes and curvatures are those of the textbook."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import zoo
from inference.training.target import Target, why_no_target
from tests.inference.factors import data, ppca
from tests.inference.toys import Mean
from zoo.bayes.eight_schools import EightSchools
from zoo.datasets.data import Data
from zoo.weights import Weighted


def gaussian(y: Tensor) -> None:
    """m ~ N(0, 1), s ~ LogNormal(0, 1), y | m ~ N(m, s)."""
    m = pyro.sample("m", dist.Normal(0.0, 1.0))
    s = pyro.sample("s", dist.LogNormal(torch.tensor(0.0), 1.0))
    pyro.sample("y", dist.Normal(m, s), obs=y)


def by_hand(m: float, log_s: float, y: float) -> float:
    squares = m**2 + log_s**2 + ((y - m) / math.exp(log_s)) ** 2
    return -0.5 * squares - log_s - 1.5 * math.log(2 * math.pi)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_value_slope_and_curvature(dtype: torch.dtype) -> None:
    program = zoo.adopt(gaussian)
    target = Target(program, program.take({"y": torch.tensor(2.0, dtype=dtype)}))
    at = torch.tensor([[0.3, 0.2], [-1.0, 0.5]], dtype=torch.float64)
    expected = torch.tensor([by_hand(*row, 2.0) for row in at.tolist()], dtype=torch.float64)
    value, slope, curvature = target.curvature(at)
    torch.testing.assert_close(target(at), expected)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(target.slope(at)[1], slope)
    m, log_s = at[:, 0], at[:, 1]
    torch.testing.assert_close(slope[:, 0], -m + (2 - m) * (-2 * log_s).exp())
    torch.testing.assert_close(curvature[:, 0, 0], 1 + (-2 * log_s).exp())
    torch.testing.assert_close(curvature[:, 0, 1], 2 * (2 - m) * (-2 * log_s).exp())


def test_the_density_of_the_latents_themselves_lacks_the_jacobian() -> None:
    program = zoo.adopt(gaussian)
    taken, at = program.take({"y": torch.tensor(2.0)}), torch.tensor([[0.3, 0.2]], dtype=torch.float64)
    torch.testing.assert_close(Target(program, taken)(at) - Target(program, taken, jacobian=False)(at), at[:, 1])


def test_local_latents_are_tied_by_a_global_one() -> None:
    program = EightSchools()
    x, sigma = torch.tensor([28.0, 8.0]), torch.tensor([15.0, 10.0])
    target = Target(program, Data(x, sigma))
    mu, log_tau, eta = 1.0, 0.5, torch.tensor([0.2, -0.3])
    at = torch.tensor([[mu, log_tau, 0.2, -0.3]], dtype=torch.float64)
    expected = dist.Normal(0, 5).log_prob(torch.tensor(mu)) + dist.HalfCauchy(5).log_prob(torch.tensor(log_tau).exp())
    expected += log_tau + dist.Normal(0, 1).log_prob(eta).sum()
    expected += dist.Normal(mu + math.exp(log_tau) * eta, sigma).log_prob(x).sum()
    assert float(target(at)) == pytest.approx(float(expected))


def test_starts_are_the_origin_and_draws_of_the_prior() -> None:
    program = Mean()
    target = Target(program, Data(torch.zeros(3)))
    starts = target.starts(500)
    assert float(starts[0]) == 0.0
    assert float(starts[1:].std()) == pytest.approx(1.0, abs=0.15)


def test_which_posteriors_are_none() -> None:
    x = data(10)
    assert why_no_target(Mean(), Data(torch.zeros(3))) is None
    assert why_no_target(ppca(), Data(x)) == "no continuous latent is global"
    assert "weights" in str(why_no_target(Mean(), Data(torch.zeros(3), Weighted(torch.ones(3), None))))


def test_a_parameter_that_moves_the_density_is_noticed() -> None:
    def scaled(y: Tensor) -> None:
        m = pyro.sample("m", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(m, pyro.param("s", torch.tensor(1.0)).exp()), obs=y)

    program = zoo.adopt(scaled)
    taken = program.take({"y": torch.tensor(2.0)})
    program.declare(*taken)
    assert Target(program, taken).depends_on_parameters()
    assert not Target(Mean(), Data(torch.zeros(3))).depends_on_parameters()  # those of its guide
