"""Adversarial games: a maker of samples against a critic that estimates how far they are from data.

Goodfellow et al., "Generative adversarial nets", NeurIPS 2014. A game is its losses and the divergence that its critic
estimates; everything else (players, steps, diagnostics; `inference.games.game`) is the same for all of them, so a new
game is one class. What bounds the critic's slope is not the game's: see `inference.games.regularisers`.

With the best critic of all, for data p and generator q, m = (p + q) / 2:

    game              critic         divergence                        and the generator's gradient is that of
    minimax           log p/q        JSD(p, q)                         2 JSD(p, q)
    non-saturating    log p/q        JSD(p, q)                         KL(q || p) - 2 JSD(p, q)
    least-squares     p / (p + q)    chi2(p || m)                      KL(p || m) - chi2(p || m) / 4
    hinge             sign(p - q)    TV(p, q)                          zero: the critic is flat almost everywhere
    wasserstein       see there      W1(p, q), slope at most 1         W1(p, q)
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import relu, softplus

from zoo.options import NonNegative, Positive, check_options
from zoo.specs import Spec, make_part

__all__ = [
    "GAMES",
    "CriticFn",
    "Game",
    "Hinge",
    "LeastSquares",
    "Minimax",
    "NonSaturating",
    "Wasserstein",
    "make_game",
]

CriticFn = Callable[[Tensor], Tensor]
"""A critic with its context filled in: (B, *event_shape) -> (B,), or (B, patches) from one that judges patches: every
loss is a mean over these too."""


class Game(ABC):
    """The two losses of an adversarial game. Both see the critic itself, so that a penalty on its slope has a place."""

    name: ClassVar[str]
    needs_slope: ClassVar[bool] = False
    """Whether it means nothing unless a regulariser bounds the critic's slope."""
    saturates: ClassVar[bool] = False
    """Whether its divergence is at its ceiling once the critic tells all apart, however far apart they are: nothing
    then says which way the data lie, unless a regulariser bounds the critic's slope."""

    weighs: ClassVar[bool] = False
    """Whether exp(critic) weighs what the generator makes: the best critic is log p/q, or like a Wasserstein critic
    an energy without units."""

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
    """Goodfellow et al. 2014: the zero-sum game V = E_p[log s(T(x))] + E_q[log(1 - s(T(x)))], s the sigmoid.

    The best critic is T = log p/q, where V = 2 JSD(p, q) - log 4; the generator descends V itself, so with a perfect
    critic it minimises the Jensen-Shannon divergence. For any other critic V bounds that from below.
    """

    name = "minimax"
    saturates, weighs = True, True

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


class LeastSquares(Game):
    """Least squares in place of the sigmoid's cross-entropy (Mao et al. 2017), targets 1 for real and 0 for fake.

    The best critic is T = p / (p + q). Its loss is then (1 - chi2(p || m)) / 4 with m = (p + q) / 2, where Pearson's
    chi2(p || m) = integral (p - m)^2 / m = chi2(q || m) lies in [0, 1]: half the triangular discrimination of Vincze
    and Le Cam, integral (p - q)^2 / (p + q). The paper's other coding, targets 1 and -1 with the generator aiming at 0,
    measures the same, as chi2(p + q || 2q) in its notation. The generator's losses aim at 1 here (the paper's equation
    9); at the best critic they descend KL(p || m) - chi2(p || m) / 4, an f-divergence too.
    """

    name = "least-squares"
    saturates = True

    def critic_loss(self, critic: CriticFn, real: Tensor, fake: Tensor) -> Tensor:
        """E_p[(T - 1)^2] / 2 + E_q[T^2] / 2."""
        return self._distance(critic(real), critic(fake))

    def generator_loss(self, critic: CriticFn, real: Tensor, fake: Tensor) -> Tensor:
        """E_q[(T - 1)^2] / 2."""
        return (critic(fake) - 1).square().mean() / 2

    def real_loss(self, critic: CriticFn, real: Tensor) -> Tensor:
        """E_p[T^2] / 2."""
        return critic(real).square().mean() / 2

    def divergence(self, real: Tensor, fake: Tensor) -> Tensor:
        """chi2(p || (p + q) / 2), from below, at most 1: 1 - 4 times the critic's loss."""
        return 1 - 4 * self._distance(real, fake)

    def _distance(self, real: Tensor, fake: Tensor) -> Tensor:
        return (real - 1).square().mean() / 2 + fake.square().mean() / 2


