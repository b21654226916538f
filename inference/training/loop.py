"""The one training loop: minibatches, progress, validation and early stopping, checkpoints and resume, divergence.

SVI, the GAN game, adversarial variational Bayes and wake-sleep differ only in the `step` they hand to it. A run that is
long enough goes through `inference.training.compiled`, many steps at a time.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any

import pyro
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn

from inference.history import History
from inference.method import Run
from inference.training.compiled import COMPILE, Compiled, CompileNotice, NotStatic, Step, gear, reference
from inference.training.convergence import Path as ParameterPath
from inference.training.optimizers import numerics
from zoo.datasets.data import Data
from zoo.errors import DivergenceError, OptionError
from zoo.options import Count, NonNegative, OneOf, check_options
from zoo.process import trim_memory

__all__ = ["Loop", "Schedule", "progress_bar"]

PRECISIONS = ("full", "tf32", "bf16")


@dataclass(frozen=True)
class Schedule:
    """How long and how finely to train. Exactly one of `steps` and `epochs`; None for both means 2,000 steps."""

    steps: Count | None = None
    epochs: Count | None = None
    batch_size: Count = 128
    validate_every: Count | None = None
    patience: Count | None = None
    report_every: Count | None = None
    """Steps that one row of the history averages over; None is a hundredth of the run."""
    checkpoint_seconds: NonNegative = 30.0
    compile: Annotated[str, OneOf(COMPILE)] = "never"
    """'auto' traces the step, or compiles it, when the run is long enough (`inference.training.compiled.gear`);
    'always' compiles, 'traced' traces, 'never' does neither."""
    precision: Annotated[str, OneOf(PRECISIONS)] = "full"
    """'tf32' or 'bf16' for matrix products that the GPU may round; 'full' does not. Validation is always in full."""

    def __post_init__(self) -> None:
        if self.steps is not None and self.epochs is not None:
            raise OptionError(f"Give steps or epochs, not both (got steps={self.steps}, epochs={self.epochs}).")
        check_options(type(self), vars(self))

    @classmethod
    def of(cls, method: Any) -> Schedule:
        """The schedule of a method that has options of these names; those that it lacks keep their defaults."""
        return cls(**{f.name: getattr(method, f.name) for f in fields(cls) if hasattr(method, f.name)})

    def total_steps(self, n: int) -> int:
        """Number of steps for n examples."""
        if self.epochs is not None:
            return math.ceil(self.epochs * n / min(self.batch_size, n))
        return self.steps if self.steps is not None else 2000


def progress_bar(show: bool) -> Progress:
    """The bar that every long job shows, on standard error so that results can be piped."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),  # which moves while a step is compiled, too
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
        transient=True,
        disable=not show,
    )


