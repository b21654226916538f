"""Guides of posterior cells: a fresh one of any family beside a model that stays as it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from inference.guides.named import guide_parameters
from zoo import catalogue
from zoo.datasets import Data
from zoo.errors import CapabilityError
from zoo.nets import mlp
from zoo.program import Program

__all__ = ["GUIDES", "AmortisedCategorical", "rebuilt"]


def rebuilt(program: Program, changes: Mapping[str, Any], data: Data) -> Program:
    """The same model with a fresh guide of its own, of other constructor options perhaps; the model's numbers stay."""
    config: dict[str, Any] = dict(program._hub_mixin_config or {})  # type: ignore[arg-type]
    new = catalogue.create(catalogue.name_of(program), **{**config, **changes})
    guided = {id(p) for p in guide_parameters(new.guide, new, data)}
    old = program.state_dict()
    with torch.no_grad():
        for name, value in new.state_dict(keep_vars=True).items():
            if id(value) not in guided and name in old:  # what is new belongs to the guide (a flow's permutation)
                value.copy_(old[name])
    return new


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


GUIDES: dict[str, Callable[[Program], nn.Module]] = {"categorical": AmortisedCategorical}
"""Guides that a cell's method may name beside those of `inference.guides.named`."""
