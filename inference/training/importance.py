"""Importance weights of an approximation's draws: what they make of the evidence, and whether to trust them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from inference.chains import psis, psis_khat

__all__ = ["K_LIMIT", "Weighed"]

K_LIMIT = 0.7
"""Of k-hat; above it weights say nothing that could be relied on (Vehtari et al. 2024)."""


class Weighed:
    """Importance weights of S draws, at least 25.

    Args:
        log_weights: log p(x, z) - log q(z) (S,), in double precision; minus infinity where z is impossible.
    """

    def __init__(self, log_weights: Tensor):
        self.log_weights = log_weights
        self.log_evidence = float(log_weights.logsumexp(0)) - math.log(len(log_weights))
        """log of the mean weight: an estimate of the log evidence."""
        self.k_hat = max(0.0, float(psis_khat(log_weights[:, None])))
        """Shape of the tail of the weights; 0 where they have none."""

    def smoothed(self) -> Tensor:
        """Pareto smoothed weights that sum to one, (S,)."""
        possible = torch.isfinite(self.log_weights)
        if self.k_hat == 0 or int(possible.sum()) < 5:
            return self.log_weights.softmax(0)
        smooth = psis(self.log_weights[possible][:, None])[0][:, 0]
        return torch.zeros_like(self.log_weights).masked_scatter(possible, smooth.exp().to(self.log_weights))

    @property
    def doubt(self) -> str | None:
        """A sentence where k-hat is too large, or None."""
        if self.k_hat <= K_LIMIT:
            return None
        return (
            f"k-hat is {self.k_hat:.2f}, above {K_LIMIT}: the posterior is not like this, and weights do not mend it; "
            "take svi with guide='spline', smc or nuts."
        )
