"""What regressions share: each example comes with a row of covariates, its context."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor

from zoo.errors import ShapeError
from zoo.program import Program

__all__ = ["Regression"]


class Regression(Program):
    """Base of programs p(x_i | c_i) with as many weights as the context has columns, option `features`."""

    family = "bayes"
    prior_scale: Tensor
    """(features,) standard deviations of the weights beforehand."""

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
