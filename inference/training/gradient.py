"""The base of all methods that take gradient steps: their common options, and a fit that stands ready."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from inference.method import Outcome, Run
from inference.training.loop import Loop
from zoo.program import Program

__all__ = ["Trainable", "Training"]


@dataclass
class Training:
    """A fit that stands ready: what `Method.run` drives to its end, and benchmarks step by step.

    `finish` wraps up and returns the outcome.
    """

    loop: Loop
    finish: Callable[[], Outcome]
    validate: Callable[[], float] | None = None

    def run(self) -> Outcome:
        """Trains to the end of the schedule."""
        self.loop.train(self.validate)
        return self.finish()

    def advance(self, n: int) -> Tensor:
        """n further steps; their mean loss per example (), not synchronised with the device."""
        return self.loop.advance(n)["loss"] / n


@runtime_checkable
class Trainable(Protocol):
    """A method whose fit can be made ready and then driven from outside."""

    def prepare(self, program: Program, run: Run) -> Training:
        """Everything but the training."""
        ...
