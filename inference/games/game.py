"""Two players: whoever makes samples, by alternating steps with a critic that tells them from the real thing.

What the adversarial methods share: optimizers, steps, averaged weights, and the watch over a game that may collapse.
A method says in a `Contest` what the critic compares: images (`inference.games.gan`), pairs of image and latents
(`inference.games.ali`), latents (`inference.games.aae`). The losses are the game's (`inference.games.losses`), what
bounds the critic's slope is the regulariser's (`inference.games.regularisers`).
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from inference.games.losses import CriticFn, Game, make_game
from inference.games.regularisers import Regulariser, check_pair, make_regulariser, saturates
from inference.guides.named import guide_parameters
from inference.method import Outcome, Run
from inference.particles import Simulated
from inference.training.gradient import GradientMethod, Training
from inference.training.loop import Loop, Schedule
from inference.training.optimizers import adam, descend
from zoo.datasets.data import Data
from zoo.errors import UnknownNameError
from zoo.options import Count, Length, Positive, Probability, Share
from zoo.program import Program

__all__ = [
    "GUIDES",
    "Adversarial",
    "Average",
    "CollapseNotice",
    "Contest",
    "Sides",
    "check_guide",
    "diversity",
    "moved_together",
]


class CollapseNotice(UserWarning):
    """Says that a game ended badly: samples all alike, or a critic that is sure of everything."""


@dataclass(frozen=True)
class Sides:
    """What a critic compares: `real` and `fake` (B, ...) each, and what the makers of samples minimise besides, ().

    `shown` is (data, samples) of which the diversity is watched; None is (real, fake). `made` is what the program
    simulated for the fake side, for contests that need to know.
    """

    real: Tensor
    fake: Tensor
    loss: Tensor | None = None
    metrics: Mapping[str, Tensor] = field(default_factory=dict)
    shown: tuple[Tensor, Tensor] | None = None
    made: Simulated | None = None


class Contest(ABC):
    """Who plays and for what; built by a method for one program and one data set.

    Attributes:
        critic: The critic's network.
        parameters: What the other player moves.
        guide: The guide that comes out, and `guide_spec` as in `Outcome`; None if there is none.
        two_sided: Whether the real side is made too (by a guide), so that its maker has a loss of its own.
        grows: Whether the players' networks depend on how much of the run is done.
        weight: Of the game in what the makers of samples minimise; 0 leaves `Sides.loss` alone.
    """

    critic: nn.Module
    parameters: Sequence[nn.Parameter]
    guide: Callable[..., Any] | None = None
    guide_spec: dict[str, Any] | None = None
    two_sided: ClassVar[bool] = False
    weight: float = 1.0
    grows: bool = False

    def grow(self, share: float) -> None:  # noqa: B027 (nothing by default)
        """Called before each step, where `grows`, with the share of the run that is done; at the end with 1."""

    def fresh(self, batch: Data) -> Data:
        """A minibatch as one turn sees it, with what is drawn anew each time; by default as it is."""
        return batch

    @abstractmethod
    def sides(self, batch: Data, *, makers: bool) -> Sides:
        """Draws both sides for a minibatch; `makers`: with the rest of their loss, else (the critic's turn) without."""

    def critic_parameters(self) -> list[nn.Parameter]:
        """What the critic's optimizer moves, once a regulariser has prepared the critic."""
        return list(self.critic.parameters())

    def critic_loss(self, sides: Sides, batch: Data) -> Tensor | None:
        """What that optimizer minimises besides the game, (), or None: of a guide that shares the critic's layers."""
        return None

    def judge(self, batch: Data) -> CriticFn:
        """The critic as a function of one side; contexts, if any, are those of the batch."""
        context = batch.context
        return self.critic if context is None else lambda x: self.critic(x, context)


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


class Average(nn.Module):
    """An exponential moving average of tensors, kept in buffers so that checkpoints have it."""

    def __init__(self, tensors: Iterable[Tensor]):
        super().__init__()
        self.count = 0
        for tensor in tensors:
            self.register_buffer(f"value{self.count}", tensor.detach().clone())
            self.count += 1

    @torch.no_grad()
    def update(self, tensors: Iterable[Tensor], decay: float | Tensor) -> None:
        """average <- decay average + (1 - decay) tensor."""
        for value, tensor in zip(self.buffers(), tensors, strict=True):
            value.mul_(decay).add_(tensor.detach() * (1 - decay))

    @torch.no_grad()
    def copy_to(self, tensors: Iterable[Tensor]) -> None:
        """Sets the tensors to their averages."""
        for value, tensor in zip(self.buffers(), tensors, strict=True):
            tensor.copy_(value)


GUIDES: dict[str, dict[str, Any]] = {"own": {"kind": "own"}, "implicit": {"kind": "implicit", "options": {}}}
"""The guides that games over latents can fit, as specs of `inference.guides.named`: the program's, or noise in a
network."""


def check_guide(guide: str) -> None:
    """Raises UnknownNameError for a guide that is none of `GUIDES`."""
    if guide not in GUIDES:
        raise UnknownNameError("guide", guide, GUIDES)


def moved_together(program: Program, guide: Callable[..., Any], data: Data, train_program: bool) -> list[nn.Parameter]:
    """The guide's parameters and, with `train_program`, all of the program's; each once."""
    parameters = guide_parameters(guide, program, data)
    if train_program:
        parameters = [*program.parameters(), *parameters]
    return [p for p in dict.fromkeys(parameters) if p.requires_grad]


@dataclass(frozen=True, kw_only=True)
class Adversarial(GradientMethod):
    """Base of the methods that play a game against a critic, in alternating Adam steps.

    `Outcome.modules["critic"]` is the critic at the end. `Outcome.info` says how the game ended, on up to 1,000
    examples: `diversity` (see `diversity`), `critic_accuracy` (share of pairs of a real and a fake one that the critic
    orders rightly; 0.5 when it cannot tell), `divergence` (the game's estimate); `collapsed`, true when diversity <
    0.5: samples lie on average less than half as far apart as data; `saturated`, true when critic_accuracy > 0.99 in a
    game where such a critic gives no gradient. Either raises a `CollapseNotice`. Missing modes need not lower the
    diversity this far: look at samples too. The history has all of these over the run.

    Args:
        game: A key of `inference.games.losses.GAMES`, with options {'name': 'wasserstein', 'drift': 0.001}; a `Game`.
        regulariser: A key of `inference.games.regularisers.REGULARISERS`, with options {'name': 'clip', 'limit': 0.1};
            a `Regulariser`; or None.
        critic: The critic; None takes the one that the method or the program suggests.
        critic_steps: Critic steps to each step of the other player.
        critic_lr: Adam's learning rate for the critic; None is `lr`, that of the other player (else: two time scales,
            Heusel et al. 2017).
        betas: Adam's, of both.
        ema: Ends with an exponential moving average of the weights, of this decay (0.999, say); None with the last.
        lr, decay, steps, epochs, batch_size, checkpoint_seconds, compile, precision: See `GradientMethod`; a step is
            one of the other player. The default decay lets the players settle instead of orbiting.
    """

    takes_missing: ClassVar[bool] = False  # critics look at x
    NATS: ClassVar[frozenset[str]] = frozenset()
    COLLAPSED: ClassVar[float] = 0.5
    SATURATED: ClassVar[float] = 0.99

    game: str | Mapping[str, Any] | Game = "non-saturating"
    regulariser: str | Mapping[str, Any] | Regulariser | None = None
    critic: nn.Module | None = None
    critic_steps: Count = 1
    lr: Positive = 1e-3
    critic_lr: Positive | None = None
    betas: Annotated[Sequence[Share], Length(2)] = (0.5, 0.999)
    ema: Probability | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_pair(make_game(self.game), make_regulariser(self.regulariser))

    @abstractmethod
    def contest(self, program: Program, data: Data) -> Contest:
        """Builds the contest: critic, guide, who moves what."""

    def prepare(self, program: Program, run: Run) -> Training:
        """Sets up both players, ready to take steps."""
        match = _Match(self, program, self.contest(program, run.train), data=run.train)

        scalars = {"lr": self.rate(run), "critic_lr": self.rate(run, self.critic_lr)}
        if self.ema is not None:
            ema = self.ema
            # Short at first, so that the start of the run is soon forgotten.
            scalars["ema"] = lambda done: min(ema, (1 + done) / (10 + done))
        if match.contest.grows:
            total = Schedule.of(self).total_steps(run.train.size)
            scalars["share"] = lambda done: done / total
        loop = Loop(
            run, Schedule.of(self), match.parts, label=f"{self.name} {type(program).__name__}",
            step=match.step, scalars=scalars,
            batches=self.critic_steps,
        )  # fmt: skip
        if match.contest.grows:
            loop.compiling = "never"  # a step is another one as soon as the networks have grown

        def finish() -> Outcome:
            info = match.end(run.train)
            for what in ("collapsed", "saturated"):
                if info[what]:
                    warnings.warn(_advice(what, type(program).__name__, info), CollapseNotice, stacklevel=2)
            return Outcome(
                guide=match.contest.guide,
                guide_spec=match.contest.guide_spec,
                history=loop.history,
                gradient_evaluations=loop.done * (1 + self.critic_steps),
                info=info,
                modules={"critic": match.critic},
            )

        for player in match.players:
            player.train()
        return Training(loop, finish)


class _Match:
    """One game as it is played: the players with their optimizers, and the turns they take."""

    def __init__(self, method: Adversarial, program: Program, contest: Contest, data: Data):
        self.method, self.contest, self.size = method, contest, data.size
        self.game, self.regulariser = make_game(method.game), make_regulariser(method.regulariser)
        self.critic, self.parameters = contest.critic.to(data.x.device, data.x.dtype), list(contest.parameters)
        if self.regulariser is not None:
            self.regulariser.prepare(self.critic)
        betas = (float(method.betas[0]), float(method.betas[1]))
        self.optimizer = adam(self.parameters, method.lr, betas)
        self.critic_optimizer = adam(contest.critic_parameters(), method.critic_lr or method.lr, betas)
        self.averaged = [*self.parameters, *(b for b in program.buffers() if b.is_floating_point())]
        self.average = Average(self.averaged) if method.ema is not None else None
        parts = {
            "program": program,
            "critic": self.critic,
            "optimizer": self.optimizer,
            "critic_optimizer": self.critic_optimizer,
            "guide": contest.guide if isinstance(contest.guide, nn.Module) else None,
            "average": self.average,
        }
        self.parts: dict[str, Any] = {name: part for name, part in parts.items() if part is not None}
        self.players = [part for part in self.parts.values() if isinstance(part, nn.Module)]

    def step(self, batch: Data, now: Mapping[str, Any]) -> Mapping[str, Tensor]:
        """The critic's turns, then one of the other player."""
        if self.contest.grows:
            self.contest.grow(now["share"])
        # Each critic step has a minibatch of its own; the other player's is the last one.
        steps, full = self.method.critic_steps, self.size <= self.method.batch_size
        own = [batch] * steps if full else list(batch.batches(batch.size // steps))
        for seen in map(self.contest.fresh, own):
            critic_loss = self.critic_turn(seen, now["critic_lr"])
        judge = self.contest.judge(seen)
        loss, sides = self.maker_turn(seen, judge, now["lr"])
        if self.average is not None:
            self.average.update(self.averaged, now["ema"])
        return {
            "loss": loss.detach(),
            "critic_loss": critic_loss.detach(),
            **{name: value.detach() for name, value in sides.metrics.items()},
            **_position(self.game, judge, sides),
        }

    def critic_turn(self, batch: Data, lr: Any) -> Tensor:
        """One step of the critic on a minibatch; returns its loss in the game."""
        with torch.no_grad():
            sides = self.contest.sides(batch, makers=False)
        judge = self.contest.judge(batch)
        loss = self.game.critic_loss(judge, sides.real, sides.fake)
        penalty = None if self.regulariser is None else self.regulariser.penalty(judge, sides.real, sides.fake)
        besides = (penalty, self.contest.critic_loss(sides, batch))
        total = loss + sum(each for each in besides if each is not None)
        descend(self.critic_optimizer, total, lr)
        if self.regulariser is not None:
            self.regulariser.after_step(self.critic)
        return loss

    def maker_turn(self, batch: Data, judge: CriticFn, lr: Any) -> tuple[Tensor, Sides]:
        """One step of the other player; returns its loss in the game, and what it made."""
        sides = self.contest.sides(batch, makers=True)
        loss = self.game.generator_loss(judge, sides.real, sides.fake)
        if self.contest.two_sided:
            loss = loss + self.game.real_loss(judge, sides.real)
        whole = self.contest.weight * loss if self.contest.weight else None
        if sides.loss is not None:
            whole = sides.loss if whole is None else whole + sides.loss
        assert whole is not None
        descend(self.optimizer, whole, lr, inputs=self.parameters)
        return loss, sides

    def end(self, data: Data) -> dict[str, Any]:
        """Hands out the averaged weights, if any, and says how the game ended, on up to 1,000 examples."""
        if self.average is not None:
            self.average.copy_to(self.averaged)
        if self.contest.grows:
            self.contest.grow(1.0)
        for player in self.players:
            player.eval()
        seen = self.contest.fresh(data.rows(torch.randperm(data.size)[:1000].to(data.x.device)))
        with torch.no_grad():
            sides = self.contest.sides(seen, makers=False)
        end = {name: float(value) for name, value in _position(self.game, self.contest.judge(seen), sides).items()}
        can_saturate = self.contest.weight > 0 and saturates(self.game, self.regulariser)
        return {
            **end,
            "collapsed": end["diversity"] < self.method.COLLAPSED,
            "saturated": can_saturate and end["critic_accuracy"] > self.method.SATURATED,
        }


@torch.no_grad()
def _position(game: Game, judge: CriticFn, sides: Sides) -> dict[str, Tensor]:
    """Where the game stands: the critic's outputs on both sides, and how diverse the samples are."""
    real, fake = judge(sides.real), judge(sides.fake)
    difference = _by_example(real)[:, None] - _by_example(fake)
    right = (difference > 0).to(fake).mean() + (difference == 0).to(fake).mean() / 2
    data, samples = sides.shown if sides.shown is not None else (sides.real, sides.fake)
    return {
        "real_logit": real.mean(),
        "fake_logit": fake.mean(),
        "critic_accuracy": right,
        "divergence": game.divergence(real, fake),
        "diversity": diversity(samples, data),
    }


def _by_example(logits: Tensor) -> Tensor:
    """(B,), the mean of (B, patches)."""
    return logits.reshape(len(logits), -1).mean(1)


def _advice(what: str, program: str, info: Mapping[str, Any]) -> str:
    if what == "collapsed":
        return (
            f"The game of {program} collapsed: its samples lie {info['diversity']:.2f} times as far apart as the data. "
            "Try another seed, a lower lr, or a regulariser ('gradient-penalty', 'spectral-norm', 'r1')."
        )
    return (
        f"The critic of {program} is sure of {100 * info['critic_accuracy']:.1f}% of pairs, so its gradient says "
        "little. Lower critic_lr or critic_steps, or take a regulariser or a Wasserstein game."
    )
