"""What listens to a fit: callbacks are told of its start, of each row of its history, of checkpoints and of its end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

__all__ = ["Callback", "Listeners", "Start"]


@dataclass(frozen=True)
class Start:
    """A fit that is about to begin."""

    program: nn.Module
    """At its start; the same object is trained, so it may be looked at later too."""
    method: str
    options: Mapping[str, Any]
    """Of the method."""
    data: str
    """Its name."""
    examples: int
    """How many of them are for training."""
    seed: int
    device: str


class Callback:
    """Listens to a fit; define those of its methods that you want to hear of.

    `fit(..., callbacks=[Mine()])` calls them in the order of the list. They may look at everything and change nothing:
    random numbers that they draw and modes of the program that they switch are put back. What they raise stops the fit,
    as it is.
    """

    def on_start(self, start: Start) -> None:
        """Before the first step; everything is checked, and the program initialised."""

    def on_report(self, step: int, metrics: Mapping[str, float]) -> None:
        """A row of the history: 'seconds', and what the method reports, such as 'loss'.

        A fit that goes on from a checkpoint begins with the rows of before, so that the whole history is heard.
        Methods without steps report at their end, or not at all ('exact').
        """

    def on_checkpoint(self, step: int, path: Path) -> None:
        """A checkpoint has been written."""

    def on_end(self, found: Any) -> None:
        """The `Fit`, saved where it has a folder."""

    def on_failure(self, error: BaseException) -> None:
        """What has ended the fit instead, Ctrl-C included; to close files by. It is raised afterwards."""


class Listeners:
    """The callbacks of one fit.

    Args:
        callbacks: In order.
        program: Of the fit.
    """

    def __init__(self, callbacks: Sequence[Callback] = (), program: nn.Module | None = None):
        self.callbacks, self.program = tuple(callbacks), program
        self.told = 0
        """Rows of the history that were reported."""

    def tell(self, event: str, *what: Any) -> None:
        """Calls the method of this name of each."""
        if self.callbacks:
            with self._undone():
                for each in self.callbacks:
                    getattr(each, event)(*what)

    def report(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Tells the rows of a history that are new."""
        if self.callbacks:
            for row in rows[self.told :]:
                self.tell("on_report", int(row["step"]), {k: v for k, v in row.items() if k != "step"})
        self.told = len(rows)

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Around a fit: tells what ends it."""
        try:
            yield
        except BaseException as error:
            self.tell("on_failure", error)
            raise

    @contextmanager
    def _undone(self) -> Iterator[None]:
        modules = {} if self.program is None else {module: module.training for module in self.program.modules()}
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            try:
                yield
            finally:
                for module, training in modules.items():
                    module.training = training
