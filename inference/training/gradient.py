"""The base of all methods that take gradient steps: their common options, and a fit that stands ready to be driven.

A method says in `prepare` what one step does; everything else (minibatches, progress, checkpoints, compiling, many fits
at a time) is the loop's.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from torch import Tensor

from inference.method import Method, Outcome, Run
from inference.processes import Team
from inference.training.compiled import COMPILE
from inference.training.loop import PRECISIONS, Loop, Schedule
from inference.training.optimizers import DECAYS, Rate, rate
from zoo.errors import CapabilityError, OptionError
from zoo.options import Count, NonNegative, OneOf, Positive
from zoo.program import Program

__all__ = ["GradientMethod", "Training", "check_team"]


@dataclass
class Training:
    """A fit that stands ready: what `GradientMethod.run` drives to its end, and benchmarks step by step.

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


@dataclass(frozen=True, kw_only=True)
class GradientMethod(Method):
    """A method that takes gradient steps; what it can, `fit_many` does for several seeds at once.

    Args:
        lr: Learning rate at the start.
        decay: 'cosine' to zero over the run, or 'constant'.
        steps, epochs: Length of the run, in steps or in passes over the data; neither means 2,000 steps.
        batch_size: Examples of a minibatch.
        checkpoint_seconds: Time between two checkpoints, where there is a folder for them.
        compile: 'auto' traces or compiles the step where the run is long enough, 'always' compiles, 'traced' traces,
            'never' does neither; see docs/speed.md.
        precision: 'full'; 'tf32' or 'bf16' for matrix products that a GPU may round.
    """

    lr: Positive = 1e-2
    decay: Annotated[str, OneOf(DECAYS)] = "cosine"
    steps: Count | None = None
    epochs: Count | None = None
    batch_size: Count = 128
    checkpoint_seconds: NonNegative = 30.0
    compile: Annotated[str, OneOf(COMPILE)] = "auto"
    precision: Annotated[str, OneOf(PRECISIONS)] = "full"

    def __post_init__(self) -> None:
        super().__post_init__()
        Schedule.of(self)  # steps or epochs

    def why_not_shared(self, program: Program) -> str | None:
        """Losses are means over rows, which processes can share."""
        return None

    @abstractmethod
    def prepare(self, program: Program, run: Run) -> Training:
        """Everything but the training."""

    def run(self, program: Program, run: Run) -> Outcome:
        """Fits the program, and the guide if there is one, in place."""
        return self.prepare(program, run).run()

    def rate(self, run: Run, start: float | None = None, end: float = 0.0) -> Rate:
        """Learning rate by number of steps done, from `start` (None: `lr`) to `end` over the run."""
        total = Schedule.of(self).total_steps(run.train.size)
        return rate(self.decay, self.lr if start is None else start, total, end)

    def ended(
        self, program: Program, loop: Loop, *, evaluations: int = 1, info: dict[str, Any] | None = None
    ) -> Outcome:
        """What a fit hands back that moved the program alone, its own guide, if it has one, included.

        Args:
            program: In training mode no longer.
            loop: At its end.
            evaluations: Gradients that a step has cost.
            info: See `Outcome`.
        """
        program.eval()
        guide, spec = (program.guide, {"kind": "own"}) if program.has_guide else (None, None)
        return Outcome(guide, spec, history=loop.history, gradient_evaluations=evaluations * loop.done, info=info or {})

    def growing(self, run: Run, share: float) -> Rate:
        """A weight that grows from 0 to 1 over a share of the run, by number of steps done."""
        total = Schedule.of(self).total_steps(run.train.size)
        return lambda done: min(1.0, (done + 1) / (share * total))


def check_team(team: Team, method: Method, program: Program, size: int) -> None:
    """Checks that several processes can share the rows of a fit.

    Args:
        team: The processes.
        method, program: What is fitted, and how.
        size: How many examples there are.

    Raises: CapabilityError, OptionError.
    """
    if team.alone:
        return
    reason = method.why_not_shared(program)
    if reason is not None:
        raise CapabilityError(f"{team.size} processes cannot share a fit of {method.name!r}: {reason}.")
    rows = min(size, Schedule.of(method).batch_size)
    if rows < team.size:
        raise OptionError(
            f"{team.size} processes share the rows of a minibatch, and it has {rows} (batch_size of all, at most the "
            "number of examples): take a larger batch_size or fewer processes."
        )
