r"""What finite mixtures with parameters share: exact density, exact responsibilities, one E-step, a k-means start.

    z ~ Categorical(pi),   x | z ~ p_z   =>   log p(x) = logsumexp_k (log pi_k + log p_k(x))

    z --> x      sites: z () local, discrete, left out of the (empty) guide and summed out; x (*event)

A new mixture defines `component`, `statistics` and `m_step`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import ClassVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from zoo.arrays import fill
from zoo.mixtures.moments import CHUNK, kmeans_labels, normalise_, rows_at_a_time, wide
from zoo.program import Program

__all__ = ["Mixture"]


class Mixture(Program):
    """A mixture of K components of one family.

    Args:
        event_shape: Shape of one example.
        components: Number K of components.
    """

    family = "mixtures"
    e_step_rows: ClassVar[None] = None
    """How many rows EM should hand to `e_step` at a time: any number, it divides them itself."""

    def __init__(self, event_shape: Sequence[int], components: int):
        super().__init__()
        self.event_shape = torch.Size(event_shape)
        self.components = components
        self.weight_logits = nn.Parameter(torch.zeros(components))

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        """Chooses a component for each example, then draws from it."""
        with self.plate(x, context, size):
            z = pyro.sample("z", dist.Categorical(logits=self.weight_logits), infer={"enumerate": "parallel"})
            x, present = self.seen(x)
            return pyro.sample("x", self.component(z, present), obs=x)

    # What a mixture defines.

    def component(self, z: Tensor, present: Tensor | None = None) -> dist.TorchDistribution:
        """p(x | z) for component numbers z of any shape, which becomes the batch shape.

        Args:
            z: Component numbers.
            present: Where x has gaps, which of its numbers are there, (B, *event_shape); the others are integrated out.
        """
        raise NotImplementedError(f"{type(self).__name__} must define component(z, present)")

    def statistics(self, x: Tensor, responsibilities: Tensor) -> dict[str, Tensor]:
        """Sums over rows x (B, *event_shape), weighted by (B, K), that `m_step` needs beside 'counts' (K,).

        Missing values, NaN, count with their expectation where the program `takes_missing`.
        """
        raise NotImplementedError(f"{type(self).__name__} must define statistics(x, responsibilities)")

    def m_step(self, statistics: Mapping[str, Tensor]) -> None:
        """Sets the parameters to the maximiser given the statistics."""
        raise NotImplementedError(f"{type(self).__name__} must define m_step(statistics)")

    # What follows is provided.

    @property
    def weights(self) -> Tensor:
        """Mixing proportions (K,), which sum to one."""
        return self.weight_logits.softmax(-1)

    @weights.setter
    def weights(self, value: Tensor) -> None:
        with torch.no_grad():
            share = value / value.sum()
            self.weight_logits.copy_(share.clamp(min=torch.finfo(value.dtype).tiny).log())

    def posterior(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> None:
        """p(z | x), the responsibilities."""
        assert x is not None
        with self.plate(x, context, size):
            pyro.sample("z", dist.Categorical(logits=self.joint_log_prob(x)), infer={"enumerate": "parallel"})

    def component_log_prob(self, x: Tensor) -> Tensor:
        """log p(x | z = k), (B, *event_shape) -> (B, K)."""
        each = torch.arange(self.components, device=x.device)
        x, present = self.seen(x)
        return self.component(each, None if present is None else present.unsqueeze(1)).log_prob(x.unsqueeze(1))

    def joint_log_prob(self, x: Tensor) -> Tensor:
        """log p(x, z = k), (B, *event_shape) -> (B, K)."""
        return self.weight_logits.log_softmax(-1) + self.component_log_prob(x)

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """log p(x), the component summed out; (B, *event_shape) -> (B,)."""
        return self.joint_log_prob(x).logsumexp(-1)

    @torch.no_grad()
    def e_step(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Summed log-likelihood () and the statistics of the rows, at the current parameters.

        Rows are taken in chunks that the caches hold, of which nothing but sums in double precision remains.
        """
        value, total = x.new_zeros((), dtype=wide(x.device)), dict[str, Tensor]()
        for rows in x.split(rows_at_a_time(self._numbers_per_row(), x.device)):
            responsibilities = self.joint_log_prob(rows)
            value += normalise_(responsibilities, -1)
            found = {"counts": responsibilities.sum(0)} | self.statistics(rows, responsibilities)
            for name, part in found.items():
                total[name] = total[name].add_(part) if name in total else part.to(value.dtype)
        return value, total

    def _numbers_per_row(self) -> int:
        """How many numbers `joint_log_prob` and `statistics` make for each row."""
        return self.components + self.event_shape.numel()

    @torch.no_grad()
    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        """One M-step from hard k-means clusters, so that no two components start alike (pyro#635, pyro#746)."""
        x = fill(x)
        one_hot = nn.functional.one_hot(kmeans_labels(x, self.components), self.components).to(x)
        parts = [
            {"counts": weight.sum(0)} | self.statistics(rows, weight)
            for rows, weight in zip(x.split(CHUNK), one_hot.split(CHUNK), strict=True)
        ]
        self.m_step(reduce(lambda a, b: {name: a[name] + b[name] for name in a}, parts))

    def parameter_count(self) -> int:
        """Free numbers; the K weights sum to one, so one of them is not free."""
        return super().parameter_count() - 1
