"""Chains that mix are let pass, chains that are stuck are named."""

from __future__ import annotations

import math

import pytest
import torch

from inference import fit
from inference.mixing import Mixing, chain_mixing
from zoo.energy.deep import DeepEnergy
from zoo.energy.rbm import RBM
from zoo.errors import CapabilityError, OptionError


def two_modes(strength: float) -> RBM:
    """All ten units on or all off, as likely: f is symmetric under that exchange."""
    program = RBM([10], 1, particles=8, draw_sweeps=50)
    with torch.no_grad():
        program.weight.fill_(strength)
        program.bias.fill_(-strength / 2)
        program.hidden_bias.fill_(-5 * strength)
        program.particles.fill_(1.0)  # all chains of the fit stood in one mode
    return program


def test_chains_that_cross_are_let_pass_and_stuck_ones_are_flagged():
    good, frozen = chain_mixing(two_modes(0.3)), chain_mixing(two_modes(8.0))
    assert good.trouble is None
    assert good.rhat < 1.1
    assert good.ess > 300
    assert good.moved > 0.9
    assert frozen.rhat > 1.5
    assert "R-hat" in frozen.trouble
    assert "raise draw_sweeps" in frozen.trouble


def test_steps_that_are_too_long_never_move():
    torch.manual_seed(0)
    program = DeepEnergy([2], step=300.0, draw_sweeps=20, particles=8)
    stuck = chain_mixing(program)
    assert stuck.moved < 0.01
    assert stuck.trouble is not None
    program.step = 0.8
    found = chain_mixing(program)
    assert found.trouble is None
    assert 0.5 < found.moved < 1
    assert "of them moved" in str(found)


def test_what_never_varies_is_left_out_and_nothing_at_all_is_trouble():
    program = two_modes(0.3)
    assert chain_mixing(program, chains=3, sweeps=5).statistics.shape[:2] == (3, 5)
    still = Mixing(torch.zeros(4, 10, 0), 0.0, 5)
    assert math.isnan(still.rhat)
    assert still.ess == 0
    assert still.trouble is not None


def test_it_follows_from_its_seed_and_changes_nothing():
    program = two_modes(0.3).train()
    particles, state = program.particles.clone(), torch.get_rng_state()
    first, again, other = (chain_mixing(program, seed=seed).rhat for seed in (0, 0, 1))
    assert first == again != other
    assert torch.equal(program.particles, particles)
    assert torch.equal(torch.get_rng_state(), state)
    assert program.training


def test_what_it_refuses():
    with pytest.raises(CapabilityError, match="draws without chains"):
        chain_mixing(fit("ppca", torch.randn(10, 3), steps=1).program)
    with pytest.raises(OptionError, match="chains must be at least 2"):
        chain_mixing(two_modes(0.3), chains=1)
    with pytest.raises(OptionError, match="sweeps must be at least 4"):
        chain_mixing(two_modes(0.3), sweeps=3)
