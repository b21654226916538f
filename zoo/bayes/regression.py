r"""Bayesian linear regression with known noise: posterior and evidence are Gaussian, in closed form.

Bishop, "Pattern Recognition and Machine Learning", 2006, section 3.3.

    w ~ N(0, prior_scale^2 I_D),   x_i | w, c_i ~ N(w . c_i, noise_scale^2)

    w --> x_i <-- c_i      sites: w (D,) global; x (); context c (D,)
"""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroParam
from torch import Tensor, nn
from torch.distributions import constraints

from zoo.bayes.covariates import Regression
from zoo.options import Count, Positive

__all__ = ["BayesianLinearRegression"]


class BayesianLinearRegression(Regression):
    """Linear regression on the rows of a design matrix (the context); the guide is a mean-field Gaussian.

    Args:
        features: Number D of columns of the design matrix; put a column of ones into it for an intercept.
        prior_scale: Standard deviation of each weight beforehand.
        noise_scale: Standard deviation of the noise, known.
    """

    paper = "Bishop, Pattern Recognition and Machine Learning, 2006, section 3.3"
    dataset = "diabetes"
    noise_scale: Tensor

    def __init__(self, features: Count = 11, prior_scale: Positive = 1.0, noise_scale: Positive = 0.7):
        super().__init__(features, prior_scale, noise_scale=noise_scale)
        self.loc = nn.Parameter(torch.zeros(features))
        self.scale = PyroParam(torch.full((features,), float(prior_scale)), constraint=constraints.positive)

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        """One vector of weights for all rows."""
        assert context is not None
        w = pyro.sample("w", dist.Normal(torch.zeros_like(self.prior_scale), self.prior_scale).to_event(1))
        with self.plate(x, context, size):
            return pyro.sample("x", dist.Normal((w * context).sum(-1), self.noise_scale), obs=x)

    def guide(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> None:
        """q(w) = N(l, diag(s^2))."""
        pyro.sample("w", dist.Normal(self.loc, self.scale).to_event(1))

    def posterior(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> None:
        """p(w | x, C) = N(P^-1 C'x / noise^2, P^-1), P = C'C / noise^2 + I / prior^2 (Bishop, eqs. 3.50, 3.51)."""
        assert x is not None
        assert context is not None
        precision, loc = self._updated(x, context)
        pyro.sample("w", dist.MultivariateNormal(loc.to(x), precision_matrix=precision.to(x)))

    def log_evidence(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """log N(x; 0, prior^2 C C' + noise^2 I), in O(N D^2).

        The exponent is |x - C l|^2 / noise^2 + |l|^2 / prior^2 at the posterior mean l, a sum of squares: their
        difference would lose the digits of float32 where x is large beside the noise.
        """
        assert context is not None
        precision, loc = self._updated(x, context)
        prior, noise = self.prior_scale.to(loc), self.noise_scale.to(loc)
        exponent = (x.to(loc) - context.to(loc) @ loc).square().sum() / noise**2 + (loc / prior).square().sum()
        log_det = len(x) * 2 * noise.log() + 2 * prior.log().sum() + torch.linalg.slogdet(precision).logabsdet
        return (-(exponent + log_det + len(x) * math.log(2 * math.pi)) / 2).to(x.dtype)

    def _updated(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Precision (D, D) and mean (D,) of the posterior, in double precision where there is any."""
        dtype = torch.float32 if x.device.type == "mps" else torch.float64
        c, noise = context.to(dtype), self.noise_scale.to(dtype)
        precision = c.T @ c / noise**2 + torch.diag(self.prior_scale.to(dtype) ** -2)
        return precision, torch.linalg.solve(precision, c.T @ x.to(dtype) / noise**2)
