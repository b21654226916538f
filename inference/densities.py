"""Log densities of particles, kept apart by example as long as nothing ties these together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["Draws", "LogDensity", "NoneMasked", "ZeroWeighed", "has_path", "where_it_can"]


@dataclass(frozen=True)
class LogDensity:
    """A log density at S particles: `local` (S, B) by example, `globals` (S,) for sites outside the data plate.

    `joint` says whether any global site exists; if not, `globals` is zero and examples are independent.
    """

    local: Tensor
    globals: Tensor
    joint: bool

    @property
    def total(self) -> Tensor:
        """Density of everything together, (S,)."""
        return self.local.sum(-1) + self.globals

    def __sub__(self, other: LogDensity) -> LogDensity:
        """The log ratio, kept apart in the same way."""
        return LogDensity(self.local - other.local, self.globals - other.globals, self.joint or other.joint)


@dataclass(frozen=True)
class Draws:
    """S draws of every latent site, (S, B or 1, *event), and their log density under the guide they came from."""

    values: dict[str, Tensor]
    log_prob: LogDensity
    score: LogDensity | None = None
    """Log density of those sites alone whose draws carry no gradient (discrete ones, say); None where all do."""


def has_path(site: Mapping[str, Any]) -> bool:
    """Whether the gradient of what a draw leads to is that along the draw, with no score-function term."""
    return site_is_subsample(site) or site["is_observed"] or bool(site["fn"].has_rsample)


class NoneMasked(TorchFunctionMode):
    """Pyro drops terms of probability zero, after a look whether there are any; this answers that there are none."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return True if func is Tensor.all else func(*args, **(kwargs or {}))


class ZeroWeighed(NoneMasked):
    """The same where there may be some: they are set to zero in the sum over terms, whatever they are, infinity too."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.tensordot:
            probabilities, terms = args
            args = (probabilities, torch.where(probabilities > 0, terms, torch.zeros_like(terms)))
        return super().__torch_function__(func, types, args, kwargs)


def where_it_can(
    function: Callable[[Tensor], tuple[Tensor, ...]], rows: Tensor, *shapes: tuple[int, ...]
) -> tuple[Tensor, ...]:
    """What a function gives at rows (S, ...): NaN at those where a matrix has no decomposition, which would end it all.

    Args:
        function: Rows -> results with a row for each; differentiable if it is.
        rows: Where.
        shapes: Of each result, for one row.

    Returns: each result, (S, *shape).
    """
    try:
        return function(rows)
    except torch.linalg.LinAlgError:
        if len(rows) == 1:
            nothing = rows.sum() * torch.nan
            return tuple(nothing.expand(1, *shape) for shape in shapes)
        parts = [where_it_can(function, part, *shapes) for part in rows.chunk(2)]
        return tuple(torch.cat(column) for column in zip(*parts, strict=True))
