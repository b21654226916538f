"""Expectation-maximisation, and coordinate ascent on a mean-field ELBO: closed-form steps that never go down.

Dempster, Laird & Rubin 1977; Neal & Hinton 1998; for the mean-field kind Attias 2000, Beal 2003.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

import pyro
import torch
from torch import Tensor

from inference.method import Method, Outcome, Run
from inference.training.loop import Loop, Schedule
from zoo.datasets.data import Data
from zoo.errors import DivergenceError
from zoo.options import Count, NonNegative
from zoo.program import ClosedFormEM, CoordinateAscent, ExactPosterior, Program

__all__ = ["CAVI", "EM", "Penalised"]

ROWS = 1024
"""Rows at a time in the E-step of a program that does not say how many it wants (`e_step_rows`)."""


Sweep = Callable[[bool], dict[str, float]]
"""Takes whether a start is new; updates the program and returns the losses after it, the climbed one last."""


@runtime_checkable
class Penalised(Protocol):
    """A program whose `m_step` maximises the expected log-likelihood plus a log prior of its parameters (MAP)."""

    def log_prior(self) -> Tensor:
        """The log prior () at the current parameters, up to a constant."""
        ...


@dataclass(frozen=True, kw_only=True)
class _Ascent(Method):
    """Options of both methods.

    Args:
        iterations: Most iterations of one start.
        tolerance: Converged when an iteration gains less than this, in nats per example, relative to the objective
            where that exceeds 1.
        restarts: Number of starts; the first is the program as given, the others call `program.initialise` again. The
            best is kept.
    """

    iterations: Count = 200
    tolerance: NonNegative = 1e-6
    restarts: Count = 1


@dataclass(frozen=True, kw_only=True)
class EM(_Ascent):
    """EM with both steps in closed form: maximum likelihood, or MAP for a `Penalised` program.

    The history's `loss` is minus the log-likelihood per example of the parameters after each iteration;
    `penalised_loss` has the log prior with it.

    Args:
        iterations, tolerance, restarts: See `_Ascent`.
        batch_size: Rows at a time in the E-step, whose statistics add up; it bounds memory and changes nothing else.
            None is all of them for programs that divide them themselves (mixtures), else 1024.
    """

    name: ClassVar[str] = "em"

    batch_size: Count | None = None

    def why_not(self, program: Program) -> str | None:
        """Needs both steps in closed form."""
        return None if isinstance(program, ClosedFormEM) else "it has no closed-form e_step and m_step"

    @torch.no_grad()
    def run(self, program: Program, run: Run) -> Outcome:
        """Fits the parameters in place; the guide is the exact posterior of the latents, if the program has it."""
        assert isinstance(program, ClosedFormEM)
        # Statistics of the E-step at the current parameters, from the iteration before; None at a start or a resume.
        statistics: dict[str, Tensor] | None = None
        rows = self.batch_size or getattr(program, "e_step_rows", ROWS) or run.train.size

        def sweep(fresh: bool) -> dict[str, float]:
            nonlocal statistics
            if fresh or statistics is None:
                statistics = e_step(program, run.train, rows)[1]
            program.m_step(statistics)
            value, statistics = e_step(program, run.train, rows)
            metrics = {"loss": -value / run.train.size}
            if isinstance(program, Penalised):
                metrics["penalised_loss"] = -(value + float(program.log_prior())) / run.train.size
            return metrics

        loop, info = _ascend(self, program, run, sweep, "log-likelihood")
        exact = isinstance(program, ExactPosterior)
        guide = program.posterior if isinstance(program, ExactPosterior) else None
        return Outcome(guide, {"kind": "posterior"} if exact else None, history=loop.history, info=info)


@dataclass(frozen=True, kw_only=True)
class CAVI(_Ascent):
    """Coordinate ascent variational inference: closed-form sweeps over the factors of the program's own guide.

    The history's `loss` is minus the ELBO per example after each sweep.

    Args:
        iterations, tolerance, restarts: See `_Ascent`.
    """

    name: ClassVar[str] = "cavi"

    def why_not(self, program: Program) -> str | None:
        """Needs closed-form updates of the guide."""
        return None if isinstance(program, CoordinateAscent) else "it has no cavi_step"

    @torch.no_grad()
    def run(self, program: Program, run: Run) -> Outcome:
        """Fits the program's guide in place."""
        assert isinstance(program, CoordinateAscent)

        def sweep(fresh: bool) -> dict[str, float]:
            return {"loss": -float(program.cavi_step(*run.train)) / run.train.size}

        loop, info = _ascend(self, program, run, sweep, "ELBO")
        return Outcome(program.guide, {"kind": "own"}, history=loop.history, info=info)


def e_step(program: ClosedFormEM, data: Data, batch_size: int) -> tuple[float, dict[str, Tensor]]:
    """Log-likelihood of a data set and its expected statistics, summed over batches."""
    values, statistics = list[Tensor](), dict[str, Tensor]()
    for batch in data.batches(batch_size):
        value, found = program.e_step(*batch)
        values.append(value)
        statistics = {name: statistics[name] + found[name] for name in found} if statistics else dict(found)
    return float(torch.stack(values).cpu().double().sum()), statistics


