"""Monte Carlo EM: expectations by HMC over the latents of each example, gradient M-steps, no guide.

Wei & Tanner 1990; as in Kingma & Welling, "Auto-encoding variational Bayes", ICLR 2014, appendix E.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import constraints

from inference.hmc import transition
from inference.method import Outcome, Run
from inference.methods.diagnosis import diagnose
from inference.particles import log_joint, simulate
from inference.requirements import why_not_local_density
from inference.training.compiled import COMPILE
from inference.training.gradient import GradientMethod, Training
from inference.training.loop import Loop, Schedule
from inference.training.optimizers import check_optimizer, descend, make_optimizer
from zoo.datasets.data import Data
from zoo.errors import CapabilityError
from zoo.options import Count, Natural, OneOf, Probability
from zoo.program import Program

__all__ = ["MonteCarloEM"]

FEW = 2000
"""Up to so many training examples, the fit ends with posterior draws."""


class _Chains(nn.Module):
    """The state of Markov chains over the latents of every training example; saved with each checkpoint."""

    def __init__(self, latents: Mapping[str, Tensor], step_size: float):
        super().__init__()
        self.names = list(latents)
        for name, value in latents.items():
            self.register_buffer(f"at_{name}", value)
        self.register_buffer("log_step_size", next(iter(latents.values())).new_tensor(step_size).log())
        self.log_step_size: Tensor

    def at(self, index: Tensor | slice = slice(None)) -> dict[str, Tensor]:
        """Where the chains of some examples are: (S, B, *event)."""
        return {name: getattr(self, f"at_{name}")[:, index] for name in self.names}

    def move(self, index: Tensor | slice, to: Mapping[str, Tensor]) -> None:
        """Puts them elsewhere."""
        for name, value in to.items():
            getattr(self, f"at_{name}")[:, index] = value


@dataclass(frozen=True, kw_only=True)
class MonteCarloEM(GradientMethod):
    """Expectations by HMC, one chain or more for each training example, kept from visit to visit; gradient M-steps.

    A step takes a minibatch, moves its chains by one HMC proposal (`leapfrog` leapfrog steps, accepted for each
    example on its own), then takes `m_steps` gradient steps on log p(x, z) at where they are. The step size is common
    to all and adapts to the acceptance rate. The program's guide is not used and not trained: the fit can draw
    latents of the training examples only, and only when these are few.

    Args:
        particles: Chains for each example.
        leapfrog: Leapfrog steps of a proposal.
        acceptance: What the step size aims at.
        m_steps: Gradient steps on the program between two proposals.
        draws: Posterior draws for each training example, made after the fit; None is 100, or none when there are more
            than 2,000 examples. Draws that follow each other are correlated.
        optimizer: As in `inference.methods.svi.SVI`.
        lr, decay, steps, epochs, batch_size, checkpoint_seconds, compile, precision: See `GradientMethod`.
    """

    name: ClassVar[str] = "mcem"

    particles: Count = 1
    leapfrog: Count = 10
    acceptance: Probability = 0.9
    m_steps: Count = 5
    draws: Natural | None = None
    optimizer: str | Callable[..., torch.optim.Optimizer] = "adam"
    compile: Annotated[str, OneOf(COMPILE)] = "never"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_optimizer(self.optimizer)

    def why_not(self, program: Program) -> str | None:
        """Only real latents of the examples: HMC moves them without constraints."""
        reason = why_not_local_density(program)
        if reason is None:
            for name, site in program.sites().items():
                support = getattr(site.support, "base_constraint", site.support)
                if support not in (constraints.real, constraints.real_vector):
                    return f"its latent {name!r} lies in {site.support}, and HMC here moves unconstrained latents"
        return reason

    def why_not_shared(self, program: Program) -> str | None:
        """Chains belong to examples, which each process meets in turn."""
        return "each example has a chain, which only the process knows that moved it last; fit in one process"

    def prepare(self, program: Program, run: Run) -> Training:
        """Starts the chains at draws from the prior, ready to take steps."""
        n = run.train.size
        chains = self._start(program, run.train)
        parameters = self._parameters(program, chains, run.train)
        optimizer = make_optimizer(self.optimizer, parameters, self.lr)

        def step(index: Data, now: Mapping[str, Any]) -> Mapping[str, Tensor]:
            batch = run.train.rows(index.x)
            acceptance = self.propose(program, chains, index.x, batch)
            latents = chains.at(index.x)
            for _ in range(self.m_steps):
                loss = -log_joint(program, latents, *batch).local.mean()
                descend(optimizer, loss, now["lr"], inputs=parameters)
            return {"loss": loss.detach(), "acceptance": acceptance, "step_size": chains.log_step_size.exp()}

        # The loop deals in row numbers instead of rows, so that an example finds its chain again.
        rows = replace(run, train=Data(torch.arange(n, device=run.train.x.device)), valid=None)
        loop = Loop(
            rows, Schedule.of(self), {"program": program, "optimizer": optimizer, "chains": chains},
            label=f"mcem {type(program).__name__}", step=step, scalars={"lr": self.rate(run)},
            diagnose=lambda index: diagnose(program, lambda *batch: None, run.train.rows(index.x)),
        )  # fmt: skip

        def finish() -> Outcome:
            program.eval()
            samples = self._sample(program, chains, run.train)
            kept = ", and no draws were kept" if samples is None else ": the draws belong to the training examples"
            info = {"posterior": f"no guide was trained{kept}", "step_size": float(chains.log_step_size.exp())}
            evaluations = loop.done * (self.m_steps + self.leapfrog + 1) * self.particles
            return Outcome(samples=samples, history=loop.history, gradient_evaluations=evaluations, info=info)

        program.train()
        return Training(loop, finish)

    def propose(self, program: Program, chains: _Chains, index: Tensor, batch: Data, adapt: bool = True) -> Tensor:
        """Moves the chains of some examples by one HMC proposal each; returns the mean acceptance rate ().

        Args:
            program: Its log joint density is the target.
            chains: Changed in place.
            index: The rows (B,) of the batch.
            batch: The examples.
            adapt: Whether to move the log of the step size by a tenth of (rate - acceptance).
        """

        def log_density(latents: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
            local = log_joint(program, latents, *batch).local
            return local, local

        moved = transition(log_density, chains.at(index), chains.log_step_size.exp(), self.leapfrog)
        chains.move(index, moved.values)
        rate = moved.acceptance.mean()
        if adapt:
            chains.log_step_size += 0.1 * (rate - self.acceptance)
        return rate

    def _sample(self, program: Program, chains: _Chains, data: Data) -> dict[str, Tensor] | None:
        """Goes on with all chains at the final parameters and keeps every state, (draws, N, *event)."""
        wanted = self.draws if self.draws is not None else (100 if data.size <= FEW else 0)
        if wanted == 0:
            return None
        kept = []
        for _ in range(-(-wanted // self.particles)):
            for index in torch.arange(data.size, device=data.x.device).split(FEW):
                self.propose(program, chains, index, data.rows(index), adapt=False)
            kept.append({name: value.clone() for name, value in chains.at().items()})
        return {name: torch.cat([k[name] for k in kept])[:wanted] for name in chains.names}

    def _start(self, program: Program, data: Data) -> _Chains:
        """All chains at draws from the prior."""
        rounds = []
        for _ in range(self.particles):
            with torch.no_grad():
                parts = [simulate(program, b.size, b.context).latents for b in data.batches(self.batch_size)]
            rounds.append({name: torch.cat([part[name] for part in parts])[None] for name in parts[0]})
        return _Chains({name: torch.cat([r[name] for r in rounds]) for name in rounds[0]}, step_size=0.1)

    @staticmethod
    def _parameters(program: Program, chains: _Chains, data: Data) -> list[nn.Parameter]:
        """The parameters on which log p(x, z) depends: all but the guide's."""
        candidates = [p for p in program.parameters() if p.requires_grad]
        few = data.rows(slice(0, 2))
        total = log_joint(program, chains.at(slice(0, 2)), *few).total.sum()
        grads = torch.autograd.grad(total, candidates, allow_unused=True) if total.requires_grad else []
        found = [p for p, g in zip(candidates, grads, strict=False) if g is not None]
        if not found:
            raise CapabilityError(
                f"{type(program).__name__} has no parameters in its model, so EM has nothing to maximise."
            )
        return found
