"""Adversarial variational Bayes: variational inference with a guide that has samples but no density.

Mescheder, Nowozin & Geiger, "Adversarial variational Bayes", ICML 2017. With the GAN game (`inference.games`) these are
the adversarial methods: a critic estimates the density ratio that is missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import pyro
import torch
from torch import Tensor

from inference.aae import AAEGame
from inference.games import GAMES, Game, Minimax, NonSaturating
from inference.gan import GANGame
from inference.guides import build_guide
from inference.implicit_guide import ImplicitGuide, Piece, RatioCritic, estimated_log_prob, unsuitable
from inference.loop import Loop, Schedule
from inference.method import Method, Outcome, Run
from inference.optim import rate, set_rate
from inference.particles import log_joint
from zoo.datasets.data import Data
from zoo.errors import OptionError
from zoo.program import Program

__all__ = [
    "AVB",
    "GAMES",
    "AAEGame",
    "GANGame",
    "Game",
    "ImplicitGuide",
    "Minimax",
    "NonSaturating",
    "RatioCritic",
    "estimated_log_prob",
]


@dataclass(frozen=True)
class AVB(Method):
    """Maximises E_q[log p(x, z) - log q(z | x)] over an implicit guide, log q estimated by a critic.

    Steps of the critic, which tells the guide's draws from those of a Gaussian with the same moments (see
    `RatioCritic`), take turns with reparameterised steps of guide and program. The gradient is right for a perfect
    critic, because E_q[d log q] = 0; with a real one it is biased, and the ELBO reported is an estimate, *not a
    bound*. `Outcome.modules["critic"]` is the critic, `estimated_log_prob` its estimate of log q.

    The target moves from the Gaussian that the guide starts from, as wide as the prior, to the posterior: without this
    the guide falls into one mode and stays there.

    Args:
        hidden: Units of each hidden layer of the guide's network.
        critic_hidden: Of the critic's.
        extra_noise: Noise inputs of the guide beyond one for each latent dimension.
        adaptive_contrast: False compares with a fixed Gaussian instead.
        moments: Noise vectors behind the moments of that Gaussian; None is 512 for global latents, and for local ones
            8,192 over the points of a step, but 32 to 512 for each.
        particles: Draws of each latent a step; None spreads 256 over the batch.
        critic_steps: Critic steps to each step of the guide.
        lr: Adam's learning rate for guide and program, with cosine decay to zero.
        critic_lr: The critic's, with cosine decay to a tenth.
        anneal: Fraction of the run over which the target moves; 0 starts at the posterior.
        train_program: False fits the guide alone and leaves the model's parameters as they are.
        steps, epochs, batch_size, compile: See `inference.loop.Schedule`; a step is one of the guide.
    """

    name: ClassVar[str] = "avb"

    hidden: Sequence[int] = (64, 64)
    critic_hidden: Sequence[int] = (64, 64)
    extra_noise: int = 16
    adaptive_contrast: bool = True
    moments: int | None = None
    particles: int | None = None
    critic_steps: int = 2
    lr: float = 2e-3
    critic_lr: float = 4e-3
    anneal: float = 0.5
    train_program: bool = True
    steps: int | None = None
    epochs: int | None = None
    batch_size: int = 128
    compile: str = "auto"

    def __post_init__(self) -> None:
        for name in ("lr", "critic_lr"):
            if getattr(self, name) <= 0:
                raise OptionError(f"{name} must be positive, got {getattr(self, name)}.")
        for name, least in (("critic_steps", 1), ("particles", 1), ("moments", 2), ("extra_noise", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise OptionError(f"{name} must be at least {least}, got {value}.")
        if not 0 <= self.anneal <= 1:
            raise OptionError(f"anneal is a fraction of the run, in [0, 1]; got {self.anneal}.")

    def why_not(self, program: Program) -> str | None:
        """Needs continuous latents and a density; discrete latents must be summable."""
        return unsuitable(program)

    def run(self, program: Program, run: Run) -> Outcome:
        """Fits the guide, and the program with it, in place."""
        spec = {"kind": "implicit", "options": {"hidden": list(self.hidden), "extra_noise": self.extra_noise}}
        guide = build_guide(spec, program, run.train)
        assert isinstance(guide, ImplicitGuide)
        parameters = list(guide.parameters())
        if self.train_program:
            parameters += [p for p in program.parameters() if p.requires_grad]
        schedule = Schedule.of(self)
        size = run.train.size
        total = schedule.total_steps(size)
        rows = min(self.batch_size, size) if "local" in guide.blocks else 1
        particles = self.particles or max(1, 256 // rows)
        points = rows * particles if len(guide.blocks) == 2 else rows
        moments = {"global": self.moments or 512, "local": self.moments or min(max(8192 // points, 32), 512)}
        critic = RatioCritic(guide, moments, self.critic_hidden, self.adaptive_contrast)
        optimizer = torch.optim.Adam(parameters, self.lr, (0.5, 0.999))
        critic_optimizer = torch.optim.Adam(critic.parameters(), self.critic_lr, (0.5, 0.999))

        def step(batch: Data, now: Mapping[str, Any]) -> Mapping[str, Tensor]:
            set_rate(critic_optimizer, now["critic_lr"])
            for pieces in compared(guide, critic, particles, batch, self.critic_steps):
                critic_loss = contrast_loss(critic, pieces)
                critic_optimizer.zero_grad(set_to_none=True)
                critic_loss.backward()
                critic_optimizer.step()
            with pyro.validation_enabled(loop.done == 0):
                loss, elbo = annealed_loss(program, guide, critic, particles, batch, size, now.get("beta", 1.0))
            optimizer.zero_grad(set_to_none=True)
            loss.backward(inputs=parameters)
            set_rate(optimizer, now["lr"])
            optimizer.step()
            return {"loss": -elbo, "critic_loss": critic_loss.detach()}

        scalars = {
            "lr": rate("cosine", self.lr, total),
            "critic_lr": rate("cosine", self.critic_lr, total, 0.1 * self.critic_lr),
        }
        if self.anneal:
            scalars["beta"] = lambda done: min(1.0, (done + 1) / (self.anneal * total))
        parts: dict[str, Any] = {
            "program": program,
            "guide": guide,
            "critic": critic,
            "optimizer": optimizer,
            "critic_optimizer": critic_optimizer,
        }
        loop = Loop(run, schedule, parts, f"avb {type(program).__name__}", step, scalars)
        program.train()
        history = loop.train()
        program.eval()
        guide.eval()
        critic.eval()
        return Outcome(guide, spec, None, history, loop.done * particles, modules={"critic": critic})


@torch.no_grad()
def compared(guide: ImplicitGuide, critic: RatioCritic, particles: int, batch: Data, rounds: int) -> list[list[Piece]]:
    """Fresh draws of the guide for so many critic steps, `u` whitened; the guide stands still meanwhile."""
    found: list[list[Piece]] = [[] for _ in range(rounds)]
    for piece in guide.pieces(particles * rounds, *batch):
        whitened = critic.contrast(guide, piece.kind, piece.h).whiten(piece.u)
        h = piece.h if piece.h.ndim == 3 else piece.h.expand(rounds, *piece.h.shape)
        for mine, u, features in zip(found, whitened.chunk(rounds), h.chunk(rounds), strict=True):
            mine.append(Piece(piece.kind, features, u))
    return found


def contrast_loss(critic: RatioCritic, pieces: Sequence[Piece]) -> Tensor:
    """The critic's loss, (): the minimax game between whitened draws of the guide and standard normal ones."""
    losses = [
        Minimax().critic_loss(partial(critic, piece.kind, h=piece.h), piece.u, torch.randn_like(piece.u))
        for piece in pieces
    ]
    return torch.stack(losses).sum()


