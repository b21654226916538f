"""Monte Carlo EM: expectations by HMC over the latents of each example, gradient M-steps, no guide.

Wei & Tanner 1990; as in Kingma & Welling, "Auto-encoding variational Bayes", ICLR 2014, appendix E.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pyro
import torch
from torch import Tensor, nn
from torch.distributions import constraints

from inference.method import Method, Outcome, Run
from inference.methods.diagnosis import diagnose
from inference.methods.wake_sleep import check_options
from inference.particles import dreams, log_joint
from inference.requirements import needs_local_latents
from inference.training.loop import Loop, Schedule
from inference.training.optimizers import make_optimizer, rate, set_rate
from zoo.datasets.data import Data
from zoo.errors import CapabilityError, OptionError
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


@dataclass(frozen=True)
class MonteCarloEM(Method):
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
        lr, optimizer, decay: As in `inference.methods.svi.SVI`.
        steps, epochs, batch_size: See `inference.training.loop.Schedule`.
    """

    name: ClassVar[str] = "mcem"

    particles: int = 1
    leapfrog: int = 10
    acceptance: float = 0.9
    m_steps: int = 5
    draws: int | None = None
    lr: float = 1e-2
    optimizer: str | Callable[..., torch.optim.Optimizer] = "adam"
    decay: str = "cosine"
    steps: int | None = None
    epochs: int | None = None
    batch_size: int = 128

    def __post_init__(self) -> None:
        check_options(self.lr, self.decay, self.particles)
        if not 0 < self.acceptance < 1:
            raise OptionError(f"acceptance is a rate in (0, 1), got {self.acceptance}.")
        if min(self.leapfrog, self.m_steps) < 1 or (self.draws is not None and self.draws < 0):
            raise OptionError(
                "leapfrog and m_steps must be at least 1 and draws at least 0; "
                f"got {self.leapfrog}, {self.m_steps} and {self.draws}."
            )

    def why_not(self, program: Program) -> str | None:
        """Only real latents of the examples: HMC moves them without constraints."""
        reason = needs_local_latents(program)
        if reason is None:
            for name, site in program.sites().items():
                support = getattr(site.support, "base_constraint", site.support)
                if support not in (constraints.real, constraints.real_vector):
                    return f"its latent {name!r} lies in {site.support}, and HMC here moves unconstrained latents"
        return reason

    def run(self, program: Program, run: Run) -> Outcome:
        """Fits the program in place."""
        n, name = run.train.size, type(program).__name__
        chains = self._start(program, run.train)
        parameters = self._parameters(program, chains, run.train)
        optimizer = make_optimizer(self.optimizer, parameters, self.lr)
        schedule = Schedule(self.steps, self.epochs, self.batch_size)

        def diagnosis(index: Data) -> str:
            return diagnose(program, lambda *batch: None, run.train.rows(index.x))

        # The loop deals in row numbers instead of rows, so that an example finds its chain again.
        rows = replace(run, train=Data(torch.arange(n, device=run.train.x.device)), valid=None)

        def step(index: Data, now: Mapping[str, Any]) -> Mapping[str, Tensor]:
            batch = run.train.rows(index.x)
            set_rate(optimizer, now["lr"])
            with pyro.validation_enabled(loop.done == 0):
                acceptance = self.propose(program, chains, index.x, batch)
                latents = chains.at(index.x)
                for _ in range(self.m_steps):
                    loss = -log_joint(program, latents, *batch).local.mean()
                    optimizer.zero_grad(set_to_none=True)
                    loss.backward(inputs=parameters)
                    optimizer.step()
            return {"loss": loss.detach(), "acceptance": acceptance, "step_size": chains.log_step_size.exp()}

        parts = {"program": program, "optimizer": optimizer, "chains": chains}
        scalars = {"lr": rate(self.decay, self.lr, schedule.total_steps(n))}
        loop = Loop(rows, schedule, parts, f"mcem {name}", step, scalars, diagnose=diagnosis)
        program.train()
        history = loop.train()
        program.eval()
        samples = self._sample(program, chains, run.train)
        evaluations = loop.done * (self.m_steps + (self.leapfrog + 1) * self.particles)
        info = {
            "posterior": "no guide was trained"
            + (": the draws belong to the training examples" if samples is not None else ", and no draws were kept"),
            "step_size": float(chains.log_step_size.exp()),
        }
        return Outcome(None, None, samples, history, evaluations, info)

    def propose(self, program: Program, chains: _Chains, index: Tensor, batch: Data, adapt: bool = True) -> Tensor:
        """Moves the chains of some examples by one HMC proposal each; returns the mean acceptance rate ().

        Args:
            program: Its log joint density is the target.
            chains: Changed in place.
            index: The rows (B,) of the batch.
            batch: The examples.
            adapt: Whether to move the log of the step size by a tenth of (rate - acceptance).
        """
        before, size = chains.at(index), chains.log_step_size.exp()
        momentum = {name: torch.randn_like(value) for name, value in before.items()}
        start, slope = _slope(program, before, batch)
        energy = start - _kinetic(momentum)
        after, moving = dict(before), dict(momentum)
        for _ in range(self.leapfrog):
            moving = {name: p + size / 2 * slope[name] for name, p in moving.items()}
            after = {name: z + size * moving[name] for name, z in after.items()}
            end, slope = _slope(program, after, batch)
            moving = {name: p + size / 2 * slope[name] for name, p in moving.items()}
        # A trajectory that left the numbers is rejected.
        log_rate = (end - _kinetic(moving) - energy).nan_to_num(-torch.inf, -torch.inf, -torch.inf).clamp(max=0.0)
        accepted = torch.rand_like(log_rate).log() < log_rate
        chains.move(
            index,
            {
                name: torch.where(accepted.reshape(*accepted.shape, *[1] * (z.ndim - 2)), z, before[name])
                for name, z in after.items()
            },
        )
        rate = log_rate.exp().mean()
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
            parts = [dreams(program, batch)[1] for batch in data.batches(self.batch_size)]
            rounds.append({name: torch.cat([part[name] for part in parts], 1) for name in parts[0]})
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


def _kinetic(momentum: Mapping[str, Tensor]) -> Tensor:
    """(S, B)."""
    return torch.stack([p.flatten(2).square().sum(-1) / 2 for p in momentum.values()]).sum(0)


def _slope(program: Program, latents: Mapping[str, Tensor], batch: Data) -> tuple[Tensor, dict[str, Tensor]]:
    """log p(x, z) (S, B) and its gradient in z."""
    free = {name: value.detach().requires_grad_() for name, value in latents.items()}
    with torch.enable_grad():
        local = log_joint(program, free, *batch).local
    return local.detach(), dict(zip(free, torch.autograd.grad(local.sum(), list(free.values())), strict=True))
