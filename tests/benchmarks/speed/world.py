"""Contenders that pretend, on a clock that they alone move."""

from __future__ import annotations

from benchmarks.speed.contender import (
    Contender,
)


class World:
    """A clock, and contenders whose steps take a known time that grows from call to call by `drift`."""

    def __init__(self, drift: float = 1.0):
        self.now, self.drift, self.pace, self.calls = 0.0, drift, 1.0, []

    def clock(self) -> float:
        return self.now

    def contender(self, name: str, seconds: float, compile_seconds: float = 0.0) -> Contender:
        def prepare():
            self.now += compile_seconds
            steps = 0

            def advance(n: int) -> float:
                nonlocal steps
                self.calls.append((name, n))
                self.now += n * seconds * self.pace
                self.pace *= self.drift
                steps += n
                return 100.0 / steps

            return advance

        return Contender(name, prepare)
