"""What the tests of networks with exact densities share."""

from __future__ import annotations

import scipy.stats as stats
import torch

from tests.conftest import FAILURE_RATE


def perturbed(program, scale=0.5):
    """The program with every parameter moved away from its start, so that nothing is zero by chance."""
    with torch.no_grad():
        for parameter in program.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    return program.eval()


def states(event_shape, values=2):
    """All events (values^D, *event_shape) of levels 0, 1/(values-1), ..., 1."""
    levels = torch.linspace(0, 1, values)
    return torch.cartesian_prod(*[levels] * torch.Size(event_shape).numel()).reshape(-1, *event_shape)


def agrees(counts, probabilities):
    """Whether a chi-square test does not reject; rare states are put together."""
    expected = probabilities / probabilities.sum() * counts.sum()
    rare = expected < 5
    observed = torch.cat([counts[~rare], counts[rare].sum().reshape(1)])
    wanted = torch.cat([expected[~rare], expected[rare].sum().reshape(1)])
    keep = wanted > 0
    return stats.chisquare(observed[keep].numpy(), wanted[keep].numpy()).pvalue > FAILURE_RATE
