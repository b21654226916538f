"""Distributions that Pyro has not: over levels of grey or of sound, samplers, mixtures with a support, cut priors.

The discretised logistic knows that neighbouring levels are alike: Salimans et al., "PixelCNN++", ICLR 2017; Kingma et
al., "Improving variational inference with inverse autoregressive flow", NIPS 2016.

    P(x) = s((x + h - loc) / scale) - s((x - h - loc) / scale),   s the logistic function, h half a step of the grid
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all, clamp_probs
from torch.nn.functional import log_softmax, logsigmoid

from zoo.datasets import audio
from zoo.errors import OptionError
from zoo.program import Implicit

__all__ = [
    "LOG_ZERO", "CompandedLogistic", "DiscretizedLogistic", "Grid", "GridCategorical", "NormalMixture",
    "Restricted", "Sampler", "bernoulli_logs", "certain", "impossible", "observed",
]  # fmt: skip

LOG_ZERO = -1e30
"""Stands for log 0 where sums are built: small enough in any dtype, and finite, since 0 * -inf and the gradient of a
logsumexp of -infs are NaN."""


def bernoulli_logs(logits: Tensor) -> tuple[Tensor, Tensor]:
    """log p(1) and log p(0), at least LOG_ZERO: infinite logits are probabilities of zero and one."""
    return logsigmoid(logits).clamp(min=LOG_ZERO), logsigmoid(-logits).clamp(min=LOG_ZERO)


def certain(logits: Tensor) -> Tensor:
    """Logits of bits with infinite ones made finite: what is sure keeps the log density 0, what cannot be LOG_ZERO."""
    return logits.clamp(LOG_ZERO, -LOG_ZERO)


def impossible(log_prob: Tensor) -> Tensor:
    """Minus infinity where a sum holds LOG_ZERO, with gradient zero there."""
    return torch.where(log_prob < LOG_ZERO / 2, -torch.inf, log_prob)


def observed(numbers: dist.TorchDistribution, present: Tensor | None, event_dims: int) -> dist.TorchDistribution:
    """The distribution of an example from that of its numbers, independent of each other; those missing count nothing.

    Args:
        numbers: Batch shape (*batch, *event_shape).
        present: Which are there, broadcast with that; None where all are.
        event_dims: How many dimensions an example has.
    """
    return (numbers if present is None else numbers.mask(present)).to_event(event_dims)


class Grid(constraints.Constraint):
    """The numbers 0, 1/(n-1), ..., 1: grey levels, up to the rounding of float32."""

    is_discrete = True

    def __init__(self, values: int):
        self.values = values
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        """Whether each number lies on the grid."""
        level = value * (self.values - 1)
        return (value >= 0) & (value <= 1) & ((level - level.round()).abs() < 1e-3)

    def __repr__(self) -> str:
        return f"the grid 0, 1/{self.values - 1}, ..., 1"


class DiscretizedLogistic(dist.TorchDistribution):
    """A logistic variable rounded to a grid of `values` levels in [0, 1]; what lies outside goes to the outermost.

    Args:
        loc: Mean of the logistic variable.
        scale: Its scale, positive.
        values: Number of levels, at least 2.

    Raises: OptionError for fewer than two levels.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {
        "loc": constraints.real,
        "scale": constraints.positive,
    }

    def __init__(self, loc: Tensor, scale: Tensor, values: int = 256, validate_args: bool | None = None):
        if values < 2:
            raise OptionError(f"A grid needs at least 2 levels, got values={values}.")
        self.loc, self.scale = broadcast_all(loc, scale)
        self.values = values
        super().__init__(self.loc.shape, validate_args=validate_args)

    @property
    def support(self) -> constraints.Constraint:
        """The grid."""
        return Grid(self.values)

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> DiscretizedLogistic:
        """The same distribution over more batch dimensions."""
        return DiscretizedLogistic(
            self.loc.expand(batch_shape), self.scale.expand(batch_shape), self.values, validate_args=False
        )

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        """Draws levels."""
        u = clamp_probs(torch.rand(self._extended_shape(sample_shape), dtype=self.loc.dtype, device=self.loc.device))
        x = (self.loc + self.scale * torch.logit(u)).clamp(0.0, 1.0)
        return (x * (self.values - 1)).round() / (self.values - 1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log mass of each level."""
        if self._validate_args:
            self._validate_sample(value)
        half = 0.5 / (self.values - 1)
        above, below = (value + half - self.loc) / self.scale, (value - half - self.loc) / self.scale
        # s(a) - s(b) = s(a) s(-b) (1 - e^(b - a)), which loses no digits in the tails.
        to_left, to_right = logsigmoid(above), logsigmoid(-below)
        inside = to_left + to_right + torch.log(-torch.expm1(-2 * half / self.scale))
        return torch.where(value < half, to_left, torch.where(value > 1 - half, to_right, inside))


class GridCategorical(dist.TorchDistribution):
    """Any probabilities over the levels 0, 1/(n-1), ..., 1.

    Args:
        logits: (..., n).
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    def __init__(self, logits: Tensor):
        self.logits = logits
        super().__init__(logits.shape[:-1], validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """The grid."""
        return Grid(self.logits.shape[-1])

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> GridCategorical:
        """The same over more batch dimensions."""
        return GridCategorical(self.logits.expand(torch.Size(batch_shape) + self.logits.shape[-1:]))

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        """Draws levels."""
        values = self.logits.shape[-1]
        drawn = torch.distributions.Categorical(logits=self.logits).sample(torch.Size(sample_shape))
        return drawn.to(self.logits) / (values - 1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log mass of each level."""
        level = (value * (self.logits.shape[-1] - 1)).round().long()
        log_probs, level = log_softmax(self.logits, -1), level.unsqueeze(-1)
        shape = torch.broadcast_shapes(log_probs.shape[:-1], level.shape[:-1])
        return log_probs.expand(*shape, -1).gather(-1, level.expand(*shape, 1)).squeeze(-1)


class CompandedLogistic(dist.TorchDistribution):
    """A logistic amplitude rounded to its mu-law level; what lies outside [-1, 1] goes to the outermost.

    Args:
        loc: Mean amplitude.
        scale: Its scale, positive.
        edges: Amplitudes (values - 1,) between the levels; see `zoo.datasets.audio.edges`.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    def __init__(self, loc: Tensor, scale: Tensor, edges: Tensor):
        self.loc, self.scale = broadcast_all(loc, scale)
        self.edges = edges.to(self.loc)
        super().__init__(self.loc.shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """The grid."""
        return Grid(len(self.edges) + 1)

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> CompandedLogistic:
        """The same over more batch dimensions."""
        return CompandedLogistic(self.loc.expand(batch_shape), self.scale.expand(batch_shape), self.edges)

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        """Draws levels."""
        noise = torch.rand(self._extended_shape(sample_shape), dtype=self.loc.dtype, device=self.loc.device)
        return audio.to_levels(self.loc + self.scale * torch.logit(clamp_probs(noise)), len(self.edges) + 1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log mass of each level."""
        last = len(self.edges)
        level = (value * last).round().long()
        upper, lower = self.edges[level.clamp(max=last - 1)], self.edges[(level - 1).clamp(min=0)]
        to_left = logsigmoid((upper - self.loc) / self.scale)
        to_right = logsigmoid((self.loc - lower) / self.scale)
        # s(a) - s(b) = s(a) s(-b) (1 - e^(b - a)), which loses no digits in the tails. The outermost have no a, or no
        # b; what stands in for it keeps the gradient of the branch not taken finite.
        width = torch.where(upper > lower, upper - lower, torch.ones_like(upper))
        inside = to_left + to_right + torch.log(-torch.expm1(-width / self.scale))
        return torch.where(level == 0, to_left, torch.where(level == last, to_right, inside))


class Sampler(Implicit):
    """A sampler without density: fresh draws at every call, where `Implicit` has one value.

    Args:
        draw: Shape of a batch -> values, shape + event_shape.
        batch_shape: Its own.
        event_shape: Of one value.
    """

    def __init__(self, draw: Callable[[torch.Size], Tensor], batch_shape: torch.Size, event_shape: torch.Size):
        # Not Implicit's: there is no value yet.
        dist.TorchDistribution.__init__(self, batch_shape, event_shape, validate_args=False)
        self.draw = draw

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        """Draws; differentiable with respect to what `draw` depends on."""
        return self.draw(torch.Size(sample_shape) + self.batch_shape)

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> Sampler:
        """The same sampler over more batch dimensions; all of them are drawn independently."""
        return Sampler(self.draw, torch.Size(batch_shape), self.event_shape)


class NormalMixture(dist.MixtureSameFamily):
    """A mixture of Gaussians, or others over all vectors, with a support that autoguides map to: torch's has none."""

    @property
    def support(self) -> constraints.Constraint:
        """All vectors."""
        return constraints.real_vector

    def log_prob(self, value: Tensor) -> Tensor:
        """Of vectors (..., k); components see each as often as there are components, since flows do not broadcast."""
        if self._validate_args:
            self._validate_sample(value)
        parts, value = self.component_distribution, value.unsqueeze(-2)
        each = parts.log_prob(value.expand(*torch.broadcast_shapes(value.shape[:-1], parts.batch_shape), -1))
        return (each + log_softmax(self.mixture_distribution.logits, -1)).logsumexp(-1)


class Restricted(dist.TorchDistribution):
    """A distribution cut to a part of its support: ordered means, positive rates. Its density is not normalised again.

    Right as a prior of fixed numbers, since the constant that is missing then depends on nothing.

    Args:
        whole: What is cut.
        support: The part, of the same event dimension.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    def __init__(self, whole: dist.TorchDistribution, support: constraints.Constraint):
        self.whole, self.part = whole, support
        super().__init__(whole.batch_shape, whole.event_shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """The part."""
        return self.part

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> Restricted:
        """The same over more batch dimensions."""
        return Restricted(self.whole.expand(batch_shape), self.part)

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        """Draws of the whole until all are inside."""
        value: Tensor = self.whole.sample(sample_shape)
        while not bool((inside := self.part.check(value)).all()):
            inside = inside.reshape(inside.shape + (1,) * (value.ndim - inside.ndim))
            value = torch.where(inside, value, self.whole.sample(sample_shape))
        return value

    def log_prob(self, value: Tensor) -> Tensor:
        """That of the whole; minus infinity outside."""
        return torch.where(self.part.check(value), self.whole.log_prob(value), -torch.inf)
