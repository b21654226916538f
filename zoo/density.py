"""Programs whose one sample site has an exact density that a network computes: autoregressive nets and flows.

A subclass writes `log_prob(x, context)` and `draw(n, context)`; its Pyro program follows from them. SVI then is maximum
likelihood, and conditioning, `Predictive` and every method that wants a density work as on any other program.
"""

from __future__ import annotations

from typing import Any, ClassVar

import pyro
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from zoo.program import Program, Site

__all__ = ["DensityProgram", "NetworkDensity"]


class DensityProgram(Program):
    """p(x | context), exact, with no latents.

    Give `log_prob` and `draw`, both for a flat batch; set `support` and `event_shape`.
    """

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """(B, *event_shape) -> (B,), differentiable in the parameters."""
        raise NotImplementedError(f"{type(self).__name__} must define log_prob(x, context)")

    def draw(self, n: int, context: Tensor | None = None) -> Tensor:
        """n independent draws (n, *event_shape), without gradients; with a context of n rows, one for each."""
        raise NotImplementedError(f"{type(self).__name__} must define draw(n, context)")

    def training_log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """What the site's density is in training mode, (B,): log_prob, or an unbiased estimate of a bound on it."""
        return self.log_prob(x, context)

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        """One site; nothing is latent."""
        with self.plate(x, context, size):
            return pyro.sample("x", NetworkDensity(self, context), obs=x)

    def sites(self) -> dict[str, Site]:
        """None, unless a subclass writes a model of its own: nothing is drawn to know it, which may take a network's
        pass for every number."""
        return {} if type(self).model is DensityProgram.model else super().sites()


class NetworkDensity(TorchDistribution):
    """The density of a `DensityProgram` as a distribution.

    Args:
        program: Has the density; of its mode (training or not) at the time of asking.
        context: What is conditioned on, (*batch_shape, ...), or None.
        batch_shape: Of independent copies; that of the context where there is one.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    def __init__(self, program: DensityProgram, context: Tensor | None = None, batch_shape: torch.Size | None = None):
        self.program, self.context = program, context
        if batch_shape is None:
            batch_shape = torch.Size() if context is None else context.shape[:1]
        super().__init__(batch_shape, program.event_shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """That of one number of x, over the event shape."""
        return constraints.independent(self.program.support, len(self.event_shape))

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> NetworkDensity:
        """The same over more batch dimensions."""
        batch_shape, context = torch.Size(batch_shape), self.context
        if context is not None:
            context = context.expand(batch_shape + context.shape[len(self.batch_shape) :])
        return NetworkDensity(self.program, context, batch_shape)

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        """Draws, (*sample_shape, *batch_shape, *event_shape)."""
        batch = torch.Size(sample_shape) + self.batch_shape
        return self.program.draw(batch.numel(), self._rows(batch)).reshape(batch + self.event_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """The density; in training mode, `training_log_prob`."""
        batch = torch.broadcast_shapes(value.shape[: value.ndim - self.event_dim], self.batch_shape)
        rows = value.expand(batch + self.event_shape).reshape(batch.numel(), *self.event_shape)
        density = self.program.training_log_prob if self.program.training else self.program.log_prob
        return density(rows, self._rows(batch)).reshape(batch)

    def _rows(self, batch: torch.Size) -> Tensor | None:
        """The context of each value of a batch, one below the other."""
        if self.context is None:
            return None
        event = self.context.shape[len(self.batch_shape) :]
        return self.context.expand(batch + event).reshape(batch.numel(), *event)
