"""Weights of a linear model with Gaussian noise: posterior and evidence in closed form.

Bishop, "Pattern Recognition and Machine Learning", 2006, section 3.3, with noise that may differ from row to row.
"""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

__all__ = ["GaussianWeights", "precise"]


def precise(values: Tensor) -> Tensor:
    """In double precision, where there is any."""
    return values if values.device.type == "mps" else values.double()


class GaussianWeights:
    """w ~ N(0, diag(prior)^2), x_i | w ~ N(w . a_i, noise_i^2): what follows from x, in double precision.

    p(w | x) = N(P^-1 A' x / noise^2, P^-1), P = A'A / noise^2 + I / prior^2 (Bishop, eqs. 3.50, 3.51).

    Args:
        design: Rows a_i, (N, D).
        x: (N,).
        prior: Standard deviations of the weights beforehand, (D,).
        noise: Standard deviations, () or (N,).
    """

    def __init__(self, design: Tensor, x: Tensor, prior: Tensor, noise: Tensor):
        self.design, self.x, self.prior = precise(design), precise(x), precise(prior)
        self.noise = precise(noise).expand(len(x))
        scaled = self.design / self.noise[:, None]
        self.precision = scaled.T @ scaled + torch.diag(self.prior**-2)
        self.loc = torch.linalg.solve(self.precision, scaled.T @ (self.x / self.noise))

    def posterior(self, like: Tensor) -> Any:
        """p(w | x), in the dtype of a tensor."""
        exact = dist.MultivariateNormal(self.loc, precision_matrix=self.precision)
        return dist.MultivariateNormal(exact.loc.to(like), scale_tril=exact.scale_tril.to(like))

    def log_evidence(self) -> Tensor:
        """log N(x; 0, A diag(prior)^2 A' + diag(noise)^2), in O(N D^2).

        The exponent is |x - A l|^2 / noise^2 + |l|^2 / prior^2 at the posterior mean l, a sum of squares: their
        difference would lose digits where x is large beside the noise.
        """
        rest = (self.x - self.design @ self.loc) / self.noise
        exponent = rest.square().sum() + (self.loc / self.prior).square().sum()
        log_det = 2 * self.noise.log().sum() + 2 * self.prior.log().sum() + torch.logdet(self.precision)
        return -(exponent + log_det + len(self.x) * math.log(2 * math.pi)) / 2
