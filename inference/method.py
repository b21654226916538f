"""What a method is: options, a reason why it cannot take a program (if so), and `run`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from torch import Tensor, nn

from inference.callbacks import Listeners
from inference.checkpoint import Checkpoint
from inference.history import History
from inference.processes import Team
from zoo.datasets.data import Data
from zoo.options import check_options
from zoo.program import Program

__all__ = ["Method", "Outcome", "Run"]


@dataclass(frozen=True)
class Run:
    """The circumstances of one fit: data on the device, seed, progress bar, the folder's checkpoint, who listens, and
    which processes share it."""

    train: Data
    valid: Data | None = None
    seed: int = 0
    progress: bool = False
    checkpoint: Checkpoint | None = None
    listeners: Listeners = field(default_factory=Listeners)
    team: Team = field(default_factory=Team)


@dataclass
class Outcome:
    """What a method hands back: a guide or posterior samples, the history and what it cost.

    `guide` has the signature of `Program.guide`; None when there is nothing latent, or when the answer is `samples`
    (site -> (S, *shape), global sites without, local ones with the training examples as their first dimension).
    `guide_spec` says how to build the guide again when a checkpoint is loaded (see `inference.guides.named`).
    `modules` are networks of the method's own that are worth a look afterwards, a critic say; they are not saved.
    """

    guide: Callable[..., Any] | None = None
    guide_spec: dict[str, Any] | None = None
    samples: dict[str, Tensor] | None = None
    history: History = field(default_factory=History)
    gradient_evaluations: int = 0
    info: dict[str, Any] = field(default_factory=dict)
    modules: dict[str, nn.Module] = field(default_factory=dict)


class Method(ABC):
    """A way to fit a program. Subclasses are frozen dataclasses whose fields are the options.

    A method is complete when `why_not` refuses before compute, naming the capability that is missing, and `run` leaves
    the program's parameters fitted and returns an `Outcome`.
    """

    name: ClassVar[str]
    takes_weights: ClassVar[bool] = False
    """Whether it works by the log densities of sites alone, which row weights scale."""
    moves_program: ClassVar[bool] = True
    """Whether `run` changes the program's parameters, which its checkpoints then hold."""
    takes_missing: ClassVar[bool] = True
    """Whether it looks at data through densities and guides alone, which programs that `takes_missing` define for
    examples with missing values too."""
    NATS: ClassVar[frozenset[str]] = frozenset({"loss", "penalised_loss", "validation_loss"})
    """The metrics of its history that are nats per example; others have units of their own, or none."""

    @property
    def holds_program(self) -> bool:
        """Whether the program's parameters are given, and the answer is about the program as it is."""
        return not self.moves_program or getattr(self, "train_program", True) is False

    def __post_init__(self) -> None:
        """Checks the options against their annotations (`zoo.options`); subclasses add what several must satisfy.

        Raises: OptionError.
        """
        check_options(type(self), self.options())

    @classmethod
    def option_names(cls) -> list[str]:
        """Names of the options: the dataclass fields."""
        return [f.name for f in fields(cls)]  # type: ignore[arg-type]

    def options(self) -> dict[str, Any]:
        """The options and their values."""
        return {name: getattr(self, name) for name in self.option_names()}

    def for_restarts(self) -> Method:
        """The same as a restart runs it: from a place of its own."""
        return self

    @abstractmethod
    def why_not(self, program: Program) -> str | None:
        """The reason why this method cannot take the program, or None if it can."""

    def why_not_shared(self, program: Program) -> str | None:
        """The reason why several processes cannot share a fit (`inference.processes`), or None if they can."""
        return "it takes no steps on minibatches, whose rows they would share; fit in one process (without torchrun)"

    @abstractmethod
    def run(self, program: Program, run: Run) -> Outcome:
        """Fits the program in place."""
