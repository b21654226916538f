"""The one training loop: minibatches, progress, validation and early stopping, checkpoints and resume, divergence.

SVI, the GAN game, adversarial variational Bayes and wake-sleep differ only in the `step` they hand to it.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from inference.history import History
from inference.method import Run
from zoo.datasets.data import Data
from zoo.errors import CheckpointError, DivergenceError, OptionError

__all__ = ["Loop", "Schedule", "make_optimizer", "progress_bar"]

CHECKPOINT = "checkpoint.pt"
CHECKPOINT_VERSION = 1


@dataclass(frozen=True)
class Schedule:
    """How long and how finely to train. Exactly one of `steps` and `epochs`; None for both means 2,000 steps."""

    steps: int | None = None
    epochs: int | None = None
    batch_size: int = 128
    validate_every: int | None = None
    patience: int | None = None
    report_every: int | None = None
    """Steps that one row of the history averages over; None is a hundredth of the run."""
    checkpoint_seconds: float = 30.0

    def __post_init__(self) -> None:
        if self.steps is not None and self.epochs is not None:
            raise OptionError(f"Give steps or epochs, not both (got steps={self.steps}, epochs={self.epochs}).")
        for name in ("steps", "epochs", "batch_size", "validate_every", "patience", "report_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise OptionError(f"{name} must be at least 1, got {value}.")

    @classmethod
    def of(cls, method: Any) -> Schedule:
        """The schedule of a method that has options of these names; those that it lacks keep their defaults."""
        return cls(**{f.name: getattr(method, f.name) for f in fields(cls) if hasattr(method, f.name)})

    def total_steps(self, n: int) -> int:
        """Number of steps for n examples."""
        if self.epochs is not None:
            return self.epochs * math.ceil(n / min(self.batch_size, n))
        return self.steps if self.steps is not None else 2000


def make_optimizer(name: str | Callable[..., torch.optim.Optimizer], params: Any, lr: float) -> torch.optim.Optimizer:
    """An optimizer by its torch.optim name in any case ('adam', 'adamw', 'sgd'), or from a factory (params, lr=...)."""
    if callable(name):
        return name(params, lr=lr)
    classes = {
        k.lower(): v
        for k, v in vars(torch.optim).items()
        if isinstance(v, type) and issubclass(v, torch.optim.Optimizer) and v is not torch.optim.Optimizer
    }
    if name.lower() not in classes:
        raise OptionError(f"Unknown optimizer {name!r}; torch.optim has {', '.join(sorted(classes))}.")
    factory: Any = classes[name.lower()]
    return factory(params, lr=lr)


def progress_bar(show: bool) -> Progress:
    """The bar that every long job shows, on standard error so that results can be piped."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
        transient=True,
        disable=not show,
    )


