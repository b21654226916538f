"""What keeps a critic's slope in bounds, whatever the game."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from inference.games import CriticFn, Game
from zoo.errors import OptionError, UnknownNameError

__all__ = ["REGULARISERS", "Regulariser", "check_pair", "make_regulariser"]


class Regulariser(ABC):
    """Acts on the critic alone: before the game, in its loss, or after each of its steps."""

    name: ClassVar[str]

    def prepare(self, critic: nn.Module) -> None:  # noqa: B027 (nothing by default)
        """Changes the critic in place before the game."""

    @abstractmethod
    def penalty(self, critic: CriticFn, real: Tensor, fake: Tensor) -> Tensor | None:
        """What is added to the critic's loss, (), or None."""

    def after_step(self, critic: nn.Module) -> None:  # noqa: B027 (nothing by default)
        """Changes the critic's parameters in place after one of its steps."""


REGULARISERS: dict[str, type[Regulariser]] = {}
"""Name -> class."""


def make_regulariser(regulariser: str | Regulariser | None) -> Regulariser | None:
    """A regulariser by its name, itself, or None.

    Raises: UnknownNameError.
    """
    if regulariser is None or isinstance(regulariser, Regulariser):
        return regulariser
    if regulariser not in REGULARISERS:
        raise UnknownNameError("regulariser", regulariser, REGULARISERS)
    return REGULARISERS[regulariser]()


def check_pair(game: Game, regulariser: Regulariser | None) -> None:
    """Raises OptionError where a game means nothing without a bound on the slope."""
    if game.needs_slope and regulariser is None:
        raise OptionError(
            f"The game {game.name!r} needs a critic of bounded slope: give a regulariser, one of "
            f"{', '.join(sorted(REGULARISERS))}."
        )
