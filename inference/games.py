"""The GAN game: a generator without density against a critic that estimates a density ratio.

Goodfellow et al., "Generative adversarial nets", NeurIPS 2014. A game is two losses and the divergence that its critic
estimates; everything else (players, steps, diagnostics) is the same for all of them, so a new game is one class.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pyro
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from inference.loop import Loop, Schedule
from inference.method import Method, Outcome, Run
from inference.optim import rate, set_rate
from zoo.datasets.data import Data
from zoo.errors import OptionError, UnknownNameError
from zoo.program import ImplicitProgram, Program

__all__ = ["GAMES", "GANGame", "Game", "Minimax", "NonSaturating", "diversity", "make_game"]

CriticFn = Callable[[Tensor], Tensor]
"""A critic with its context filled in: (B, *event_shape) -> (B,)."""


class Game(ABC):
    """The two losses of an adversarial game. Both see the critic itself, so that a penalty on its slope has a place."""

    name: ClassVar[str]

    @abstractmethod
    def critic_loss(self, critic: CriticFn, real: Tensor, fake: Tensor) -> Tensor:
        """What the critic minimises, (); `fake` is detached."""

    @abstractmethod
    def generator_loss(self, critic: CriticFn, real: Tensor, fake: Tensor) -> Tensor:
        """What the generator minimises, (), differentiable in `fake`."""

    @abstractmethod
    def divergence(self, real: Tensor, fake: Tensor) -> Tensor:
        """The divergence between data and generator that the critic's outputs (B,) on both estimate, ()."""


class Minimax(Game):
    """The zero-sum game V = E_p[log s(T(x))] + E_q[log(1 - s(T(x)))], s the sigmoid, data p, generator q.

    The best critic is T = log p/q, where V = 2 JSD(p, q) - log 4; the generator descends V itself, so with a perfect
    critic it minimises the Jensen-Shannon divergence. For any other critic V bounds that from below.
    """

    name = "minimax"

    def critic_loss(self, critic: CriticFn, real: Tensor, fake: Tensor) -> Tensor:
        """-V."""
        return -self.value(critic(real), critic(fake))

    def generator_loss(self, critic: CriticFn, real: Tensor, fake: Tensor) -> Tensor:
        """The part of V that the generator moves; flat where the critic is sure of itself (it saturates)."""
        return -softplus(critic(fake)).mean()

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


@torch.no_grad()
def diversity(samples: Tensor, data: Tensor) -> Tensor:
    """Mean pairwise distance of samples over that of data, (): 1 when as spread out, near 0 after collapse.

    1 where the data themselves do not vary.
    """

    def spread(x: Tensor) -> Tensor:
        n = len(x)
        return torch.cdist(x.reshape(n, -1), x.reshape(n, -1)).sum() / max(n * (n - 1), 1)

    of_data = spread(data)
    return torch.where(of_data > 0, spread(samples) / of_data, torch.ones_like(of_data))


