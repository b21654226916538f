"""Densities up to a constant: who asks for more is told, and transitions leave what they should as it is."""

from __future__ import annotations

import pyro.poutine as poutine
import pytest
import torch

from inference import fit
from zoo.energy.base import EnergyProgram, Unnormalised, metropolis_langevin
from zoo.energy.deep import DeepEnergy
from zoo.energy.rbm import RBM
from zoo.errors import CapabilityError, UnnormalisedError


def test_nobody_gets_a_density_by_mistake():
    program = RBM([6], 3)
    x = program.generate(5)
    trace = poutine.trace(program.model).get_trace(x)
    assert isinstance(trace.nodes["x"]["fn"], Unnormalised)
    with pytest.raises(
        UnnormalisedError, match=r"log_partition.*unnormalised_log_prob.*'cd', 'score-matching' or 'nce'"
    ):
        trace.log_prob_sum()
    assert not hasattr(program, "log_prob")
    for method in ("svi", "nuts", "em", "exact"):
        with pytest.raises(CapabilityError):
            fit(program, x, method, **({"steps": 1} if method == "svi" else {}))
    with pytest.raises(CapabilityError, match="no energy-based model"):
        fit("ppca", torch.randn(10, 4), "cd", steps=1)


def test_the_base_is_where_the_path_begins_and_it_is_normalised():
    program = RBM([4], 3)
    program.location.copy_(torch.tensor([0.5, -1.0, 2.0, 0.0]))
    every = ((torch.arange(16)[:, None] >> torch.arange(4)) & 1).to(program.bias)
    torch.testing.assert_close(program.tempered(every, 0.0), program.base().log_prob(every))
    torch.testing.assert_close(program.tempered(every, 0.0).logsumexp(0), torch.tensor(0.0), atol=1e-5, rtol=0)
    torch.testing.assert_close(program.tempered(every, 1.0), program.unnormalised_log_prob(every))


def test_langevin_transitions_leave_a_density_as_it_is():
    """The base of a deep energy is a Gaussian, of which independent draws are at hand: after 200 transitions from
    elsewhere, mean and variance of 4,000 chains are its own. Two-sided at 4.5 standard errors: 1 in 70,000 for each of
    four numbers, a little more for what the chains remember."""
    program = DeepEnergy([2], hidden=[4])
    program.mean.copy_(torch.tensor([1.0, -2.0]))
    program.spread.copy_(torch.tensor([0.5, 0.5]))
    torch.manual_seed(0)
    x = torch.zeros(4000, 2)
    rates = []
    for _ in range(200):
        x, accepted = metropolis_langevin(program, x, 0.0, torch.tensor(0.5))
        rates.append(accepted.float().mean())
    assert 0.3 < float(torch.stack(rates).mean()) < 0.999
    error = 0.5 / 4000**0.5
    assert float((x.mean(0) - program.mean).abs().max()) < 4.5 * error
    assert float((x.var(0) / 0.25 - 1).abs().max()) < 4.5 * (2 / 4000) ** 0.5


def test_what_must_be_written_says_so():
    program = EnergyProgram(3, torch.zeros(2, 4))
    for ask in (
        program.base,
        lambda: program.tempered(torch.zeros(1, 4), 1.0),
        lambda: program.sweep(torch.zeros(1, 4)),
    ):
        with pytest.raises(NotImplementedError, match="EnergyProgram must define"):
            ask()


def test_what_can_be_summed_is_known_beforehand():
    assert RBM([30], 20).why_not_summed() is None
    assert RBM([5], 40).why_not_summed() is None
    assert "sums 2^21 states, beyond the 20 units" in RBM([30], 21).why_not_summed()
    with torch.no_grad():
        assert RBM([30], 24).why_not_summed() is None
        assert "beyond the 24 units" in RBM([30], 25).why_not_summed()
