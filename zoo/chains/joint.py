r"""The full joint table: one parameter for every state but one, 2^n - 1 of them; every distribution is in it.

    p(x) = table[x_1, ..., x_n]       m^n - 1 free parameters for n sites of m values; 2^n - 1 when they are binary

    sites: x (*event_shape); no latents

Why models need structure: one RGB pixel is 3 sites of m = 256 values each, so its table has 256^3 states and
256^3 - 1 = 16,777,215 free parameters (the last follows from the sum). Common lecture notes say 255 x 255 x 255. That
counts nothing: a channel takes 256 values, 0 to 255, and 255 is the number of *free* parameters of one channel. Those
add over independent channels, 3 * 255 = 765; they do not multiply into a joint table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints

from zoo.chains.chain import TableChain, log_frequencies
from zoo.options import NonNegative, Shape, Values

__all__ = ["FullJoint", "JointTable"]


class FullJoint(TableChain):
    """Any distribution over n sites of m values, at the price of m^n - 1 parameters.

    Args:
        event_shape: Shape of one example, n sites.
        values: Number m of values a site takes, 0 ... m-1.
        smoothing: Pseudo-examples in the maximum likelihood fit, spread evenly over the m^n states.

    Raises: OptionError, with the number of parameters, where the table is too large to be stored.
    """

    paper = "The definition of a joint distribution; 2^n - 1 parameters"
    dataset = "nltcs"

    def __init__(self, event_shape: Shape = (16,), values: Values = 2, smoothing: NonNegative = 1.0):
        super().__init__(event_shape, values, smoothing)
        self.logits = nn.Parameter(torch.zeros(values**self.length))

    def distribution(self) -> JointTable:
        """The table."""
        return JointTable(self.logits, self.length, self.values)

    @torch.no_grad()
    def e_step(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Counts of each state (m^n,)."""
        counts = self._count(self.distribution().index(self._sites(x)), self.logits.numel())
        return self.log_prob(x).sum(), {"counts": counts}

    @torch.no_grad()
    def m_step(self, statistics: Mapping[str, Tensor]) -> None:
        """Frequencies."""
        self.logits.copy_(log_frequencies(statistics["counts"], self.smoothing))

    @staticmethod
    def free_parameters(sites: int, values: int = 2) -> int:
        """m^n - 1: 2^n - 1 for n bits, 256^3 - 1 for an RGB pixel."""
        return values**sites - 1


class JointTable(TorchDistribution):
    """n sites of m values with any joint distribution.

    Args:
        logits: Unnormalised log-probabilities (m^n,); the first site is the most significant digit of the index.
        sites: Number n of sites.
        values: Number m of values of a site.
        batch_shape: Of independent copies.

    Shapes: values are (*batch_shape, n).
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    def __init__(self, logits: Tensor, sites: int, values: int, batch_shape: torch.Size = torch.Size()):
        self.logits, self.values = logits, values
        self.place = values ** torch.arange(sites - 1, -1, -1, device=logits.device)
        super().__init__(batch_shape, torch.Size([sites]), validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """Integers 0 ... m-1 at every site."""
        return constraints.independent(constraints.integer_interval(0, self.values - 1), 1)

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> JointTable:
        """The same over more batch dimensions."""
        return JointTable(self.logits, len(self.place), self.values, batch_shape=torch.Size(batch_shape))

    def index(self, value: Tensor) -> Tensor:
        """Values (..., n) -> cells of the table (...,)."""
        return (value.long() * self.place).sum(-1)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        """A cell, written in base m."""
        cell = dist.Categorical(logits=self.logits).sample(torch.Size(sample_shape) + self.batch_shape)
        return cell.unsqueeze(-1) // self.place % self.values

    def log_prob(self, value: Tensor) -> Tensor:
        """Looks it up."""
        return self.logits.log_softmax(-1)[self.index(value)]
