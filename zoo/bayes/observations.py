"""Generalised linear models: what x follows, given its linear predictor.

McCullagh & Nelder, "Generalized linear models", 2nd edition, 1989.
"""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

__all__ = ["OBSERVATIONS", "SPREAD", "link", "observation"]

OBSERVATIONS: dict[str, constraints.Constraint] = {
    "normal": constraints.real,
    "logistic": constraints.boolean,
    "poisson": constraints.nonnegative_integer,
    "negative-binomial": constraints.nonnegative_integer,
}
"""Name -> support of x."""
SPREAD = ("normal", "negative-binomial")
"""Those with a second number: a standard deviation, or the number of failures that overdispersion is measured by."""
LARGEST = 40.0
"""Of the logarithm of a mean: e^40 is far beyond any count, and still a number in single precision."""


def observation(name: str, predictor: Tensor, spread: Tensor | None = None) -> Any:
    """p(x | predictor), a distribution of the predictor's batch shape.

    Means are the predictor itself ('normal'), its logistic function ('logistic') or its exponential, about which the
    variance is the mean m ('poisson') or m + m^2 / spread ('negative-binomial').

    Args:
        name: A key of OBSERVATIONS.
        predictor: Any shape.
        spread: Positive, of a shape that broadcasts, for those in SPREAD.
    """
    if name == "logistic":
        return dist.Bernoulli(logits=predictor)
    if name == "poisson":
        return dist.Poisson(predictor.clamp(max=LARGEST).exp())
    assert spread is not None
    if name == "normal":
        return dist.Normal(predictor, spread)
    return dist.NegativeBinomial(spread, logits=predictor.clamp(max=LARGEST) - spread.log())


def link(name: str, mean: Tensor) -> Tensor:
    """The predictor that gives a mean; a mean at the edge of what it can be is moved inside."""
    if name == "normal":
        return mean
    small = torch.finfo(mean.dtype).eps ** 0.5
    return mean.clamp(small, 1 - small).logit() if name == "logistic" else mean.clamp(min=small).log()
