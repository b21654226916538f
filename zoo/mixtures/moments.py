"""The arithmetic that mixtures share: a Gaussian's density, responsibilities and moments, k-means, how much at a time.

An E-step goes through the data in chunks. Of each it needs log p(x, z) of all rows and components, makes
responsibilities of it (`normalise_`) and adds up what these weigh (`moments`); nothing but sums remains.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions.transforms import ReshapeTransform

from zoo.errors import OptionError
from zoo.process import guest

__all__ = ["CHUNK", "Moments", "kmeans_labels", "moments", "normal", "normalise_", "rows_at_a_time", "wide"]

CHUNK = 1024
"""Rows taken at a time where a whole data set is gone through; memory is CHUNK x components x dimensions."""
CACHED = 2**20
"""Numbers that a chunk of the E-step may hold on a CPU: 8 MiB in double precision, about what its caches keep close."""
FEWEST_ROWS = 512
"""Rows of a chunk of the E-step at least: products of thinner matrices are slow."""


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


def normalise_(joint: Tensor, dim: int) -> Tensor:
    """Replaces log p(x, z) by the responsibilities p(z | x), in place.

    Args:
        joint: Log densities of all rows and components.
        dim: Along which the components lie.

    Returns: the summed log p(x), (), in double precision.
    """
    top = joint.amax(dim, keepdim=True)
    mass = joint.sub_(top).exp_().sum(dim, keepdim=True)
    joint.div_(mass)
    return top.add_(mass.log_()).sum(dtype=wide(joint.device))


class Moments(NamedTuple):
    """Weighted sums over rows for each of K components: of 1, of x - centre, and of its squares or outer products."""

    counts: Tensor
    """(K,)"""
    first: Tensor
    """(K, D)"""
    second: Tensor
    """(K, D) or (K, D, D)"""


def moments(x: Tensor, weights: Tensor, centre: Tensor, full: bool) -> Moments:
    """Weighted moments of rows about the centres of K components.

    Args:
        x: Rows (N, D).
        weights: (N, K).
        centre: (K, D).
        full: Whether `second` holds outer products (K, D, D) rather than squares (K, D).
    """
    first, second = [], []
    for weight, point in zip(weights.unbind(-1), centre, strict=True):
        # One at a time: several times faster than (N, K, D) at once, which leaves the processor's caches.
        difference = x - point
        first.append(weight @ difference)
        second.append((weight[:, None] * difference).T @ difference if full else weight @ difference.square())
    return Moments(weights.sum(0), torch.stack(first), torch.stack(second))


def kmeans_labels(x: Tensor, components: int) -> Tensor:
    """Cluster numbers (N,) of the rows of x by scikit-learn's k-means++ and k-means, seeded from torch's generator.

    Raises: OptionError when there are fewer rows than components.
    """
    if len(x) < components:
        raise OptionError(f"{components} components cannot start from {len(x)} examples; use components <= {len(x)}.")
    seed = int(torch.randint(2**31 - 1, ()))
    rows = x.detach().reshape(len(x), -1).cpu().numpy()
    with warnings.catch_warnings():
        # Fewer distinct rows than components: some components start empty, which EM can live with.
        warnings.simplefilter("ignore", guest("sklearn.exceptions").ConvergenceWarning)
        labels = guest("sklearn.cluster").KMeans(components, n_init=1, random_state=seed).fit_predict(rows)
    return torch.as_tensor(labels, dtype=torch.long, device=x.device)


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
