"""Whether a user's own code (`zoo.adopt`) bears several particles in one run, as code written for Pyro often does.

Code that does is many times as fast with several particles as one run for each; code that does not (it reads a shape,
or multiplies a matrix) fails then, or silently computes something else. So nothing is believed: two particles in one
run must have, site by site and number by number, the densities that each of them has alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro import infer, poutine
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from zoo.process import one_at_a_time

__all__ = ["bears_particles"]

Traces = tuple[poutine.Trace, poutine.Trace]
"""Of the model and of the guide."""
TOLERANCE = 1e-4
"""Relative, of a log density: what other shapes do to rounding in float32."""


@one_at_a_time
@torch.no_grad()
def bears_particles(
    elbo: type[infer.ELBO], model: Callable[..., Any], guide: Callable[..., Any], args: tuple[Any, ...], nesting: int
) -> bool:
    """Whether two particles in one run are what they are alone; leaves the random state.

    Args:
        elbo: Pyro's class, which says what is enumerated.
        model, guide: With the same arguments.
        args: The arguments.
        nesting: How many dimensions plates take.
    """
    together = elbo(num_particles=2, vectorize_particles=True, max_plate_nesting=nesting)
    alone = elbo(max_plate_nesting=nesting)

    rows = _SameRows()

    def run(which: infer.ELBO, p: Callable[..., Any], q: Callable[..., Any]) -> Traces:
        with rows:
            (traces,) = which._get_traces(p, q, args, {})
        return traces

    with torch.random.fork_rng(devices=range(torch.cuda.device_count())), pyro.validation_enabled(False):
        try:
            both, single = run(together, model, guide), run(alone, model, guide)
            for particle in range(2):
                drawn = _particle(both[1], single[1], particle, nesting)
                again = run(alone, model, poutine.replay(guide, trace=drawn))
                if not all(_agree(trace, one, particle, nesting) for trace, one in zip(both, again, strict=True)):
                    return False
        except Exception:  # whatever the author's code may raise of shapes that it does not know
            return False
    return True


def _sites(trace: poutine.Trace) -> dict[str, Any]:
    return {name: site for name, site in trace.nodes.items() if site["type"] == "sample"}


class _SameRows(Messenger):
    """Plates draw the rows that they drew the first time; Pyro's traces leave these out."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[str, Tensor] = {}

    def _pyro_sample(self, msg: Any) -> None:
        if site_is_subsample(msg) and msg["name"] in self.rows:
            msg["value"], msg["done"] = self.rows[msg["name"]], True

    def _pyro_post_sample(self, msg: Any) -> None:
        if site_is_subsample(msg):
            self.rows[msg["name"]] = msg["value"]


def _particle(trace: poutine.Trace, like: poutine.Trace, particle: int, nesting: int) -> poutine.Trace:
    """What one of two particles drew, in the shapes of a run of its own; what is enumerated is left to that run."""
    found = poutine.Trace()
    for name, site in _sites(trace).items():
        if site["is_observed"] or site["infer"].get("enumerate") or name not in like.nodes:
            continue
        value = _select(site["value"], particle, nesting + site["fn"].event_dim)
        found.add_node(name, **{**site, "value": value.reshape(like.nodes[name]["value"].shape)})
    return found


def _select(value: Tensor, particle: int, right: int) -> Tensor:
    """One of two particles of a value that may have them at the dimension left of the `right` last ones."""
    if value.ndim <= right:
        return value
    dim = value.ndim - right - 1
    return value.select(dim, particle if value.shape[dim] == 2 else 0)


def _agree(trace: poutine.Trace, alone: poutine.Trace, particle: int, nesting: int) -> bool:
    mine, theirs = _sites(trace), _sites(alone)
    if set(mine) - {"num_particles_vectorized"} != set(theirs):
        return False
    for name in theirs:
        one, other = _select(mine[name]["log_prob"], particle, nesting), theirs[name]["log_prob"]
        one, other = torch.broadcast_tensors(one, other)
        scale = float(other[torch.isfinite(other)].abs().max()) if bool(torch.isfinite(other).any()) else 1.0
        if not torch.allclose(one, other, rtol=TOLERANCE, atol=1e-6 * scale, equal_nan=True):
            return False
    return True
