r"""Score matching: the slope of log p, which has no constant in it, is fitted to that of the data.

Hyvarinen, "Estimation of non-normalized statistical models by score matching", JMLR 6, 2005. Denoising: Vincent, "A
connection between score matching and denoising autoencoders", Neural Computation 23, 2011. Sliced: Song, Garg, Shi &
Ermon, "Sliced score matching", UAI 2019.

    denoising   E || s grad f(x + s e) + e ||^2 / 2,          e ~ N(0, I), s the noise
    sliced      E [ v' grad(v' grad f(x)) + (v' grad f(x))^2 / 2 ],     v ~ N(0, I)

Denoising learns the density of the data with noise of that size; slices learn the data's own, at more variance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from inference.method import Run
from inference.methods.energy import EnergyMethod, why_not_of_examples
from inference.training.gradient import Training
from inference.training.loop import Loop, Schedule
from inference.training.optimizers import descend, make_optimizer
from zoo.datasets.data import Data
from zoo.energy.base import EnergyProgram
from zoo.options import OneOf, Positive
from zoo.program import Program

__all__ = ["ScoreMatching", "denoising_loss", "sliced_loss"]


def denoising_loss(program: EnergyProgram, x: Tensor, noise: Tensor | float) -> Tensor:
    """The denoising objective at examples (B, *event_shape), (B,); differentiable in the parameters.

    Args:
        program: An energy-based model.
        x: (B, *event_shape).
        noise: Standard deviation of what is added to x, one for all numbers or one each.
    """
    error = torch.randn_like(x)
    slope = _slope(program, x + noise * error)[1]
    return 0.5 * (noise * slope + error).square().flatten(1).sum(1)


def sliced_loss(program: EnergyProgram, x: Tensor, units: Tensor | float = 1.0) -> Tensor:
    """The sliced objective at examples (B, *event_shape), along one direction each, (B,); differentiable likewise.

    Args:
        program: An energy-based model.
        x: (B, *event_shape).
        units: In which x is measured, one for all numbers or one each.
    """
    at, slope = _slope(program, x)
    along = units * torch.randn_like(x)
    rise = (along * slope).flatten(1).sum(1)
    (bend,) = torch.autograd.grad(rise.sum(), at, create_graph=True)
    return (along * bend).flatten(1).sum(1) + 0.5 * rise.square()


def _slope(program: EnergyProgram, x: Tensor) -> tuple[Tensor, Tensor]:
    at = x.detach().requires_grad_()
    (slope,) = torch.autograd.grad(program.unnormalised_log_prob(at).sum(), at, create_graph=True)
    return at, slope


@dataclass(frozen=True, kw_only=True)
class ScoreMatching(EnergyMethod):
    """Fits an energy-based model of continuous x by its slopes; nothing is drawn from it.

    The history's `loss` is the objective, which is no likelihood.

    Args:
        objective: 'denoising' or 'sliced'.
        noise: Standard deviation of what denoising adds to the data, in spreads of the program's base.
        lr, decay, steps, epochs, batch_size, checkpoint_seconds, compile, precision: See `GradientMethod`.
    """

    name: ClassVar[str] = "score-matching"

    objective: Annotated[str, OneOf(("denoising", "sliced"))] = "denoising"
    noise: Positive = 0.1

    def why_not(self, program: Program) -> str | None:
        """Energy-based models of real numbers."""
        if isinstance(program, EnergyProgram) and program.support.is_discrete:
            return "x is discrete, where densities have no slope; take 'cd' or 'nce'"
        return why_not_of_examples(program)

    def prepare(self, program: Program, run: Run) -> Training:
        """The objective, ready to be lowered."""
        assert isinstance(program, EnergyProgram)
        optimizer = make_optimizer("adam", [p for p in program.parameters() if p.requires_grad], self.lr)
        units = program.base().variance.detach().sqrt()  # what is learned of a number does not depend on its units
        noise, sliced = self.noise * units, self.objective == "sliced"

        def step(batch: Data, now: Mapping[str, Any]) -> Mapping[str, Tensor]:
            each = sliced_loss(program, batch.x, units) if sliced else denoising_loss(program, batch.x, noise)
            loss = each.mean()
            descend(optimizer, loss, now["lr"])
            return {"loss": loss.detach()}

        loop = Loop(
            run, Schedule.of(self), {"program": program, "optimizer": optimizer},
            label=f"score matching {type(program).__name__}", step=step, scalars={"lr": self.rate(run)},
        )  # fmt: skip

        program.train()
        # The slope is differentiated again, along a slice twice.
        return Training(loop, partial(self.ended, program, loop, evaluations=3 if sliced else 2))
