"""The arithmetic that mixtures share: a Gaussian's density, responsibilities and moments, k-means, how much at a time.

An E-step goes through the data in chunks. Of each it needs log p(x, z) of all rows and components, makes
responsibilities of it (`normalise_`) and adds up what these weigh (`moments`); nothing but sums remains.
"""

from __future__ import annotations

import math
import warnings
from typing import Any, ClassVar, NamedTuple

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.transforms import ReshapeTransform

from zoo.errors import OptionError
from zoo.process import guest
from zoo.units import Standard

__all__ = [
    "CHUNK", "GappyNormal", "Moments", "expected_moments", "kmeans_labels", "moments", "normal", "normalise_",
    "rows_at_a_time", "wide",
]  # fmt: skip

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


class GappyNormal(dist.TorchDistribution):
    """A Gaussian of which some coordinates are not observed: the density is that of the others, their marginal.

    Args:
        mean: (..., D).
        scale_tril: Cholesky factors (..., D, D).
        present: Which of the numbers of an example are there, (..., *event_shape).
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    def __init__(self, mean: Tensor, scale_tril: Tensor, present: Tensor, event_shape: torch.Size):
        batch = present.shape[: present.ndim - len(event_shape)]
        self.mean_, self.scale_tril = mean, scale_tril
        self.there = present.reshape(*batch, -1)
        super().__init__(torch.broadcast_shapes(batch, mean.shape[:-1]), event_shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """All vectors."""
        return constraints.independent(constraints.real, len(self.event_shape))

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> GappyNormal:
        """The same over more batch dimensions."""
        batch, d = torch.Size(batch_shape), self.mean_.shape[-1]
        mean, factor = self.mean_.expand(*batch, d), self.scale_tril.expand(*batch, d, d)
        present = self.there.expand(*batch, d).reshape(batch + self.event_shape)
        return GappyNormal(mean, factor, present=present, event_shape=self.event_shape)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        """Draws of all coordinates."""
        drawn = dist.MultivariateNormal(self.mean_, scale_tril=self.scale_tril).expand(self.batch_shape)
        return drawn.sample(torch.Size(sample_shape)).reshape(self._extended_shape(torch.Size(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        """The marginal density; what stands at missing coordinates does not matter."""
        flat = value.reshape(*value.shape[: value.ndim - len(self.event_shape)], -1)
        residual = torch.where(self.there, flat - self.mean_, 0.0)
        factor = torch.linalg.cholesky(_blocked(self.scale_tril @ self.scale_tril.mT, self.there))
        white = torch.linalg.solve_triangular(factor, residual.unsqueeze(-1), upper=False).squeeze(-1)
        log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return -white.square().sum(-1) / 2 - log_det - self.there.sum(-1) * (math.log(2 * math.pi) / 2)


def _blocked(covariance: Tensor, there: Tensor) -> Tensor:
    """Covariances (..., D, D) with those that are there kept, and ones for the variances of the others alone: its
    inverse and determinant are those of the block that is kept."""
    both = there.unsqueeze(-1) & there.unsqueeze(-2)
    return torch.where(both, covariance, torch.diag_embed((~there).to(covariance)))


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


def expected_moments(x: Tensor, present: Tensor, weights: Tensor, centre: Tensor, scale: Tensor) -> Moments:
    """`moments` about Gaussian components' own means with missing coordinates as expected given those that are there.

    Ghahramani & Jordan, "Supervised learning from incomplete data via an EM approach", NIPS 1994.

    Args:
        x: Rows (N, D), any finite number where one is missing.
        present: Which are there, (N, D).
        weights: (N, K).
        centre: Means (K, D).
        scale: Standard deviations (K, D), or Cholesky factors (K, D, D).
    """
    first, second, full = [], [], scale.ndim == 3
    for weight, point, factor in zip(weights.unbind(-1), centre, scale, strict=True):
        known = torch.where(present, x - point, 0.0)
        if not full:
            first.append(weight @ known)
            second.append(weight @ torch.where(present, known.square(), factor.square()))
            continue
        covariance = factor @ factor.mT
        # (N, D, D): the regression of all coordinates on those that are there, whose own rows are the identity's.
        shared = covariance * present.unsqueeze(-2)
        gain = torch.linalg.solve(_blocked(covariance, present), shared.mT).mT
        expected = torch.where(present, known, (gain @ known.unsqueeze(-1)).squeeze(-1))
        left = torch.einsum("n,nij->ij", weight, covariance - gain @ shared.mT)
        first.append(weight @ expected)
        second.append((weight[:, None] * expected).T @ expected + (left + left.T) / 2)
    return Moments(weights.sum(0), torch.stack(first), torch.stack(second))


def kmeans_labels(x: Tensor, components: int) -> Tensor:
    """Cluster numbers (N,) of the rows of x by scikit-learn's k-means++ and k-means, seeded from torch's generator.

    Columns of a table are each in their own units, or those of prices would be all that counts.

    Raises: OptionError when there are fewer rows than components.
    """
    if len(x) < components:
        raise OptionError(f"{components} components cannot start from {len(x)} examples; use components <= {len(x)}.")
    seed = int(torch.randint(2**31 - 1, ()))
    x = x.detach()
    if x.ndim == 2:
        x = Standard(x.shape[1:]).to(x).take(x)(x)
    rows = x.reshape(len(x), -1).cpu().numpy()
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
