r"""The coin: Bernoulli tosses of a coin with unknown probability, the smallest conjugate program.

Bayes, "An essay towards solving a problem in the doctrine of chances", Phil. Trans. 53, 1763.

    p ~ Beta(alpha, beta),   x_i | p ~ Bernoulli(p)   =>   p | x ~ Beta(alpha + sum x, beta + N - sum x)

    p --> x_i      sites: p () global; x ()
"""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroParam
from torch import Tensor
from torch.distributions import constraints

from zoo.options import Positive
from zoo.program import Program

__all__ = ["BetaBernoulli"]


class BetaBernoulli(Program):
    """Tosses of a coin with a Beta prior; the guide is a Beta and so contains the posterior.

    Args:
        alpha: Prior weight of heads (1).
        beta: Prior weight of tails (0).
    """

    family = "bayes"
    paper = "Bayes, An essay towards solving a problem in the doctrine of chances, 1763"
    dataset = "coin"
    support = constraints.boolean
    alpha: Tensor
    beta: Tensor

    def __init__(self, alpha: Positive = 1.0, beta: Positive = 1.0):
        super().__init__()
        self.register_buffer("alpha", torch.tensor(float(alpha)))
        self.register_buffer("beta", torch.tensor(float(beta)))
        self.guide_alpha = PyroParam(torch.tensor(float(alpha)), constraint=constraints.positive)
        self.guide_beta = PyroParam(torch.tensor(float(beta)), constraint=constraints.positive)

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        """One probability for all tosses."""
        p = pyro.sample("p", dist.Beta(self.alpha, self.beta))
        with self.plate(x, context, size):
            return pyro.sample("x", dist.Bernoulli(p), obs=x)

    def guide(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> None:
        """q(p) = Beta(a, b)."""
        pyro.sample("p", dist.Beta(self.guide_alpha, self.guide_beta))

    def posterior(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> None:
        """p(p | x) = Beta(alpha + sum x, beta + N - sum x)."""
        assert x is not None
        pyro.sample("p", dist.Beta(*self._updated(x)))

    def log_evidence(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """log B(alpha + sum x, beta + N - sum x) - log B(alpha, beta)."""
        return _log_beta(*self._updated(x)) - _log_beta(self.alpha, self.beta)

    def _updated(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.alpha + x.sum(), self.beta + (1 - x).sum()


def _log_beta(a: Tensor, b: Tensor) -> Tensor:
    return torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)
