r"""Maximum likelihood of densities known up to a constant: examples become likelier, what chains draw less so.

Hinton, "Training products of experts by minimizing contrastive divergence", Neural Computation 14, 2002; persistent
chains: Tieleman, "Training restricted Boltzmann machines using approximations to the likelihood gradient", ICML 2008;
chains from a buffer of past ones: Du & Mordatch, NeurIPS 2019.

    grad log p(x) = grad f(x) - grad log Z,      grad log Z = E_p[grad f]

The second part is what a chain is for, or, where all states can be summed, nothing: `chains='exact'`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from inference.method import Run
from inference.methods.energy import EnergyMethod, why_no_energy
from inference.training.gradient import Training
from inference.training.loop import Loop, Schedule
from inference.training.optimizers import check_optimizer, descend, make_optimizer
from zoo.datasets.data import Data
from zoo.energy.base import EnergyProgram, SummableEnergy
from zoo.options import Count, NonNegative, OneOf, Positive, Share
from zoo.program import Program
from zoo.stored import blocks

__all__ = ["ContrastiveDivergence"]

CHAINS = ("data", "persistent", "replay", "exact")


@dataclass(frozen=True, kw_only=True)
class ContrastiveDivergence(EnergyMethod):
    """Fits an energy-based model by the difference of its slopes at examples and at draws.

    The history's `loss` is the mean of f over draws minus that over examples: no likelihood, and near zero all along
    where chains follow. With `chains='exact'` it is the negative log-likelihood in nats. Where f of an example is too
    much to compute, its bound takes its place (`EnergyProgram.unnormalised_bound`: the mean field of a deep Boltzmann
    machine). `moved` is the share of chains that the last transition of a step moved, the acceptance rate of Langevin
    ones.

    Args:
        chains: Where draws come from, by `sweeps` transitions each step: 'data' starts them at the examples (CD-k);
            'persistent' goes on with the program's particles (PCD); 'replay' takes random particles, a share of which
            starts anew, and puts them back (Du & Mordatch); 'exact' sums over all states instead.
        sweeps: Transitions k.
        fresh: Share of the chains of 'replay' that start anew from the program's base at each step.
        regularise: Weight of the mean squares of f at examples and draws, relative to the base (Du & Mordatch's alpha):
            keeps f from growing where chains do not keep up.
        optimizer: Name in torch.optim, or a factory (params, lr=...).
        weight_decay: Of weights, not of biases; None is the optimizer's own.
        clip_norm: Clips the gradient's norm; None does not.
        patience: Looks at the exact likelihood of the validation data (where it can be summed) without an improvement
            after which the run stops; None never stops early.
        lr, decay, steps, epochs, batch_size, checkpoint_seconds, compile, precision: See `GradientMethod`.
    """

    name: ClassVar[str] = "cd"
    NATS: ClassVar[frozenset[str]] = frozenset({"validation_loss"})

    chains: Annotated[str, OneOf(CHAINS)] = "data"
    sweeps: Count = 1
    fresh: Share = 0.05
    regularise: NonNegative = 0.0
    optimizer: str | Callable[..., torch.optim.Optimizer] = "adam"
    weight_decay: NonNegative | None = None
    clip_norm: Positive | None = None
    patience: Count | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_optimizer(self.optimizer)

    def why_not(self, program: Program) -> str | None:
        """Energy-based models; with 'exact' small ones, with `regularise` those whose base is of examples."""
        reason = why_no_energy(program)
        if reason is None and self.chains == "exact":
            if not isinstance(program, SummableEnergy):
                return "its constant cannot be summed, which chains='exact' asks for; take 'persistent'"
            return program.why_not_summed() or program.why_bounded()
        if reason is None and self.regularise and program.hides:
            return "regularise weighs f of examples beside its base, which is of hidden states here; leave it out"
        return reason

    def why_not_shared(self, program: Program) -> str | None:
        """Chains that start at the data are as many as rows; those that go on are the program's."""
        if self.chains in ("data", "exact"):
            return None
        return f"chains={self.chains!r} go on from step to step, and each process would have others; take chains='data'"

    def prepare(self, program: Program, run: Run) -> Training:
        """Chains, and the optimizer of the program's parameters."""
        assert isinstance(program, EnergyProgram)
        parameters = [p for p in program.parameters() if p.requires_grad]
        optimizer = make_optimizer(self.optimizer, parameters, self.lr, self.weight_decay)

        def step(batch: Data, now: Mapping[str, Any]) -> Mapping[str, Tensor]:
            loss, metrics = self.loss(program, batch.x)
            descend(optimizer, loss, now["lr"], clip_norm=self.clip_norm)
            return metrics

        loop = Loop(
            run, Schedule.of(self), {"program": program, "optimizer": optimizer},
            label=f"cd {type(program).__name__}", step=step, scalars={"lr": self.rate(run)},
        )  # fmt: skip

        if program.looks_at_values and self.compile == "auto":
            loop.compiling = "never"

        program.train()
        known = run.valid is not None and isinstance(program, SummableEnergy)
        known = known and (program.why_not_summed() or program.why_bounded()) is None
        evaluations = 2 if self.chains == "exact" else 2 + self.sweeps * program.sweep_gradients
        finish = partial(self.ended, program, loop, evaluations=evaluations)
        return Training(loop, finish, (lambda: _nats(program, run.valid)) if known else None)

    def loss(self, program: EnergyProgram, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """What falls, (), whose slope is the estimate of the likelihood's, and what the history tells."""
        if self.chains == "exact":
            assert isinstance(program, SummableEnergy)
            loss = program.log_partition() - program.unnormalised_log_prob(x).mean()
            return loss, {"loss": loss.detach()}
        real = program.unnormalised_bound(x)
        drawn, moved = self.negatives(program, x)
        made = program.tempered(drawn, 1.0)
        gap = made.mean() - real.mean()
        loss = gap
        if self.regularise:
            own = [f - program.base().log_prob(at) for f, at in ((real, x), (made, drawn))]
            loss = loss + self.regularise * torch.stack([each.square().mean() for each in own]).sum()
        return loss, {"loss": gap.detach(), "moved": moved}

    @torch.no_grad()
    def negatives(self, program: EnergyProgram, x: Tensor) -> tuple[Tensor, Tensor]:
        """States (B, *state_shape) at which the chains of this step end; 'persistent' has all its particles.

        Also the share of them that the last transition moved, ().
        """
        rows = torch.randperm(len(program.particles), device=x.device)[: len(x)]
        if self.chains == "data":
            at = program.started(x)
        elif self.chains == "persistent":
            at = program.particles.clone()
        else:
            at = program.particles[rows]
            anew = program.base().sample(torch.Size((len(at),)))
            which = torch.rand(len(at), device=x.device) < self.fresh
            at = torch.where(which.reshape(-1, *[1] * (at.ndim - 1)), anew, at)
        for _ in range(self.sweeps):
            before, at = at, program.sweep(at)
        if self.chains == "persistent":
            program.particles.copy_(at)
        elif self.chains == "replay":
            program.particles[rows] = at
        return at, (at != before).flatten(1).any(1).to(at).mean()


@torch.no_grad()
def _nats(program: Any, data: Data | None) -> float:
    """Negative log-likelihood per example."""
    assert data is not None
    values = torch.cat([program.unnormalised_log_prob(x) for x in blocks(data.x)])
    return float(program.log_partition() - values.mean())
