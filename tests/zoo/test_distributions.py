"""Distributions on grids and mixtures of Gaussians: masses that sum to one, draws that follow them."""

from __future__ import annotations

import math

import pyro.distributions as dist
import pytest
import torch
from pyro.distributions.testing.gof import multinomial_goodness_of_fit
from scipy import stats
from torch.distributions import constraints

from tests.conftest import FAILURE_RATE
from zoo.distributions import DiscretizedLogistic, Grid, GridCategorical, NormalMixture, Restricted, Sampler
from zoo.errors import OptionError


def test_discretized_logistic_sums_to_one() -> None:
    values = 9
    loc = torch.tensor([-3.0, 0.0, 0.43, 1.0, 2.0])[:, None]
    scale = torch.tensor([1e-3, 0.05, 0.3, 10.0])
    d = DiscretizedLogistic(loc, scale, values)
    levels = torch.arange(values) / (values - 1)
    mass = d.log_prob(levels[:, None, None].expand(values, 5, 4)).exp().sum(0)
    torch.testing.assert_close(mass, torch.ones(5, 4), atol=1e-12, rtol=0)


def test_discretized_logistic_is_the_difference_of_two_distribution_functions() -> None:
    loc, scale, values = torch.tensor(0.4), torch.tensor(0.1), 5
    d = DiscretizedLogistic(loc, scale, values)
    edges = torch.tensor([-torch.inf, 0.125, 0.375, 0.625, 0.875, torch.inf])
    expected = torch.sigmoid((edges - loc) / scale).diff()
    torch.testing.assert_close(d.log_prob(torch.arange(5) / 4).exp(), expected)


def test_discretized_logistic_has_no_holes_in_its_tails() -> None:
    loc = torch.tensor(-40.0, requires_grad=True)
    d = DiscretizedLogistic(loc, torch.tensor(0.05), 256)
    value = d.log_prob(torch.tensor([0.0, 51 / 255, 1.0])).sum()
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(loc.grad)


@pytest.mark.parametrize(("loc", "scale"), [(0.4, 0.1), (0.9, 0.3), (-0.1, 0.2)])
def test_discretized_logistic_samples_agree_with_its_density(loc: float, scale: float) -> None:
    values, n = 7, 50_000
    d = DiscretizedLogistic(torch.tensor(loc), torch.tensor(scale), values).expand(torch.Size([1]))
    levels = (d.sample(torch.Size([n]))[:, 0] * (values - 1)).round().long()
    probs = d.log_prob((torch.arange(values) / (values - 1))[:, None])[:, 0].exp()
    assert multinomial_goodness_of_fit(probs, torch.bincount(levels, minlength=values)) > FAILURE_RATE


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_discretized_logistic_knows_its_grid(dtype: torch.dtype) -> None:
    d = DiscretizedLogistic(torch.tensor(0.5, dtype=dtype), torch.tensor(0.1, dtype=dtype), 256, validate_args=True)
    on = torch.arange(256, dtype=dtype) / 255
    assert bool(d.support.check(on).all())
    assert d.sample().dtype == dtype
    with pytest.raises(ValueError, match="support"):
        d.log_prob(torch.tensor(0.5, dtype=dtype))
    with pytest.raises(OptionError, match="values=1"):
        DiscretizedLogistic(torch.tensor(0.5), torch.tensor(0.1), 1)


def test_any_probabilities_of_levels() -> None:
    logits = torch.randn(3, 5)
    d = GridCategorical(logits)
    levels = torch.arange(5) / 4
    torch.testing.assert_close(d.log_prob(levels[:, None]).T, logits.log_softmax(-1))
    drawn = d.sample(torch.Size([20_000]))
    assert bool(d.support.check(drawn).all())
    for row in range(3):
        counts = torch.bincount((drawn[:, row] * 4).round().long(), minlength=5)
        assert multinomial_goodness_of_fit(logits[row].softmax(-1), counts) > FAILURE_RATE
    assert d.expand(torch.Size([2, 3])).log_prob(torch.zeros(2, 3)).shape == (2, 3)


def test_a_grid_holds_its_levels_and_nothing_else() -> None:
    grid = Grid(5)
    inside = grid.check(torch.tensor([0.0, 0.25, 1.0, 0.3, -0.25, 1.25, float("nan")]))
    assert inside.tolist() == [True, True, True, False, False, False, False]
    assert repr(grid) == "the grid 0, 1/4, ..., 1"
    assert bool(Grid(256).check(torch.arange(256, dtype=torch.float32) / 255).all())


def test_a_sampler_draws_afresh_at_every_call() -> None:
    shift = torch.tensor(3.0, requires_grad=True)
    sampler = Sampler(lambda shape: shift + torch.randn(*shape, 2), torch.Size([4]), torch.Size([2]))
    one, other = sampler.rsample(torch.Size([5])), sampler.rsample(torch.Size([5]))
    assert one.shape == other.shape == (5, 4, 2)
    assert not torch.equal(one, other)
    one.sum().backward()
    assert shift.grad == 40
    wide = sampler.expand(torch.Size([6, 4])).rsample()
    assert wide.shape == (6, 4, 2)
    assert len(wide.detach().flatten().unique()) == 48


def test_mixtures_of_gaussians_support_any_vector() -> None:
    components = dist.Normal(torch.randn(3, 2), 1.0).to_event(1)
    mixture = NormalMixture(dist.Categorical(torch.ones(3)), components)
    x = torch.randn(7, 2)
    terms = components.log_prob(x[:, None]) - math.log(3)
    torch.testing.assert_close(mixture.log_prob(x), terms.logsumexp(-1))
    assert mixture.support is torch.distributions.constraints.real_vector


def test_a_restricted_prior_is_the_whole_inside_and_nothing_outside() -> None:
    whole = dist.Normal(torch.tensor([0.0, 0.5]), 1.0).to_event(1)
    ordered = Restricted(whole, dist.constraints.ordered_vector)
    inside, outside = torch.tensor([-1.0, 1.0]), torch.tensor([1.0, -1.0])
    assert ordered.log_prob(inside) == whole.log_prob(inside)
    assert ordered.log_prob(outside) == -math.inf
    drawn = ordered.expand(torch.Size([2])).sample(torch.Size([4000])).reshape(-1, 2)
    assert bool((drawn[:, 0] < drawn[:, 1]).all())
    # Of the gap z_2 - z_1 ~ N(0.5, 2), cut at zero.
    gap = stats.truncnorm(-0.5 / math.sqrt(2), math.inf, 0.5, math.sqrt(2))
    assert stats.kstest((drawn[:, 1] - drawn[:, 0]).numpy(), gap.cdf).pvalue > FAILURE_RATE
    each = Restricted(dist.Normal(torch.zeros(3), 1.0), constraints.positive)
    assert bool((each.sample(torch.Size([50])) > 0).all())
    assert each.log_prob(torch.tensor([1.0, -1.0, 1.0])).isinf().tolist() == [False, True, False]
