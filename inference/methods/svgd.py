"""Stein variational gradient descent: particles that climb the posterior and push each other apart.

Liu & Wang, "Stein variational gradient descent: a general purpose Bayesian inference algorithm", NeurIPS 2016. The
kernel is theirs, one width for all numbers by the median distance; Pyro's `SVGD` has a width for each, keeps its
particles in the global store of parameters, and knows no local latents.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from inference.method import Method, Outcome, Run
from inference.training.loop import Loop, Schedule
from inference.training.modes import find_modes
from inference.training.optimizers import rate, set_rate
from inference.training.target import MOST_NUMBERS, Target, following, make_target, why_no_vector
from zoo.datasets.data import Data
from zoo.options import Count, NonNegative, OneOf, Positive, Range
from zoo.program import Program

__all__ = ["SVGD", "stein"]

MOST_OF_PARTICLES = 20_000
STARTS = 8
BALANCED = 0.05
"""What is left of the two forces at the end, beside either, of particles that have come to rest."""


def stein(z: Tensor, slope: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The forces on particles, and how far they are from a sample of the density.

    Args:
        z: Particles (S, D).
        slope: Gradients of the log density there, (S, D).

    Returns: the pull uphill (S, D) and the push apart (S, D), whose sum is the direction of Liu & Wang (equation 8),
        and the kernelised Stein discrepancy () with all pairs (equation 5, its root).
    """
    n, d = z.shape
    apart = z[:, None] - z
    squares = apart.square().sum(-1)
    off = squares[~torch.eye(n, dtype=torch.bool, device=z.device)]
    width = (off.median() / math.log(n)).clamp(min=torch.finfo(z.dtype).tiny)
    kernel = (-squares / width).exp()
    pull = kernel @ slope / n
    push = 2 / width * (kernel[..., None] * apart).sum(1) / n
    along = (apart * (slope[:, None] - slope)).sum(-1)
    stein_kernel = kernel * (slope @ slope.T + 2 / width * along + 2 * d / width - 4 * squares / width**2)
    return pull, push, stein_kernel.mean().clamp(min=0).sqrt()


class _Particles(nn.Module):
    """Particles in units of a place and a factor; what a checkpoint keeps.

    Args:
        at: (S, D).
        place: (D,).
        factor: (D, D).
    """

    def __init__(self, at: Tensor, place: Tensor, factor: Tensor):
        super().__init__()
        self.at = nn.Parameter(at)
        self.register_buffer("place", place)
        self.register_buffer("factor", factor)
        self.place: Tensor
        self.factor: Tensor

    def z(self) -> Tensor:
        """Unconstrained latents (S, D)."""
        return self.place + self.at.detach() @ self.factor.T


@dataclass(frozen=True, kw_only=True)
class SVGD(Method):
    """Particles moved by Adam along Liu & Wang's direction, on all the data; the program's parameters are held.

    `samples` are the particles; with many numbers and few particles they are too close together, since the push gets
    weak where all distances are alike. The history's `loss` is the kernelised Stein discrepancy, in units of the
    start, which no data set's size enters.

    Args:
        particles: S.
        start: 'modes' draws from the Gaussians at all modes that are found from 8 places, each by its share of the
            evidence, and has steps in units of the best; 'prior' draws from the prior, and has its units, as it is
            anyway where there is no mode or more than 200 numbers.
        lr: In these units.
        steps: Length of the run.
        checkpoint_seconds: Time between two checkpoints, where there is a folder for them.
    """

    name: ClassVar[str] = "svgd"
    moves_program: ClassVar[bool] = False
    NATS: ClassVar[frozenset[str]] = frozenset()

    particles: Annotated[int, Range(least=4)] = 100
    start: Annotated[str, OneOf(("modes", "prior"))] = "modes"
    lr: Positive = 0.1
    steps: Count = 500
    checkpoint_seconds: NonNegative = 30.0

    def why_not(self, program: Program) -> str | None:
        """Needs a density of continuous latents of which some are global."""
        return why_no_vector(program)

    def run(self, program: Program, run: Run) -> Outcome:
        """Moves the particles."""
        label = f"svgd {type(program).__name__}"
        with following("svgd", program):
            target = make_target("svgd", program, run.train, MOST_OF_PARTICLES)
            particles, started = self._start(target)
        optimizer = torch.optim.Adam([particles.at], lr=self.lr)

        def step(batch: Data, now: Mapping[str, Any]) -> Mapping[str, Tensor]:
            pull, push, discrepancy = self._forces(target, particles)
            particles.at.grad = -(pull + push)
            set_rate(optimizer, now["lr"])
            optimizer.step()
            return {"loss": discrepancy}

        schedule = Schedule(
            steps=self.steps, batch_size=run.train.size, checkpoint_seconds=self.checkpoint_seconds
        )  # every step sees all the data
        scalars = {"lr": rate("cosine", self.lr, self.steps, 0.0)}
        parts = {"particles": particles, "optimizer": optimizer}
        loop = Loop(run, schedule, parts, label=label, step=step, scalars=scalars)
        before = target.evaluations
        with following("svgd", program):
            loop.train()
            pull, push, _ = self._forces(target, particles)
        left = float((pull + push).norm() / (pull.norm() + push.norm()))
        verdict = "converged" if left < BALANCED else "still improving"
        info = {"start": started, "left": left, "convergence": {"verdict": verdict}}
        evaluations = before + (loop.done + 1) * self.particles
        return Outcome(
            samples=target.samples(particles.z()), history=loop.history, gradient_evaluations=evaluations, info=info
        )

    def _forces(self, target: Target, particles: _Particles) -> tuple[Tensor, Tensor, Tensor]:
        """Of the particles as they are, in their units."""
        slope = target.slope(particles.z())[1] @ particles.factor
        return stein(particles.at.detach(), slope)

    def _start(self, target: Target) -> tuple[_Particles, str]:
        """Where the particles are at first, and where that is in words."""
        if self.start == "modes" and target.size <= MOST_NUMBERS:
            modes = find_modes(target, target.starts(STARTS))
            if modes:
                shares = torch.tensor([mode.log_evidence for mode in modes], dtype=torch.float64).softmax(0)
                chosen = torch.multinomial(shares, self.particles, replacement=True)
                e = torch.randn(self.particles, target.size).to(modes[0].place)
                places = torch.stack([mode.place for mode in modes])[chosen]
                z = places + (torch.stack([mode.factor for mode in modes])[chosen] @ e[..., None])[..., 0]
                at = torch.linalg.solve_triangular(modes[0].factor, (z - modes[0].place).T, upper=False).T
                return _Particles(at.contiguous(), modes[0].place, factor=modes[0].factor), f"at {len(modes)} mode(s)"
        drawn = target.starts(4 * self.particles + 1)[1:]
        z = drawn[torch.isfinite(target(drawn))][: self.particles]
        z = drawn[: self.particles] if len(z) < self.particles else z
        sd = z.std(0).clamp(min=torch.finfo(z.dtype).tiny)
        return _Particles((z - z.mean(0)) / sd, z.mean(0), factor=torch.diag(sd)), "at draws of the prior"
