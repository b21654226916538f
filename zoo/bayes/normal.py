r"""Normal data with unknown mean and variance, under the conjugate Normal-Gamma prior.

Murphy, "Conjugate Bayesian analysis of the Gaussian distribution", 2007, section 3.

    precision ~ Gamma(a, b),   mean | precision ~ N(m, 1 / (k precision)),   x_i ~ N(mean, 1 / precision)

    precision --> mean --> x_i <-- precision      sites: precision, mean (*event) global; x (*event)

Each dimension of the event has a mean and a precision of its own.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroParam
from torch import Tensor
from torch.distributions import constraints

from zoo.options import Positive, Shape
from zoo.program import Program

__all__ = ["NormalGamma", "NormalUnknown"]


class NormalUnknown(Program):
    """Normal data of unknown mean and precision; the guide is Normal times Gamma, without the posterior's dependence.

    Args:
        event_shape: Shape of one example.
        prior_mean: m.
        prior_weight: k, in observations.
        concentration: a.
        rate: b.
    """

    family = "bayes"
    paper = "Murphy, Conjugate Bayesian analysis of the Gaussian distribution, 2007"
    dataset = "iris"
    prior_mean: Tensor
    prior_weight: Tensor
    concentration: Tensor
    rate: Tensor

    def __init__(
        self,
        event_shape: Shape = (),
        prior_mean: float = 0.0,
        prior_weight: Positive = 0.1,
        concentration: Positive = 1.0,
        rate: Positive = 1.0,
    ):
        super().__init__()
        self.event_shape = torch.Size(event_shape)
        self.register_buffer("prior_mean", torch.full(event_shape, float(prior_mean)))
        self.register_buffer("prior_weight", torch.full(event_shape, float(prior_weight)))
        self.register_buffer("concentration", torch.full(event_shape, float(concentration)))
        self.register_buffer("rate", torch.full(event_shape, float(rate)))
        self.mean_loc = torch.nn.Parameter(self.prior_mean.clone())
        self.mean_scale = PyroParam(torch.ones(event_shape), constraint=constraints.positive)
        self.guide_concentration = PyroParam(self.concentration.clone(), constraint=constraints.positive)
        self.guide_rate = PyroParam(self.rate.clone(), constraint=constraints.positive)

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        """Normal-Gamma prior, Normal data."""
        dims = len(self.event_shape)
        precision = pyro.sample("precision", dist.Gamma(self.concentration, self.rate).to_event(dims))
        scale = (self.prior_weight * precision).rsqrt()
        mean = pyro.sample("mean", dist.Normal(self.prior_mean, scale).to_event(dims))
        with self.plate(x, context, size):
            return pyro.sample("x", dist.Normal(mean, precision.rsqrt()).to_event(dims), obs=x)

    def guide(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> None:
        """q(precision) q(mean) = Gamma(c, r) N(l, s^2)."""
        dims = len(self.event_shape)
        pyro.sample("precision", dist.Gamma(self.guide_concentration, self.guide_rate).to_event(dims))
        pyro.sample("mean", dist.Normal(self.mean_loc, self.mean_scale).to_event(dims))

    def posterior(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> None:
        """The updated Normal-Gamma."""
        assert x is not None
        dims, p = len(self.event_shape), self.updated(x)
        precision = pyro.sample("precision", dist.Gamma(p.concentration, p.rate).to_event(dims))
        pyro.sample("mean", dist.Normal(p.loc, (p.weight * precision).rsqrt()).to_event(dims))

    def log_evidence(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The ratio of the normalisers of posterior and prior (Murphy, eq. 95), summed over the dimensions."""
        p = self.updated(x)
        gamma = torch.lgamma(p.concentration) - torch.lgamma(self.concentration)
        rates = self.concentration * self.rate.log() - p.concentration * p.rate.log()
        weights = 0.5 * (self.prior_weight.log() - p.weight.log())
        return (gamma + rates + weights - 0.5 * len(x) * math.log(2 * math.pi)).sum()

    def updated(self, x: Tensor) -> NormalGamma:
        """Parameters of the posterior (Murphy, eqs. 85-89); the mean alone is then Student t."""
        n, average = len(x), x.mean(0)
        weight = self.prior_weight + n
        squares = (x - average).square().sum(0) + self.prior_weight * n * (average - self.prior_mean) ** 2 / weight
        return NormalGamma(
            loc=(self.prior_weight * self.prior_mean + n * average) / weight,
            weight=weight,
            concentration=self.concentration + n / 2,
            rate=self.rate + squares / 2,
        )

    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        """Starts the guide from the data's moments."""
        n, variance = len(x), x.var(0, correction=0).clamp(min=1e-6)
        self.mean_loc.copy_(x.mean(0))
        self.mean_scale = (variance / n).sqrt()
        self.guide_concentration = torch.full_like(variance, n / 2)
        self.guide_rate = variance * n / 2


class NormalGamma(NamedTuple):
    """Parameters of a Normal-Gamma distribution of (mean, precision), (*event) each."""

    loc: Tensor
    weight: Tensor
    """How many observations the knowledge of the mean is worth, k."""
    concentration: Tensor
    rate: Tensor