@dataclass(frozen=True)
class GANGame(Method):
    """Fits an implicit program by playing against a critic, in alternating Adam steps.

    `Outcome.modules["critic"]` is the critic at the end. `Outcome.info` says how the game ended, on up to 1,000
    examples: `diversity` (see `diversity`), `critic_accuracy` (share of examples, half of them real, on the right side
    of 0), `divergence` (the game's estimate); `collapsed`, true when diversity < 0.5: samples lie on average less than
    half as far apart as data; `saturated`, true when critic_accuracy > 0.99: the critic tells nearly all apart and its
    gradient says little. Missing modes need not lower the diversity this far: look at samples too.

    Args:
        game: 'minimax', 'non-saturating' or a `Game`.
        critic: A module (B, *event_shape) -> (B,), called with the context too if there is one; None takes the
            program's suggestion.
        critic_steps: Critic steps to each generator step.
        lr: Adam's learning rate for the generator.
        critic_lr: The critic's; None is the same.
        betas: Adam's, of both.
        decay: 'cosine' to zero over the run, which lets the players settle instead of orbiting, or 'constant'.
        steps, epochs, batch_size, compile: See `inference.loop.Schedule`; a step is one of the generator.
    """

    name: ClassVar[str] = "gan"
    COLLAPSED: ClassVar[float] = 0.5
    SATURATED: ClassVar[float] = 0.99

    game: str | Game = "non-saturating"
    critic: nn.Module | None = None
    critic_steps: int = 1
    lr: float = 1e-3
    critic_lr: float | None = None
    betas: Sequence[float] = (0.5, 0.999)
    decay: str = "cosine"
    steps: int | None = None
    epochs: int | None = None
    batch_size: int = 128
    compile: str = "auto"

    def __post_init__(self) -> None:
        make_game(self.game)
        if self.critic_steps < 1:
            raise OptionError(f"critic_steps must be at least 1, got {self.critic_steps}.")
        for name, value in (("lr", self.lr), ("critic_lr", self.critic_lr)):
            if value is not None and value <= 0:
                raise OptionError(f"{name} must be positive, got {value}.")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise OptionError(f"betas must be two numbers in [0, 1), got {self.betas}.")
        if self.decay not in ("cosine", "constant"):
            raise OptionError(f"decay must be 'cosine' or 'constant', got {self.decay!r}.")

    def why_not(self, program: Program) -> str | None:
        """Only implicit programs: where there is a density, the likelihood does better."""
        if not isinstance(program, ImplicitProgram):
            return "it has a density, and the GAN game is for implicit programs"
        if self.critic is None and type(program).critic is ImplicitProgram.critic:
            return "it suggests no critic; define critic() or pass one (critic=...)"
        return None

    def run(self, program: Program, run: Run) -> Outcome:
        """Fits the program in place."""
        assert isinstance(program, ImplicitProgram)
        game = make_game(self.game)
        critic = (self.critic if self.critic is not None else program.critic()).to(run.train.x)
        parameters = [p for p in program.parameters() if p.requires_grad]
        betas = (self.betas[0], self.betas[1])
        generator_optimizer = torch.optim.Adam(parameters, self.lr, betas)
        critic_optimizer = torch.optim.Adam(critic.parameters(), self.critic_lr or self.lr, betas)
        schedule = Schedule.of(self)

        def step(batch: Data, now: Mapping[str, Any]) -> Mapping[str, Tensor]:
            # Each critic step has a minibatch of its own; the generator's is the last one.
            full = batch.size == run.train.size
            own = [batch] * self.critic_steps if full else list(batch.batches(self.batch_size))
            set_rate(critic_optimizer, now["critic_lr"])
            for seen in own:
                with torch.no_grad(), pyro.validation_enabled(loop.done == 0):
                    fake = program.model(None, seen.context, seen.size)
                critic_loss = game.critic_loss(_given(critic, seen.context), seen.x, fake)
                critic_optimizer.zero_grad(set_to_none=True)
                critic_loss.backward()
                critic_optimizer.step()
            with pyro.validation_enabled(False):
                fake = program.model(None, seen.context, seen.size)
            loss = game.generator_loss(_given(critic, seen.context), seen.x, fake)
            generator_optimizer.zero_grad(set_to_none=True)
            loss.backward(inputs=parameters)
            set_rate(generator_optimizer, now["lr"])
            generator_optimizer.step()
            return {
                "loss": loss.detach(),
                "critic_loss": critic_loss.detach(),
                **_position(game, critic, seen, fake.detach()),
            }

        total = schedule.total_steps(run.train.size)
        scalars = {"lr": rate(self.decay, self.lr, total)}
        scalars["critic_lr"] = rate(self.decay, self.critic_lr or self.lr, total)
        parts: dict[str, Any] = {
            "program": program,
            "critic": critic,
            "optimizer": generator_optimizer,
            "critic_optimizer": critic_optimizer,
        }
        label = f"gan {type(program).__name__}"
        loop = Loop(run, schedule, parts, label, step, scalars, batches=self.critic_steps)
        program.train()
        critic.train()
        history = loop.train()
        program.eval()
        critic.eval()
        rows = torch.randperm(run.train.size)[:1000].to(run.train.x.device)
        seen = run.train.rows(rows)
        fake = program.generate(seen.size, seen.context)
        end = {name: float(value) for name, value in _position(game, critic, seen, fake).items()}
        info: dict[str, Any] = {
            **end,
            "collapsed": end["diversity"] < self.COLLAPSED,
            "saturated": end["critic_accuracy"] > self.SATURATED,
        }
        return Outcome(
            history=history,
            gradient_evaluations=loop.done * (1 + self.critic_steps),
            info=info,
            modules={"critic": critic},
        )


def _given(critic: nn.Module, context: Tensor | None) -> CriticFn:
    return critic if context is None else lambda x: critic(x, context)


@torch.no_grad()
def _position(game: Game, critic: nn.Module, batch: Data, fake: Tensor) -> dict[str, Tensor]:
    """Where the game stands: the critic's outputs on data and samples, and how diverse the samples are."""
    judge = _given(critic, batch.context)
    real_logits, fake_logits = judge(batch.x), judge(fake)
    right = (real_logits > 0).to(fake).mean() + (fake_logits <= 0).to(fake).mean()
    return {
        "real_logit": real_logits.mean(),
        "fake_logit": fake_logits.mean(),
        "critic_accuracy": right / 2,
        "divergence": game.divergence(real_logits, fake_logits),
        "diversity": diversity(fake, batch.x),
    }
