r"""Bayesian logistic regression: no closed form, but a log-concave posterior, close to Gaussian in many rows.

Bishop, "Pattern Recognition and Machine Learning", 2006, section 4.3; the guide's family: Jaakkola & Jordan, "Bayesian
parameter estimation via variational methods", 2000.

    w ~ N(0, prior_scale^2 I_D),   b ~ N(0, bias_scale^2),   x_i | w, b, c_i ~ Bernoulli(1 / (1 + exp(-w . c_i - b)))

    w, b --> x_i <-- c_i      sites: w (D,) global; b () global; x () in {0, 1}; context c (D,)
"""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroParam
from torch import Tensor, nn
from torch.distributions import constraints

from zoo.bayes.covariates import Regression, linear
from zoo.options import Count, Positive

__all__ = ["LogisticRegression"]


class LogisticRegression(Regression):
    """Logistic regression of labels (x) on features (the context), with intercept; the guide is a mean-field Gaussian.

    Args:
        features: Number D of columns of the context; without a column of ones, the intercept is the site b.
        prior_scale: Standard deviation of each weight beforehand.
        bias_scale: Standard deviation of the intercept beforehand.
    """

    paper = "Bishop, Pattern Recognition and Machine Learning, 2006, section 4.3"
    dataset = "breast-cancer"
    support = constraints.boolean
    bias_scale: Tensor

    def __init__(self, features: Count = 30, prior_scale: Positive = 1.0, bias_scale: Positive = 5.0):
        super().__init__(features, prior_scale, bias_scale=bias_scale)
        self.w_loc = nn.Parameter(torch.zeros(features))
        self.w_scale = PyroParam(torch.full((features,), float(prior_scale)), constraint=constraints.positive)
        self.b_loc = nn.Parameter(torch.tensor(0.0))
        self.b_scale = PyroParam(torch.tensor(float(bias_scale)), constraint=constraints.positive)

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        """One vector of weights and one intercept for all rows."""
        assert context is not None
        w = pyro.sample("w", dist.Normal(torch.zeros_like(self.prior_scale), self.prior_scale).to_event(1))
        b = pyro.sample("b", dist.Normal(torch.zeros_like(self.bias_scale), self.bias_scale))
        with self.plate(x, context, size):
            return pyro.sample("x", dist.Bernoulli(logits=linear(w, context) + b), obs=x)

    def guide(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> None:
        """q(w) q(b) = N(l, diag(s^2)) N(m, t^2), l and s in the units of the columns."""
        pyro.sample("w", dist.Normal(self.unit * self.w_loc, self.unit * self.w_scale).to_event(1))
        pyro.sample("b", dist.Normal(self.b_loc, self.b_scale))
