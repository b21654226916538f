"""Exact inference against closed forms that were derived another way."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from inference.guides.grid import GridGuide, grid_posterior
from inference.particles import log_weights
from tests.inference.exact_toys import GammaPoisson, ppca
from zoo.errors import CapabilityError
from zoo.latent.ppca import PPCA
from zoo.program import Program


@pytest.mark.parametrize("latent_dim", [1, 2])
def test_grid_evidence_and_moments_equal_ppca(latent_dim):
    program, x = ppca(latent_dim)
    grid = grid_posterior(program, x)
    torch.testing.assert_close(grid.log_evidence, program.log_prob(x), atol=1e-8, rtol=1e-8)
    precision = program.weight.T @ program.weight / program.scale**2 + torch.eye(latent_dim)
    mean = (torch.linalg.inv(precision) @ program.weight.T @ (x - program.mean).T / program.scale**2).T
    torch.testing.assert_close(grid.mean, mean, atol=1e-6, rtol=1e-6)
    sd = torch.linalg.inv(precision).diagonal().sqrt().expand_as(mean)
    torch.testing.assert_close(grid.sd, sd, atol=1e-6, rtol=1e-6)


def far_ppca(scale: float, distance: float) -> tuple[PPCA, torch.Tensor]:
    program, _ = ppca(2)
    with torch.no_grad():
        program.scale = torch.tensor(scale)
    return program, (torch.randn(5, 2) + distance) @ program.weight.T + scale * torch.randn(5, 5)


@pytest.mark.parametrize(("scale", "distance"), [(1e-3, 0.0), (1e-2, 0.0), (1.0, 0.0), (0.1, 3.0), (1.0, 8.0)])
def test_grid_finds_posteriors_that_are_narrow_or_far_from_the_prior(scale, distance):
    """No prior draw comes near; a box that missed them gave minus infinity, or worse, a finite wrong number.

    The closed form itself rounds at eps |x|^2 / scale^2, about 1e-8 here.
    """
    program, x = far_ppca(scale, distance)
    evidence = grid_posterior(program, x).log_evidence
    torch.testing.assert_close(evidence, program.log_prob(x), atol=1e-6, rtol=1e-9)


def test_grid_is_right_or_refuses_where_it_is_both_narrow_and_far():
    program, x = far_ppca(1e-3, 8.0)
    try:
        evidence = grid_posterior(program, x).log_evidence
    except CapabilityError:
        evidence = program.log_prob(x)  # refused: nothing wrong was said
    torch.testing.assert_close(evidence, program.log_prob(x), atol=1e-6, rtol=1e-9)


def test_grid_refuses_what_it_cannot_find():
    class Needle(Program):
        def model(self, x=None, context=None, size=None):
            with self.plate(x, context, size):
                z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
                return pyro.sample("x", dist.Normal(z, 1e-17), obs=x)

    with pytest.raises(CapabilityError, match=r"did not find.*limits"):
        grid_posterior(Needle(), torch.ones(2))


def test_grid_handles_a_constrained_global_latent():
    x = torch.tensor([3.0, 0.0, 2.0, 5.0])
    a, b, n, total = 2.0, 0.5, len(x), float(x.sum())
    exact = (
        a * math.log(b)
        - math.lgamma(a)
        + math.lgamma(a + total)
        - (a + total) * math.log(b + n)
        - float(torch.lgamma(x + 1).sum())
    )
    grid = grid_posterior(GammaPoisson(), x)
    assert grid.log_evidence.item() == pytest.approx(exact, abs=1e-8)
    assert grid.mean.item() == pytest.approx((a + total) / (b + n), abs=1e-6)
    assert grid.sd.item() == pytest.approx((a + total) ** 0.5 / (b + n), abs=1e-6)


def test_grid_guide_draws_from_the_posterior_and_its_elbo_is_the_evidence():
    program, x = ppca(2)
    guide = GridGuide(program)
    draws, weights = log_weights(program, guide, 4000, x)
    torch.testing.assert_close(weights.local, program.log_prob(x).expand(4000, -1), atol=1e-8, rtol=1e-8)
    grid = guide.grid(x)
    # Five standard errors of a mean of 4000 draws, 14 means: false alarm 1e-5.
    error = (draws.values["z"].mean(0) - grid.mean).abs() / grid.sd
    assert float(error.max()) < 5 / 4000**0.5


def test_grid_guide_draws_without_particles():
    program, x = ppca(2)
    trace = pyro.poutine.trace(GridGuide(program)).get_trace(x)
    assert trace.nodes["z"]["value"].shape == (7, 2)
    trace = pyro.poutine.trace(GridGuide(GammaPoisson())).get_trace(torch.tensor([1.0, 2.0]))
    assert trace.nodes["rate"]["value"].shape == ()
