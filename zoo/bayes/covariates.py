"""What regressions share: each example comes with a row of covariates, its context."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import pyro.distributions as dist
import torch
from pyro.nn import PyroModule, PyroParam
from torch import Tensor, nn
from torch.distributions import constraints

from zoo.errors import ShapeError
from zoo.program import Program
from zoo.units import units

__all__ = ["Covariates", "Factor", "Regression", "columns", "linear"]


class Covariates(Program):
    """Base of programs p(x_i | c_i) whose contexts are rows of numbers.

    Args:
        features: Number D of columns of the context.
    """

    family = "bayes"

    def __init__(self, features: int):
        super().__init__()
        self.features = features

    @classmethod
    def for_data(cls, x: Tensor, context: Tensor | None = None, **options: Any) -> Self:
        """As many features as the context has columns.

        Raises: ShapeError.
        """
        options.setdefault("features", columns(cls, context))
        return cls(**options)

    def example_context(self, n: int) -> Tensor:
        """Standard normal covariates (n, D)."""
        return torch.randn(n, self.features).to(next(iter(self.state_dict().values())))


class Regression(Covariates):
    """Base of programs with one weight for each column of the context.

    Args:
        features: Number D of weights.
        prior_scale: Standard deviation of each weight beforehand.
        scales: Other standard deviations, by name; each becomes a buffer of that name, ().

    Raises: OptionError for what is not positive.
    """

    prior_scale: Tensor
    """(D,) standard deviations of the weights beforehand."""
    unit: Tensor
    """(D,) in which the guide counts weights, so that steps of one size suit columns of any."""

    def __init__(self, features: int, prior_scale: float, **scales: float):
        super().__init__(features)
        self.register_buffer("prior_scale", torch.full((features,), float(prior_scale)))
        self.register_buffer("unit", torch.ones(features))
        for name, value in scales.items():
            self.register_buffer(name, torch.tensor(float(value)))

    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        """Takes the units of weights from the sizes of the columns."""
        assert context is not None
        self.unit.copy_(units(context))


class Factor(PyroModule):
    """A factor of a mean-field guide: independent Gaussians.

    Args:
        shape: Of the site.
        scale: Standard deviation at the start.
        spread: Of the means at the start, around zero: what is symmetric in the model must not start symmetric.
    """

    def __init__(self, shape: Sequence[int], scale: float, spread: float = 0.0):
        super().__init__()
        self.loc = nn.Parameter(spread * torch.randn(tuple(shape)))
        self.scale = PyroParam(torch.full(tuple(shape), float(scale)), constraint=constraints.positive)

    def forward(self) -> Any:
        """The distribution; all dimensions are of the event."""
        return dist.Normal(self.loc, self.scale).to_event(self.loc.ndim)


def columns(program: type[Program], context: Tensor | None) -> int:
    """How many columns a context has.

    Raises: ShapeError for what is no matrix.
    """
    if context is None or context.ndim != 2:
        shape = None if context is None else tuple(context.shape)
        raise ShapeError(
            f"{program.__name__} needs a design matrix (N, D) as context, got {shape}; pass (x, context), or say which "
            "columns of a table it is: context='*', all but the target."
        )
    return context.shape[1]


def linear(w: Tensor, rows: Tensor) -> Tensor:
    """w . c_i of rows (B, D): weights (D,) give (B,), and with particles (S, 1, D) give (S, B).

    By a matrix product, so that (S, B, D) is never stored.
    """
    return ((w.unsqueeze(-2) if w.ndim == 1 else w) @ rows.mT).squeeze(-2)
