"""One piece of work by several sides in turn, by sides that pretend; and sampling, whose ways must draw the same."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch

from benchmarks.speed import duel
from benchmarks.speed.workloads import sampling
from zoo.errors import OptionError


@dataclass(frozen=True)
class Result:
    seconds: float
    answer: float


class Numbers:
    """Data of a problem."""

    def data(self) -> torch.Tensor:
        return torch.arange(3.0)


def test_medians_of_turns_and_ratios_within_them() -> None:
    turns: list[tuple[str, bool]] = []
    times = {"ours": [1.0, 2.0, 1.0], "fast": [2.0, 8.0, 3.0], "slow": [9.0, 1.0, 9.0], "beside": [0.1, 0.1, 0.1]}

    def side(name: str):
        def work(problem: Numbers, x: torch.Tensor, score: bool = True) -> Result:
            turns.append((name, score))
            return Result(times[name][len(turns) // len(times) - (len(turns) % len(times) == 0)], float(x.sum()))

        return work

    found = duel.compare(
        Numbers(), {name: side(name) for name in times}, ("fast", "slow"), lambda first: first["slow"].answer, 3, 1
    )
    assert turns == [(name, turn == 0) for turn in range(3) for name in times]
    assert found.seconds == {"ours": 1.0, "fast": 3.0, "slow": 9.0, "beside": 0.1}
    assert (found.ratio, found.least_ratio, found.largest_ratio) == (2.0, 0.5, 3.0)
    assert found.difference == 3.0


def test_a_slow_side_takes_part_once() -> None:
    times = {"ours": iter([1.0, 2.0, 4.0]), "fast": iter([2.0, 8.0, 12.0]), "slow": iter([1.5])}
    sides = {side: lambda p, x, score=True, of=of: Result(next(of), 0.0) for side, of in times.items()}
    found = duel.compare(Numbers(), sides, ("fast", "slow"), lambda first: len(first), 3, 1, once=("slow",))
    assert found.seconds == {"ours": 2.0, "fast": 8.0, "slow": 1.5}
    assert (found.ratio, found.least_ratio, found.largest_ratio) == (3.0, 1.5, 4.0)
    assert found.difference == 3


def test_ways_of_sampling_draw_the_same_or_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = sampling.Problem("nade", {"event_shape": [12], "hidden": 4}, n=4)
    found = sampling.compare(problem, repeats=2, threads=1)
    assert set(found.seconds) == set(sampling.SIDES)
    assert found.difference < 1e-5
    other = sampling.SIDES["naive"]
    monkeypatch.setitem(
        sampling.SIDES, "naive", lambda p, x, score=True: replace(f := other(p, x), answer=1 - f.answer)
    )
    with pytest.raises(OptionError, match="draw different numbers"):
        sampling.compare(problem, repeats=1, threads=1)
