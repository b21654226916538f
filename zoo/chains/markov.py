r"""The Markov chain over pixels: each site depends on the one before it, 2n - 1 parameters for n bits.

Markov, "Extension of the law of large numbers to dependent quantities", 1906.

    p(x) = p(x_1) prod_i p_i(x_i | x_i-1)      (m - 1) + (n - 1) m (m - 1) free parameters

    x_1 --> x_2 --> ... --> x_n      in raster order; sites: x (*event_shape); no latents
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from zoo.chains.chain import TableChain, log_frequencies
from zoo.chains.markov_path import MarkovPath
from zoo.options import NonNegative, Shape, Values

__all__ = ["MarkovChain"]


class MarkovChain(TableChain):
    """First-order chain in raster order, with its own transition table at every site.

    Args:
        event_shape: Shape of one example, n sites.
        values: Number m of values a site takes, 0 ... m-1.
        smoothing: Pseudo-observations for each row of each table in the maximum likelihood fit; see `TableChain`.
    """

    paper = "Markov, Extension of the law of large numbers to dependent quantities, 1906"

    def __init__(self, event_shape: Shape = (8, 8), values: Values = 2, smoothing: NonNegative = 1.0):
        super().__init__(event_shape, values, smoothing)
        self.initial_logits = nn.Parameter(torch.zeros(values))
        self.transition_logits = nn.Parameter(torch.zeros(self.length - 1, values, values))

    def distribution(self) -> MarkovPath:
        """The path from the first pixel to the last."""
        return MarkovPath(self.initial_logits, self.transition_logits)

    @torch.no_grad()
    def e_step(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Counts of the first value (m,) and of each pair of neighbours (n-1, m, m)."""
        sites, m = self._sites(x), self.values
        step = torch.arange(self.length - 1, device=x.device)
        pairs = (step * m + sites[:, :-1]) * m + sites[:, 1:]
        return self.log_prob(x).sum(), {
            "initial": self._count(sites[:, 0], m),
            "transition": self._count(pairs, self.transition_logits.numel()).view_as(self.transition_logits),
        }

    @torch.no_grad()
    def m_step(self, statistics: Mapping[str, Tensor]) -> None:
        """Conditional frequencies."""
        self.initial_logits.copy_(log_frequencies(statistics["initial"], self.smoothing))
        self.transition_logits.copy_(log_frequencies(statistics["transition"], self.smoothing))

    @staticmethod
    def free_parameters(sites: int, values: int = 2) -> int:
        """(m - 1) + (n - 1) m (m - 1): 2n - 1 for n bits."""
        return (values - 1) * (1 + (sites - 1) * values)
