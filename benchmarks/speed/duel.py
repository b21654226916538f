"""One piece of work by several sides in turn: what `em`, `hmm`, `sampling` and `nuts` of the workloads share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, Protocol

from torch import Tensor

from benchmarks.speed.resources import limited

__all__ = ["OURS", "Comparison", "Problem", "compare"]

OURS = "ours"


class Problem(Protocol):
    """What is to be done."""

    def data(self) -> Tensor:
        """What every side is given."""


@dataclass(frozen=True)
class Comparison:
    """Medians of interleaved repeats of one problem, and the spread of their ratio."""

    seconds: Mapping[str, float]
    """Of each side."""
    ratio: float
    """How many times faster ours is than the fastest it is set against: the median over repeats, each a turn of all."""
    least_ratio: float
    largest_ratio: float
    difference: float
    """How far the sides' answers are apart."""


def compare(
    problem: Problem,
    sides: Mapping[str, Callable[..., Any]],
    against: tuple[str, ...],
    difference: Callable[[Mapping[str, Any]], float],
    repeats: int,
    threads: int,
    once: tuple[str, ...] = (),
) -> Comparison:
    """The same work by each side in turn, so often; call it when all are warm.

    Args:
        problem: What is done.
        sides: (problem, data, score) -> what has `seconds`; without `score` it need not look at what it found.
        against: The sides that ours, 'ours', is compared with.
        difference: Of the answers of the first turn.
        repeats: Turns.
        threads: That each may use.
        once: Sides that take part in the first turn alone, being slow.
    """
    x = problem.data()
    with limited(threads):
        first = {side: work(problem, x) for side, work in sides.items()}
        apart = difference(first)
        turns = [{side: found.seconds for side, found in first.items()}]
        del first  # answers are large
        for _ in range(repeats - 1):
            again = {side: work for side, work in sides.items() if side not in once}
            turns.append({side: work(problem, x, score=False).seconds for side, work in again.items()})
    ratios = sorted(min(turn[side] for side in against if side in turn) / turn[OURS] for turn in turns)
    seconds = {side: median(turn[side] for turn in turns if side in turn) for side in sides}
    return Comparison(seconds, median(ratios), least_ratio=ratios[0], largest_ratio=ratios[-1], difference=apart)
