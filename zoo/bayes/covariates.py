"""What regressions share: each example comes with a row of covariates, its context."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor

from zoo.errors import ShapeError
from zoo.program import Program

__all__ = ["Regression"]


class Regression(Program):
    """Base of programs p(x_i | c_i) with as many weights as the context has columns.

    Args:
        features: Number D of weights.
        prior_scale: Standard deviation of each weight beforehand.
        scales: Other standard deviations, by name; each becomes a buffer of that name, ().

    Raises: OptionError for what is not positive.
    """

    family = "bayes"
    prior_scale: Tensor
    """(D,) standard deviations of the weights beforehand."""

    def __init__(self, features: int, prior_scale: float, **scales: float):
        super().__init__()
        self.register_buffer("prior_scale", torch.full((features,), float(prior_scale)))
        for name, value in scales.items():
            self.register_buffer(name, torch.tensor(float(value)))

    @classmethod
    def for_data(cls, x: Tensor, context: Tensor | None = None, **options: Any) -> Self:
        """As many weights as the context has columns.

        Raises: ShapeError.
        """
        if context is None or context.ndim != 2:
            shape = None if context is None else tuple(context.shape)
            raise ShapeError(f"Regression needs a design matrix (N, D) as context, got {shape}; pass (x, context).")
        options.setdefault("features", context.shape[1])
        return cls(**options)

    def example_context(self, n: int) -> Tensor:
        """Standard normal covariates (n, D)."""
        return torch.randn(n, len(self.prior_scale)).to(self.prior_scale)
