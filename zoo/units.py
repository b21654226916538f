"""Numbers in units of their data, so that one prior, one start and one size of step suit ages, prices and years.

What is of about size one already is left as it is, bit for bit: standardised columns, pixels in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

__all__ = ["FAR", "Standard", "units"]

FAR = 4.0
"""By which factor the size of data must differ from one to have a unit of its own."""


class Standard(nn.Module):
    """Numbers in units of their data: (v - centre) / size; as they are until `take`, and where data are of size one.

    Args:
        shape: Of a row.
    """

    centre: Tensor
    size: Tensor

    def __init__(self, shape: Sequence[int]):
        super().__init__()
        self.register_buffer("centre", torch.zeros(tuple(shape)))
        self.register_buffer("size", torch.ones(tuple(shape)))

    @torch.no_grad()
    def take(self, rows: Tensor) -> Self:
        """Mean and standard deviation of rows (N, *shape), wherever their size or their spread is far from one."""
        size, spread = rows.square().mean(0).sqrt(), rows.std(0, correction=0)
        varies = spread > 100 * torch.finfo(rows.dtype).eps * size  # more than a constant's rounding
        known = varies & ((size > FAR) | (spread < 1 / FAR))
        self.centre.copy_(torch.where(known, rows.mean(0), 0.0))
        self.size.copy_(torch.where(known, spread, 1.0))
        return self

    def forward(self, rows: Tensor) -> Tensor:
        """In units."""
        return (rows - self.centre) / self.size

    def back(self, rows: Tensor) -> Tensor:
        """From units."""
        return rows * self.size + self.centre


def units(rows: Tensor) -> Tensor:
    """What a weight of each column must be to move a prediction by one, where that is less than one: 1 / size (D,).

    Columns that are small keep weights of the size that their prior expects.
    """
    size = rows.square().mean(0).sqrt()
    return torch.where(size > FAR, size.reciprocal(), 1.0)
