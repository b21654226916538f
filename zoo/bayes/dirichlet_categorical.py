r"""Counts of categories with a Dirichlet prior: the coin with more than two sides.

Johnson, "Probability: the deductive and inductive problems", Mind 41, 1932 (the rule of succession this gives).

    probs ~ Dirichlet(a, ..., a),   x_i | probs ~ Categorical(probs)   =>   probs | x ~ Dirichlet(a + counts)

    probs --> x_i      sites: probs (K,) global; x ()
"""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroParam
from torch import Tensor
from torch.distributions import constraints

from zoo.arrays import count_values
from zoo.options import Positive, Values
from zoo.program import Program

__all__ = ["DirichletCategorical"]


class DirichletCategorical(Program):
    """Draws from K categories with a symmetric Dirichlet prior; the guide is a Dirichlet and so contains the posterior.

    Args:
        values: Number K of categories; x is 0, ..., K - 1.
        concentration: Prior weight a of each category.
    """

    family = "bayes"
    paper = "Johnson, Probability: the deductive and inductive problems, 1932"
    dataset = "coin"
    concentration: Tensor

    def __init__(self, values: Values = 2, concentration: Positive = 1.0):
        super().__init__()
        self.support = constraints.integer_interval(0, values - 1)
        self.register_buffer("concentration", torch.full((values,), float(concentration)))
        self.guide_concentration = PyroParam(torch.full((values,), float(concentration)), constraints.positive)

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        """One vector of probabilities for all draws."""
        probs = pyro.sample("probs", dist.Dirichlet(self.concentration))
        with self.plate(x, context, size):
            return pyro.sample("x", dist.Categorical(probs), obs=x).to(probs.dtype)

    def guide(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> None:
        """q(probs) = Dirichlet(b)."""
        pyro.sample("probs", dist.Dirichlet(self.guide_concentration))

    def posterior(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> None:
        """p(probs | x) = Dirichlet(a + counts)."""
        assert x is not None
        pyro.sample("probs", dist.Dirichlet(self._updated(x)))

    def log_evidence(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """log B(a + counts) - log B(a), of the draws in their order (no multinomial coefficient)."""
        return _log_beta(self._updated(x)) - _log_beta(self.concentration)

    def _updated(self, x: Tensor) -> Tensor:
        return self.concentration + torch.bincount(x.long(), minlength=len(self.concentration))

    @classmethod
    def for_data(cls, x: Tensor, context: Tensor | None = None, **options: Any) -> DirichletCategorical:
        """As many categories as the data show."""
        if "values" not in options:
            options["values"] = count_values(x)
        return cls(**options)


def _log_beta(a: Tensor) -> Tensor:
    return torch.lgamma(a).sum() - torch.lgamma(a.sum())
