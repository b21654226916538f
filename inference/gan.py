"""The generative adversarial network's method: an implicit program against a critic of its samples.

Goodfellow et al., "Generative adversarial nets", NeurIPS 2014; with codes to be recovered: Chen et al., "InfoGAN",
NeurIPS 2016.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from pyro import poutine
from torch import Tensor, nn

from inference.guides import guided_sites
from inference.players import Adversarial, Contest, Sides
from zoo.datasets.data import Data
from zoo.errors import OptionError
from zoo.program import ImplicitProgram, Program

__all__ = ["GANGame"]


@dataclass(frozen=True)
class GANGame(Adversarial):
    """Fits an implicit program by playing against a critic of its samples.

    Where the program has a guide over some of its latents, its codes, the guide learns from samples to tell their
    codes, and the generator to make them tellable: both ascend

        E_p(c, x)[log q(c | x) - log p(c)]  <=  I(c; x),

    the evidence bound of the sleep phase (codes and images both dreamt) and InfoGAN's bound on the mutual information.
    It is `information` in the history, in nats.

    Args:
        information: Weight of that bound.
        critic: A module (B, *event_shape) -> (B,), called with the context too if there is one; None takes the
            program's suggestion.
        The others: see `Adversarial`.
    """

    name: ClassVar[str] = "gan"

    information: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.information < 0:
            raise OptionError(f"information must not be negative, got {self.information}.")

    def why_not(self, program: Program) -> str | None:
        """Only implicit programs: where there is a density, the likelihood does better."""
        if not isinstance(program, ImplicitProgram):
            return "it has a density, and the GAN game is for implicit programs"
        if self.critic is None and type(program).critic is ImplicitProgram.critic:
            return "it suggests no critic; define critic() or pass one (critic=...)"
        return None

    def contest(self, program: Program, data: Data) -> Contest:
        """Images against images."""
        assert isinstance(program, ImplicitProgram)
        critic = self.critic if self.critic is not None else program.critic()
        codes = guided_sites(program.guide, data) if self.information else set()
        return _Images(program, critic, codes, self.information)


class _Images(Contest):
    def __init__(self, program: Program, critic: nn.Module, codes: set[str], weight: float):
        self.program, self.critic, self.codes, self.weight = program, critic, codes, weight
        self.parameters = [p for p in program.parameters() if p.requires_grad]
        if codes:
            self.guide, self.guide_spec = program.guide, {"kind": "own"}

    def sides(self, batch: Data, *, makers: bool) -> Sides:
        if not (makers and self.codes):
            return Sides(batch.x, self.program.model(None, batch.context, batch.size))
        dream = poutine.trace(self.program.model).get_trace(None, batch.context, batch.size)
        fake = dream.nodes["x"]["value"]
        bound = self._information(dream, fake, batch.context) / batch.size
        return Sides(batch.x, fake, -self.weight * bound, {"information": bound})

    def _information(self, dream: poutine.Trace, fake: Tensor, context: Tensor | None) -> Tensor:
        """log q(c | x) - log p(c), summed over the batch."""
        codes = {name: dream.nodes[name]["value"] for name in self.codes}
        guided = poutine.trace(poutine.condition(self.program.guide, data=codes)).get_trace(fake, context, None)
        log_ratio = torch.zeros((), dtype=fake.dtype, device=fake.device)
        for name, code in codes.items():
            log_q, log_p = guided.nodes[name]["fn"].log_prob(code), dream.nodes[name]["fn"].log_prob(code)
            log_ratio = log_ratio + (log_q - log_p).sum()
        return log_ratio
