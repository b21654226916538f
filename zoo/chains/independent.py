r"""Independent pixels: the fewest parameters, n, and no structure at all.

    p(x) = prod_i p_i(x_i)            n (m - 1) free parameters for n sites of m values; n when they are binary

Sites: x (*event_shape); no latents.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn

from zoo.chains.chain import TableChain, log_frequencies
from zoo.distributions import observed
from zoo.options import NonNegative, Shape, Values

__all__ = ["Independent"]


class Independent(TableChain):
    """Every site has its own Bernoulli (m = 2) or categorical distribution, whatever the others are.

    Args:
        event_shape: Shape of one example, n sites.
        values: Number m of values a site takes, 0 ... m-1.
        smoothing: Pseudo-observations a site in the maximum likelihood fit; see `TableChain`.
    """

    paper = "The naive baseline of density estimation"
    takes_missing = True

    def __init__(self, event_shape: Shape = (8, 8), values: Values = 2, smoothing: NonNegative = 1.0):
        super().__init__(event_shape, values, smoothing)
        self.logits = nn.Parameter(torch.zeros(self.length, values))

    def distribution(self) -> TorchDistribution:
        """A categorical distribution for each site."""
        return dist.Categorical(logits=self.logits).to_event(1)

    def marginal(self, present: Tensor) -> TorchDistribution:
        """Of the sites that are there."""
        return observed(dist.Categorical(logits=self.logits), present, 1)

    @torch.no_grad()
    def e_step(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Counts of each value at each site (n, m)."""
        site = torch.arange(self.length, device=x.device)
        there, present = self.seen(x)
        cells = site * self.values + self._sites(there)
        if present is not None:
            cells = cells[present.reshape(len(x), -1)]
        counts = self._count(cells, self.logits.numel())
        return self.log_prob(x).sum(), {"counts": counts.view_as(self.logits)}

    @torch.no_grad()
    def m_step(self, statistics: Mapping[str, Tensor]) -> None:
        """Frequencies."""
        self.logits.copy_(log_frequencies(statistics["counts"], self.smoothing))

    @staticmethod
    def free_parameters(sites: int, values: int = 2) -> int:
        """n (m - 1): an RGB pixel of 256 values a channel takes 3 * 255."""
        return sites * (values - 1)
