"""A guide that suites use beside the programs' own: amortised categorical factors for a discrete local latent."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
from torch import Tensor, nn

from zoo.errors import CapabilityError
from zoo.nets import mlp
from zoo.program import Program

__all__ = ["AmortisedCategorical"]


class AmortisedCategorical(nn.Module):
    """q(z | x) = prod_t Categorical(net(x)_t): mean-field where z has steps, exact in form where it is one number.

    Args:
        program: Its one latent site is discrete and local, of event shape () or (T,).
        hidden: Width of the network.

    Raises: CapabilityError for other programs.
    """

    def __init__(self, program: Program, hidden: int = 64):
        super().__init__()
        sites = list(program.sites().values())
        if len(sites) != 1 or not sites[0].is_discrete or sites[0].is_global:
            raise CapabilityError(f"{type(program).__name__} has not exactly one latent site, discrete and local.")
        (self.site,) = sites
        base = getattr(self.site.support, "base_constraint", self.site.support)
        self.shape = (*self.site.event_shape, int(base.upper_bound) + 1)
        self.plate = program.plate
        self.net = mlp(program.event_shape.numel(), [hidden], math.prod(self.shape), "tanh")

    def forward(self, x: Tensor, context: Tensor | None = None, size: int | None = None) -> None:
        """Samples the site."""
        logits = self.net(x.flatten(1)).unflatten(-1, self.shape)
        with self.plate(x, context, size):
            pyro.sample(self.site.name, dist.Categorical(logits=logits).to_event(len(self.shape) - 1))
