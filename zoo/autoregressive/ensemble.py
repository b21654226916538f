r"""Networks that share their parameters over K fixed masks or orders: exact mixtures of K autoregressive models.

    p(x) = 1/K sum_k p(x | k),      p(x | k) = prod_i p(x_o(k,i) | x_o(k,1), ..., x_o(k,i-1), k)

Germain et al. 2015 (masks of MADE); Uria, Murray & Larochelle 2014 (orders of EoNADE).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

import torch
from torch import Tensor
from torch.distributions import Categorical

from zoo.autoregressive.base import Autoregressive
from zoo.errors import CapabilityError, OptionError

__all__ = ["OrderEnsemble", "pick"]


class OrderEnsemble(Autoregressive):
    """Base of the mixtures over K masks or orders.

    A subclass registers the buffer `permutations` and gives `outputs_of`. The whole has a density and draws, but one
    order and one set of conditionals only when K = 1 or within `member(k)`:

        with program.member(3):
            program.conditionals(x)
    """

    knows_sites = True
    permutations: Tensor
    """(K, D): the order of each member, positions in the flattened event."""
    which: int | None = None
    """The member that the program stands for; None for the mixture of all."""

    @property
    def members(self) -> int:
        """K."""
        return len(self.permutations)

    @contextmanager
    def member(self, k: int) -> Iterator[Self]:
        """Within, the program is its member k alone: `order`, `conditionals`, `log_prob`, `complete` and draws.

        Raises: OptionError.
        """
        if not 0 <= k < self.members:
            raise OptionError(f"member must be between 0 and {self.members - 1}, got {k}.")
        before, self.which = self.which, k
        try:
            yield self
        finally:
            self.which = before

    @property
    def single(self) -> int | None:
        """The one member that the program stands for, or None."""
        return 0 if self.members == 1 else self.which

    @property
    def one_order(self) -> bool:
        """Whether all members that the program stands for have the same order."""
        return self.single is not None or bool((self.permutations == self.permutations[0]).all())

    @property
    def order(self) -> Tensor:
        """(D,) positions in the flattened event.

        Raises: CapabilityError where the members' orders differ.
        """
        if not self.one_order:
            raise CapabilityError(
                f"{type(self).__name__} is a mixture over {self.members} orders and has no order of its own; use one "
                "of them (with program.member(k): ...)."
            )
        return self.permutations[self.single or 0]

    def outputs_of(self, x: Tensor, k: int | Tensor, context: Tensor | None = None) -> Tensor:
        """`outputs` of member k, which may be a tensor (1,) with its number; (B, *event_shape, size)."""
        raise NotImplementedError(f"{type(self).__name__} must define outputs_of(x, k, context)")

    def outputs(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Those of the single member.

        Raises: CapabilityError for a mixture, whose conditionals are not those of the likelihood.
        """
        if self.single is None:
            raise CapabilityError(
                f"{type(self).__name__} is a mixture over {self.members} masks or orders; conditionals are those of "
                "one of them (with program.member(k): ...)."
            )
        return self.outputs_of(x, self.single, context)

    def site_log_probs(self, x: Tensor, k: int | Tensor, context: Tensor | None = None) -> Tensor:
        """log p(x_i | the sites before i, k) of every site, (B, D)."""
        terms = self.likelihood.distribution(self.outputs_of(x, k, context)).log_prob(x)
        return terms.reshape(len(x), -1)

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Of the mixture, exact: a pass for each member."""
        if self.single is not None:
            return self.site_log_probs(x, self.single, context).sum(-1)
        each = torch.stack([self.site_log_probs(x, k, context).sum(-1) for k in range(self.members)])
        return each.logsumexp(0) - math.log(self.members)

    def training_log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """log p(x | k) of one member, drawn for the batch: its mean over k is a lower bound on log p(x) (Jensen)."""
        if self.single is not None:
            return self.log_prob(x, context)
        # A tensor, not a number: the step is traced.
        k = (torch.rand(1, device=x.device) * self.members).long()
        return self.site_log_probs(x, k, context).sum(-1)

    def complete(self, x: Tensor, known: int, context: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        """See `Autoregressive.complete`. Each row draws a member from p(k | its known sites), then follows it: exact.

        Raises: ShapeError; CapabilityError for 0 < known < D where the members' orders differ: then each has
            other first sites, and no member conditions on those of another.
        """
        if self.single is not None:
            return super().complete(x, known, context, noise)
        weights = x.new_zeros(len(x), self.members)
        if 0 < known < self.event_shape.numel():
            first = self.order[:known]
            flat = x.reshape(len(x), -1)
            kept = torch.zeros_like(flat).index_copy(1, first, flat[:, first]).reshape(x.shape)
            with torch.no_grad():
                each = [self.site_log_probs(kept, k, context)[:, first].sum(-1) for k in range(self.members)]
            weights = torch.stack(each, -1)
        chosen, drawn = Categorical(logits=weights).sample(), torch.empty_like(x)
        for k in chosen.unique().tolist():
            rows = chosen == k
            with self.member(k):
                drawn[rows] = super().complete(
                    x[rows],
                    known,
                    None if context is None else context[rows],
                    None if noise is None else noise[rows],
                )
        return drawn


def pick(table: Tensor, k: int | Tensor) -> Tensor:
    """Row k of a table (K, n); k may be a tensor (1,), whose value is not asked for."""
    return table.index_select(0, k)[0] if isinstance(k, Tensor) else table[k]
