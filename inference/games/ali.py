"""Adversarially learned inference: a program and its guide against one critic of pairs (example, latents).

Dumoulin et al., "Adversarially learned inference", ICLR 2017; Donahue, Krahenbuhl & Darrell, "Adversarial feature
learning", ICLR 2017. For p_D(x) q(z | x) on one side and p(z) p(x | z) on the other the best critic is the log ratio of
the two joint densities; where it is zero the program fits the data *and* the guide is its posterior. Neither density is
ever evaluated. With the program held fixed this is joint-contrastive inference (Huszar, "Variational inference using
implicit distributions", 2017) in the game's own divergence; `inference.games.avb` has that of KL.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import pyro
import torch
from pyro import poutine
from torch import Tensor, nn

from inference.games.game import GUIDES, Adversarial, Contest, Sides, check_guide, moved_together
from inference.games.losses import CriticFn
from inference.guides.named import build_guide
from inference.particles import simulate
from inference.requirements import why_no_draws, why_no_dreams, why_not_local
from zoo.datasets.data import Data
from zoo.nets import mlp
from zoo.options import NonNegative
from zoo.program import Program, Site

__all__ = ["ALIGame", "PairCritic", "SuggestsJointCritic"]


@runtime_checkable
class SuggestsJointCritic(Protocol):
    """A program that says which critic of pairs goes with it."""

    def joint_critic(self) -> nn.Module:
        """A fresh critic: x (B, *event_shape), the local latents side by side (B, k) -> logits (B,)."""
        ...


@dataclass(frozen=True, kw_only=True)
class ALIGame(Adversarial):
    """Fits a program and its guide by a game over pairs of an example and its latents.

    Takes any program whose latents belong to the examples and are continuous, and whose x and guide are
    reparameterised. What the guide comes to is not its best ELBO: the game's divergence is between joint
    distributions, and a Gaussian guide covers it as it can.

    Args:
        guide: 'own', or 'implicit' for noise through a network (`inference.guides.implicit`).
        train_program: False fits the guide alone to the program as it is.
        cycle: Weight of the squared error of x drawn from the program at the guide's latents, in units of the data's
            variance (0 is ALI). The game alone leaves open which x a z belongs to wherever the critic is not perfect;
            this binds them (ALICE: Li et al., "Towards understanding adversarial learning for joint distribution
            matching", 2017, section 3.2), at the price of a pull towards smoother x. `reconstruction` in the history.
        critic: A module (x (B, *event_shape), z (B, k)) -> (B,), called with the context third if there is one; None
            takes the program's suggestion, or else `PairCritic`.
        The others: see `Adversarial`.
    """

    name: ClassVar[str] = "ali"

    guide: str = "own"
    train_program: bool = True
    cycle: NonNegative = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_guide(self.guide)

    def why_not(self, program: Program) -> str | None:
        """Continuous local latents, all of them guided; x and latents differentiable in what made them."""
        reason = why_not_local(program) or why_no_dreams(program)
        if reason is None and self.train_program:
            with torch.random.fork_rng(devices=[]), torch.no_grad(), pyro.validation_enabled(False):
                made = poutine.trace(program.model).get_trace(None, program.example_context(2), 2)
            if not made.nodes["x"]["fn"].has_rsample:
                reason = "its x is not reparameterised; with train_program=False the guide alone can be fitted"
        return why_no_draws(program) if reason is None and self.guide == "own" else reason

    def contest(self, program: Program, data: Data) -> Contest:
        """Pairs of data and guide against pairs of the program."""
        spec = GUIDES[self.guide]
        guide = build_guide(spec, program, data)
        sites = program.sites()
        critic = self.critic
        if critic is None:
            suggested = isinstance(program, SuggestsJointCritic)
            critic = program.joint_critic() if suggested else PairCritic(data, _width(sites))
        parameters = moved_together(program, guide, data, self.train_program)
        weight = self.cycle / float(data.x.var(0, correction=0).mean().clamp(min=1e-12)) if self.cycle else 0.0
        return _Pairs(
            program,
            guide,
            spec,
            critic=critic,
            parameters=parameters,
            sites=sites,
            train_program=self.train_program,
            cycle=weight,
        )


class PairCritic(nn.Module):
    """A multilayer perceptron on standardised x, context and latents, for programs that suggest none.

    Args:
        data: Its means and standard deviations standardise x and the context.
        latents: Numbers of all latents together.
        hidden: Units of each hidden layer.

    Shapes: x (B, *event_shape), z (B, latents), context (B, ...) -> logits (B,).
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, data: Data, latents: int, hidden: Sequence[int] = (128, 128)):
        super().__init__()
        seen = _rows(data.x, data.context)
        scale = seen.std(0, correction=0)
        self.register_buffer("loc", seen.mean(0))
        self.register_buffer("scale", torch.where(scale > 0, scale, torch.ones_like(scale)))
        self.net = mlp(seen.shape[1] + latents, hidden, 1, "leaky_relu")

    def forward(self, x: Tensor, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Logits."""
        return self.net(torch.cat([(_rows(x, context) - self.loc) / self.scale, z], -1)).squeeze(-1)


class _Pairs(Contest):
    two_sided = True

    def __init__(
        self,
        program: Program,
        guide: Callable[..., Any],
        spec: dict[str, Any],
        critic: nn.Module,
        parameters: Sequence[nn.Parameter],
        sites: Mapping[str, Site],
        train_program: bool,
        cycle: float,
    ):
        self.cycle = cycle
        self.program, self.guide, self.guide_spec = program, guide, spec
        self.critic, self.parameters, self.names, self.train_program = critic, parameters, sorted(sites), train_program

    def sides(self, batch: Data, *, makers: bool) -> Sides:
        inferred = poutine.trace(self.guide).get_trace(*batch, None)
        with nullcontext() if self.train_program else torch.no_grad():
            made = simulate(self.program, batch.size, batch.context)
        latents = {name: inferred.nodes[name]["value"] for name in self.names}
        x = made.x.to(batch.x)
        real, fake = self._pack(batch.x, latents), self._pack(x, made.latents)
        if not (makers and self.cycle):
            return Sides(real, fake, shown=(batch.x, x))
        again = poutine.condition(self.program.model, data=latents)(None, batch.context, batch.size)
        error = (again - batch.x).square().mean()
        return Sides(real, fake, self.cycle * error, metrics={"reconstruction": error}, shown=(batch.x, x))

    def judge(self, batch: Data) -> CriticFn:
        width = batch.x[0].numel()

        def logits(pairs: Tensor) -> Tensor:
            x, z = pairs[:, :width].unflatten(1, batch.x.shape[1:] or (1,)), pairs[:, width:]
            x = x if batch.x.ndim > 1 else x[:, 0]
            return self.critic(x, z) if batch.context is None else self.critic(x, z, batch.context)

        return logits

    def _pack(self, x: Tensor, latents: Mapping[str, Tensor]) -> Tensor:
        return _rows(x, *(latents[name] for name in self.names))


def _rows(*parts: Tensor | None) -> Tensor:
    """What belongs to each example in one row, (B, F)."""
    return torch.cat([part.reshape(len(part), -1) for part in parts if part is not None], 1)


def _width(sites: Mapping[str, Site]) -> int:
    return sum(site.event_shape.numel() for site in sites.values())
