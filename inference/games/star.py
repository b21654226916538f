"""A game of attributes: a translator changes them at will, against a critic that reads them and tells real images.

Choi et al., "StarGAN: unified generative adversarial networks for multi-domain image-to-image translation", CVPR 2018.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from pyro import poutine
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from inference.games.game import Adversarial, Contest, Sides
from inference.games.losses import CriticFn, Game
from inference.games.regularisers import Regulariser
from zoo.datasets.data import Data
from zoo.options import Count, NonNegative
from zoo.program import ImplicitProgram, Program

__all__ = ["ReadsAttributes", "StarGame"]


@runtime_checkable
class ReadsAttributes(Protocol):
    """A critic that tells the attributes of an image besides."""

    def attributes(self, x: Tensor) -> Tensor:
        """(B, *event_shape) -> logits (B, K)."""
        ...


@dataclass(frozen=True, kw_only=True)
class StarGame(Adversarial):
    """Fits a program that gives a source image the attributes of its context.

    A minibatch holds images x with their attributes a. The attributes that are asked for, c, are those of the other
    images of the minibatch, in random order. With g(s, c) the program given its one latent, the source s, and d its
    `distance`, the program minimises

        the game's loss of g(x, c)  +  classification  H(c, r(g(x, c)))  +  reconstruction  d(g(g(x, c), a), x)

    and the critic the game's loss + classification H(a, r(x)): it learns to read attributes from real images alone.
    r are the attributes that it reads, H the cross-entropy of each, summed over them (in nats; `classification` in the
    history, as `reconstruction` the distance).

    Args:
        classification: Weight of H.
        reconstruction: Weight of d.
        identity: Weight of d(g(x, a), x), what is changed in an image that has the attributes already. The paper has
            none (CycleGAN has); without it nothing but the network's own bias keeps what an image shows, since whatever
            it becomes need only lead back.
        critic: A module (B, *event_shape) -> (B,) or (B, patches), with a method `attributes` -> logits (B, K); None
            takes the program's suggestion.
        The others: see `Adversarial`. The defaults are the paper's game, Wasserstein with gradient penalty.
    """

    name: ClassVar[str] = "star"

    game: str | Mapping[str, Any] | Game = "wasserstein"
    regulariser: str | Mapping[str, Any] | Regulariser | None = "gradient-penalty"
    classification: NonNegative = 1.0
    reconstruction: NonNegative = 10.0
    identity: NonNegative = 0.0
    critic_steps: Count = 5

    def why_not(self, program: Program) -> str | None:
        """Implicit programs of a single latent, an image like x, with attributes as context."""
        if not isinstance(program, ImplicitProgram):
            return "it has a density, and the game is for implicit programs"
        row = program.row_of_context()
        if row is None or len(row) != 1 or [s.event_shape for s in program.sites().values()] != [program.event_shape]:
            return "it does not change attributes: contexts are rows of them, and the one latent has the shape of x"
        if self.critic is None and type(program).critic is ImplicitProgram.critic:
            return "it suggests no critic; define critic() or pass one (critic=...)"
        critic = self.critic if self.critic is not None else program.critic()
        if not isinstance(critic, ReadsAttributes):
            return f"its critic, a {type(critic).__name__}, has no attributes(x) that reads them"
        return None

    def contest(self, program: Program, data: Data) -> Contest:
        """Images as they are against the same with other attributes."""
        assert isinstance(program, ImplicitProgram)
        return _Attributes(self, program, self.critic if self.critic is not None else program.critic())


class _Attributes(Contest):
    def __init__(self, method: StarGame, program: ImplicitProgram, critic: nn.Module):
        self.method, self.program, self.critic = method, program, critic
        self.parameters = [p for p in program.parameters() if p.requires_grad]
        if program.has_guide:
            self.guide, self.guide_spec = program.guide, {"kind": "own"}
        (self.latent,) = program.sites()

    def sides(self, batch: Data, *, makers: bool) -> Sides:
        x, mine = batch.x, batch.context
        assert mine is not None
        asked = mine[torch.randperm(len(x), device=x.device)]
        made = self.changed(x, asked)
        if not makers:
            return Sides(x, made)
        metrics = {
            "classification": self._misread(made, asked),
            "reconstruction": self.program.distance(self.changed(made, mine), x).mean(),
        }
        if self.method.identity:
            metrics["identity"] = self.program.distance(self.changed(x, mine), x).mean()
        loss = torch.stack([getattr(self.method, name) * value for name, value in metrics.items()]).sum()
        return Sides(x, made, loss=loss, metrics=metrics)

    def critic_loss(self, sides: Sides, batch: Data) -> Tensor | None:
        assert batch.context is not None
        return self.method.classification * self._misread(sides.real, batch.context)

    def judge(self, batch: Data) -> CriticFn:
        return self.critic

    def changed(self, image: Tensor, to: Tensor) -> Tensor:
        """What the program makes of images as its latent."""
        return poutine.condition(self.program.model, data={self.latent: image})(None, to, len(image))

    def _misread(self, image: Tensor, wanted: Tensor) -> Tensor:
        critic: Any = self.critic
        lost = binary_cross_entropy_with_logits(critic.attributes(image), wanted, reduction="none")
        return lost.sum(1).mean()
