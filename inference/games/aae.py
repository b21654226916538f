"""The adversarial autoencoder's method: a critic makes the guide's latents, over all the data, look like the prior's.

Makhzani, Shlens, Jaitly, Goodfellow & Frey, "Adversarial autoencoders", ICLR workshop 2016.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from pyro import poutine
from torch import Tensor, nn

from inference.games.game import GUIDES, Adversarial, Contest, Sides, check_guide, moved_together
from inference.guides.named import build_guide
from inference.particles import flatten_draws, simulate
from inference.requirements import why_no_draws, why_not_local_density
from zoo.datasets.data import Data
from zoo.nets import mlp
from zoo.options import Counts, Positive
from zoo.program import Program

__all__ = ["AAEGame", "LatentCritic"]


class LatentCritic(nn.Module):
    """A multilayer perceptron over latents, beside the context if there is one: (B, d) -> (B,) logits of "prior".

    Args:
        features: Numbers in the latents and the context of an example.
        hidden: Units of each hidden layer.
    """

    def __init__(self, features: int, hidden: Sequence[int]):
        super().__init__()
        self.net = mlp(features, hidden, 1)

    def forward(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Logits."""
        return self.net(z if context is None else torch.cat([z, context.flatten(1)], -1)).squeeze(-1)


@dataclass(frozen=True, kw_only=True)
class AAEGame(Adversarial):
    """Fits program and guide as an adversarial autoencoder.

    The guide minimises, with the program,

        -weight E_data E_q(z|x)[log p(x | z)] + D(p(z), q(z)),    q(z) = E_data[q(z | x)],

    where D is what the game's critic estimates from draws of the prior and of the guide. The evidence bound has
    KL(q(z) || p(z)) + I_q(x; z) in place of D. Without the mutual information nothing keeps q(z | x) near p(z | x), so
    that codes may be sharper than the posterior, or a function of x; and q needs no density, nor does p(z).

    The paper takes two steps in turn, each with an optimizer of its own: reconstruction, then the guide against the
    critic. Here they are one Adam step on the sum. Adam's steps are of one size whatever the scale of a loss: two
    optimizers weigh both losses alike, and on the sum `weight` does it. 1 counts nats against nats; where the
    reconstruction is hundreds of nats, as for images, latents follow the prior only at a hundredth or so.

    The critic sees latents of the training data alone. Those of held-out data follow the prior as far as the guide does
    not overfit; a two-sample test with a narrow kernel (`inference.evaluation.two_samples.mmd`) finds out what one of
    the median distance does not see. Too small a weight lets latents collapse to a part of the prior.

    Takes programs whose latents are all local and continuous, if the guide samples all of them with gradients
    (reparameterised). Several sites are put side by side.

    Args:
        weight: Of the reconstruction, in nats for an example.
        guide: 'own', the program's; 'implicit', a network that turns noise into latents (`ImplicitGuide`).
        train_program: False fits the guide alone and leaves the model's parameters as they are.
        critic_hidden: Units of each hidden layer of the critic (two of 1,000 in the paper).
        critic: A module (B, d) -> (B,) on flattened latents, sites in alphabetical order, called with the context too
            if there is one; None takes a `LatentCritic`.
        The others: see `Adversarial`. What `diversity` compares is latents with draws of the prior.
    """

    name: ClassVar[str] = "aae"
    NATS: ClassVar[frozenset[str]] = frozenset({"reconstruction"})

    weight: Positive = 1.0
    guide: str = "own"
    train_program: bool = True
    critic_hidden: Counts = (128, 128)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_guide(self.guide)

    def why_not(self, program: Program) -> str | None:
        """Needs local continuous latents and a guide that draws all of them with gradients; x needs a density."""
        reason = why_not_local_density(program)
        if reason is not None or self.guide != "own":
            return reason
        return why_no_draws(program)

    def contest(self, program: Program, data: Data) -> Contest:
        """Latents of the prior against those of the guide."""
        spec = GUIDES[self.guide]
        guide = build_guide(spec, program, data)
        critic = self.critic
        if critic is None:
            features = sum(site.event_shape.numel() for site in program.sites().values())
            features += 0 if data.context is None else data.context[0].numel()
            critic = LatentCritic(features, self.critic_hidden)
        moved = moved_together(program, guide, data, self.train_program)
        return _Latents(program, guide, spec, critic=critic, parameters=moved, weight=self.weight)


class _Latents(Contest):
    def __init__(
        self,
        program: Program,
        guide: Callable[..., Any],
        spec: dict[str, Any],
        critic: nn.Module,
        parameters: Sequence[nn.Parameter],
        weight: float,
    ):
        self.program, self.guide, self.guide_spec, self.critic = program, guide, spec, critic
        self.parameters, self.weight, self.names = parameters, weight, list(program.sites())

    def sides(self, batch: Data, *, makers: bool) -> Sides:
        with torch.no_grad():
            prior = simulate(self.program, batch.size, batch.context)
        guided = poutine.trace(self.guide).get_trace(*batch, None)
        real, fake = flatten_draws(prior.latents), flatten_draws({n: guided.nodes[n]["value"] for n in self.names})
        if not makers:
            return Sides(real, fake)
        joint = poutine.trace(poutine.replay(self.program.model, trace=guided)).get_trace(*batch, None)
        joint.compute_log_prob(lambda name, site: bool(site["is_observed"]))
        observed = [site["log_prob_sum"] for site in joint.nodes.values() if "log_prob_sum" in site]
        log_prob = torch.stack([torch.as_tensor(part) for part in observed]).sum() / batch.size
        return Sides(real, fake, -self.weight * log_prob, metrics={"reconstruction": log_prob})
