"""The Parzen window score: a density from samples alone (Breuleux, Bengio & Vincent 2011).

Computed on the CPU in float64, wherever the draws are: squared distances lose digits to cancellation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from inference.evaluation.estimates import Estimate
from zoo.arrays import as_tensor, check_finite, check_rows
from zoo.errors import OptionError, ShapeError

__all__ = ["parzen"]


def parzen(
    samples: Tensor, x: Tensor, valid: Tensor, sigmas: Sequence[float] | None = None, *, chunk: int = 2**22
) -> tuple[Estimate, float]:
    """Log density of x under a Gaussian kernel estimate from samples, the score of the first GAN papers.

    Known to mislead: in high dimension it says little about the model's likelihood even with very many samples, depends
    on the bandwidth, and can rank a model that replays k-means centres above the true one (Theis, van den Oord & Bethge
    2016). Kept for comparison with published numbers; neither a bound on, nor an estimate to trust of, log p(x).

    Args:
        samples: Draws of the model (n, *event).
        x: Test examples (B, *event).
        valid: Examples on which the bandwidth is chosen.
        sigmas: Bandwidths to choose from; None is 10 values from 0.1 to 1 (Goodfellow et al. 2014), for data in [0, 1].
        chunk: Sample-example pairs compared at once.

    Returns: the estimate (B,) and the chosen bandwidth.

    Raises: OptionError, ShapeError, EmptyDataError, NonFiniteError.
    """
    grid = list(sigmas) if sigmas is not None else torch.logspace(-1, 0, 10).tolist()
    if not grid or min(grid) <= 0:
        raise OptionError(f"Bandwidths must be positive, got {grid}.")
    flat, x, valid = (_rows(what, v) for what, v in (("samples", samples), ("x", x), ("valid", valid)))
    if not flat.shape[1] == x.shape[1] == valid.shape[1]:
        raise ShapeError(
            f"Samples, x and valid must hold as many numbers each, got {flat.shape[1]}, {x.shape[1]} and "
            f"{valid.shape[1]}."
        )
    scores = _parzen(flat, valid, grid, chunk).mean(1)
    sigma = grid[int(scores.argmax())]
    values = _parzen(flat, x, [sigma], chunk)[0]
    return Estimate(values, f"Parzen-{len(samples)}", False), sigma


def _rows(what: str, values: Tensor) -> Tensor:
    """(n, d), in double precision on the CPU, checked."""
    values = as_tensor(values, what)
    check_rows(values, f"The Parzen score's {what}")
    check_finite(f"The Parzen score's {what}", values)
    return values.detach().cpu().double().reshape(len(values), -1)


def _parzen(samples: Tensor, x: Tensor, sigmas: Sequence[float], chunk: int) -> Tensor:
    """(len(sigmas), B) log densities."""
    n, d = samples.shape
    parts = []
    for rows in x.split(max(1, chunk // n)):
        squares = torch.cdist(rows, samples).square()
        parts.append(
            torch.stack(
                [
                    (-squares / (2 * s**2)).logsumexp(1) - math.log(n) - d / 2 * math.log(2 * math.pi * s**2)
                    for s in sigmas
                ]
            )
        )
    return torch.cat(parts, 1)
