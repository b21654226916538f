"""The game of captions: a critic to whom a true image of another caption is as wrong as a made one.

Reed, Akata, Yan, Logeswaran, Schiele & Lee, "Generative adversarial text to image synthesis", ICML 2016: GAN-CLS
(algorithm 1), whose critic must match images and captions, and GAN-INT (section 4.3), whose generator learns from codes
between two captions, which nobody wrote. Both together are what the paper calls GAN-INT-CLS.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from pyro import poutine
from torch import Tensor, nn

from inference.games.game import Adversarial, Contest, Sides
from inference.games.losses import CriticFn
from zoo.datasets.data import Data
from zoo.program import ImplicitProgram, Program

__all__ = ["CaptionGame", "EncodesContexts"]

BETWEEN = 0.5
"""Where a code between two others lies, as in the paper."""


@runtime_checkable
class EncodesContexts(Protocol):
    """A program whose latent site `code` is what it makes of the context, and a critic of images and codes."""

    def encode(self, context: Tensor) -> Tensor:
        """Contexts (B, ...) as codes (B, E)."""
        ...

    def code_critic(self) -> nn.Module:
        """A fresh critic: x (B, *event_shape), codes (B, E) -> logits (B,)."""
        ...


@dataclass(frozen=True, kw_only=True)
class CaptionGame(Adversarial):
    """Fits an implicit program that encodes its contexts to images and their captions.

    At the end `critic_accuracy` and `divergence` count images with captions of others among the fake ones.

    Args:
        mismatched: Half of what the critic is told to be wrong are true images with the caption of another row.
        interpolated: Half of what the generator makes are images of codes halfway between those of two rows.
        critic: A module (x (B, *event_shape), codes (B, E)) -> (B,); None takes the program's suggestion.
        The others: see `Adversarial`.
    """

    name: ClassVar[str] = "gan-cls"

    mismatched: bool = True
    interpolated: bool = True

    def why_not(self, program: Program) -> str | None:
        """Only programs that encode their contexts."""
        if not isinstance(program, ImplicitProgram) or not isinstance(program, EncodesContexts):
            return "it encodes no contexts: it must have encode(context), code_critic() and a latent site 'code'"
        return None

    def contest(self, program: Program, data: Data) -> Contest:
        """Images with their codes against others of both."""
        assert isinstance(program, EncodesContexts)
        return _Captioned(self, program, self.critic if self.critic is not None else program.code_critic())


class _Captioned(Contest):
    def __init__(self, method: CaptionGame, program: Program, critic: nn.Module):
        self.method, self.program, self.critic = method, program, critic
        self.parameters = [p for p in program.parameters() if p.requires_grad]

    def sides(self, batch: Data, *, makers: bool) -> Sides:
        assert isinstance(self.program, EncodesContexts)
        with torch.no_grad():  # the encoder stays as it is
            code = self.program.encode(batch.context)
        if makers and self.method.interpolated:
            between = BETWEEN * code + (1 - BETWEEN) * code.roll(1, 0)
            asked, contexts = torch.cat([code, between]), torch.cat([batch.context, batch.context])
        else:
            asked, contexts = code, batch.context
        made = poutine.condition(self.program.model, data={"code": asked})(None, contexts, len(asked))
        fake = _pack(made, asked)
        if self.method.mismatched and not makers:
            other = batch.context.roll(1, 0)
            # Where the neighbour has the same caption there is nothing wrong: a made image stands there instead.
            same = (other == batch.context).flatten(1).all(1)[:, None]
            fake = torch.cat([fake, torch.where(same, fake, _pack(batch.x, code.roll(1, 0)))])
        return Sides(_pack(batch.x, code), fake, shown=(batch.x, made[: batch.size]))

    def judge(self, batch: Data) -> CriticFn:
        shape = batch.x.shape[1:]

        def logits(pairs: Tensor) -> Tensor:
            x, code = pairs.split([shape.numel(), pairs.shape[1] - shape.numel()], 1)
            return self.critic(x.unflatten(1, shape), code)

        return logits


def _pack(x: Tensor, code: Tensor) -> Tensor:
    """An image and its code in one row, (B, F)."""
    return torch.cat([x.flatten(1), code], 1)
