"""A distribution over sites in raster order, seen as one over images (or any event shape)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from zoo.errors import ShapeError

__all__ = ["Raster"]


class Raster(TorchDistribution):
    """The same density on values of another shape and dtype; pixels are counted row by row.

    Args:
        base: A distribution without `rsample` use, of any event shape with at least one dimension.
        event_shape: Shape of one value, with as many numbers as the base has.
        dtype: Of the samples, so that categories come out as the float tensors that data are.

    Raises: ShapeError when the two shapes differ in size.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    def __init__(self, base: TorchDistribution, event_shape: torch.Size, dtype: torch.dtype):
        if base.event_shape.numel() != event_shape.numel():
            raise ShapeError(
                f"Raster: the base has {base.event_shape.numel()} sites (shape {tuple(base.event_shape)}), the event "
                f"shape {tuple(event_shape)} has {event_shape.numel()}; they must agree."
            )
        self.base, self.dtype = base, dtype
        super().__init__(base.batch_shape, event_shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """That of one site, over the event shape."""
        return constraints.independent(self.base.support.base_constraint, len(self.event_shape))

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> Raster:
        """The same over more batch dimensions."""
        return Raster(self.base.expand(batch_shape), self.event_shape, self.dtype)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        """Draws of the base, in raster order."""
        value = self.base.sample(torch.Size(sample_shape))
        return value.reshape(self._extended_shape(torch.Size(sample_shape))).to(self.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        """The density of the base."""
        batch = value.shape[: value.ndim - self.event_dim]
        found = self.base.log_prob(value.reshape(batch + self.base.event_shape))
        # Not every base broadcasts: where nothing of it varies, one density serves all particles.
        return found.expand(torch.broadcast_shapes(found.shape, self.batch_shape))
