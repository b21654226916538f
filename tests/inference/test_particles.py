"""Draws and log densities with a particle dimension: sites kept apart, simulated examples."""

from __future__ import annotations

import math

import pyro
import pytest
import torch
from scipy.stats import kstest

from inference.guides.named import build_guide
from inference.particles import (
    draw,
    flatten_draws,
    guide_log_prob,
    log_joint,
    log_weights,
    outside_handlers,
    simulate,
    unit_log_weights,
)
from tests.conftest import FAILURE_RATE
from tests.inference.latents import Levels
from tests.inference.toys import Mean, Pair, linear
from tests.zoo.readings import TwoReadings
from zoo.datasets import Data
from zoo.errors import CapabilityError
from zoo.latent.ppca import PPCA


def test_flatten_puts_sites_side_by_side_whatever_their_order():
    draws = {"b": torch.arange(12.0).reshape(2, 3, 2), "a": torch.tensor([100.0, 200.0])}
    flat = flatten_draws(draws)
    assert flat.shape == (2, 7)
    assert flat[:, 0].tolist() == [100.0, 200.0]
    torch.testing.assert_close(flat, flatten_draws(dict(reversed(draws.items()))))


def test_simulated_examples_are_draws_of_the_program() -> None:
    program = PPCA([4], 2)
    made = simulate(program, 20_000)
    assert made.latents["z"].shape == (20_000, 2)
    residual = (made.x - made.latents["z"] @ program.weight.T - program.mean) / program.scale
    for values in (residual.detach(), made.latents["z"]):
        assert kstest(values.flatten(), "norm").pvalue > FAILURE_RATE


def normal(loc, scale, value):
    return -0.5 * ((value - loc) / scale) ** 2 - math.log(scale) - 0.5 * math.log(2 * math.pi)


def test_a_joint_density_is_kept_apart_by_example_and_global_sites():
    """Pair: scale ~ Gamma(3, 1) once, z ~ N(0, 1) and x ~ N(z, scale) by example; all in numbers."""
    x = torch.tensor([0.5, -1.0])
    scale, z = torch.tensor([[2.0], [0.5]]), torch.tensor([[0.1, 0.2], [-0.3, 1.0]])
    found = log_joint(Pair(), {"scale": scale, "z": z}, x)
    assert found.joint
    gamma = [math.log(s**2 * math.exp(-s) / 2) for s in (2.0, 0.5)]
    torch.testing.assert_close(found.globals, torch.tensor(gamma))
    rows = [
        [normal(0, 1, float(z[s, b])) + normal(float(z[s, b]), float(scale[s, 0]), float(x[b])) for b in range(2)]
        for s in range(2)
    ]
    torch.testing.assert_close(found.local, torch.tensor(rows))
    torch.testing.assert_close(found.total, torch.tensor(rows).sum(1) + torch.tensor(gamma))
    assert unit_log_weights(found).shape == (2, 1)  # everything is one unit


def test_a_missing_continuous_site_cannot_be_summed_out():
    with pytest.raises(CapabilityError, match="no value for the latent site 'z'"):
        log_joint(Pair(), {"scale": torch.ones(2, 1)}, torch.zeros(3))


def test_discrete_sites_that_are_left_out_are_summed_out():
    """Levels: a coin k by example that moves x by 2."""
    x = torch.tensor([1.0, 3.0, -0.5])
    level, z = torch.tensor([[0.2], [-1.0]]), torch.tensor([[0.0, 1.0, 2.0], [0.5, 0.5, -1.0]])
    found = log_joint(Levels(), {"level": level, "z": z}, x)
    likelihood = (normal(z, 1.0, x).exp() + normal(z + 2, 1.0, x).exp()) / 2
    torch.testing.assert_close(found.local, normal(level, 1.0, z) + likelihood.log())
    torch.testing.assert_close(found.globals, normal(0.0, 1.0, level)[:, 0])


def test_weights_are_model_over_guide_and_the_density_of_draws_is_found_again():
    program = linear(4, 2)
    x = program.generate(3)
    with torch.no_grad():
        draws, weights = log_weights(program, program.guide, 6, x)
        again = guide_log_prob(program.guide, draws.values, x)
        joint = log_joint(program, draws.values, x)
    assert draws.values["z"].shape == (6, 3, 2)
    loc = program.encoder(x)
    q = torch.distributions.Normal(loc, program.encoder_scale).log_prob(draws.values["z"]).sum(-1).detach()
    torch.testing.assert_close(draws.log_prob.local, q)
    torch.testing.assert_close(again.local, q)
    torch.testing.assert_close(weights.local, joint.local - q)
    assert not weights.joint
    assert torch.equal(unit_log_weights(weights), weights.local)


def test_draws_without_a_density_have_none():
    program = linear(4, 2)
    draws = draw(program.guide, 5, program.generate(3), density=False)
    assert draws.log_prob.local.shape == (5, 3)
    assert bool(draws.log_prob.local.isnan().all())


def test_an_auxiliary_site_has_no_density_by_conditioning():
    program = Mean()
    x = program.generate(4)
    guide = build_guide({"kind": "auto", "name": "multivariate_normal"}, program, Data(x))
    with pytest.raises(CapabilityError, match="auxiliary"):
        guide_log_prob(guide, {"mu": torch.zeros(2, 1)}, x)


def test_inside_a_plate_the_model_can_be_run_as_if_outside():
    program = linear(3, 1)
    x = program.generate(2)
    with pyro.plate("particles", 7, dim=-2):
        with outside_handlers() as size:
            assert size == 7
            trace = pyro.poutine.trace(program.model).get_trace(x)
            assert trace.nodes["z"]["value"].shape == (2, 1)
        assert pyro.sample("inside", pyro.distributions.Normal(0.0, 1.0)).shape == (7, 1)


def test_what_a_guide_derives_is_no_draw() -> None:
    class Derives(TwoReadings):
        def guide(self, x=None, context=None, size=None):
            super().guide(x, context, size)
            pyro.deterministic("half", self.slope / 2)

    program = Derives()
    context = program.example_context(4)
    found = draw(program.guide, 3, program.generate(4, context), context)
    assert {name: tuple(value.shape) for name, value in found.values.items()} == {"z": (3, 4)}
    assert found.log_prob.local.shape == (3, 4)
