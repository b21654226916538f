"""log Z by annealing, against the sum over all states."""

from __future__ import annotations

import pytest
import torch

from inference.evaluation.likelihood import log_likelihood
from inference.evaluation.partition import bracket_log_partition, log_partition, unnormalised
from zoo.datasets import Data
from zoo.energy.dbm import DBM
from zoo.energy.deep import DeepEnergy
from zoo.energy.rbm import RBM
from zoo.errors import CapabilityError, OptionError


def random_rbm(units: int, hidden: int, seed: int, size: float = 0.5, **options) -> RBM:
    torch.manual_seed(seed)
    program = RBM([units], hidden, **options)
    with torch.no_grad():
        program.weight.copy_(size * torch.randn_like(program.weight))
        program.bias.copy_(torch.randn(units))
        program.location.copy_(program.bias)
        program.hidden_bias.copy_(0.5 * torch.randn(hidden))
    return program


@pytest.mark.parametrize("options", [{}, {"visible": "gaussian", "size": 0.3}])
def test_annealing_brackets_the_truth(options):
    """Ten RBMs of up to 20 hidden units: the truth lies between the bounds, give or take four of their own errors
    (one in 30,000 for each of twenty bounds)."""
    for seed in range(10):
        program = random_rbm(12, 2 * (seed + 1), seed, **options)
        truth = float(program.log_partition().detach())
        found = bracket_log_partition(program, chains=100, steps=100, seed=seed)
        assert found.exact_draws
        low, high = found.lower, found.upper
        assert low.mean - 4 * float(low.monte_carlo_error) < truth < high.mean + 4 * float(high.monte_carlo_error)
        assert found.width < 1


def test_a_deep_energy_is_annealed_to_its_integral():
    torch.manual_seed(0)
    program = DeepEnergy([1], hidden=[8], step=0.7, particles=64)
    with torch.no_grad():
        for p in program.net.parameters():
            p.mul_(3)
    grid = torch.linspace(-30, 30, 60_001)
    with torch.no_grad():
        truth = float(torch.trapezoid(program.unnormalised_log_prob(grid[:, None]).exp(), grid).log())
    found = bracket_log_partition(program, chains=200, steps=200)
    assert not found.exact_draws
    assert abs(found.lower.mean - truth) < 4 * float(found.lower.monte_carlo_error) + 0.01
    assert abs(found.upper.mean - truth) < 4 * float(found.upper.monte_carlo_error) + 0.02


def test_the_likelihood_says_how_the_constant_was_had():
    program = random_rbm(6, 3, 0)
    every = ((torch.arange(64)[:, None] >> torch.arange(6)) & 1).to(program.bias)
    exact = log_likelihood(program, every)
    assert "the sum over all states" in exact.how
    torch.testing.assert_close(exact.values.exp().sum(), torch.tensor(1.0))
    annealed = log_likelihood(program, every, how="ais")
    assert "rather too high" in annealed.how
    torch.testing.assert_close(annealed.values, exact.values, atol=0.2, rtol=0)
    with pytest.raises(OptionError, match="'auto', 'exact', 'ais'"):
        log_likelihood(program, every, how="iwae")


def test_what_it_refuses():
    with pytest.raises(CapabilityError, match=r"2\^25 states"):
        log_partition(RBM([30], 25), "exact")
    with pytest.raises(CapabilityError, match="cannot be summed"):
        log_partition(DeepEnergy([2]), "exact")
    with pytest.raises(CapabilityError, match="no energy-based model"):
        log_partition(torch.nn.Linear(1, 1))  # type: ignore[arg-type]
    assert log_partition(RBM([30], 25), chains=4, steps=3).bound


def test_f_of_examples_says_whether_it_is_a_bound():
    x = torch.ones(3, 6)
    program = random_rbm(6, 3, 0)
    values, bounded = unnormalised(program, Data(x))
    assert not bounded
    torch.testing.assert_close(values, program.unnormalised_log_prob(x).detach())
    deep = DBM([6], [17, 17])
    values, bounded = unnormalised(deep, Data(x))
    assert bounded
    torch.testing.assert_close(values, deep.unnormalised_bound(x).detach())