class Loop:
    """Runs `step` until the schedule ends.

    Args:
        run: The circumstances (data, seed, checkpoint, progress).
        schedule: How long.
        parts: Everything with `state_dict`/`load_state_dict` that a resumed run must find again: modules, optimizers.
            A compiled step updates the tensors of these and of nothing else.
        label: What the progress bar says.
        step: Takes a minibatch and the scalars of this step, updates, returns metrics as detached tensors ('loss' must
            be among them).
        scalars: Scheduled quantities, from the number of steps done: the learning rate, the weight of the KL.
        batches: Minibatches that a step takes, one below the other (all the data are given once).
        diagnose: Called with the batch when a loss is not finite; returns a hint that names the site.
    """

    def __init__(
        self,
        run: Run,
        schedule: Schedule,
        parts: Mapping[str, Any],
        *,
        label: str,
        step: Step,
        scalars: Mapping[str, Callable[[int], float]] | None = None,
        batches: int = 1,
        diagnose: Callable[[Data], str] | None = None,
    ):
        self.run, self.schedule, self.parts, self.label, self.diagnose = run, schedule, dict(parts), label, diagnose
        self.step = self._checked_once(step)
        self.schedules, self.rows = dict(scalars or {}), batches * schedule.batch_size
        self.batches, self.team = batches, run.team
        self.data = run.train
        self.history = History()
        self.total = schedule.total_steps(run.train.size)
        self.done = 0
        self.stop = False
        """A step that has converged sets this; the run then ends after it."""
        self.best: tuple[float, dict[str, Any]] | None = None
        self.bad_rounds = 0
        self.settled = 0
        """Steps after which a look without an improvement counts."""
        self.seconds = 0.0
        # Sums and number of steps since the last report.
        self.sums: dict[str, Tensor] = {}
        self.count = 0
        # Minibatches are drawn from a generator of their own: what a program samples does not change what it sees. So
        # is the noise of compiled steps: fits that run together draw what each would draw alone.
        self.shuffler = torch.Generator().manual_seed(run.seed)
        self.generator = torch.Generator(run.train.x.device).manual_seed(run.seed)
        self.order = torch.empty(0, dtype=torch.long)
        self.path: ParameterPath | None = None
        """Of the parameters, where a method wants to know whether they have arrived."""
        self.compiled: Compiled | None = None
        self.compiling = schedule.compile
        """What is left of the option: 'never' once it is decided to go on eagerly."""
        if self.data.stored or not self.team.alone:
            if schedule.compile in ("always", "traced") and self.team.rank == 0:
                stored = "its data stay in a file, and a compiled step has them in memory"
                reason = stored if self.data.stored else "processes exchange gradients between the parts of a step"
                warnings.warn(f"{label} goes on eagerly: {reason}.", CompileNotice, stacklevel=3)
            self.compiling = "never"

    def indices(self, n: int) -> Tensor | None:
        """Rows of the next n minibatches (n, rows): one shuffled epoch after the other. None where all data fit."""
        if self.data.size <= self.schedule.batch_size:
            return None
        # Rows that stay in a file are read one step ahead, so their order must be known.
        lacking = (n + self.data.stored) * self.rows - len(self.order)
        if lacking > 0:
            epochs = range(-(-lacking // self.data.size))
            shuffled = [torch.randperm(self.data.size, generator=self.shuffler) for _ in epochs]
            self.order = torch.cat([self.order, *shuffled])
        index, self.order = self.order[: n * self.rows], self.order[n * self.rows :]
        return index.reshape(n, self.rows)

    def batch(self) -> Data:
        """The next minibatch, all the data when they fit into one; of these, the rows that this process takes."""
        index = self.indices(1)
        if index is None:
            whole = self.team.alone and not self.data.stored
            return self.data if whole else self.data.rows(self.team.share(self.data.size))
        found = self.data.rows(self._own(index).to(self.data.x.device))
        if self.data.stored:
            self.data.expect(self._own(self.order[: self.rows]))
        return found

    def _own(self, rows: Tensor) -> Tensor:
        """Those of the rows of a step that this process takes, of each minibatch alike."""
        return rows.reshape(self.batches, -1)[:, self.team.share(self.schedule.batch_size)].reshape(-1)

    def _checked_once(self, step: Step) -> Step:
        """The step, with the checks of Pyro and torch (shapes, supports, model against guide) the first time alone.

        They read values, for which a GPU is waited for and of which no trace can be made.
        """

        def checked(batch: Data, now: Mapping[str, Any]) -> Mapping[str, Tensor]:
            with pyro.validation_enabled(self.done == 0):
                return step(batch, now)

        return checked

    def scalars(self, start: int, n: int) -> dict[str, list[float]]:
        """Values of the scheduled quantities at n steps from the one after `start` steps."""
        return {name: [f(start + i) for i in range(n)] for name, f in self.schedules.items()}

    def advance(self, n: int) -> dict[str, Tensor]:
        """n further steps, compiled where that was asked for and pays; returns the metrics summed over them."""
        with numerics(self.schedule.precision, self.data.x.device):
            return self._advance(n)

    def _advance(self, n: int) -> dict[str, Tensor]:
        sums: dict[str, Tensor] = {}
        found: Mapping[str, Tensor]
        while n > 0 and not self.stop:
            # The first step is Python's, with Pyro's checks.
            if self.compiling != "never" and self.compiled is None and self.done > 0:
                compile_together([self])
            if self.compiled is not None:
                found, k = self.compiled.advance(n, self.done)[0], n
            else:
                batch, now = self.batch(), {name: f(self.done) for name, f in self.schedules.items()}
                with self.team.step(self._shared, self.run.seed, self.done):
                    found, k = self.step(batch, now), 1
            for name, value in found.items():
                sums[name] = sums[name] + value if name in sums else value
            self.done, n = self.done + k, n - k
        return dict(self.team.mean(sums, self._shared))

    @property
    def _shared(self) -> int:
        """Rows of a minibatch, of which each process takes some."""
        return min(self.data.size, self.schedule.batch_size)

    def train(self, validate: Callable[[], float] | None = None) -> History:
        """Runs to the end, from the checkpoint of a killed run when there is one.

        Args:
            validate: Returns a number to minimise; with `patience`, stops early and restores the best state.
        """
        with progress_bar(self.run.progress) as bar:
            task = bar.add_task(self.label, total=self.total, note="")
            rounds = self.rounds(validate, lambda note: bar.update(task, completed=self.done, note=note))
            # A round is shown before it is run, so that the bar says what takes long.
            n = next(rounds, None)
            while n is not None:
                if self.compiling != "never" and self.compiled is None and self.done > 0:
                    bar.update(task, note="preparing the step ...")
                n = _send(rounds, self.advance(n))
        return self.history

    def rounds(
        self, validate: Callable[[], float] | None = None, report: Callable[[str], None] = lambda note: None
    ) -> Generator[int, Mapping[str, Tensor], None]:
        """Yields how many steps to take next, and wants to be sent the metrics summed over them."""
        self._resume()
        self.team.level(self.parts.values())
        report("")
        started, saved = time.perf_counter() - self.seconds, time.perf_counter()
        report_every = self.schedule.report_every or max(1, self.total // 100)
        validate_every = self.schedule.validate_every or max(1, self.total // 20)
        while self.done < self.total and not self.stop:
            before = self.done
            ends = [before + 1 if before == 0 else self.total, before + report_every - before % report_every]
            if validate is not None:
                ends.append(before + validate_every - before % validate_every)
            for name, value in (yield min(*ends, self.total) - before).items():
                self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.count += self.done - before
            if self.done % report_every == 0 or self.done == self.total or self.stop:
                means = {name: float(value) / self.count for name, value in self.sums.items()}
                self.seconds = time.perf_counter() - started
                if not math.isfinite(means["loss"]):
                    self._diverged()
                self.history.add(self.done, self.seconds, **means)
                self.sums, self.count = {}, 0
                if self.path is not None:
                    self.path.look(self.done)
                report(f"loss {means['loss']:.4g}")
                self.run.listeners.report(self.history.rows)
            if validate is not None and (self.done % validate_every == 0 or self.done == self.total):
                self.seconds = time.perf_counter() - started
                if self._stop_early(self.team.told(validate() if self.team.rank == 0 else 0.0)):
                    break
            if self.run.checkpoint is not None and time.perf_counter() - saved > self.schedule.checkpoint_seconds:
                self.seconds, saved = time.perf_counter() - started, time.perf_counter()
                self.save()
        if self.best is not None and self.schedule.patience is not None:
            self._restore(self.best[1])

    def _stop_early(self, loss: float) -> bool:
        self.history.add(self.done, self.seconds, validation_loss=loss)
        self.run.listeners.report(self.history.rows)
        if self.schedule.patience is None:
            return False
        if self.best is None or loss < self.best[0]:
            self.best, self.bad_rounds = (loss, self._modules()), 0
            return False
        self.bad_rounds += self.done > self.settled
        return self.bad_rounds >= self.schedule.patience

    def _modules(self) -> dict[str, Any]:
        return {
            name: {k: v.detach().clone() for k, v in part.state_dict().items()}
            for name, part in self.parts.items()
            if isinstance(part, nn.Module)
        }

    def _restore(self, modules: Mapping[str, Any]) -> None:
        for name, values in modules.items():
            self.parts[name].load_state_dict(values)

    def _diverged(self) -> None:
        hint = self.diagnose(self.batch()) if self.diagnose is not None else ""
        raise DivergenceError(
            f"{self.label}: the loss became non-finite at or before step {self.done} of {self.total}. {hint} "
            "Try a smaller learning rate (lr), gradient clipping (clip_norm=10) or standardised data."
        )

    def save(self) -> None:
        """Writes the checkpoint of this moment."""
        assert self.run.checkpoint is not None
        self.run.checkpoint.write(
            {
                "done": self.done,
                "stop": self.stop,
                "seconds": self.seconds,
                "rows": self.history.rows,
                "sums": self.sums,
                "count": self.count,
                "bad_rounds": self.bad_rounds,
                "best": self.best,
                "order": self.order,
                "shuffler": self.shuffler.get_state(),
                "noise": self.generator.get_state(),
                "path": None if self.path is None else self.path.state_dict(),
                "parts": {name: part.state_dict() for name, part in self.parts.items()},
            }
        )
        self.run.listeners.tell("on_checkpoint", self.done, self.run.checkpoint.path)

    def _resume(self) -> None:
        state = self.team.told(None if self.run.checkpoint is None else self.run.checkpoint.take())
        if state is None:
            return
        for name, part in self.parts.items():
            part.load_state_dict(state["parts"][name])
        self.done, self.stop = state["done"], state["stop"]
        self.seconds, self.bad_rounds = state["seconds"], state["bad_rounds"]
        self.best, self.order = state["best"], state["order"]
        self.history.rows[:] = state["rows"]
        self.sums, self.count = state["sums"], state["count"]
        self.shuffler.set_state(state["shuffler"])
        self.generator.set_state(state["noise"])
        if self.path is not None and state["path"] is not None:
            self.path.load_state_dict(state["path"])


def _send(rounds: Generator[int, Mapping[str, Tensor], None], sums: Mapping[str, Tensor]) -> int | None:
    try:
        return rounds.send(sums)
    except StopIteration:
        return None


def compile_together(loops: Sequence[Loop]) -> bool:
    """Compiles the step of loops that stand at the same point of the same schedule, if the option and the rule say so.

    Where a step cannot be compiled they go on eagerly, with a notice. Returns whether it was.
    """
    first, compiled = loops[0], None
    try:
        references = [reference(loop) for loop in loops]
        given = {"always": "library", "traced": "scripted"}.get(first.compiling)
        chosen = given or gear(first.total * len(loops), references[0].calls)
        if chosen != "eager":
            compiled = Compiled(loops, references, chosen)
            trim_memory()  # what tracing took, many times what a step takes
    except NotStatic as reason:
        warnings.warn(f"{first.label} goes on eagerly: {reason}.", CompileNotice, stacklevel=2)
    for loop in loops:
        loop.compiled, loop.compiling = compiled, loop.compiling if compiled is not None else "never"
    return compiled is not None
