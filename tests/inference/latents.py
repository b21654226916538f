"""Toy programs for adversarial inference: a latent of every kind, with their posteriors where there is one in words."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints

from zoo.program import Program


class NormalMean(Program):
    """mu ~ N(0, 2^2), x ~ N(mu, 1): a global latent with a Gaussian posterior."""

    event_shape = torch.Size()
    prior: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("prior", torch.tensor(2.0))

    def model(self, x=None, context=None, size=None):
        mu = pyro.sample("mu", dist.Normal(torch.zeros_like(self.prior), self.prior))
        with self.plate(x, context, size):
            return pyro.sample("x", dist.Normal(mu, 1.0), obs=x)

    def exact(self, x: Tensor) -> dist.Normal:
        precision = len(x) + 1 / self.prior**2
        return dist.Normal(x.sum() / precision, precision**-0.5)

    def log_evidence(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        covariance = torch.eye(len(x)) + self.prior**2
        return dist.MultivariateNormal(torch.zeros(len(x)), covariance).log_prob(x)


class Rate(Program):
    """lambda ~ Gamma(2, 1), x ~ Exponential(lambda): positive support; the posterior is Gamma(2 + N, 1 + sum x)."""

    event_shape = torch.Size()
    support = constraints.positive
    two: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("two", torch.tensor(2.0))

    def model(self, x=None, context=None, size=None):
        rate = pyro.sample("rate", dist.Gamma(self.two, 1.0))
        with self.plate(x, context, size):
            return pyro.sample("x", dist.Exponential(rate), obs=x)


class Levels(Program):
    """level ~ N(0, 1) global; z ~ N(level, 1) and a coin k by example, x ~ N(z + 2 k, 1)."""

    event_shape = torch.Size()
    fair: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("fair", torch.tensor(0.5))

    def model(self, x=None, context=None, size=None):
        level = pyro.sample("level", dist.Normal(torch.zeros_like(self.fair), 1.0))
        with self.plate(x, context, size):
            z = pyro.sample("z", dist.Normal(level, 1.0))
            k = pyro.sample("k", dist.Bernoulli(self.fair), infer={"enumerate": "parallel"})
            return pyro.sample("x", dist.Normal(z + 2 * k, 1.0), obs=x)


class Centred(Program):
    """z ~ N(m, 1) with m to be learned, x ~ N(z, 1)."""

    event_shape = torch.Size()

    def __init__(self) -> None:
        super().__init__()
        self.m = nn.Parameter(torch.tensor(0.3))

    def model(self, x=None, context=None, size=None):
        with self.plate(x, context, size):
            z = pyro.sample("z", dist.Normal(self.m, 1.0))
            return pyro.sample("x", dist.Normal(z, 1.0), obs=x)


class Counts(Program):
    """A discrete latent without end."""

    event_shape = torch.Size()
    rate: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("rate", torch.tensor(2.0))

    def model(self, x=None, context=None, size=None):
        with self.plate(x, context, size):
            z = pyro.sample("z", dist.Normal(torch.zeros_like(self.rate), 1.0))
            k = pyro.sample("k", dist.Poisson(self.rate))
            return pyro.sample("x", dist.Normal(z + k, 1.0), obs=x)


class NoLatents(Program):
    event_shape = torch.Size()

    def __init__(self) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(()))

    def model(self, x=None, context=None, size=None):
        with self.plate(x, context, size):
            return pyro.sample("x", dist.Normal(self.loc, 1.0), obs=x)


class Shifted(Program):
    """A mean, and one coin for all examples that shifts it: x ~ N(mean + 3 k, 1)."""

    def model(self, x=None, context=None, size=None):
        mean = pyro.sample("mean", dist.Normal(0.0, 2.0))
        k = pyro.sample("k", dist.Bernoulli(0.3))
        with self.plate(x, context, size):
            return pyro.sample("x", dist.Normal(mean + 3 * k, 1.0), obs=x)
