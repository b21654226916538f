"""Data whose modes can be counted: Gaussians on a ring or a grid, and stacks of three digits.

`GAUSSIANS` has the centres and widths of the first; a stack of three independent digits has 10 x 10 x 10 modes, named
100 a + 10 b + c (Metz et al. 2017; Srivastava et al. 2017).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.datasets.splits import SPLITS, Splits, consecutive

__all__ = ["GAUSSIANS", "Gaussians", "gaussians", "stacked"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Gaussians:
    """Round Gaussians of one width, each as likely: centres (K, d) and their standard deviation."""

    centres: Array
    sd: float


def _ring(sd: float, radius: float = 2.0, n: int = 8) -> Gaussians:
    angle = np.arange(n) * (2 * np.pi / n)
    return Gaussians(radius * np.column_stack([np.cos(angle), np.sin(angle)]), sd)


def _grid(sd: float, side: int = 5, step: float = 2.0) -> Gaussians:
    at = step * (np.arange(side) - (side - 1) / 2)
    return Gaussians(np.stack(np.meshgrid(at, at, indexing="ij"), -1).reshape(-1, 2), sd)


GAUSSIANS: dict[str, Gaussians] = {"ring": _ring(0.1), "narrow-ring": _ring(0.02), "grid25": _grid(0.05)}
"""Name of the data set -> what it is drawn from."""


def gaussians(name: str, sizes: Mapping[str, int]) -> Splits:
    """Draws of one of GAUSSIANS with seed 0; the label is the number of the centre."""
    mixture, n = GAUSSIANS[name], sum(sizes.values())
    random = np.random.RandomState(0)
    labels = random.randint(len(mixture.centres), size=n)
    x = mixture.centres[labels] + mixture.sd * random.standard_normal((n, 2))
    return consecutive(x, labels, sizes)


def stacked(read: Callable[[], Splits], sizes: Mapping[str, int]) -> Splits:
    """Images (3, H, W) whose channels are digits drawn independently of each other, with seed 0.

    Args:
        read: Where the digits come from; each split is stacked from digits of that split alone.
        sizes: Stacks by split.
    """
    digits, random = read(), np.random.RandomState(0)
    x, labels = {}, {}
    for split in SPLITS:
        rows = random.randint(len(digits.x[split]), size=(sizes[split], 3))
        x[split] = digits.x[split][rows]
        labels[split] = digits.labels[split][rows].astype(np.int64) @ np.array([100, 10, 1])
    return Splits(x, labels=labels, scale=digits.scale)