@dataclass
class _Climb:
    """Where an ascent with restarts stands; part of the checkpoint. Losses are minus the objective per example."""

    restart: int = 0
    iteration: int = 0
    loss: float | None = None
    losses: list[float] = field(default_factory=list)
    """Final losses of the starts that are finished."""
    best: dict[str, Tensor] | None = None
    """Parameters of the best of them."""
    converged: bool = False
    """Whether the best of them met the tolerance."""

    def state_dict(self) -> dict[str, Any]:
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)


def _ascend(method: _Ascent, program: Program, run: Run, sweep: Sweep, objective: str) -> tuple[Loop, dict[str, Any]]:
    """Sweeps until the objective stops rising, from each start, and leaves the best in the program."""
    ascent = _Climber(method, program, run, sweep=sweep, objective=objective)
    with pyro.validation_enabled(False):  # what is not finite is found out in each step
        ascent.loop.train()
    return ascent.loop, ascent.keep_the_best()


class _Climber:
    """An ascent from one start after the other.

    Args:
        method: The options.
        program: The program, at its first start.
        run: The circumstances.
        sweep: Takes whether a start is new; updates and returns the losses after it, the climbed one last.
        objective: What is climbed, for messages.
    """

    def __init__(self, method: _Ascent, program: Program, run: Run, sweep: Sweep, *, objective: str):
        self.method, self.program, self.data, self.sweep, self.objective = method, program, run.train, sweep, objective
        self.label, self.climb = f"{method.name} {type(program).__name__}", _Climb()
        # Rounding moves sums of log densities by a few units in the last place, times the condition of the covariances.
        self.eps = torch.finfo(run.train.x.dtype).eps ** (2 / 3)
        schedule = Schedule(steps=method.iterations * method.restarts, batch_size=run.train.size, report_every=1)
        self.loop = Loop(run, schedule, {"program": program, "climb": self.climb}, label=self.label, step=self.step)

    def step(self, batch: Data, now: Mapping[str, Any]) -> dict[str, Tensor]:
        """One iteration; ends the start when it has converged or used up its iterations."""
        try:
            metrics = self.sweep(self.climb.iteration == 0)
        except torch.linalg.LinAlgError as error:  # a decomposition of a matrix that is not finite
            raise self.not_finite("not finite") from error
        loss = list(metrics.values())[-1]
        if not math.isfinite(loss):
            raise self.not_finite(str(-loss))
        self.climb.iteration += 1
        converged = self.has_converged(loss)
        self.climb.loss = loss
        if converged or self.climb.iteration == self.method.iterations:
            self.end_of_start(loss, converged)
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in metrics.items()}

    def has_converged(self, loss: float) -> bool:
        """Whether the last iteration gained less than the tolerance.

        Raises: DivergenceError when it lost more than rounding explains.
        """
        climb, tolerance = self.climb, self.method.tolerance
        if climb.loss is None:
            return False
        gain, scale = climb.loss - loss, max(1.0, abs(loss))
        if gain < -max(tolerance, self.eps) * scale:
            raise DivergenceError(
                f"{self.label}: the {self.objective} fell by {-gain:.3g} nats per example at iteration "
                f"{climb.iteration} of start {climb.restart + 1}, which exact steps cannot do. The steps of "
                f"{type(self.program).__name__} do not fit together (a smoothed M-step must declare its log_prior), or "
                "its dtype is too coarse: try float64."
            )
        return gain <= tolerance * scale

    def end_of_start(self, loss: float, converged: bool) -> None:
        """Keeps the parameters if they are the best so far, and starts anew unless this was the last start."""
        climb = self.climb
        if climb.best is None or loss < min(climb.losses):
            climb.best = {name: value.clone() for name, value in self.program.state_dict().items()}
            climb.converged = converged
        climb.losses.append(loss)
        climb.restart, climb.iteration, climb.loss = climb.restart + 1, 0, None
        if climb.restart == self.method.restarts:
            self.loop.stop = True
        else:
            self.program.initialise(*self.data)

    def keep_the_best(self) -> dict[str, Any]:
        """Puts the best parameters into the program; returns what is to be known of the ascent."""
        loop, climb = self.loop, self.climb
        assert climb.best is not None
        self.program.load_state_dict(climb.best)
        best = min(climb.losses)
        if loop.history.rows and climb.losses[-1] != best:
            # The last row then belongs to a start that lost; close with the parameters that were kept.
            row = next(r for r in loop.history.rows if list(r.values())[-1] == best)
            loop.history.add(loop.done, loop.seconds, **{k: v for k, v in row.items() if k not in ("step", "seconds")})
        verdict = {"verdict": "converged" if climb.converged else "still improving"}
        return {"iterations": loop.done, "converged": climb.converged, "losses": climb.losses, "convergence": verdict}

    def not_finite(self, what: str) -> DivergenceError:
        """The error to raise."""
        return DivergenceError(
            f"{self.label}: the {self.objective} became {what} at iteration {self.climb.iteration + 1} of start "
            f"{self.climb.restart + 1}. Standardise the data, or raise the program's smoothing or covariance_floor."
        )
