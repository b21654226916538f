"""Which of several fits of one program is the best, and how many different answers they gave."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pyro.infer.autoguide import AutoDelta, AutoGuide
from torch import Tensor

from inference.fitted import Fit
from inference.particles import draw, flatten_draws
from zoo.errors import CapabilityError
from zoo.process import set_seed

__all__ = ["count_modes", "final_loss"]

DRAWS = 200
APART = 2.0
"""Standard deviations of a guide between two places that count as different."""


@torch.no_grad()
def count_modes(fits: Sequence[Fit]) -> int | None:
    """The number of different places where guides ended; None where they are not autoguides of global latents.

    None for points as well: without a spread there is nothing to tell two places apart by.
    """
    found: list[tuple[Tensor, Tensor]] = []
    for each in fits:
        sites = each.program.sites()
        if (
            each.train is None
            or not isinstance(each.guide, AutoGuide)
            or isinstance(each.guide, AutoDelta)
            or not all(site.is_global for site in sites.values())
        ):
            return None
        with torch.random.fork_rng([each.train.x.device] if each.train.x.is_cuda else []):
            set_seed(0)
            draws = flatten_draws(draw(each.guide, DRAWS, *each.train, density=False).values).double()
        place, sd = draws.mean(0), draws.std(0)
        near = [bool(((place - other).abs() <= APART * torch.maximum(sd, spread)).all()) for other, spread in found]
        if not any(near):
            found.append((place, sd))
    return len(found)


def final_loss(found: Fit) -> float:
    """The last loss in a fit's history: on validation data if it has any.

    Raises: CapabilityError for a method that has no loss to compare restarts by.
    """
    for name in ("validation_loss", "loss"):
        values = [row[name] for row in found.history.rows if name in row]
        if values:
            return values[-1]
    raise CapabilityError(f"Method {found.method!r} has no loss by which restarts could be compared; fit once.")
