"""Flat priors (`pyro.distributions.ImproperUniform`): sites that have a density, a constant, and no draws.

Their posterior may exist all the same, so what looks at sites, or starts a search, gives them a value instead of a
draw. What needs draws of the prior refuses.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pyro.distributions import ImproperUniform
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import biject_to

from zoo.errors import CapabilityError

__all__ = ["FlatPriors", "drawing", "within"]


class FlatPriors(Messenger):
    """Gives flat sites a value in the middle of their support, the origin of their unconstrained space.

    Args:
        spread: Or one that is uniform up to so far from there.
    """

    def __init__(self, spread: float = 0.0):
        super().__init__()
        self.spread = spread

    def _pyro_sample(self, msg: Any) -> None:
        base = msg["fn"]
        while hasattr(base, "base_dist"):
            base = base.base_dist
        if msg["value"] is not None or not isinstance(base, ImproperUniform):
            return
        msg["value"] = within(msg["fn"], self.spread)


def within(fn: Any, spread: float = 0.0) -> Tensor:
    """A value of a distribution's support: the origin of its unconstrained space, or uniform up to `spread` from it."""
    transform = biject_to(fn.support)
    free = torch.rand(transform.inverse_shape(fn.shape()))
    value: Tensor = transform(spread * (2 * free - 1))
    return value


@contextmanager
def drawing(name: str) -> Iterator[None]:
    """Says whose prior it is that cannot be drawn from.

    Raises: CapabilityError.
    """
    try:
        yield
    except NotImplementedError as error:
        if "ImproperUniform" not in str(error):
            raise
        raise CapabilityError(
            f"{name} has a flat prior (ImproperUniform), which has a density and no draws, so nothing can be drawn "
            "from its prior; fit it by 'svi' or 'nuts' and draw from the fit, or give it a proper prior."
        ) from error
