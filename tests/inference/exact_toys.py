"""Programs for exact inference: what a grid, an enumeration or nothing exact can answer."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch

from zoo.latent.ppca import PPCA
from zoo.program import Program


class Unanswerable(Program):
    family = "latent"
    event_shape = torch.Size([4])

    def model(self, x=None, context=None, size=None):
        with self.plate(x, context, size):
            z = pyro.sample("z", dist.Normal(torch.zeros(4), 1.0).to_event(1))
            return pyro.sample("x", dist.Normal(z.sin(), 1.0).to_event(1), obs=x)


class GammaPoisson(Program):
    """One global rate, conjugate: a constrained one-dimensional latent for the grid."""

    family, paper = "bayes", "conjugate"
    support = dist.constraints.nonnegative_integer

    def model(self, x=None, context=None, size=None):
        rate = pyro.sample("rate", dist.Gamma(torch.tensor(2.0), torch.tensor(0.5)))
        with self.plate(x, context, size):
            return pyro.sample("x", dist.Poisson(rate), obs=x)


def ppca(latent_dim: int) -> tuple[PPCA, torch.Tensor]:
    program = PPCA([5], latent_dim)
    with torch.no_grad():
        program.weight.copy_(torch.randn(5, latent_dim))
        program.scale = torch.tensor(0.3)
    return program.requires_grad_(False), torch.randn(7, 5)
