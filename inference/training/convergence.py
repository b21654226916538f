"""Whether a run has come to its end, or was only stopped: a look further along the path that it took.

A learning rate that falls to zero makes every loss look settled. So the question is put to the bound itself: would it
be better further on in the direction in which the parameters have moved,

    gain(t) = bound(end + t (end - before)) - bound(end),      before: their mean over the third quarter of the run,

with the same noise and the same examples on both sides? t is doubled while that helps, and the gain at the best t is
measured again with other noise. Where the run has settled, the path is noise and no t helps. Where it was still under
way, the path points to where it was going, and the gain says in nats how much is missing in this one direction: the fit
is at least so far from its best. What is missing where the parameters have not moved is not seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["ConvergenceNotice", "Path", "verdict"]

LEAST_STEPS = 500
"""Shorter runs are tries, and their path says little."""
WINDOW = (0.5, 0.75)
FIRST, LAST = 0.25, 1024.0
SIGNIFICANT = 3.0
"""Standard errors that a gain must exceed,"""
ALMOST_ALL = 0.9
"""or share of the draws in which it must be there: 15 of 16 come by chance once in 4,000 times, however they vary."""
NATS = 0.5
"""Gain over all the data that is called missing where a posterior over global latents is the answer: as much as a
Gaussian posterior of the right width loses with its mean one sd off."""
SHARE = 0.05
"""Elsewhere, gain as a share of what the run has gained since its first tenth: networks could be trained for ever."""


class ConvergenceNotice(UserWarning):
    """Says that a fit was stopped on its way: its bound rises further along the path of its parameters."""


def verdict(
    found: Mapping[str, float] | None, losses: Sequence[float], size: int, tied: bool
) -> dict[str, float | str]:
    """What `Path.gain` found, with a 'verdict': 'converged', 'still improving', 'too short' or 'too noisy to tell'.

    Args:
        found: From `Path.gain`, in nats per example.
        losses: Of the run, per example, a report each.
        size: Number of examples.
        tied: Whether global latents tie them together.
    """
    if found is None:
        return {"verdict": "too short to tell"}
    least = NATS / size if tied else SHARE * max(losses[len(losses) // 10] - losses[-1], 0.0)
    gain, error = found["gain"], found["standard_error"]
    if gain <= max(least, error):
        return {"verdict": "converged", **found}
    sure = gain > SIGNIFICANT * error or found["share"] > ALMOST_ALL
    return {"verdict": "still improving" if sure else "too noisy to tell", **found}


Bounds = Callable[[int], Tensor]
"""The bound per example at the present parameters, in several independent draws (M,) that follow from a number."""


class Path:
    """Where parameters have been, and whether it would pay to go on.

    Args:
        parameters: Of which the path is kept; their number of copies is one.
        total: Steps of the run.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], total: int):
        self.parameters, self.total = list(parameters), total
        self.count, self.mean = 0, list[Tensor]()

    @torch.no_grad()
    def look(self, done: int) -> None:
        """Notes where the parameters are; called at every report."""
        if not WINDOW[0] * self.total <= done <= WINDOW[1] * self.total or self.total < LEAST_STEPS:
            return
        self.count += 1
        if self.count == 1:
            self.mean = [p.detach().clone() for p in self.parameters]
        else:
            for mean, p in zip(self.mean, self.parameters, strict=True):
                mean.add_((p - mean) / self.count)

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"count": self.count, "mean": self.mean}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From a checkpoint."""
        self.count = state["count"]
        self.mean = [value.to(p) for value, p in zip(state["mean"], self.parameters, strict=False)]

    @torch.no_grad()
    def gain(self, bounds: Bounds) -> dict[str, float] | None:
        """What the bound gains further along: {'gain', 'standard_error'} in nats per example, 'at', the t, and the
        'share' of the draws in which it gains.

        None when the run was too short, or nothing has moved. The parameters are left as they are.
        """
        if self.count == 0:
            return None
        end = [p.detach().clone() for p in self.parameters]

        best, most, t, start = 0.0, 0.0, FIRST, bounds(0)
        try:
            while t <= LAST:
                found = float((self._at(end, t, bounds, 0) - start).mean())
                if not found > most:
                    break
                best, most, t = t, found, 2 * t
            if best == 0:
                return {"gain": 0.0, "standard_error": 0.0, "at": 0.0, "share": 0.0}
            again = self._at(end, best, bounds, 1) - self._at(end, 0.0, bounds, 1)
        finally:
            self._put(end)
        error = float(again.std()) / math.sqrt(len(again)) if len(again) > 1 else 0.0
        share = float((again > 0).double().mean())
        return {"gain": float(again.mean()), "standard_error": error, "at": best, "share": share}

    def _at(self, end: Sequence[Tensor], t: float, bounds: Bounds, draw: int) -> Tensor:
        self._put([e + t * (e - mean) for e, mean in zip(end, self.mean, strict=True)])
        return bounds(draw)

    def _put(self, values: Sequence[Tensor]) -> None:
        for p, value in zip(self.parameters, values, strict=True):
            p.copy_(value)