class Loop:
    """Runs `step` until the schedule ends.

    Args:
        run: The circumstances (data, seed, folder, progress).
        schedule: How long.
        state: Everything with `state_dict`/`load_state_dict` that a resumed run must find again: modules, optimizers,
            schedulers.
        label: What the progress bar says.
        diagnose: Called with the batch when a loss is not finite; returns a hint that names the site.
    """

    def __init__(
        self,
        run: Run,
        schedule: Schedule,
        state: Mapping[str, Any],
        label: str,
        diagnose: Callable[[Data], str] | None = None,
    ):
        self.run, self.schedule, self.state, self.label, self.diagnose = run, schedule, dict(state), label, diagnose
        self.history = History()
        self.total = schedule.total_steps(run.train.size)
        self.done = 0
        self.stop = False
        """A step that has converged sets this; the run then ends after it."""
        self.best: tuple[float, dict[str, Any]] | None = None
        self.bad_rounds = 0
        self.seconds = 0.0
        # Sums and number of steps since the last report.
        self.sums: dict[str, Tensor] = {}
        self.count = 0
        # Minibatches are drawn from a generator of their own: what a program samples does not change what it sees.
        self.shuffler = torch.Generator().manual_seed(run.seed)
        self.order = torch.empty(0, dtype=torch.long)

    def batch(self) -> Data:
        """The next minibatch: epochs without replacement; all the data when they fit into one batch."""
        data, size = self.run.train, self.schedule.batch_size
        if data.size <= size:
            return data
        if len(self.order) == 0:
            self.order = torch.randperm(data.size, generator=self.shuffler)
        index, self.order = self.order[:size], self.order[size:]
        return data.rows(index.to(data.x.device))

    def train(
        self, step: Callable[[Data], Mapping[str, Tensor]], validate: Callable[[], float] | None = None
    ) -> History:
        """Runs to the end, resuming from the folder's checkpoint when there is one.

        Args:
            step: Takes a minibatch, updates, returns metrics as detached tensors ('loss' must be among them).
            validate: Returns a number to minimise; with `patience`, stops early and restores the best state.
        """
        self._resume()
        started, saved = time.perf_counter() - self.seconds, time.perf_counter()
        report_every = self.schedule.report_every or max(1, self.total // 100)
        validate_every = self.schedule.validate_every or max(1, self.total // 20)
        with progress_bar(self.run.progress) as bar:
            task = bar.add_task(self.label, total=self.total, completed=self.done, note="")
            while self.done < self.total and not self.stop:
                batch = self.batch()
                for name, value in step(batch).items():
                    self.sums[name] = self.sums[name] + value if name in self.sums else value
                self.count += 1
                self.done += 1
                if self.done % report_every == 0 or self.done == self.total or self.stop:
                    means = {name: float(value) / self.count for name, value in self.sums.items()}
                    self.seconds = time.perf_counter() - started
                    if not math.isfinite(means["loss"]):
                        self._diverged(batch)
                    self.history.add(self.done, self.seconds, **means)
                    self.sums, self.count = {}, 0
                    bar.update(task, completed=self.done, note=f"loss {means['loss']:.4g}")
                if validate is not None and (self.done % validate_every == 0 or self.done == self.total):
                    self.seconds = time.perf_counter() - started
                    if self._stop_early(validate()):
                        break
                if self.run.folder is not None and time.perf_counter() - saved > self.schedule.checkpoint_seconds:
                    self.seconds, saved = time.perf_counter() - started, time.perf_counter()
                    self.save()
        if self.best is not None and self.schedule.patience is not None:
            self._restore(self.best[1])
        if self.run.folder is not None:
            (self.run.folder / CHECKPOINT).unlink(missing_ok=True)
        return self.history

    def _stop_early(self, loss: float) -> bool:
        self.history.add(self.done, self.seconds, validation_loss=loss)
        if self.schedule.patience is None:
            return False
        if self.best is None or loss < self.best[0]:
            self.best, self.bad_rounds = (loss, self._modules()), 0
            return False
        self.bad_rounds += 1
        return self.bad_rounds >= self.schedule.patience

    def _modules(self) -> dict[str, Any]:
        return {
            name: {k: v.detach().clone() for k, v in part.state_dict().items()}
            for name, part in self.state.items()
            if isinstance(part, nn.Module)
        }

    def _restore(self, modules: Mapping[str, Any]) -> None:
        for name, values in modules.items():
            self.state[name].load_state_dict(values)

    def _diverged(self, batch: Data) -> None:
        hint = self.diagnose(batch) if self.diagnose is not None else ""
        raise DivergenceError(
            f"{self.label}: the loss became non-finite at or before step {self.done} of {self.total}. {hint} "
            "Try a smaller learning rate (lr), gradient clipping (clip_norm=10) or standardised data."
        )

    # Checkpoints: written to a temporary file and renamed, so that a killed run leaves a whole one.

    def save(self) -> None:
        """Writes the checkpoint of this moment."""
        assert self.run.folder is not None
        self.run.folder.mkdir(parents=True, exist_ok=True)
        payload = {
            "version": CHECKPOINT_VERSION,
            "label": self.label,
            "done": self.done,
            "total": self.total,
            "seconds": self.seconds,
            "rows": self.history.rows,
            "sums": self.sums,
            "count": self.count,
            "bad_rounds": self.bad_rounds,
            "best": self.best,
            "order": self.order,
            "shuffler": self.shuffler.get_state(),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "state": {name: part.state_dict() for name, part in self.state.items()},
        }
        temporary = self.run.folder / (CHECKPOINT + ".part")
        torch.save(payload, temporary)
        os.replace(temporary, self.run.folder / CHECKPOINT)

    def _resume(self) -> None:
        path: Path | None = None if self.run.folder is None else self.run.folder / CHECKPOINT
        if path is None or not path.exists():
            return
        try:
            payload = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise CheckpointError(f"Damaged checkpoint {path} ({error}); delete it to start afresh.") from error
        if payload.get("version") != CHECKPOINT_VERSION or payload["label"] != self.label:
            raise CheckpointError(
                f"{path} belongs to another version or fit ({payload.get('label')!r}, version "
                f"{payload.get('version')}; this is {self.label!r}, version {CHECKPOINT_VERSION}). "
                "Delete it or choose another folder."
            )
        for name, part in self.state.items():
            part.load_state_dict(payload["state"][name])
        self.done, self.seconds, self.bad_rounds = payload["done"], payload["seconds"], payload["bad_rounds"]
        self.best, self.order = payload["best"], payload["order"]
        self.history.rows[:] = payload["rows"]
        self.sums, self.count = payload["sums"], payload["count"]
        self.shuffler.set_state(payload["shuffler"])
        torch.set_rng_state(payload["rng"])
        if payload["cuda_rng"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(payload["cuda_rng"])
