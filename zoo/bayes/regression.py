r"""Bayesian linear regression with known noise: posterior and evidence are Gaussian, in closed form.

Bishop, "Pattern Recognition and Machine Learning", 2006, section 3.3.

    w ~ N(0, prior_scale^2 I_D),   x_i | w, c_i ~ N(w . c_i, noise_scale^2)

    w --> x_i <-- c_i      sites: w (D,) global; x (); context c (D,)
"""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroParam
from torch import Tensor, nn
from torch.distributions import constraints

from zoo.bayes.conjugate import GaussianWeights
from zoo.bayes.covariates import Regression, linear
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
            return pyro.sample("x", dist.Normal(linear(w, context), self.noise_scale), obs=x)

    def guide(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> None:
        """q(w) = N(l, diag(s^2)), l and s in the units of the columns."""
        pyro.sample("w", dist.Normal(self.unit * self.loc, self.unit * self.scale).to_event(1))

    def posterior(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> None:
        """p(w | x, C), Gaussian (Bishop, eqs. 3.50, 3.51)."""
        assert x is not None
        assert context is not None
        pyro.sample("w", self._updated(x, context).posterior(x))

    def log_evidence(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """log N(x; 0, prior^2 C C' + noise^2 I), in O(N D^2)."""
        assert context is not None
        return self._updated(x, context).log_evidence().to(x.dtype)

    def _updated(self, x: Tensor, context: Tensor) -> GaussianWeights:
        return GaussianWeights(context, x, prior=self.prior_scale, noise=self.noise_scale)
