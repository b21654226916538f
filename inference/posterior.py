"""The posterior of a fit: draws from its guide or its samples, given its training data or given other examples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from inference.guides.named import needs_full_batch
from inference.particles import draw
from inference.prediction import draw_given, fill_discrete
from zoo.adopted import Adopted
from zoo.datasets.data import Data
from zoo.errors import CapabilityError
from zoo.program import Program

__all__ = ["Posterior"]


@dataclass(frozen=True, kw_only=True)
class Posterior:
    """Draws of latent sites in the form of particles: local (n, B, *event), global (n, 1, *event)."""

    program: Program
    guide: Callable[..., Any] | None
    samples: dict[str, Tensor] | None
    """Of a Markov chain, local (S, N, *event), global (S, *event)."""
    train: Data | None
    """The training data."""

    def draws(self, n: int, x: Tensor, context: Any = None) -> dict[str, Tensor]:
        """Of every latent site that guide or samples have, given x alone.

        Raises: CapabilityError when there is neither.
        """
        if self.samples is not None:
            names, stored = self._globals(), len(next(iter(self.samples.values())))
            index = torch.arange(n) if n == stored else torch.randint(stored, (n,))
            found = {name: value[index.to(value.device)] for name, value in self.samples.items()}
            return {name: value[:, None] if name in names else value for name, value in found.items()}
        if self.guide is None:
            raise CapabilityError(f"This fit of {type(self.program).__name__} has no posterior to draw from.")
        return draw(self.guide, n, x, context, density=False).values

    def globals(self, n: int) -> dict[str, Tensor]:
        """Of the global sites, given the training data; empty where there are none.

        Raises: CapabilityError when there is no posterior, or no training data that a guide could look at.
        """
        names = self._globals()
        if not names:
            return {}
        values = self.draws(n, torch.empty(0)) if self.samples is not None else self.draws(n, *self.training())
        sites = self.program.sites()
        # Adopted code draws its discrete latents that were summed out, given the others.
        summed_out = {name for name in names if isinstance(self.program, Adopted) and sites[name].is_enumerable}
        if missing := sorted(set(names) - set(values) - summed_out):
            raise CapabilityError(f"This fit has no draws of the global latent sites {missing} to predict by.")
        return {name: values[name] for name in names if name in values}

    def given(self, n: int, x: Tensor, context: Any = None) -> dict[str, Tensor]:
        """Of every site: the global ones given the training data, the local ones given x besides.

        Raises: CapabilityError for a fit whose local latents are those of its training data alone.
        """
        sites = self.program.sites()
        local = any(not site.is_global and not site.is_discrete for site in sites.values())
        own_rows = self.samples is not None or (self.guide is not None and needs_full_batch(self.guide, self.program))
        seen = self.train is not None and _same(Data(x, context), self.train)
        if local and own_rows and not seen:
            raise CapabilityError(
                "The local latents of this fit are those of its training data, and x are other examples: give no x to "
                "generate new ones, whose local latents the model draws."
            )
        values = self.globals(n)
        if self.guide is None and self.samples is None:
            values = {}
        elif seen or not values:
            values = self.draws(n, x, context)
        elif local and self.guide is not None:
            values = draw_given(self.guide, values, x, context, density=False).values
        return fill_discrete(self.program, values, n, x, context)

    def training(self) -> Data:
        """The training data.

        Raises: CapabilityError when there are none.
        """
        if self.train is None:
            raise CapabilityError("This fit has no training data, which its posterior is given: set Fit.train.")
        return self.train

    def _globals(self) -> list[str]:
        return [name for name, site in self.program.sites().items() if site.is_global]


def _same(some: Data, other: Data) -> bool:
    """Whether these are the same examples."""
    a, b = some.named(), other.named()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name].to(a[name])) for name in a)
