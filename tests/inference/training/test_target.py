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
from tests.inference.latents import Shifted
from tests.inference.posteriors import correlated
from tests.inference.toys import Mean
from zoo.bayes.eight_schools import EightSchools
from zoo.datasets.data import Data
from zoo.errors import CapabilityError
from zoo.program import Program
from zoo.weights import Weighted


class Own(Program):
    """z ~ N(0, 1) and x ~ N(z, 1), for each example."""

    def model(self, x=None, context=None, size=None):
        with self.plate(x, context, size):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            return pyro.sample("x", dist.Normal(z, 1.0), obs=x)


class Bounded(Program):
    """z uniform up to x, for each example."""

    def model(self, x=None, context=None, size=None):
        with self.plate(x, context, size):
            most = torch.ones(2) if x is None else x
            z = pyro.sample("z", dist.Uniform(torch.zeros(()), most))
            return pyro.sample("x", dist.Normal(z, 1.0), obs=x)


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


def test_rows_count_as_often_as_their_weights_say() -> None:
    x, times = torch.tensor([0.3, -1.0, 2.0]), torch.tensor([2, 0, 1])
    weighted = Target(Mean(), Data(x, Weighted(times.double(), None)))
    repeated = Target(Mean(), Data(x.repeat_interleave(times)))
    at = torch.randn(3, 1)
    for found, expected in zip(weighted.slope(at), repeated.slope(at), strict=True):
        torch.testing.assert_close(found, expected)


def test_latents_of_examples_alone_are_one_vector() -> None:
    x = torch.tensor([0.5, -2.0, 1.0])
    target, at = Target(Own(), Data(x)), torch.randn(4, 3)
    expected = dist.Normal(0, 1).log_prob(at) + dist.Normal(at, 1).log_prob(x)
    torch.testing.assert_close(target(at), expected.sum(-1))
    assert {name: value.shape for name, value in target.samples(at).items()} == {"z": (4, 3)}


def test_bounds_may_be_of_each_example() -> None:
    x = torch.tensor([0.5, 2.0, 4.0])
    values = Target(Bounded(), Data(x)).samples(torch.zeros(2, 3))["z"]
    torch.testing.assert_close(values, (x / 2).expand(2, 3))


@pytest.mark.parametrize("weights", [None, torch.ones(2)])
def test_a_discrete_latent_of_all_examples_is_summed_out(weights: Tensor | None) -> None:
    x, at = torch.tensor([0.5, 3.0]), torch.tensor([[-0.3], [1.2]])
    data = Data(x, None if weights is None else Weighted(weights, None))
    if weights is not None:
        with pytest.raises(CapabilityError, match="'k' is discrete and of all examples together"):
            Target(Shifted(), data)
        return
    prior = dist.Normal(0, 2).log_prob(at[:, 0])
    parts = [math.log(p) + dist.Normal(at + 3 * k, 1).log_prob(x).sum(-1) for k, p in ((0, 0.7), (1, 0.3))]
    torch.testing.assert_close(Target(Shifted(), data)(at), prior + torch.logaddexp(*parts))


def test_a_program_in_single_precision_has_densities_in_double() -> None:
    program = zoo.adopt(gaussian)
    target = Target(program, program.take({"y": torch.tensor(2.0)}), precision=torch.float32)
    value, slope = target.slope(torch.tensor([[0.3, 0.2]], dtype=torch.float64))
    assert value.dtype == slope.dtype == torch.float64
    assert float(value) == pytest.approx(by_hand(0.3, 0.2, 2.0), rel=1e-6)


def test_there_is_no_density_where_a_matrix_has_no_decomposition() -> None:
    program = zoo.adopt(correlated)
    target = Target(program, program.take({"y": torch.tensor(2.0)}))
    at = torch.tensor([[0.5], [1.5], [-0.2], [-3.0], [0.0]])
    z = at[:, 0]
    there = z.abs() < 1
    expected = torch.where(there, dist.Normal(0, 0.2).log_prob(z) + (1 - z.square()).log(), -torch.inf)
    torch.testing.assert_close(target(at), expected)
    value, slope, curvature = target.curvature(at)
    for found in (target.slope(at), (value, slope)):
        torch.testing.assert_close(found[0][there], expected[there])
        torch.testing.assert_close(found[1][there, 0], (-25 * z - 2 * z / (1 - z.square()))[there])
        assert not bool(found[1][~there].isfinite().any())
    torch.testing.assert_close(curvature[there, 0, 0], (25 + 2 * (1 + z.square()) / (1 - z.square()).square())[there])
    assert not bool(curvature[~there].isfinite().any())
    assert not target.one_by_one()
    assert target.evaluations == 5 * (1 + 1 + 1)


class Once(torch.autograd.Function):
    """-z^4 / 4, whose slope is known and no more."""

    @staticmethod
    def forward(ctx, z):
        ctx.save_for_backward(z)
        return -(z**4) / 4

    @staticmethod
    def backward(ctx, weight):
        if torch.is_grad_enabled():
            raise NotImplementedError
        (z,) = ctx.saved_tensors
        return -weight * z**3


def test_curvature_of_code_that_is_differentiated_once() -> None:
    def quartic(y: Tensor) -> None:
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.factor("quartic", Once.apply(z[..., 0] + z[..., 1]) + 0 * y)

    program = zoo.adopt(quartic)
    target = Target(program, program.take({"y": torch.tensor(2.0)}))
    at = torch.tensor([[0.5, 0.1], [-300.0, 200.0]])
    value, slope, curvature = target.curvature(at)
    assert target.evaluations == 2 * (1 + 2 * 2)
    square = (at[:, 0] + at[:, 1]).square()[:, None, None]
    torch.testing.assert_close(curvature, torch.eye(2) + 3 * square.expand(2, 2, 2), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(slope, target.slope(at)[1])
    torch.testing.assert_close(value, target(at))


def test_a_parameter_that_moves_the_density_is_noticed() -> None:
    def scaled(y: Tensor) -> None:
        m = pyro.sample("m", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(m, pyro.param("s", torch.tensor(1.0)).exp()), obs=y)

    program = zoo.adopt(scaled)
    taken = program.take({"y": torch.tensor(2.0)})
    program.declare(*taken)
    assert Target(program, taken).depends_on_parameters()
    assert not Target(Mean(), Data(torch.zeros(3))).depends_on_parameters()  # those of its guide
