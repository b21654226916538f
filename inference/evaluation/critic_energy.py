r"""The critic of a game as an energy: what a generator makes, weighed by how real its critic finds it.

Che, Zhang, Sohl-Dickstein et al., "Your GAN is secretly an energy-based model and you should use discriminator driven
latent sampling", NeurIPS 2020; the critic itself as an energy: Zhao, Mathieu & LeCun, "Energy-based generative
adversarial networks", ICLR 2017.

    p(x) = p_G(x) exp(critic(x)) / Z,     Z = E_G[exp(critic(x))]

The best critic of the minimax games is log p_data - log p_G, under which this is the density of the data and log Z is
0: how far it is from that says what the critic has yet to learn, or the generator. A generator has draws and no density
p_G, but its latents have one, and x = G(z) has the density above where

    z ~ p(z) exp(critic(G(z))) / Z,

with the same Z: chains are of latents. A Wasserstein critic knows no unit of its own: its energy orders examples, and
how sharp the density is means nothing.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn

from inference.environment import evaluating
from inference.fitted import Fit
from inference.games.losses import make_game
from inference.particles import outside_handlers
from zoo.energy.base import EnergyProgram, metropolis_langevin
from zoo.errors import CapabilityError
from zoo.options import Count, Positive
from zoo.program import ImplicitProgram

__all__ = ["CriticEnergy", "critic_energy"]


class CriticEnergy(EnergyProgram):
    """A generator's draws weighed by a critic; chains of Metropolis-adjusted Langevin steps in the latent.

    `unnormalised_log_prob` is the critic: the density relative to the generator's draws, up to a constant. It is no
    log-likelihood, which would take the generator's own density; `log_likelihood` refuses it.

    Args:
        generator: An implicit program with one latent of real numbers and no context. A copy of it is taken.
        judge: Its critic (B, *event_shape) -> (B,), or (B, patches), of which the mean counts. A copy is taken.
        step: Of a Langevin transition of the latent.
        draw_sweeps: Transitions of a draw.
        particles: How many draws of the latent chains start from.

    Raises: CapabilityError for other programs, and a critic whose judgement depends on what else is in the batch.
    """

    family = "implicit"
    measure = "what its generator draws"
    sweep_gradients = 2

    def __init__(
        self,
        generator: ImplicitProgram,
        judge: nn.Module,
        *,
        step: Positive = 0.2,
        draw_sweeps: Count = 100,
        particles: Count = 256,
    ):
        latent = _only_latent(generator)
        made = copy.deepcopy(generator).eval()
        super().__init__(draw_sweeps, _run(made, latent, size=particles)[1], generator.event_shape)
        self.generator, self.judge, self.latent, self.step = made, copy.deepcopy(judge), latent, step
        self.requires_grad_(False).eval()
        self.support = generator.support
        x = self.shown(self.base().sample((3,)))
        if not torch.allclose(self._judged(x)[:1], self._judged(x[:1]), rtol=1e-3, atol=1e-5):
            raise CapabilityError(
                "This critic judges an example by what else is in its batch, so that no example has an energy of its "
                "own; take a critic without features of the batch."
            )

    def train(self, mode: bool = True) -> CriticEnergy:
        """Both networks stay as they are used, in evaluation mode."""
        super().train(mode)
        for part in (self.generator, self.judge):
            part.eval()
        return self

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        """x by a chain of latents."""
        site = self.drawn(x, context, size)
        with self.plate(x, context, size):
            return pyro.sample("x", site, obs=x)

    def base(self) -> dist.TorchDistribution:
        """What the generator draws its latent from."""
        return _Latent(self.generator, self.latent, self.particles.shape[1:])

    def tempered(self, x: Tensor, beta: float | Tensor) -> Tensor:
        """Of latents (B, *latent_shape): their log density, and beta times the critic of what they make."""
        made, _, density = _run(self.generator, self.latent, x)
        return density + beta * self._judged(made)

    @torch.no_grad()
    def sweep(self, x: Tensor, beta: float | Tensor = 1.0) -> Tensor:
        """One Langevin transition of the latent."""
        return metropolis_langevin(self, x, beta, x.new_tensor(self.step))[0]

    def shown(self, state: Tensor) -> Tensor:
        """What the generator makes of a latent."""
        return _run(self.generator, self.latent, state)[0]

    def started(self, x: Tensor) -> Tensor:
        """Raises CapabilityError: nobody knows which latent an example is made of."""
        raise CapabilityError(f"{type(self.generator).__name__} does not say which latent an example was made of.")

    def unnormalised_log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The critic, (B, *event_shape) -> (B,): log p(x) - log p_G(x) + log Z."""
        return self._judged(x)

    def _judged(self, x: Tensor) -> Tensor:
        return self.judge(x).reshape(len(x), -1).mean(1)


