"""The critic of an implicit guide before any training: moments, densities, what it estimates."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch

from inference.games.avb import annealed_loss, compared, contrast_loss
from inference.guides.implicit import ImplicitGuide
from inference.guides.ratio import RatioCritic, estimated_log_prob
from inference.particles import draw
from tests.inference.latents import Levels, Rate
from zoo.datasets.data import Data
from zoo.errors import CapabilityError
from zoo.latent.ppca import PPCA


def test_contrast_has_the_guides_moments_and_gradients_reach_every_parameter() -> None:
    x = torch.randn(20)
    program, data = Levels(), Data(x)
    guide = ImplicitGuide(program, data)
    critic = RatioCritic(guide, {"global": 4000, "local": 50})
    pieces = {piece.kind: piece for piece in guide.pieces(3, x)}
    assert pieces["global"].u.shape == (3, 1, 1)
    assert pieces["local"].u.shape == (3, 20, 1)
    r = critic.gaussian(guide, "global", pieces["global"].h)
    # At the start the guide is N(loc, scale): r knows, to within 5 standard errors of 4,000 draws.
    block = guide.block("global")
    assert abs(float((r.loc - block.loc) / block.scale)) < 5 / 4000**0.5
    assert abs(float(r.tril / block.scale) - 1) < 5 / 8000**0.5
    u = torch.randn(7, 1, 1)
    density = dist.MultivariateNormal(r.loc, scale_tril=r.tril).log_prob(u)
    assert torch.allclose(r.log_prob(r.whiten(u)), density)
    # The output layer starts at zero, which blocks what lies below; one step opens it.
    for module in (guide, critic):
        for parameter in module.parameters():
            parameter.data.add_(0.01 * torch.randn_like(parameter))
    annealed_loss(program, guide, critic, 4, data, 20)[0].backward()
    contrast_loss(critic, compared(guide, critic, 4, data, 1)[0]).backward()
    for module in (guide, critic):
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None, name
            assert float(parameter.grad.abs().sum()) > 0, name


def test_estimated_density_of_the_prior_contrast() -> None:
    """With T = 0 it is the prior's, in the space of the sites: for a rate too."""
    for program, x in ((Rate(), torch.rand(5)), (Levels(), torch.randn(5)), (PPCA([3], 2), torch.randn(5, 3))):
        guide = ImplicitGuide(program, Data(x))
        critic = RatioCritic(guide, {"global": 8, "local": 8}, contrast="prior")
        for parameter in critic.parameters():
            parameter.data.zero_()
        values = draw(guide, 4, x, density=False).values
        assert torch.equal(estimated_log_prob(guide, critic, values, x).total, guide.log_prior(values, x).total)
    joint = RatioCritic(guide, {"local": 8}, contrast="joint")
    with pytest.raises(CapabilityError, match="log p"):
        estimated_log_prob(guide, joint, values, x)
