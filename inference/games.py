"""Adversarial games: a maker of samples against a critic that estimates how far they are from data.

Goodfellow et al., "Generative adversarial nets", NeurIPS 2014. A game is its losses and the divergence that its critic
estimates; everything else (players, steps, diagnostics; `inference.players`) is the same for all of them, so a new game
is one class.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import softplus

from zoo.errors import UnknownNameError

__all__ = ["GAMES", "CriticFn", "Game", "Minimax", "NonSaturating", "make_game"]

CriticFn = Callable[[Tensor], Tensor]
"""A critic with its context filled in: (B, *event_shape) -> (B,)."""


class Game(ABC):
    """The two losses of an adversarial game. Both see the critic itself, so that a penalty on its slope has a place."""

    name: ClassVar[str]
    needs_slope: ClassVar[bool] = False
    """Whether it means nothing unless a regulariser bounds the critic's slope."""
    saturates: ClassVar[bool] = False
    """Whether a critic that is right everywhere leaves the maker of samples without a gradient."""

    @abstractmethod
    def critic_loss(self, critic: CriticFn, real: Tensor, fake: Tensor) -> Tensor:
        """What the critic minimises, (); `fake` is detached."""

    @abstractmethod
    def generator_loss(self, critic: CriticFn, real: Tensor, fake: Tensor) -> Tensor:
        """What the generator minimises, (), differentiable in `fake`."""

    @abstractmethod
    def real_loss(self, critic: CriticFn, real: Tensor) -> Tensor:
        """What the maker of the real side minimises, (), where that side is made too (a guide's latents, in ALI)."""

    @abstractmethod
    def divergence(self, real: Tensor, fake: Tensor) -> Tensor:
        """The divergence between data and generator that the critic's outputs (B,) on both estimate, ()."""


class Minimax(Game):
    """The zero-sum game V = E_p[log s(T(x))] + E_q[log(1 - s(T(x)))], s the sigmoid, data p, generator q.

    The best critic is T = log p/q, where V = 2 JSD(p, q) - log 4; the generator descends V itself, so with a perfect
    critic it minimises the Jensen-Shannon divergence. For any other critic V bounds that from below.
    """

    name = "minimax"
    saturates = True

    def critic_loss(self, critic: CriticFn, real: Tensor, fake: Tensor) -> Tensor:
        """-V."""
        return -self.value(critic(real), critic(fake))

    def generator_loss(self, critic: CriticFn, real: Tensor, fake: Tensor) -> Tensor:
        """The part of V that the generator moves; flat where the critic is sure of itself (it saturates)."""
        return -softplus(critic(fake)).mean()

    def real_loss(self, critic: CriticFn, real: Tensor) -> Tensor:
        """The other part of V."""
        return -softplus(-critic(real)).mean()

    def divergence(self, real: Tensor, fake: Tensor) -> Tensor:
        """JSD = (V + log 4) / 2, from below, between 0 and log 2."""
        return (self.value(real, fake) + math.log(4.0)) / 2

    def value(self, real: Tensor, fake: Tensor) -> Tensor:
        """V from the critic's logits."""
        return -softplus(-real).mean() - softplus(fake).mean()


class NonSaturating(Minimax):
    """Goodfellow's practical variant: the same critic, a generator that maximises E_q[log s(T(x))].

    With a perfect critic its gradient is that of KL(q || p) - 2 JSD(p, q) (Arjovsky & Bottou 2017, theorem 2.5): strong
    where minimax is flat, and more forgiving of missed modes than of bad samples.
    """

    name = "non-saturating"

    def generator_loss(self, critic: CriticFn, real: Tensor, fake: Tensor) -> Tensor:
        """-E_q[log s(T(x))]."""
        return softplus(-critic(fake)).mean()

    def real_loss(self, critic: CriticFn, real: Tensor) -> Tensor:
        """-E_p[log(1 - s(T(x)))]."""
        return softplus(critic(real)).mean()


GAMES: dict[str, type[Game]] = {game.name: game for game in (Minimax, NonSaturating)}
"""Name -> class."""


def make_game(game: str | Game) -> Game:
    """A game by its name, or itself.

    Raises: UnknownNameError.
    """
    if isinstance(game, Game):
        return game
    if game not in GAMES:
        raise UnknownNameError("game", game, GAMES)
    return GAMES[game]()