def annealed_loss(
    program: Program,
    guide: ImplicitGuide,
    critic: RatioCritic,
    particles: int,
    batch: Data,
    size: int,
    beta: float | Tensor = 1.0,
) -> tuple[Tensor, Tensor]:
    """(loss (), estimated ELBO ()), both per example of the full data.

    The loss is minus the ELBO with the log joint replaced by beta log p(x, z) + (1 - beta) log q_start(z).
    """
    pieces = guide.pieces(particles, *batch)
    values: dict[str, Tensor] = {}
    scale = {"global": 1.0, "local": size / batch.size}
    log_q = log_start = log_det = torch.zeros((), dtype=batch.x.dtype, device=batch.x.device)
    for piece in pieces:
        block, weight = guide.block(piece.kind), scale[piece.kind]
        constrained, dets = block.coordinates.unpack(piece.u)
        values.update(constrained)
        log_det = log_det + weight * block.coordinates.total(dets).sum(-1)
        log_q = log_q + weight * critic.log_density(guide, piece).sum(-1)
        log_start = log_start + weight * block.start_log_prob(piece.u).sum(-1)
    joint = log_joint(program, values, *batch, particles=particles)
    log_p = scale["local"] * joint.local.sum(-1) + joint.globals + log_det
    elbo = (log_p - log_q).mean() / size
    if not isinstance(beta, Tensor) and beta == 1.0:
        return -elbo, elbo.detach()
    return -(beta * log_p + (1 - beta) * log_start - log_q).mean() / size, elbo.detach()
