r"""The bound with weights on its parts: the beta-VAE and the beta-TCVAE.

Higgins et al., "beta-VAE", ICLR 2017; Chen, Li, Grosse & Duvenaud, "Isolating sources of disentanglement in variational
autoencoders", NeurIPS 2018.

    E log p(x | z) - beta KL(q(z | x) || p(z)) - (tc - 1) TC(z),      TC(z) = KL(q(z) || prod_d q(z_d))

where q(z) = (1/N) sum_n q(z | x_n) is the aggregate posterior of the data. The KL holds TC once, as one of three parts:
the mutual information of x and z, TC, and the divergences of single codes. So where beta is 1, `tc` is the weight of
that part. With weights above 1 it lies below the bound on the evidence, with others it is no bound.

q(z) at a draw from q(z | x_i) takes all N examples. A minibatch of B gives an estimate: x_i itself has weight 1/N, and
each other (N - 1) / (N (B - 1)). That is Chen et al.'s stratified sampling, averaged over the order of the minibatch.
It has no bias for the density, and a downward one for its logarithm, as a rule more of q(z) than of the q(z_d): TC then
comes out too small, the more so the smaller the minibatch and the more codes there are. It is exact, on average over
draws, where the minibatch is all the data.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import Independent

from inference.guides.named import guide_sites
from inference.methods.bounds import Objective
from zoo.datasets.data import Data
from zoo.errors import CapabilityError, OptionError
from zoo.program import Program
from zoo.weights import Weighted

__all__ = ["Disentangling", "refuse_entangled", "total_correlation"]


class Disentangling(Objective):
    """A bound whose KL has the weight beta, and its total correlation tc times that of the other parts.

    Args:
        objective: The bound, one that takes a weight of the KL.
        beta: Of the KL.
        tc: Of the total correlation, the others' being 1.
    """

    def __init__(self, objective: Objective, beta: float, tc: float):
        self.objective, self.beta, self.tc = objective, beta, tc

    def __call__(
        self, program: Program, guide: Callable[..., Any], batch: Data, size: int, beta: float | Tensor = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Both parts times `beta`, by which annealing weighs them."""
        loss, bound = self.objective(program, guide, batch, size, self.beta * beta)
        if self.tc == 1:
            return loss, bound
        penalty = beta * (self.tc - 1) * total_correlation(guide, batch, size)
        return loss + penalty, bound - penalty.detach()


def total_correlation(guide: Callable[..., Any], batch: Data, size: int) -> Tensor:
    """An estimate () of TC(z) in nats, at one draw for each example, with gradients to the guide; see the module.

    Args:
        guide: Draws one latent site, of independent numbers given an example.
        batch: Examples, B of them.
        size: Number N of all examples.
    """
    (site,) = (
        site
        for site in poutine.trace(guide).get_trace(*batch, None).nodes.values()
        if site["type"] == "sample" and isinstance(site["fn"], Independent)
    )
    # Each draw under each posterior, number by number: (B, B, d).
    each = site["fn"].base_dist.log_prob(site["value"].unsqueeze(1)).flatten(2)
    b = batch.size
    own = torch.eye(b, dtype=torch.bool, device=each.device)
    others = math.log((size - 1) / (size * (b - 1)))
    weights = torch.where(own, -math.log(size), others).to(each)
    joint = (weights + each.sum(-1)).logsumexp(1)
    alone = (weights[..., None] + each).logsumexp(1).sum(-1)
    return (joint - alone).mean()


def refuse_entangled(guide: Callable[..., Any], program: Program, data: Data, batch_size: int) -> None:
    """Refuses what has no total correlation that could be weighed: it takes one continuous latent of each example, with
    several numbers, independent of each other given the example.

    Raises: CapabilityError; OptionError for minibatches of one.
    """
    sites = program.sites()
    name = type(program).__name__
    if isinstance(data.context, Weighted):
        raise CapabilityError("tc compares examples of a minibatch, and here rows have weights; repeat the rows.")
    if len(sites) != 1 or any(s.is_global or s.is_discrete or s.event_shape.numel() < 2 for s in sites.values()):
        raise CapabilityError(
            f"tc weighs how codes depend on each other, for which {name} needs one continuous latent site of each "
            f"example, of two numbers or more; it has {sorted(sites) or 'none'}. Leave tc at 1."
        )
    (site,) = sites.values()
    if not site.is_independent:
        raise CapabilityError(
            f"tc is a part of the KL where the prior's numbers are independent of each other, and those of {name} come "
            f"from a {site.distribution}; take prior='gaussian', or leave tc at 1."
        )
    drawn = guide_sites(guide, data.plain(), auxiliary=True)
    if len(drawn) > 1:
        raise CapabilityError(
            f"tc needs the density of codes given an example alone, and the guide of {name} draws {sorted(drawn)}; "
            "leave tc at 1."
        )
    (fn,) = (node["fn"] for node in drawn.values())
    if not isinstance(fn, Independent) or fn.base_dist.event_shape or len(fn.batch_shape) != 1:
        raise CapabilityError(
            f"tc needs the density of each code given an example, and the guide of {name} draws them together, from a "
            f"{type(fn).__name__}; take one of independent numbers (the option guide='diagonal' of a VAE)."
        )
    if min(batch_size, data.size) < 2:
        raise OptionError(f"tc compares examples, so a minibatch needs at least 2; got batch_size={batch_size}.")
