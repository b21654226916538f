"""Adversarial variational Bayes: variational inference with a guide that has samples but no density.

Mescheder, Nowozin & Geiger, "Adversarial variational Bayes", ICML 2017; Huszar, "Variational inference using implicit
distributions", 2017 (the contrast of pairs). A critic estimates the density ratio that is missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from inference.games.losses import Minimax
from inference.guides.implicit import ImplicitGuide, Piece
from inference.guides.named import build_guide
from inference.guides.ratio import CONTRASTS, RatioCritic
from inference.method import Outcome, Run
from inference.particles import LogDensity, log_joint
from inference.requirements import why_no_implicit_guide
from inference.training.gradient import GradientMethod, Training
from inference.training.loop import Loop, Schedule
from inference.training.optimizers import adam, descend
from zoo.datasets.data import Data
from zoo.errors import OptionError, UnknownNameError
from zoo.options import Count, Counts, Fraction, Natural, Positive, Range
from zoo.program import Program

__all__ = ["AVB"]


@dataclass(frozen=True, kw_only=True)
class AVB(GradientMethod):
    """Maximises E_q[log p(x, z) - log q(z | x)] over an implicit guide, log q estimated by a critic.

    Steps of the critic, which tells the guide's draws from others (see `RatioCritic`), take turns with reparameterised
    steps of guide and program. The gradient is right for a perfect critic, because E_q[d log q] = 0; with a real one it
    is biased, and the ELBO reported is an estimate, *not a bound*. `Outcome.modules["critic"]` is the critic,
    `estimated_log_prob` its estimate of log q. The contrasts differ in what the others are:

        adaptive   a Gaussian with the guide's moments; the most exact, as there is least to tell
        prior      the prior; the critic has the whole log q(z | x) / p(z) to learn, worse the more the data say
        joint      pairs (x, z): of data and guide, of the program. Minimises KL(p_D(x) q(z | x) || p(x, z)) with the
                   program as it is; asks no density of x, so it serves implicit programs too. Local latents alone, and
                   data enough, like the program's, for the critic to know p_D. The least exact: it may settle in one
                   mode of several

    The target moves from the Gaussian that the guide starts from, as wide as the prior, to the posterior ('prior': from
    the prior): without this the guide falls into one mode and stays there. Pairs have no such path.

    Args:
        hidden: Units of each hidden layer of the guide's network.
        critic_hidden: Of the critic's.
        extra_noise: Noise inputs of the guide beyond one for each latent dimension.
        contrast: 'adaptive', 'prior' or 'joint', as above.
        moments: Noise vectors behind the guide's moments; None is 512 for global latents, and for local ones
            8,192 over the points of a step, but 32 to 512 for each.
        particles: Draws of each latent a step; None spreads 256 over the batch.
        critic_steps: Critic steps to each step of the guide.
        critic_lr: Adam's learning rate for the critic, which decays to a tenth; `lr` is that of guide and program.
        anneal: Fraction of the run over which the target moves; 0 starts at the posterior.
        train_program: False fits the guide alone and leaves the model's parameters as they are; the joint contrast
            can do nothing else (method 'ali' trains both).
        lr, decay, steps, epochs, batch_size, checkpoint_seconds, compile, precision: See `GradientMethod`; a step is
            one of the guide.
    """

    name: ClassVar[str] = "avb"
    takes_missing: ClassVar[bool] = False  # its critic looks at x

    hidden: Counts = (64, 64)
    critic_hidden: Counts = (64, 64)
    extra_noise: Natural = 16
    contrast: str = "adaptive"
    moments: Annotated[int, Range(least=2)] | None = None
    particles: Count | None = None
    critic_steps: Count = 2
    lr: Positive = 2e-3
    critic_lr: Positive = 4e-3
    anneal: Fraction = 0.5
    train_program: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.contrast not in CONTRASTS:
            raise UnknownNameError("contrast", self.contrast, CONTRASTS)
        if self.contrast == "joint" and self.train_program:
            raise OptionError(
                "contrast='joint' fits the guide to a program that stays as it is: set train_program=False, or take "
                "the method 'ali', which trains both."
            )

    def why_not(self, program: Program) -> str | None:
        """Needs continuous latents, and by contrast a density (discrete latents summable) or only local ones."""
        return why_no_implicit_guide(program, self.contrast)

    def prepare(self, program: Program, run: Run) -> Training:
        """Builds guide and critic, ready to take steps."""
        spec = {"kind": "implicit", "options": {"hidden": list(self.hidden), "extra_noise": self.extra_noise}}
        guide = build_guide(spec, program, run.train)
        assert isinstance(guide, ImplicitGuide)
        parameters = list(guide.parameters())
        if self.train_program:
            parameters += [p for p in program.parameters() if p.requires_grad]
        size = run.train.size
        particles, moments = self._draws(guide, size)
        critic = RatioCritic(guide, moments, self.critic_hidden, contrast=self.contrast)
        optimizer = adam(parameters, self.lr, (0.5, 0.999))
        critic_optimizer = adam(critic.parameters(), self.critic_lr, (0.5, 0.999))

        def step(batch: Data, now: Mapping[str, Any]) -> Mapping[str, Tensor]:
            for pieces in compared(guide, critic, particles, batch, self.critic_steps):
                critic_loss = contrast_loss(critic, pieces)
                descend(critic_optimizer, critic_loss, now["critic_lr"])
            loss, elbo = annealed_loss(program, guide, critic, particles, batch, size, now.get("beta", 1.0))
            descend(optimizer, loss, now["lr"], inputs=parameters)
            return {"loss": -elbo, "critic_loss": critic_loss.detach()}

        scalars = {"lr": self.rate(run), "critic_lr": self.rate(run, self.critic_lr, 0.1 * self.critic_lr)}
        if self.anneal and self.contrast != "joint":
            scalars["beta"] = self.growing(run, self.anneal)
        players: dict[str, Any] = {"program": program, "guide": guide, "critic": critic}
        parts = {**players, "optimizer": optimizer, "critic_optimizer": critic_optimizer}
        label = f"avb {type(program).__name__}"
        loop = Loop(run, Schedule.of(self), parts, label=label, step=step, scalars=scalars)

        def finish() -> Outcome:
            for player in players.values():
                player.eval()
            evaluations = loop.done * particles
            return Outcome(
                guide, spec, history=loop.history, gradient_evaluations=evaluations, modules={"critic": critic}
            )

        program.train()
        return Training(loop, finish)

    def _draws(self, guide: ImplicitGuide, size: int) -> tuple[int, dict[str, int]]:
        """Particles of a step, and noise vectors behind the moments of each block, for so many examples."""
        rows = min(self.batch_size, size) if "local" in guide.blocks else 1
        particles = self.particles or max(1, 256 // rows)
        points = rows * (particles if len(guide.blocks) == 2 else 1)
        if self.contrast == "joint":
            points += rows * self.critic_steps  # the program's own x
        return particles, {"global": self.moments or 512, "local": self.moments or min(max(8192 // points, 32), 512)}


Compared = tuple[Piece, Piece | None]
"""Draws of the guide and the others, `u` whitened; None for standard normal others, which are made when wanted."""


@torch.no_grad()
def compared(
    guide: ImplicitGuide, critic: RatioCritic, particles: int, batch: Data, rounds: int
) -> list[list[Compared]]:
    """Fresh draws for so many critic steps; the guide stands still meanwhile."""
    drawn = guide.pieces(particles * rounds, *batch)
    mine = [_rounds(guide, critic, piece, rounds) for piece in drawn]
    if critic.contrast == "adaptive":
        return [[(piece, None) for piece in now] for now in zip(*mine, strict=True)]
    if critic.contrast == "joint":
        others = guide.joint_pieces(rounds, *batch)  # each x has moments of its own, which are dear: one z with each
    else:
        others = guide.prior_pieces(drawn, *batch)
    theirs = [_rounds(guide, critic, piece, rounds) for piece in others]
    pairs = [list(zip(a, b, strict=True)) for a, b in zip(mine, theirs, strict=True)]
    return [list(now) for now in zip(*pairs, strict=True)]


def _rounds(guide: ImplicitGuide, critic: RatioCritic, piece: Piece, rounds: int) -> list[Piece]:
    whitened = critic.gaussian(guide, piece.kind, piece.h).whiten(piece.u)
    h = piece.h if piece.h.ndim == 3 else piece.h.expand(rounds, *piece.h.shape)
    pairs = zip(whitened.chunk(rounds), h.chunk(rounds), strict=True)
    return [Piece(piece.kind, features, u) for u, features in pairs]


def contrast_loss(critic: RatioCritic, pieces: Sequence[Compared]) -> Tensor:
    """The critic's loss, (): the minimax game between whitened draws of the guide and the others."""
    losses = []
    for mine, other in pieces:
        theirs = Piece(mine.kind, mine.h, torch.randn_like(mine.u)) if other is None else other
        game, logits = Minimax(), [critic(piece.kind, piece.u, piece.h) for piece in (mine, theirs)]
        losses.append(-game.value(*logits))
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

    The loss is minus the ELBO with the log joint replaced by beta log p(x, z) + (1 - beta) log q_start(z); in prior
    contrast with beta log p(x | z). In joint contrast it is the estimate of KL(p_D q || p), and minus it the "ELBO".
    """
    pieces = guide.pieces(particles, *batch)
    values: dict[str, Tensor] = {}
    scale = {"global": 1.0, "local": size / batch.size}
    zero = torch.zeros((), dtype=batch.x.dtype, device=batch.x.device)
    log_ratio, log_r, log_start, log_det = zero, zero, zero, zero
    for piece in pieces:
        block, weight = guide.block(piece.kind), scale[piece.kind]
        constrained, dets = block.coordinates.unpack(piece.u)
        values.update(constrained)
        ratio, reference = critic.log_ratio(guide, piece)
        log_ratio, log_r = log_ratio + weight * ratio.sum(-1), log_r + weight * reference.sum(-1)
        log_det = log_det + weight * block.coordinates.total(dets).sum(-1)
        log_start = log_start + weight * block.start_log_prob(piece.u).sum(-1)
    if critic.contrast == "joint":
        loss = log_ratio.mean() / size
        return loss, -loss.detach()

    def total(density: LogDensity) -> Tensor:
        return scale["local"] * density.local.sum(-1) + density.globals

    log_p = total(log_joint(program, values, *batch, particles=particles))
    if critic.contrast == "prior":
        log_p = log_p - total(guide.log_prior(values, *batch))
        elbo = (log_p - log_ratio).mean() / size
        loss = -(beta * log_p - log_ratio).mean() / size
        if guide.prior_learns:
            # The prior cancels as a function of the latents; its own parameters still climb to where the guide draws.
            prior = (
                total(guide.log_prior({name: value.detach() for name, value in values.items()}, *batch)).mean() / size
            )
            loss = loss - (prior - prior.detach())
        return loss, elbo.detach()
    log_p, log_q = log_p + log_det, log_ratio + log_r
    elbo = (log_p - log_q).mean() / size
    if not isinstance(beta, Tensor) and beta == 1.0:
        return -elbo, elbo.detach()
    return -(beta * log_p + (1 - beta) * log_start - log_q).mean() / size, elbo.detach()
