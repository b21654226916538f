"""Score matching against densities whose slopes are known: Gaussians, with and without noise."""

from __future__ import annotations

import pytest
import torch

from inference import fit
from inference.methods.score_matching import denoising_loss, sliced_loss
from zoo.energy.deep import DeepEnergy
from zoo.energy.rbm import RBM
from zoo.errors import CapabilityError


def gaussian(spread: float) -> DeepEnergy:
    """exp(f) = N(0, spread^2), by a network that says nothing."""
    program = DeepEnergy([2], hidden=[4])
    with torch.no_grad():
        for p in program.net.parameters():
            p.zero_()
    program.spread.fill_(spread)
    return program


def test_the_sliced_objective_has_its_known_value():
    """For a slope of -x / s^2 the objective is E[v'x]^2 / (2 s^4) - |v|^2 / s^2 in the mean: for N(0, 1) in the plane
    1 / s^4 - 2 / s^2. 40,000 draws, 4.5 standard errors; it is least where s is the data's own."""
    torch.manual_seed(0)
    x = torch.randn(40_000, 2)
    means = {}
    for spread in (0.8, 1.0, 1.3):
        each = sliced_loss(gaussian(spread), x).detach()
        means[spread] = float(each.mean())
        assert abs(means[spread] - (spread**-4 - 2 * spread**-2)) < 4.5 * float(each.std()) / 200
    assert means[1.0] < min(means[0.8], means[1.3])


def test_the_denoising_objective_is_least_at_the_noisy_data():
    """Of N(0, 1) with noise 0.5 the best Gaussian has the variance 1.25."""
    torch.manual_seed(0)
    x = torch.randn(40_000, 2)
    losses = {s: float(denoising_loss(gaussian(s), x, 0.5).mean().detach()) for s in (1.0, 1.25**0.5, 1.4)}
    assert losses[1.25**0.5] < min(losses[1.0], losses[1.4])


@pytest.mark.parametrize("objective", ["denoising", "sliced"])
def test_units_change_nothing(objective):
    """Data of other units have the same losses, each number in its own."""
    torch.manual_seed(0)
    x, scale = torch.randn(60, 2), torch.tensor([1e-3, 1e4])
    losses = []
    for data in (x, x * scale):
        torch.manual_seed(1)
        found = fit(DeepEnergy([2], hidden=[8]), data, "score-matching", objective=objective, steps=20)
        losses.append(torch.tensor(found.history.series("loss")[1]))
    torch.testing.assert_close(*losses, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("objective", ["denoising", "sliced"])
def test_it_learns_two_clusters(objective):
    """On the line: the fitted density, normalised by quadrature, is nearer to the data than where it starts."""
    torch.manual_seed(0)
    sign = torch.randint(2, (2000, 1)) * 2.0 - 1
    x = sign + 0.3 * torch.randn(2000, 1)
    program = DeepEnergy([1], hidden=[32, 32])
    grid = torch.linspace(-4, 4, 2001)[:, None]
    truth = torch.stack([torch.distributions.Normal(m, 0.3).log_prob(grid[:, 0]) for m in (-1.0, 1.0)]).logsumexp(0)
    truth = truth.softmax(0)

    def divergence() -> float:
        with torch.no_grad():
            log_q = program.unnormalised_log_prob(grid).log_softmax(0)
        return float((truth * (truth.log() - log_q)).sum())

    program.initialise(x)
    before = divergence()
    fit(program, x, "score-matching", objective=objective, noise=0.1, steps=250, lr=1e-2, initialise=False)
    assert divergence() < 0.2 * before


def test_what_it_refuses():
    with pytest.raises(CapabilityError, match="discrete"):
        fit(RBM([4], 2), torch.zeros(4, 4), "score-matching", steps=1)
    with pytest.raises(CapabilityError, match="no energy-based model"):
        fit("ppca", torch.randn(10, 4), "score-matching", steps=1)
