r"""Noise-contrastive estimation: examples are told from noise of known density, by their density under the program.

Gutmann & Hyvarinen, "Noise-contrastive estimation of unnormalized statistical models", JMLR 13, 2012.

    G(x) = f(x) - c - log q(x) - log r,    E_data log sigmoid G + r E_q log(1 - sigmoid G) is largest at f - c = log p

c, a parameter like any other, ends at log Z. The nearer the noise q is to the data, the more there is to learn from it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from inference.method import Outcome, Run
from inference.methods.energy import EnergyMethod, why_not_of_examples
from inference.training.gradient import Training
from inference.training.loop import Loop, Schedule
from inference.training.optimizers import descend, make_optimizer
from zoo.datasets.data import Data
from zoo.energy.base import EnergyProgram
from zoo.errors import CapabilityError, OptionError
from zoo.options import Count
from zoo.program import ExactDensity, Program
from zoo.stored import blocks

__all__ = ["NoiseContrastive"]


class _Constant(nn.Module):
    """c, a module so that checkpoints hold it."""

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.log_partition = nn.Parameter(start)


@dataclass(frozen=True, kw_only=True)
class NoiseContrastive(EnergyMethod):
    """Fits an energy-based model, and its constant, by telling examples from noise.

    The constant is `info['log_partition']`, an estimate as good as the fit. The history's `loss` is the logistic loss
    per example, log 2 and log 2 again where nothing can be told and there is as much noise as data.

    Args:
        noise: 'base', the program's own, which `initialise` fits to the data unit by unit; or a program with an exact
            density, fitted to the same data (`fit(...).program`), which is not changed.
        ratio: Draws of noise for each example.
        lr, decay, steps, epochs, batch_size, checkpoint_seconds, compile, precision: See `GradientMethod`.
    """

    name: ClassVar[str] = "nce"

    noise: str | Program = "base"
    ratio: Count = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.noise, str) and self.noise != "base":
            raise OptionError(f"noise must be 'base' or a program with an exact density, got {self.noise!r}.")

    def why_not(self, program: Program) -> str | None:
        """Energy-based models, beside a noise that has a density over the same x."""
        reason = why_not_of_examples(program)
        if reason is not None or isinstance(self.noise, str):
            return reason
        if not isinstance(self.noise, ExactDensity):
            return f"noise must be 'base' or a program with an exact density, got {type(self.noise).__name__}"
        if self.noise.event_shape != program.event_shape or self.noise.row_of_context() is not None:
            return f"the noise is of shape {tuple(self.noise.event_shape)}, x of {tuple(program.event_shape)}"
        return None

    def prepare(self, program: Program, run: Run) -> Training:
        """Noise, constant and the optimizer of both."""
        assert isinstance(program, EnergyProgram)
        self._check_noise(program, run.train.x)
        constant = _Constant(self.guess(program))
        parameters = [p for p in program.parameters() if p.requires_grad] + list(constant.parameters())
        optimizer = make_optimizer("adam", parameters, self.lr)

        def step(batch: Data, now: Mapping[str, Any]) -> Mapping[str, Tensor]:
            loss = self.loss(program, batch.x, constant.log_partition)
            descend(optimizer, loss, now["lr"])
            return {"loss": loss.detach()}

        loop = Loop(
            run, Schedule.of(self), {"program": program, "constant": constant, "optimizer": optimizer},
            label=f"nce {type(program).__name__}", step=step, scalars={"lr": self.rate(run)},
        )  # fmt: skip

        def finish() -> Outcome:
            info = {"log_partition": float(constant.log_partition.detach())}
            return self.ended(program, loop, evaluations=1 + self.ratio, info=info)

        program.train()
        return Training(loop, finish)

    @torch.no_grad()
    def guess(self, program: EnergyProgram, n: int = 1000) -> Tensor:
        """log Z by importance sampling from the noise, (): where c starts.

        From elsewhere everything looks like data, or like noise, and f makes up for it before c does.
        """
        noise, density = self._draw(program, n)
        return (program.unnormalised_log_prob(noise) - density).logsumexp(0) - math.log(n)

    def loss(self, program: EnergyProgram, x: Tensor, constant: Tensor) -> Tensor:
        """The logistic loss per example, (), of examples (B, *event_shape) beside fresh noise; `constant` is c, ()."""
        noise, density = self._draw(program, len(x) * self.ratio)
        real = self._logits(program, x, self._density(program, x), constant)
        made = self._logits(program, noise, density, constant)
        return -logsigmoid(real).mean() - self.ratio * logsigmoid(-made).mean()

    @torch.no_grad()
    def _draw(self, program: EnergyProgram, n: int) -> tuple[Tensor, Tensor]:
        """Noise (n, *event_shape) and its log density (n,)."""
        x = self.noise.generate(n) if isinstance(self.noise, Program) else program.base().sample(torch.Size((n,)))
        return x, self._density(program, x)

    @torch.no_grad()
    def _density(self, program: EnergyProgram, x: Tensor) -> Tensor:
        return self.noise.log_prob(x) if isinstance(self.noise, ExactDensity) else program.base().log_prob(x)

    def _check_noise(self, program: EnergyProgram, x: Tensor) -> None:
        """Raises CapabilityError where the noise gives an example no density: once, as steps look at no values."""
        if not all(bool(torch.isfinite(self._density(program, part)).all()) for part in blocks(x)):
            raise CapabilityError(
                "The noise gives some examples no density, so they are told at once and nothing is learned: take noise "
                "that may be anything that the data may be."
            )

    def _logits(self, program: EnergyProgram, x: Tensor, noise: Tensor, constant: Tensor) -> Tensor:
        """G: log of the odds that x is an example."""
        return program.unnormalised_log_prob(x) - constant - noise - math.log(self.ratio)
