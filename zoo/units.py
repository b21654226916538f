"""Numbers in units of their data, so that one prior, one start and one size of step suit ages, prices and years.

What is of about size one already is left as it is, bit for bit: standardised columns, pixels in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

__all__ = ["FAR", "SiteUnits", "Standard", "units"]

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


class SiteUnits(Standard):
    """Units of the sites of an event: each column of a table has its own.

    Pixels share one, and have it where they are large: those in [0, 1] are as networks take them, however dark.

    Args:
        event_shape: Of a row; None where sites do not know which they are, and share one, too.
    """

    def __init__(self, event_shape: Sequence[int] | None):
        shares = event_shape is None or len(event_shape) > 1
        super().__init__(() if shares else event_shape or ())
        self.shares = shares

    @torch.no_grad()
    def take(self, rows: Tensor) -> Self:
        """Those of rows (N, *event_shape)."""
        if not self.shares:
            return super().take(rows)
        return super().take(rows.flatten()) if float(rows.square().mean()) > FAR**2 else self

    def forward(self, rows: Tensor, site: int | Tensor | None = None) -> Tensor:
        """In units: of all sites (..., *event_shape), or of the one at a position of the event (...)."""
        return (rows - self._at(self.centre, site)) / self._at(self.size, site)

    def back(self, rows: Tensor, site: int | Tensor | None = None) -> Tensor:
        """From units."""
        return rows * self._at(self.size, site) + self._at(self.centre, site)

    def _at(self, numbers: Tensor, site: int | Tensor | None) -> Tensor:
        return numbers if site is None or self.shares or not numbers.shape else numbers[site]


def units(rows: Tensor) -> Tensor:
    """What a weight of each column must be to move a prediction by one, where that is less than one: 1 / size (D,).

    Columns that are small keep weights of the size that their prior expects.
    """
    size = rows.square().mean(0).sqrt()
    return torch.where(size > FAR, size.reciprocal(), 1.0)
