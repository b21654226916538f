"""The arithmetic of a mixture's E-step: responsibilities, moments, how many rows at a time, in which precision."""

from __future__ import annotations

from typing import NamedTuple

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions.transforms import ReshapeTransform

__all__ = ["Moments", "moments", "normal", "normalise_", "rows_at_a_time", "wide"]


def normal(mean: Tensor, scale: Tensor, event_shape: torch.Size) -> dist.TorchDistribution:
    """A Gaussian over `event_shape` from flat parameters.

    Args:
        mean: (..., D).
        scale: Standard deviations (..., D) or (..., 1), or Cholesky factors (..., D, D): told apart by `ndim`.
        event_shape: Shape of one example, of D numbers.
    """
    if scale.ndim == mean.ndim:
        shape = mean.shape[:-1] + event_shape
        return dist.Normal(mean.reshape(shape), scale.expand_as(mean).reshape(shape)).to_event(len(event_shape))
    flat = dist.MultivariateNormal(mean, scale_tril=scale)
    if event_shape == mean.shape[-1:]:
        return flat
    return dist.TransformedDistribution(flat, [ReshapeTransform(mean.shape[-1:], event_shape)])


class Moments(NamedTuple):
    """Weighted sums over rows of 1, of x - centre, and of its squares or outer products."""

    counts: Tensor
    first: Tensor
    second: Tensor


def moments(x: Tensor, weights: Tensor, centre: Tensor, full: bool) -> Moments:
    """Weighted moments of rows about the centres of K components.

    Args:
        x: Rows (N, D).
        weights: (N, K).
        centre: (K, D).
        full: Whether `second` holds outer products (K, D, D) rather than squares (K, D).
    """
    first, second = [], []
    for weight, point in zip(weights.unbind(-1), centre, strict=True):  # one at a time, see `component_log_prob`
        difference = x - point
        first.append(weight @ difference)
        second.append((weight[:, None] * difference).T @ difference if full else weight @ difference.square())
    return Moments(weights.sum(0), torch.stack(first), torch.stack(second))


def normalise_(joint: Tensor, dim: int) -> Tensor:
    """Replaces log p(x, z) by p(z | x) in place, z along `dim`; returns the summed log p(x) (), in double precision."""
    top = joint.amax(dim, keepdim=True)
    mass = joint.sub_(top).exp_().sum(dim, keepdim=True)
    joint.div_(mass)
    return top.add_(mass.log_()).sum(dtype=wide(joint.device))


def rows_at_a_time(numbers: int, device: torch.device) -> int:
    """Rows in a chunk of the E-step.

    Args:
        numbers: How many numbers are kept for each row.
        device: Where; a GPU has no cache to stay in and wants fewer and larger chunks.
    """
    return max(FEWEST_ROWS, (CACHED if device.type == "cpu" else 16 * CACHED) // numbers)


def wide(device: torch.device) -> torch.dtype:
    """The widest floating dtype of a device: double precision wherever it exists."""
    return torch.float32 if device.type == "mps" else torch.float64


CACHED = 2**20
"""Numbers that a chunk of the E-step may hold on a CPU: 8 MiB in double precision, about what its caches keep close."""


FEWEST_ROWS = 512
"""Rows of a chunk at least: products of thinner matrices are slow."""
