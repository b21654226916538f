"""Wake-sleep: program and guide teach each other, and nothing is differentiated through a draw.

Hinton, Dayan, Frey & Neal, "The wake-sleep algorithm for unsupervised neural networks", Science 268, 1995;
Bornschein & Bengio, "Reweighted wake-sleep", ICLR 2015.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from inference.guides.named import guide_parameters, guided_sites
from inference.method import Run
from inference.methods.bounds import Renyi
from inference.methods.diagnosis import diagnose, evaluate_objective
from inference.particles import draw, guide_log_prob, log_joint, simulate
from inference.processes import average_gradients
from inference.requirements import why_no_dreams, why_not_local_density
from inference.training.gradient import GradientMethod, Training
from inference.training.loop import Loop, Schedule
from inference.training.optimizers import check_optimizer, make_optimizer, set_rate
from zoo.datasets.data import Data
from zoo.errors import CapabilityError, OptionError
from zoo.options import Count, OneOf
from zoo.program import Program

__all__ = ["WakeSleep"]


@dataclass(frozen=True, kw_only=True)
class WakeSleep(GradientMethod):
    """Awake, the program learns from what its guide sees in data; asleep, the guide learns from the program's dreams.

    Wake, program:  sum_k w_k grad log p(x, z_k),      z_k ~ q(z | x)
    Wake, guide:    sum_k w_k grad log q(z_k | x)      (reweighted only)
    Sleep, guide:   grad log q(z | x),                 (x, z) ~ p

    with w_k = 1/K, or, reweighted, proportional to p(x, z_k) / q(z_k | x). No step follows the gradient of one bound
    on the evidence, so 'loss', minus the bound from the K particles, may rise.

    Args:
        reweighted: Whether particles are weighted by importance (Bornschein & Bengio 2015).
        particles: K, for each example.
        guide_update: 'sleep', 'wake' (reweighted only) or 'both'.
        optimizer, validate_every, patience: As in `inference.methods.svi.SVI`.
        lr, decay, steps, epochs, batch_size, checkpoint_seconds, compile, precision: See `GradientMethod`.
    """

    name: ClassVar[str] = "wake-sleep"

    reweighted: bool = False
    particles: Count = 1
    guide_update: Annotated[str, OneOf(("sleep", "wake", "both"))] = "sleep"
    optimizer: str | Callable[..., torch.optim.Optimizer] = "adam"
    validate_every: Count | None = None
    patience: Count | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_optimizer(self.optimizer)
        if self.reweighted and self.particles < 2:
            raise OptionError(f"reweighted=True compares particles: it needs at least 2 of them, got {self.particles}.")
        if self.guide_update != "sleep" and not self.reweighted:
            raise OptionError(
                f"guide_update={self.guide_update!r} needs reweighted=True: unweighted particles come from the guide "
                "itself and teach it nothing."
            )

    def why_not(self, program: Program) -> str | None:
        """Only continuous latents of the examples, and dreams of all that is observed."""
        reason = why_not_local_density(program)
        return why_no_dreams(program) if reason is None and self.guide_update != "wake" else reason

    def prepare(self, program: Program, run: Run) -> Training:
        """Splits the parameters into those of the model and of the guide, ready to take steps.

        Raises: CapabilityError when the guide leaves a latent out, or shares all its parameters with the model.
        """
        generative, recognition = self._sides(program, run.train)
        optimizer = make_optimizer(self.optimizer, [*generative, *recognition], self.lr)

        def step(batch: Data, now: Mapping[str, Any]) -> Mapping[str, Tensor]:
            optimizer.zero_grad(set_to_none=True)
            metrics = self.gradients(program, generative, recognition, batch)
            average_gradients([*generative, *recognition])
            set_rate(optimizer, now["lr"])
            optimizer.step()
            return metrics

        loop = Loop(
            run, Schedule.of(self), {"program": program, "optimizer": optimizer},
            label=f"wake-sleep {type(program).__name__}", step=step, scalars={"lr": self.rate(run)},
            diagnose=lambda batch: diagnose(program, program.guide, batch),
        )  # fmt: skip

        def validate() -> float:
            assert run.valid is not None
            bound = Renyi(self.particles, 0.0)
            return evaluate_objective(bound, program, program.guide, run.valid, self.batch_size, run.seed)

        program.train()
        finish = partial(self.ended, program, loop, evaluations=self.evaluations_per_step)
        return Training(loop, finish, validate if run.valid is not None else None)

    @property
    def evaluations_per_step(self) -> int:
        """A particle awake costs the program one gradient, and the guide one if it learns awake; a dream costs one."""
        awake = self.particles * (1 if self.guide_update == "sleep" else 2)
        return awake + (self.guide_update != "wake")

    @staticmethod
    def _sides(program: Program, data: Data) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Parameters of the model alone, and those of the guide."""
        name, missing = type(program).__name__, set(program.sites()) - guided_sites(program.guide, data)
        if missing:
            raise CapabilityError(f"Wake-sleep needs a guide over every latent; {name}'s leaves out {sorted(missing)}.")
        recognition = guide_parameters(program.guide, program, data)
        generative = [p for p in program.parameters() if p.requires_grad and all(p is not q for q in recognition)]
        if not recognition or not generative:
            raise CapabilityError(
                f"Wake-sleep trains the model's and the guide's parameters in turn; {name} has {len(generative)} and "
                f"{len(recognition)}."
            )
        return generative, recognition

    def gradients(
        self, program: Program, generative: list[nn.Parameter], recognition: list[nn.Parameter], batch: Data
    ) -> dict[str, Tensor]:
        """Adds minus the gradients of one wake and one sleep phase to `.grad`, each to the parameters it is meant for.

        Returns: 'loss', minus the bound of K particles per example, and 'sleep_loss', minus log q(z | x) of the dreams.
        """
        with torch.no_grad():
            draws = draw(program.guide, self.particles, *batch)
        wake = log_joint(program, draws.values, *batch).local
        log_weights = wake.detach() - draws.log_prob.local
        bound = torch.logsumexp(log_weights, 0).mean() - math.log(self.particles)
        weights = log_weights.softmax(0) if self.reweighted else torch.full_like(log_weights, 1 / self.particles)
        (-(weights * wake).sum(0).mean()).backward(inputs=generative)
        metrics = {"loss": -bound}
        if self.guide_update != "sleep":
            log_q = guide_log_prob(program.guide, draws.values, *batch).local
            (-(weights * log_q).sum(0).mean()).backward(inputs=recognition)
        if self.guide_update != "wake":
            with torch.no_grad():
                dream = simulate(program, batch.size, batch.context)
            latents = {name: value[None] for name, value in dream.latents.items()}
            asleep = -guide_log_prob(program.guide, latents, dream.x, batch.context).local.mean()
            asleep.backward(inputs=recognition)
            metrics["sleep_loss"] = asleep.detach()
        return metrics
