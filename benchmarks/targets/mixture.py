"""A Bayesian mixture small enough for all assignments of its examples to be enumerated: global, multimodal, exact."""

from __future__ import annotations

import math
from typing import NamedTuple

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from benchmarks.targets.target import Target
from zoo.datasets import Data
from zoo.mixtures.bayesian_gaussian import BayesianGaussianMixture

__all__ = ["old_faithful"]

# Duration in minutes of the first ten eruptions in R's data set `faithful`.
ERUPTIONS = (3.600, 1.800, 3.333, 2.283, 4.533, 2.883, 4.700, 3.600, 1.950, 4.350)
CENTRE = 3.5
K = 2
MEAN_WEIGHT, SHAPE, RATE = 0.1, 2.0, 0.5


class Assignments(NamedTuple):
    """The posterior given each of the A = K^N assignments: Dirichlet x Normal-Gamma, (A, K) each."""

    log_joint: Tensor
    """log p(x, z = assignment), (A,)."""
    labels: Tensor
    """The component of each example, (A, N)."""
    concentration: Tensor
    location: Tensor
    weight: Tensor
    shape: Tensor
    rate: Tensor


def enumerate_assignments(x: Tensor) -> Assignments:
    """Conjugate updates for all assignments of x (N,), with a Dirichlet(1) prior and the constants above."""
    n = len(x)
    labels = torch.cartesian_prod(*[torch.arange(K)] * n)
    member = (labels[:, :, None] == torch.arange(K)).to(x)  # (A, N, K)
    count = member.sum(1)
    total = (member * x[:, None]).sum(1)
    location = total / (MEAN_WEIGHT + count)
    weight, shape, concentration = MEAN_WEIGHT + count, SHAPE + count / 2, 1 + count
    rate = RATE + 0.5 * ((member * (x[:, None] ** 2)).sum(1) - weight * location**2)
    component = shape.lgamma() - math.lgamma(SHAPE) + SHAPE * math.log(RATE) - shape * rate.log()
    component = component + 0.5 * (math.log(MEAN_WEIGHT) - weight.log()) + concentration.lgamma()
    constant = math.lgamma(K) - math.lgamma(K + n) - 0.5 * n * math.log(2 * math.pi)
    return Assignments(
        component.sum(-1) + constant, labels, concentration, location=location, weight=weight, shape=shape, rate=rate
    )


def old_faithful() -> Target:
    """Two kinds of eruption; the components can be exchanged, so every mode is there twice."""
    what = (
        "Two-component Bayesian mixture of the durations, in minutes less 3.5, of ten eruptions of Old Faithful "
        "(Azzalini & Bowman 1990; the first rows of R's faithful). The posterior is the mixture of 2^10 conjugate ones."
    )
    data = Data((torch.tensor(ERUPTIONS) - CENTRE)[:, None])
    at = enumerate_assignments(data.x[:, 0])

    def build() -> BayesianGaussianMixture:
        return BayesianGaussianMixture(
            [1], K, "diagonal", concentration=1.0, mean_weight=MEAN_WEIGHT, shape=SHAPE, rate=RATE
        )

    program = build()

    def posterior(x: Tensor, context: Tensor | None = None, size: int | None = None) -> None:
        at = enumerate_assignments(x[:, 0])
        # The assignment is one draw for all examples, so it is a site outside the plate, and z repeats it.
        which = pyro.sample("assignment", dist.Categorical(logits=at.log_joint), infer={"is_auxiliary": True})
        pyro.sample("weights", dist.Dirichlet(at.concentration[which]))
        gamma = dist.Gamma(at.shape[which][..., None], at.rate[which][..., None])
        precisions = pyro.sample("precisions", gamma.to_event(2))
        scale = (at.weight[which][..., None] * precisions).rsqrt()
        pyro.sample("means", dist.Normal(at.location[which][..., None], scale).to_event(2))
        labels = at.labels[which]
        with program.plate(x, context, size):
            pyro.sample("z", dist.Delta(labels.squeeze(-2) if labels.ndim > 2 else labels))

    probability = at.log_joint.softmax(0)
    share = at.concentration / at.concentration.sum(-1, keepdim=True)
    precision = at.shape / at.rate
    given = {
        "weights": (share, share * (1 - share) / (at.concentration.sum(-1, keepdim=True) + 1)),
        "precisions": (precision, precision / at.rate),
        "means": (at.location, at.rate / (at.weight * (at.shape - 1))),
        "z": (at.labels.to(data.x), torch.zeros_like(at.labels, dtype=data.x.dtype)),
    }
    mean, sd = {}, {}
    for site, (centre, variance) in given.items():
        first = probability @ centre
        second = probability @ (centre**2 + variance)
        shape = (-1, 1) if site in ("precisions", "means") else (-1,)
        mean[site], sd[site] = first.reshape(shape), (second - first**2).sqrt().reshape(shape)
    evidence = at.log_joint.logsumexp(0)
    return Target(
        "old-faithful",
        what,
        "enumeration",
        program=build,
        data=data,
        log_evidence=evidence,
        posterior=posterior,
        mean=mean,
        sd=sd,
    )
