"""The implicit guide and its critic before any training: moments, densities, what each contrast compares."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch

from inference.games.avb import annealed_loss
from inference.guides.implicit import ImplicitGuide
from inference.guides.ratio import RatioCritic
from tests.inference.latents import Centred, Levels, NormalMean
from tests.zoo.readings import TwoReadings
from zoo.datasets.data import Data
from zoo.latent.ppca import PPCA


def test_estimated_elbo_is_the_analytic_one_before_training() -> None:
    """At the start q is Gaussian, so log r is log q, and with T = 0 the estimate is the ELBO, whole or by minibatch."""
    x = 1 + torch.randn(40)
    program, data = NormalMean(), Data(x)
    guide = ImplicitGuide(program, data)
    critic = RatioCritic(guide, {"global": 100_000})
    for parameter in critic.parameters():
        parameter.data.zero_()
    q = dist.Normal(guide.block("global").loc[0], guide.block("global").scale[0])
    fit_term = dist.Normal(q.mean, 1.0).log_prob(x).sum() - 0.5 * 40 * q.variance
    elbo = (fit_term - torch.distributions.kl_divergence(q, dist.Normal(0.0, program.prior))) / 40
    halves = (Data(x[:20]), Data(x[20:]))
    with torch.no_grad():
        whole = annealed_loss(program, guide, critic, 100_000, data, 40)
        half = [annealed_loss(program, guide, critic, 100_000, part, 40)[1] for part in halves]
    # Monte Carlo error: log p(x | mu) has a standard deviation near 100 / 40 nats here; 5 errors of 100,000 draws.
    assert abs(float(whole[1] - elbo)) < 5 * 3.0 / 100_000**0.5 * 2
    assert float(whole[0]) == -float(whole[1])
    assert abs(float(sum(half) / 2 - elbo)) < 5 * 3.0 / 100_000**0.5 * 2


# The contrasts


def test_the_prior_contrast_compares_with_the_prior_given_the_guides_globals() -> None:
    x = torch.randn(20)
    guide = ImplicitGuide(Levels(), Data(x))
    with torch.no_grad():
        mine = guide.pieces(500, x)
    above, below = guide.prior_pieces(mine, x)
    assert above.u.shape == (500, 1, 1)
    assert below.u.shape == (500, 20, 1)
    assert not torch.equal(above.u, mine[0].u)
    assert torch.equal(below.h, mine[1].h)
    # level ~ N(0, 1) anew, z ~ N(level, 1) at the guide's own level, which is wider: 5 standard errors.
    assert abs(float(above.u.mean())) < 5 / 500**0.5
    assert abs(float(above.u.std()) - 1) < 5 / 1000**0.5
    noise = (below.u - mine[0].u).detach()
    assert abs(float(noise.mean())) < 5 / 10_000**0.5
    assert abs(float(noise.std()) - 1) < 5 / 20_000**0.5
    values = {"level": mine[0].u[..., 0], "z": mine[1].u[..., 0]}
    prior = guide.log_prior(values, x)
    assert torch.allclose(prior.globals, dist.Normal(0.0, 1.0).log_prob(values["level"])[:, 0])
    assert torch.allclose(prior.local, dist.Normal(values["level"], 1.0).log_prob(values["z"]))


def test_the_joint_contrast_compares_with_pairs_of_the_program() -> None:
    program = PPCA([5], 2)
    x = program.generate(300)
    guide = ImplicitGuide(program, Data(x))
    (pairs,) = guide.joint_pieces(20, x)
    assert pairs.u.shape == (20, 300, 2)
    made = pairs.h * guide.feature_scale + guide.feature_loc
    noise = made - pairs.u @ program.weight.T - program.mean
    assert abs(float(noise.detach().std()) - 1) < 5 / (2 * 30_000) ** 0.5
    assert abs(float(pairs.u.std()) - 1) < 5 / (2 * 12_000) ** 0.5


@pytest.mark.parametrize("beta", [0.3, 1.0])
def test_in_prior_contrast_the_likelihood_stays_and_the_priors_parameters_learn(beta: float) -> None:
    """At T = 0 the loss is -beta E_q[log p(x | z)], and its gradient in m that of -E_q[log p(z; m)]."""
    program, x = Centred(), 1 + torch.randn(8)
    guide = ImplicitGuide(program, Data(x))
    assert guide.prior_learns
    assert not ImplicitGuide(PPCA([3], 1), Data(torch.randn(9, 3))).prior_learns
    critic = RatioCritic(guide, {"local": 8}, contrast="prior")
    for parameter in critic.parameters():
        parameter.data.zero_()
    torch.manual_seed(1)
    loss, elbo = annealed_loss(program, guide, critic, 50, Data(x), 16, beta)
    torch.manual_seed(1)
    z = guide.pieces(50, x)[0].u[..., 0].detach()
    likelihood = dist.Normal(z, 1.0).log_prob(x).mean()
    assert torch.allclose(loss, -beta * likelihood)
    assert torch.allclose(elbo, likelihood)
    assert torch.allclose(torch.autograd.grad(loss, program.m)[0], -(z - program.m).mean())


# With any program of the zoo


def test_the_prior_of_the_latents_knows_nothing_of_what_is_observed() -> None:
    program = TwoReadings()
    context = program.example_context(6)
    x, z = program.generate(6, context), torch.randn(3, 6)
    found = ImplicitGuide(program, Data(x, context)).log_prior({"z": z}, x, context)
    torch.testing.assert_close(found.local, dist.Normal(0.0, 1.0).log_prob(z))
