"""The generative adversarial network's method: an implicit program against a critic of its samples.

Goodfellow et al., "Generative adversarial nets", NeurIPS 2014; with codes to be recovered: Chen et al., "InfoGAN",
NeurIPS 2016.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from pyro import poutine
from torch import Tensor, nn

from inference.guides import guided_sites
from inference.players import Adversarial, Contest, Sides
from zoo.datasets.data import Data
from zoo.errors import OptionError, UnknownNameError
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
        information: Weight of that bound; or site -> weight, 1 for a code that it does not name (the paper weighs
            continuous codes less, whose information a generator without noise could make as large as it likes).
        critic: A module (B, *event_shape) -> (B,), called with the context too if there is one; None takes the
            program's suggestion.
        The others: see `Adversarial`.
    """

    name: ClassVar[str] = "gan"

    information: float | Mapping[str, float] = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        weights = self.information.values() if isinstance(self.information, Mapping) else [self.information]
        if any(weight < 0 for weight in weights):
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
        return _Images(program, critic, self._weights(program, data))

    def _weights(self, program: Program, data: Data) -> dict[str, float]:
        """Weight of each code; none of those without any."""
        if self.information == 0:
            return {}
        codes = sorted(guided_sites(program.guide, data))
        if not isinstance(self.information, Mapping):
            return dict.fromkeys(codes, self.information)
        for name in self.information:
            if name not in codes:
                raise UnknownNameError("code in information", name, codes)
        found = {name: self.information.get(name, 1.0) for name in codes}
        return {name: weight for name, weight in found.items() if weight > 0}


class _Images(Contest):
    def __init__(self, program: Program, critic: nn.Module, weights: dict[str, float]):
        self.program, self.critic, self.weights = program, critic, weights
        self.parameters = [p for p in program.parameters() if p.requires_grad]
        if weights:
            self.guide, self.guide_spec = program.guide, {"kind": "own"}

    def sides(self, batch: Data, *, makers: bool) -> Sides:
        if not (makers and self.weights):
            return Sides(batch.x, self.program.model(None, batch.context, batch.size))
        dream = poutine.trace(self.program.model).get_trace(None, batch.context, batch.size)
        fake = dream.nodes["x"]["value"]
        bounds = self._information(dream, fake, batch.context)
        weighted = sum((self.weights[name] * bound for name, bound in bounds.items()), fake.new_zeros(()))
        return Sides(batch.x, fake, -weighted, {"information": sum(bounds.values(), fake.new_zeros(()))})

    def _information(self, dream: poutine.Trace, fake: Tensor, context: Tensor | None) -> dict[str, Tensor]:
        """log q(c | x) - log p(c) of each code, averaged over the batch."""
        codes = {name: dream.nodes[name]["value"] for name in self.weights}
        guided = poutine.trace(poutine.condition(self.program.guide, data=codes)).get_trace(fake, context, None)
        bounds = {}
        for name, code in codes.items():
            log_q, log_p = guided.nodes[name]["fn"].log_prob(code), dream.nodes[name]["fn"].log_prob(code)
            bounds[name] = (log_q - log_p).mean()
        return bounds
