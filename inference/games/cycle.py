"""Two games at once and no pairs: a program and its guide translate into each other, and undo what the other did.

Zhu, Park, Isola & Efros, "Unpaired image-to-image translation using cycle-consistent adversarial networks", ICCV 2017;
the pool of earlier samples after Shrivastava et al., "Learning from simulated and unsupervised images through
adversarial training", CVPR 2017. The program makes x of a source image, its guide a source image of x. Each is judged
by a critic of its own against real images of its kind; each must find again what the other was given; and what is of
its kind already it should leave as it is.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from pyro import poutine
from torch import Tensor, nn

from inference.games.game import Adversarial, Contest, Sides
from inference.games.losses import CriticFn, Game
from zoo.datasets.data import Data
from zoo.options import Natural, NonNegative
from zoo.program import ImplicitProgram, Program

__all__ = ["CycleGame", "Pool"]


@dataclass(frozen=True, kw_only=True)
class CycleGame(Adversarial):
    """Fits a program that makes x of a source image, and the guide that goes back, to images of both kinds.

    The rows of x and of the context, the source images, need not belong together: no term compares them. With f the
    guide, g the program and d the program's `distance`, what both minimise is the mean over the two kinds of

        the game's loss  +  cycle  d(g(f(x)), x)  +  identity  d(g(x), x)

    and of the same with the roles exchanged; `cycle` and `identity` in the history are the distances. With the
    least-squares game, whose loss is halved here, and images from 0 to 1 instead of -1 to 1, the weights are those of
    the paper.

    Args:
        cycle: Weight of what is lost by going there and back.
        identity: Weight of what is changed in an image that is of the kind already (the paper's half of `cycle`).
        pool: Samples of earlier steps that are kept for the critics, of each kind: half of what they see comes from
            there, so that the players do not chase each other in circles. 0 for none.
        critic: A module (B, *event_shape) -> (B,) or (B, patches) that judges x, and a copy of it the source images;
            None takes two of the program's suggestion.
        The others: see `Adversarial`.
    """

    name: ClassVar[str] = "cycle"

    game: str | Game = "least-squares"
    cycle: NonNegative = 10.0
    identity: NonNegative = 5.0
    pool: Natural = 50

    def why_not(self, program: Program) -> str | None:
        """Implicit programs of a single latent, the source image, that the guide makes of x."""
        if not isinstance(program, ImplicitProgram):
            return "it has a density, and the game is for implicit programs"
        shapes = [site.event_shape for site in program.sites().values()]
        if not program.has_guide or shapes != [program.event_shape] or program.row_of_context() != program.event_shape:
            return (
                "it does not translate both ways: x, the context and the one latent of model and guide have one shape"
            )
        if self.critic is None and type(program).critic is ImplicitProgram.critic:
            return "it suggests no critic; define critic() or pass one (critic=...)"
        return None

    def contest(self, program: Program, data: Data) -> Contest:
        """Images of both kinds against what is made of the other kind."""
        assert isinstance(program, ImplicitProgram)
        if self.critic is None:
            critics = (program.critic(), program.critic())
        else:
            critics = (self.critic, copy.deepcopy(self.critic))
        return _BothWays(self, program, _Judges(critics, Pool(self.pool, data.x), Pool(self.pool, data.x)))


class Pool(nn.Module):
    """Up to `size` earlier samples, in buffers so that checkpoints have them: (B, ...) -> (B, ...).

    In training, and once it is full, each sample is with probability 1/2 exchanged for a random one of the pool, which
    it replaces. In evaluation samples pass.

    Args:
        size: How many are kept.
        like: Examples (N, ...) of which samples have the shape.
    """

    images: Tensor
    count: Tensor

    def __init__(self, size: int, like: Tensor):
        super().__init__()
        self.register_buffer("images", like.new_zeros(size, *like.shape[1:]))
        self.register_buffer("count", torch.tensor(0))

    @torch.no_grad()
    def forward(self, made: Tensor) -> Tensor:
        """What the critic is shown of what was made."""
        if not self.training or len(self.images) == 0:
            return made
        return torch.cat([self._exchanged(part) for part in made.split(len(self.images))])

    def _exchanged(self, made: Tensor) -> Tensor:
        """No more than the pool holds, each against a slot of its own; without a branch on values, so that it compiles.

        Free slots come first, in their order, and take their sample without giving one.
        """
        size = len(self.images)
        order = torch.arange(size, device=made.device)
        random = torch.rand(size, device=made.device)
        slots = torch.where(order < self.count, 1 + random, order / size).argsort()[: len(made)]
        free = slots >= self.count
        swap = ~free & (torch.rand(len(made), device=made.device) < 0.5)
        old = self.images[slots]
        self.images[slots] = torch.where(_over(free | swap, made), made, old)
        self.count.copy_((self.count + len(made)).clamp(max=size))
        return torch.where(_over(swap, made), old, made)


def _over(rows: Tensor, like: Tensor) -> Tensor:
    return rows.reshape(-1, *[1] * (like.ndim - 1))


class _Judges(nn.Module):
    """The critic of x and that of source images, on x and sources one below the other; and what they remember."""

    def __init__(self, critics: Sequence[nn.Module], made: Pool, found: Pool):
        super().__init__()
        self.of_x, self.of_source = critics
        self.made, self.found = made, found

    def forward(self, both: Tensor) -> Tensor:
        x, source = both.chunk(2)
        return torch.cat([self.of_x(x), self.of_source(source)])


class _BothWays(Contest):
    critic: _Judges

    def __init__(self, method: CycleGame, program: ImplicitProgram, judges: _Judges):
        self.method, self.program, self.critic = method, program, judges
        self.parameters = [p for p in program.parameters() if p.requires_grad]
        self.guide, self.guide_spec = program.guide, {"kind": "own"}
        (self.latent,) = program.sites()

    def sides(self, batch: Data, *, makers: bool) -> Sides:
        x, source = batch.x, batch.context
        assert source is not None
        real = torch.cat([x, source])
        if not makers:
            return Sides(real, torch.cat([self.critic.made(self.to_x(source)), self.critic.found(self.to_source(x))]))
        made, found = self.to_x(source), self.to_source(x)
        distances = {}
        if self.method.cycle:
            distances["cycle"] = self._distance(self.to_x(found), x, self.to_source(made), source)
        if self.method.identity:
            distances["identity"] = self._distance(self.to_x(x), x, self.to_source(source), source)
        losses = [getattr(self.method, name) * distance for name, distance in distances.items()]
        return Sides(real, torch.cat([made, found]), torch.stack(losses).sum() if losses else None, metrics=distances)

    def judge(self, batch: Data) -> CriticFn:
        return self.critic

    def to_x(self, source: Tensor) -> Tensor:
        """What the program makes of source images."""
        return self.program.model(None, source, len(source))

    def to_source(self, x: Tensor) -> Tensor:
        """What the guide makes of x."""
        return poutine.trace(self.program.guide).get_trace(x, None, None).nodes[self.latent]["value"]

    def _distance(self, made: Tensor, x: Tensor, found: Tensor, source: Tensor) -> Tensor:
        return (self.program.distance(made, x).mean() + self.program.distance(found, source).mean()) / 2
