"""The generative adversarial network's method: an implicit program against a critic of its samples.

Goodfellow et al., "Generative adversarial nets", NeurIPS 2014; with codes to be recovered: Chen et al., "InfoGAN",
NeurIPS 2016; with examples to be met: Isola et al., "Image-to-image translation with conditional adversarial networks",
CVPR 2017.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from pyro import poutine
from torch import Tensor, nn

from inference.games.game import Adversarial, Contest, Sides
from inference.guides.named import guide_parameters, guide_sites
from inference.particles import Simulated, simulate
from zoo.datasets.data import Data
from zoo.errors import OptionError, UnknownNameError
from zoo.implicit.translators import Augments
from zoo.options import NonNegative
from zoo.program import Grows, Implicit, ImplicitProgram, MakesContexts, Program

__all__ = ["GANGame"]


@dataclass(frozen=True, kw_only=True)
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
        reconstruction: Weight of `ImplicitProgram.distance` between what is made under a context and the example of
            that context, `reconstruction` in the history: what is made must then meet the example, and not only look
            like one. For programs with a context.
        adversarial: Weight of the game beside that: with 0 the program learns from the distance alone, and the critic
            only watches.
        critic: A module (B, *event_shape) -> (B,), or (B, patches), called with the context too if there is one; None
            takes the program's suggestion.
        The others: see `Adversarial`.
    """

    name: ClassVar[str] = "gan"
    NATS: ClassVar[frozenset[str]] = frozenset({"information"})

    information: NonNegative | Mapping[str, NonNegative] = 1.0
    reconstruction: NonNegative = 0.0
    adversarial: NonNegative = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.adversarial == 0 and self.reconstruction == 0:
            raise OptionError("adversarial=0 leaves nothing to learn from; give reconstruction a positive weight.")

    def why_not(self, program: Program) -> str | None:
        """Only implicit programs: where there is a density, the likelihood does better."""
        if not isinstance(program, ImplicitProgram):
            return "it has a density, and the GAN game is for implicit programs"
        if self.critic is None and type(program).critic is ImplicitProgram.critic:
            return "it suggests no critic; define critic() or pass one (critic=...)"
        if self.reconstruction and program.row_of_context() is None:
            return "it takes no context, so that no example is what it should have made; leave reconstruction out"
        return None

    def contest(self, program: Program, data: Data) -> Contest:
        """Images against images."""
        assert isinstance(program, ImplicitProgram)
        critic = self.critic if self.critic is not None else program.critic()
        if isinstance(program, Grows):
            self._check_growing(program, critic)
        weights = self._weights(program, data)
        guided = guide_parameters(program.guide, program, data) if weights else []
        contest = _Images(self, program, critic, weights=weights, guided=guided)
        if contest.shared and self.ema is not None:
            raise OptionError(
                f"The guide of {type(program).__name__} shares layers with the critic, whose weights are not averaged; "
                "leave ema out."
            )
        return contest

    def _check_growing(self, program: Program, critic: nn.Module) -> None:
        if self.compile in ("always", "traced"):
            raise OptionError(
                f"{type(program).__name__} grows during the fit, so that its steps cannot be compiled; got "
                f"compile={self.compile!r}: set it to 'never'."
            )
        if not callable(getattr(critic, "grow", None)):
            raise OptionError(
                f"{type(program).__name__} grows during the fit and its critic must too, got a "
                f"{type(critic).__name__} without grow(share); leave critic out, or give it that method."
            )

    def _weights(self, program: Program, data: Data) -> dict[str, float]:
        """Weight of each code; none of those without any, nor of latents without density, which are no codes."""
        if self.information == 0:
            return {}
        found = guide_sites(program.guide, data)
        codes = sorted(name for name, site in found.items() if not isinstance(site["fn"], Implicit))
        if not isinstance(self.information, Mapping):
            return dict.fromkeys(codes, self.information)
        for name in self.information:
            if name not in codes:
                raise UnknownNameError("code in information", name, codes)
        weights = {name: self.information.get(name, 1.0) for name in codes}
        return {name: weight for name, weight in weights.items() if weight > 0}


class _Images(Contest):
    def __init__(
        self,
        method: GANGame,
        program: ImplicitProgram,
        critic: nn.Module,
        weights: dict[str, float],
        guided: Sequence[nn.Parameter],
    ):
        self.program, self.critic, self.weights = program, critic, weights
        self.weight, self.reconstruction = method.adversarial, method.reconstruction
        mine, judges = [p for p in program.parameters() if p.requires_grad], {id(p) for p in critic.parameters()}
        # A guide that shares the critic's layers is trained with them, in the critic's turn (as the paper's code does):
        # the generator's loss must not move what judges it.
        self.shared = any(id(p) in judges for p in guided)
        moved = {id(p) for p in guided} if self.shared else set()
        self.parameters = [p for p in mine if id(p) not in moved]
        self.readers = [p for p in guided if id(p) not in judges] if self.shared else []
        self.grows = isinstance(program, Grows)
        if weights:
            self.guide, self.guide_spec = program.guide, {"kind": "own"}

    def grow(self, share: float) -> None:
        player: Any
        for player in (self.program, self.critic):
            player.grow(share)

    def critic_parameters(self) -> list[nn.Parameter]:
        return [*super().critic_parameters(), *self.readers]

    def critic_loss(self, sides: Sides, batch: Data) -> Tensor | None:
        if not self.shared:
            return None
        assert sides.made is not None
        return -self._weighted(self._information(sides.made, batch.context))

    def fresh(self, batch: Data) -> Data:
        if isinstance(self.program, Augments):
            return Data(*self.program.augmented(*batch))
        if not isinstance(self.program, MakesContexts):
            return batch
        return Data(batch.x, self.program.puzzles(batch.x))

    def sides(self, batch: Data, *, makers: bool) -> Sides:
        made = simulate(self.program, batch.size, batch.context)
        losses, metrics = [], {}
        if makers and self.weights:
            bounds = self._information(made, batch.context)
            metrics["information"] = sum(bounds.values(), made.x.new_zeros(()))
            losses.append(-self._weighted(bounds))
        if makers and self.reconstruction:
            metrics["reconstruction"] = self.program.distance(made.x, batch.x, batch.context).mean()
            losses.append(self.reconstruction * metrics["reconstruction"])
        real, fake = batch.x, made.x
        if isinstance(self.program, Grows):
            real, fake = self.program.at_size(real, made=False), self.program.at_size(fake, made=True)
        loss = torch.stack(losses).sum() if losses else None
        return Sides(real, fake, loss=loss, metrics=metrics, made=made)

    def _weighted(self, bounds: Mapping[str, Tensor]) -> Tensor:
        return torch.stack([self.weights[name] * bound for name, bound in bounds.items()]).sum()

    def _information(self, made: Simulated, context: Tensor | None) -> dict[str, Tensor]:
        """log q(c | x) - log p(c) of each code, averaged over the batch."""
        codes = {name: made.latents[name] for name in self.weights}
        guided = poutine.trace(poutine.condition(self.program.guide, data=codes)).get_trace(made.x, context, None)
        bounds = {}
        for name, code in codes.items():
            log_q, log_p = guided.nodes[name]["fn"].log_prob(code), made.trace.nodes[name]["fn"].log_prob(code)
            bounds[name] = (log_q - log_p).mean()
        return bounds