class _Latent(dist.TorchDistribution):
    """The distribution of a generator's latent, for one example."""

    arg_constraints: Any = {}  # noqa: RUF012 (torch reads it of the class)

    def __init__(self, generator: ImplicitProgram, name: str, shape: torch.Size):
        self.generator, self.name = generator, name
        super().__init__(torch.Size(), shape, validate_args=False)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        """(*sample_shape, *shape)."""
        drawn = _run(self.generator, self.name, size=torch.Size(sample_shape).numel())[1]
        return drawn.reshape(*sample_shape, *self.event_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """(B, *shape) -> (B,)."""
        return _run(self.generator, self.name, value)[2]


def _run(
    generator: ImplicitProgram, name: str, latent: Tensor | None = None, size: int = 1
) -> tuple[Tensor, Tensor, Tensor]:
    """What a generator makes (B, *event_shape), of which latent, and the log density of that (B,)."""
    model = generator.model if latent is None else poutine.condition(generator.model, data={name: latent})
    with outside_handlers(), pyro.validation_enabled(False):
        trace = poutine.trace(model).get_trace(None, None, size if latent is None else len(latent))
    site = trace.nodes[name]
    return trace.nodes["_RETURN"]["value"], site["value"], site["fn"].log_prob(site["value"])


def _only_latent(generator: ImplicitProgram) -> str:
    """The name of the one latent of a generator.

    Raises: CapabilityError.
    """
    who = type(generator).__name__
    if not isinstance(generator, ImplicitProgram) or isinstance(generator, EnergyProgram):
        raise CapabilityError(f"{who} is no generator of a game: give a fit of an implicit program by 'gan'.")
    if generator.row_of_context() is not None:
        raise CapabilityError(f"{who} makes examples of a context, and its critic compares those of one context alone.")
    sites = list(generator.sites().values())
    if len(sites) != 1 or sites[0].is_global or sites[0].is_discrete:
        found = ", ".join(site.name for site in sites) or "none"
        raise CapabilityError(f"Langevin chains move one latent of real numbers for each example; {who} has {found}.")
    return sites[0].name


def critic_energy(found: Fit, *, seed: int = 0, **options: Any) -> CriticEnergy:
    """The energy that a fitted GAN's critic is: for log Z, draws by chains, and scores of anomalies.

    A game leaves its critic where it stands at the end, rarely at its best; and what no generator makes no critic has
    learned to weigh.

    Args:
        found: A fit by the method 'gan', as it was made: the critic is not saved with it.
        seed: Of the latents that chains start from.
        options: Of `CriticEnergy`: step, draw_sweeps, particles.

    Raises: CapabilityError for other fits, games whose critic is no log density ratio, and what `CriticEnergy` raises;
        OptionError.
    """
    critic = found.modules.get("critic")
    if found.method != "gan" or critic is None:
        raise CapabilityError(
            f"This fit of {type(found.program).__name__} by {found.method!r} has no critic of examples: take one by "
            "'gan', in the process that made it (a critic is not saved)."
        )
    assert isinstance(found.program, ImplicitProgram)
    game = found.options["game"]
    if not make_game(game).weighs:
        raise CapabilityError(
            f"The best critic of the game {game!r} is no log density ratio, so it weighs nothing; play 'minimax', "
            "'non-saturating' or 'wasserstein'."
        )
    if found.options.get("ema") is not None:
        warnings.warn(
            "The generator is an average of weights (ema), and the critic compared the data with the last weights: "
            "fit with ema=None for a critic of this generator.",
            stacklevel=2,
        )
    with torch.no_grad(), evaluating(found.program, critic, seed, found.device):
        return CriticEnergy(found.program, critic, **options)