class Hinge(Game):
    """The critic's loss is that of a support vector machine (Lim & Ye 2017; Miyato et al. 2018).

    The best critic is T = sign(p - q), any value in [-1, 1] where p = q; its loss is 2 - 2 TV(p, q), with the total
    variation TV = integral |p - q| / 2. That critic is flat almost everywhere, so the generator learns only from one
    that cannot be: with slopes bounded by K the loss is at least 2 - sup{E_p[T] - E_q[T]: |T| <= 1, slope <= K}, the
    bounded Lipschitz distance, which knows how far p and q lie apart up to a distance of 2 / K.
    """

    name = "hinge"
    saturates = True

    def critic_loss(self, critic: CriticFn, real: Tensor, fake: Tensor) -> Tensor:
        """E_p[max(0, 1 - T)] + E_q[max(0, 1 + T)]."""
        return self._margins(critic(real), critic(fake))

    def generator_loss(self, critic: CriticFn, real: Tensor, fake: Tensor) -> Tensor:
        """-E_q[T]."""
        return -critic(fake).mean()

    def real_loss(self, critic: CriticFn, real: Tensor) -> Tensor:
        """E_p[T]."""
        return critic(real).mean()

    def divergence(self, real: Tensor, fake: Tensor) -> Tensor:
        """TV(p, q), from below, at most 1: 1 - half the critic's loss."""
        return 1 - self._margins(real, fake) / 2

    def _margins(self, real: Tensor, fake: Tensor) -> Tensor:
        return relu(1 - real).mean() + relu(1 + fake).mean()


class Wasserstein(Game):
    """The dual of optimal transport (Arjovsky, Chintala & Bottou 2017): the gap E_p[T] - E_q[T], of bounded slope.

    By Kantorovich and Rubinstein the largest gap over critics of slope at most K is K W1(p, q), the least mean distance
    over which q must be carried to become p. The best critic rises by K along every path of that transport; on the
    line its slope is K sign(F_q - F_p), F the distribution functions. Without a bound the gap is infinite.

    Args:
        slope: K, where it is known: 1 for spectral normalisation and, nearly, for the gradient penalty (see
            `inference.games.regularisers` for how nearly). Clipped weights bound it too, by a K that nobody knows: the
            divergence is then in units of its own.
        drift: Weight of E_p[T^2] in the critic's loss. The gap is that of T plus any number; this keeps T near zero
            (Karras et al. 2018, who take 0.001).

    Raises: OptionError for a slope that is not positive or a negative drift.
    """

    name = "wasserstein"
    needs_slope, weighs = True, True

    def __init__(self, slope: Positive = 1.0, drift: NonNegative = 0.0):
        check_options(type(self), {"slope": slope, "drift": drift})
        self.slope, self.drift = slope, drift

    def critic_loss(self, critic: CriticFn, real: Tensor, fake: Tensor) -> Tensor:
        """Minus the gap, and the drift."""
        of_real = critic(real)
        gap = of_real.mean() - critic(fake).mean()
        return self.drift * of_real.square().mean() - gap if self.drift else -gap

    def generator_loss(self, critic: CriticFn, real: Tensor, fake: Tensor) -> Tensor:
        """-E_q[T]."""
        return -critic(fake).mean()

    def real_loss(self, critic: CriticFn, real: Tensor) -> Tensor:
        """E_p[T]."""
        return critic(real).mean()

    def divergence(self, real: Tensor, fake: Tensor) -> Tensor:
        """W1(p, q), from below if the slope is bounded as said: the gap over K."""
        return (real.mean() - fake.mean()) / self.slope


GAMES: dict[str, type[Game]] = {game.name: game for game in (Minimax, NonSaturating, LeastSquares, Hinge, Wasserstein)}
"""Name -> class."""


def make_game(game: Spec | Game) -> Game:
    """A game by its name, by its name and options ({"name": "wasserstein", "drift": 0.001}), or itself.

    Raises: UnknownNameError for a name or an option that there is not; OptionError for a bad value of one.
    """
    return game if isinstance(game, Game) else make_part("game", game, GAMES)
