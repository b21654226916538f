"""PPCA whose evidence, best likelihood and posterior are known, for the methods that learn it."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.latent.ppca import PPCA


def evidence(program: PPCA, x: Tensor) -> float:
    """Mean log-likelihood."""
    return float(program.log_prob(x).mean().detach())


def truth(n: int = 300) -> tuple[Tensor, float]:
    """Data from a PPCA with two clear components, and the maximum of the mean log-likelihood."""
    source = PPCA([6], 2)
    with torch.no_grad():
        source.weight.copy_(torch.linalg.qr(torch.randn(6, 2)).Q * torch.tensor([2.0, 1.2]))
        source.scale = torch.tensor(0.5)
    x = source.generate(n)
    best = PPCA([6], 2)
    best.maximum_likelihood(x)
    return x, evidence(best, x)
