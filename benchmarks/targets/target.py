"""What a target is: a program with fixed parameters, data, and everything that is known exactly about its posterior."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from pyro.distributions import Categorical
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from inference.environment import seeded
from inference.particles import draw
from zoo.datasets import Data
from zoo.program import Program

__all__ = ["Target", "moments"]


@dataclass(frozen=True)
class Target:
    """A problem whose answer is known.

    The posterior of N examples either ties them all together (there is a global latent: `log_evidence` is one number)
    or falls apart into one for each example (`log_evidence` (N,)).
    """

    name: str
    description: str
    """The problem in words, and where its data come from."""
    how: str
    """How the answer was obtained: 'conjugate', 'quadrature', 'enumeration', 'linear-Gaussian', 'grid', ..."""
    program: Callable[[], Program]
    """Builds the program anew, its parameters set; a method may do with it what it likes."""
    data: Data
    log_evidence: Tensor
    """log p(x), () or (N,)."""
    posterior: Callable[..., Any]
    """The exact posterior as a guide: log p(x, z) - log q(z) under it is the log evidence at every draw."""
    mean: Mapping[str, Tensor]
    """Site -> posterior mean, global (*event), local (N, *event); of the category's number for discrete sites."""
    sd: Mapping[str, Tensor]
    """Site -> posterior standard deviation, likewise."""

    @property
    def total_log_evidence(self) -> float:
        """log p(x_1, ..., x_N)."""
        return float(self.log_evidence.sum())

    @torch.no_grad()
    def draw(self, n: int, seed: int = 0) -> dict[str, Tensor]:
        """n independent draws from the exact posterior: site -> (n, *shape), in the shape of `mean`."""
        with seeded(seed, self.data.x.device):
            values = draw(self.posterior, n, *self.data, density=False).values
        return {site: values[site].reshape(n, *self.mean[site].shape) for site in self.mean}


@torch.no_grad()
def moments(guide: Callable[..., Any], data: Data) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Mean and standard deviation of each site of a guide whose sites are independent given the data."""
    trace = poutine.trace(guide).get_trace(*data, None)
    mean, sd = {}, {}
    for name, site in trace.nodes.items():
        if site["type"] != "sample" or site_is_subsample(site):
            continue
        fn = site["fn"]
        if isinstance(fn, Categorical):
            number = torch.arange(fn.probs.shape[-1]).to(fn.probs)
            mean[name] = (fn.probs * number).sum(-1)
            sd[name] = (fn.probs * (number - mean[name][..., None]) ** 2).sum(-1).sqrt()
        else:
            mean[name], sd[name] = fn.mean.clone(), fn.variance.sqrt()
    return mean, sd
