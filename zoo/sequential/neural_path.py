r"""A path of states that networks draw one from the other: the prior of a deep Markov model, and its guide.

u_t ~ N(m(z_t-1, h_t), s(z_t-1, h_t)^2),   z_t = f(u_t),   f the identity or flows
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints

__all__ = ["NeuralPath", "walked"]

CUT_FROM = 64
"""Steps of paths of which those after the longest of a minibatch are not computed."""

Step = Callable[[Tensor, Any], tuple[Tensor, Tensor]]
"""States before (..., K) and features (..., H), or None, to mean and standard deviation (..., K)."""


def walked(lengths: Tensor, steps: int) -> int:
    """How many steps are computed: no more than the longest path has, where that can be many fewer.

    To look at lengths keeps a training step in Python. Of short paths all are computed, so that it can be traced.

    Args:
        lengths: Steps that are there, of each path.
        steps: Of all, padding included.
    """
    return steps if steps < CUT_FROM else int(lengths.max())


class NeuralPath(TorchDistribution):
    """T states of K numbers, whose normal distribution given the state before is a network's.

    Drawing goes from state to state; the density of a given path takes all steps at once. Of the last path that was
    drawn the noise is kept, so that its density needs no network, and no inverse of a flow.

    Steps that only pad a sequence are standard normal. A prior and a guide that are padded alike cancel there, in every
    draw, and both remain distributions.

    Args:
        step: What makes a state of the one before it.
        start: What stands before the first state, (K,).
        steps: Their number T.
        features: What `step` sees besides, (B, T, H); None for nothing.
        mask: False where a sequence is padded at its end, (B, T); None for nowhere.
        flows: Transforms of event dimension 1 through which each state goes, one after the other.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.independent(constraints.real, 2)
    has_rsample = True

    def __init__(
        self,
        step: Step,
        start: Tensor,
        steps: int,
        *,
        features: Tensor | None = None,
        mask: Tensor | None = None,
        flows: Sequence[Any] = (),
    ):
        self.step, self.start, self.features, self.mask, self.flows = step, start, features, mask, flows
        self._drawn: tuple[Tensor, Tensor, Tensor] | None = None
        shapes = [given.shape[:batch] for given, batch in ((features, -2), (mask, -1)) if given is not None]
        super().__init__(
            torch.broadcast_shapes(torch.Size(), *shapes), torch.Size([steps, len(start)]), validate_args=False
        )

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> NeuralPath:
        """The same over more batch dimensions."""
        found = NeuralPath(
            self.step, self.start, self.event_shape[0], features=self.features, mask=self.mask, flows=self.flows
        )
        found._batch_shape = torch.Size(batch_shape)
        return found

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        """State by state, from noise that is drawn at once."""
        shape = self._extended_shape(torch.Size(sample_shape))
        noise = torch.randn(shape, dtype=self.start.dtype, device=self.start.device)
        z = self.start.expand(*shape[:-2], -1)
        states, scales, volumes = [], [], []
        longest = shape[-2] if self.mask is None else walked(self.mask.sum(-1), shape[-2])  # the rest is noise
        # Unbound, since the gradient of each slice of a tensor is a tensor of its full size.
        beside = [None] * longest if self.features is None else self.features.unbind(-2)
        for features, each in zip(beside[:longest], noise.unbind(-2), strict=False):
            loc, scale = self.step(z, features)
            z = loc + scale * each
            for flow in self.flows:
                before, z = z, flow(z)
                volumes.append(flow.log_abs_det_jacobian(before, z))
            states.append(z)
            scales.append(scale)
        path, log_det = torch.stack(states, -2), torch.stack(scales, -2).log().sum(-1)
        if volumes:
            log_det = log_det + torch.stack(volumes, -1).reshape(*log_det.shape, len(self.flows)).sum(-1)
        if self.mask is not None:
            path = torch.cat([path, noise[..., longest:, :]], -2)
            path = torch.where(self.mask.unsqueeze(-1), path, noise)
            log_det = nn.functional.pad(log_det, (0, shape[-2] - longest))
        self._drawn = path, noise, log_det
        return path

    def log_prob(self, value: Tensor) -> Tensor:
        """(..., T, K) -> (...)."""
        if self._drawn is not None and value is self._drawn[0]:
            _, noise, log_det = self._drawn
        else:
            noise, log_det = self._inverted(value)
        if self.mask is not None:
            noise = torch.where(self.mask.unsqueeze(-1), noise, value)
            log_det = torch.where(self.mask, log_det, 0.0)
        normal = -noise.square() / 2 - math.log(2 * math.pi) / 2
        return normal.sum((-1, -2)) - log_det.sum(-1)

    def _inverted(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """The noise (..., T, K) that makes a path, and the log volume that a step gives it (..., T)."""
        before = torch.cat([self.start.expand_as(value[..., :1, :]), value[..., :-1, :]], -2)
        loc, scale = self.step(before, self.features)
        log_det = scale.log().sum(-1)
        for flow in reversed(self.flows):
            value, after = flow.inv(value), value
            log_det = log_det + flow.log_abs_det_jacobian(value, after)
        return (value - loc) / scale, log_det
