"""Programs that observe more than x: a second reading from the context, pyro.factor, pyro.deterministic."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from zoo.program import Program


class TwoReadings(Program):
    """z ~ N(0, 1) is read twice: y ~ N(z, 1/2), in the context, and x ~ N(z, 1)."""

    zero: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("zero", torch.zeros(()))
        self.slope = torch.nn.Parameter(torch.tensor(0.5))

    def example_context(self, n):
        return torch.linspace(-1.0, 1.0, n).to(self.zero)

    def model(self, x=None, context=None, size=None):
        with self.plate(x, context, size):
            z = pyro.sample("z", dist.Normal(self.zero, 1.0))
            pyro.sample("y", dist.Normal(z, 0.5), obs=context)
            return pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(self, x=None, context=None, size=None):
        with self.plate(x, context, size):
            pyro.sample("z", dist.Normal(self.slope * (x + context), 0.5))

    def log_prob(self, x, context=None):
        covariance = torch.tensor([[2.0, 1.0], [1.0, 1.25]]).to(self.zero)
        return dist.MultivariateNormal(self.zero.expand(2), covariance).log_prob(torch.stack([x, context], -1))

    def posterior(self, x=None, context=None, size=None):
        with self.plate(x, context, size):
            pyro.sample("z", dist.Normal((x + 4 * context) / 6, 6**-0.5))


class Nudged(Program):
    """m ~ N(0, 1) times exp(-m^2); z ~ N(m, 1) and x ~ N(z, 1): no guide, and derived quantities by name."""

    zero: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("zero", torch.zeros(()))

    def model(self, x=None, context=None, size=None):
        m = pyro.sample("m", dist.Normal(self.zero, 1.0))
        pyro.factor("nudge", -(m**2))
        pyro.deterministic("double", 2 * m)
        with self.plate(x, context, size):
            z = pyro.sample("z", dist.Normal(m, 1.0))
            pyro.deterministic("half", z / 2)
            return pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def evidence(self, x: Tensor) -> Tensor:
        """log of the integral over m and z: exp(-m^2) narrows the prior of m to variance 1/3, and has mass 3^-1/2."""
        covariance = 2 * torch.eye(len(x)) + 1 / 3
        return dist.MultivariateNormal(torch.zeros(len(x)), covariance).log_prob(x) - math.log(3) / 2


class Pulled(TwoReadings):
    """TwoReadings as a factor of each example says it; the same density."""

    def model(self, x=None, context=None, size=None):
        with self.plate(x, context, size):
            z = pyro.sample("z", dist.Normal(self.zero, 1.0))
            if context is not None:
                pyro.factor("y", dist.Normal(z, 0.5).log_prob(context))
            return pyro.sample("x", dist.Normal(z, 1.0), obs=x)
