"""Binarisation: grey values in [0, 1] to 0/1, by a threshold or by a draw."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.errors import NonFiniteError, OptionError, SupportError

__all__ = ["HOWS", "binarise"]

HOWS = {
    "threshold": "1 where the value is at least 0.5, else 0",
    "stochastic": "1 with the value as probability",
}
"""The ways to binarise, in words."""


def binarise(x: Tensor, how: str = "threshold", generator: torch.Generator | None = None) -> Tensor:
    """Grey values in [0, 1] to 0/1, of the same shape and dtype.

    Args:
        x: Values in [0, 1], of any shape.
        how: 'threshold' (1 where x >= 0.5) or 'stochastic' (1 with probability x).
        generator: Source of the random numbers of 'stochastic'; None means torch's global one.

    Raises: OptionError for another `how`, NonFiniteError for NaN or infinity, SupportError for values outside [0, 1].
    """
    if how not in HOWS:
        raise OptionError(f"binarise is {how!r}; expected {' or '.join(map(repr, HOWS))}.")
    if not bool(torch.isfinite(x).all()):
        bad = int((~torch.isfinite(x)).sum())
        raise NonFiniteError(f"{bad} values are NaN or infinite; clean them before binarising.")
    if not bool(((x >= 0) & (x <= 1)).all()):
        raise SupportError(
            f"Only values in [0, 1] can be binarised, got {x.min():g} to {x.max():g}. "
            "Scale the data first (bytes: divide by 255)."
        )
    return (x >= 0.5).to(x.dtype) if how == "threshold" else torch.bernoulli(x, generator=generator)
