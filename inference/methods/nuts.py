"""Markov chain Monte Carlo: the no-U-turn sampler, the reference that is exact in the limit of many draws.

Hoffman & Gelman, "The No-U-Turn sampler", JMLR 15, 2014, as Pyro has it. Discrete local latents are summed out exactly.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import torch
from pyro import infer
from pyro.infer.mcmc.util import initialize_model
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from inference.chains import ess, rhat
from inference.history import History
from inference.method import Method, Outcome, Run
from inference.requirements import why_no_fixed_density
from inference.training.loop import progress_bar
from zoo.errors import CapabilityError, DivergenceError
from zoo.flat import FlatPriors
from zoo.options import Count, Probability, Range
from zoo.program import ImplicitProgram, Program

__all__ = ["NUTS"]

# Vehtari, Gelman, Simpson, Carpenter & Buerkner, "Rank-normalization, folding, and localization", 2021.
RHAT_LIMIT = 1.01
ESS_PER_CHAIN = 100


@dataclass(frozen=True, kw_only=True)
class NUTS(Method):
    """NUTS with step size and diagonal mass matrix adapted during warm-up; the chains run one after the other.

    Samples latents alone: the program's parameters are held as they are. Every potential gradient is counted, those of
    the warm-up included.

    Args:
        warmup: Steps of each chain that adapt and are thrown away.
        draws: Steps of each chain that are kept.
        chains: Number of chains, each from its own random start.
        target_accept: Acceptance probability that the step size is adapted to; raise it against divergences.
        max_tree_depth: At most 2^depth - 1 leapfrog steps a draw.
    """

    name: ClassVar[str] = "nuts"
    takes_weights: ClassVar[bool] = True
    moves_program: ClassVar[bool] = False

    warmup: Count = 500
    draws: Annotated[int, Range(least=4)] = 500
    chains: Count = 4
    target_accept: Probability = 0.8
    max_tree_depth: Count = 10

    def why_not(self, program: Program) -> str | None:
        """Needs a density, continuous latents, and discrete ones only where they can be summed out."""
        if isinstance(program, ImplicitProgram):
            return "it is implicit: it has no density whose gradient could be followed"
        sites, drawn = program.sites(), why_no_fixed_density(program)
        if drawn is not None:
            return drawn
        if all(site.is_discrete for site in sites.values()):
            return "it has no continuous latent site to sample"
        stuck = [name for name, site in sites.items() if site.is_discrete and not site.is_enumerable]
        if stuck:
            return f"its discrete latent sites {stuck} cannot be summed out (infinite support, or event dimensions)"
        return None

    def run(self, program: Program, run: Run) -> Outcome:
        """Runs the chains; `samples` holds them one after the other, (chains * draws, *shape) for each site.

        With a folder, each finished chain is kept there: a killed run goes on with the next one.
        """
        started, done, count = time.perf_counter(), _Chains(), _Count()
        found = None if run.checkpoint is None else run.checkpoint.take()
        if found is not None:
            done = _Chains(**found)
            count.gradients, started = done.gradients, started - done.rows[-1]["seconds"]
        steps = self.warmup + self.draws
        program.eval()
        with progress_bar(run.progress) as bar:
            label, total = f"nuts {type(program).__name__}", self.chains * steps
            task = bar.add_task(label, total=total, completed=len(done.samples) * steps, note="")
            for chain in range(len(done.samples), self.chains):

                def advance(kernel: Any, values: Any, stage: str, i: int, chain: int = chain) -> None:
                    bar.update(task, advance=1, note=f"chain {chain + 1}, {stage.lower()}")

                samples, divergences = self._chain(program, run, count, advance)
                done.add(samples, divergences, count.gradients)
                row = {"step": (chain + 1) * steps, "seconds": time.perf_counter() - started}
                done.rows.append({**row, "divergences": float(done.divergences)})
                run.listeners.report(done.rows)
                if run.checkpoint is not None:
                    run.checkpoint.write(vars(done))
                    run.listeners.tell("on_checkpoint", (chain + 1) * steps, run.checkpoint.path)
        stacked = {name: torch.stack([each[name] for each in done.samples]) for name in done.samples[0]}
        stacked = {name: value.to(run.train.x.device) for name, value in stacked.items()}
        info = self._diagnose(stacked, done.divergences)
        samples = {name: value.flatten(0, 1) for name, value in stacked.items()}
        return Outcome(samples=samples, history=History(done.rows), gradient_evaluations=count.gradients, info=info)

    def _chain(self, program: Program, run: Run, count: _Count, hook: Any) -> tuple[dict[str, Tensor], int]:
        """One chain from a random start: (site -> (draws, *shape), number of divergent draws)."""
        try:
            start, potential, transforms, _ = initialize_model(
                FlatPriors(2.0)(_SameSites(program)(program.model)),
                (*run.train, None),
                max_plate_nesting=program.plate_nesting,
            )
        except ValueError as error:
            raise DivergenceError(
                f"nuts {type(program).__name__}: found no start with a finite log density and gradient ({error}). "
                "Check the scale of the data and the priors."
            ) from error

        def counted(values: dict[str, Tensor]) -> Tensor:
            energy = potential(values)
            if energy.requires_grad:
                energy.register_hook(count.add)
            return energy

        kernel = infer.NUTS(
            potential_fn=counted, target_accept_prob=self.target_accept, max_tree_depth=self.max_tree_depth
        )
        mcmc = infer.MCMC(
            kernel, self.draws, self.warmup, initial_params=start, transforms=transforms, hook_fn=hook,
            disable_progbar=True,
        )  # fmt: skip
        mcmc.run()
        samples = {name: value.detach() for name, value in mcmc.get_samples().items()}
        return samples, len(mcmc.diagnostics()["divergences"]["chain 0"])

    def _diagnose(self, stacked: dict[str, Tensor], divergences: int) -> dict[str, Any]:
        """R-hat (largest of each site), effective sample size (smallest), divergences, and a warning if any is bad."""
        worst = {name: float(rhat(value).max()) for name, value in stacked.items()}
        least = {name: float(ess(value).min()) for name, value in stacked.items()}
        info: dict[str, Any] = {
            "rhat": worst,
            "ess": least,
            "divergences": divergences,
            "chains": self.chains,
            "draws": self.draws,
        }
        trouble = []
        # A site that never moved has no R-hat (NaN): that is trouble too.
        unmixed = {name: value for name, value in worst.items() if not value <= RHAT_LIMIT}
        if unmixed:
            values = ", ".join(f"{name} {value:.3f}" for name, value in unmixed.items())
            trouble.append(f"R-hat is above {RHAT_LIMIT} ({values}): the chains disagree, run them longer")
        few = {name: value for name, value in least.items() if value < ESS_PER_CHAIN * self.chains}
        if few:
            values = ", ".join(f"{name} {value:.0f}" for name, value in few.items())
            trouble.append(f"the effective sample size is below {ESS_PER_CHAIN * self.chains} ({values})")
        if divergences:
            trouble.append(
                f"{divergences} draws diverged: the step is too long for some region, raise target_accept or change "
                "the parametrisation"
            )
        info["convergence"] = {"verdict": "not to be trusted" if trouble else "converged"}
        if trouble:
            info["warning"] = "; ".join(trouble) + "."
        return info


class _SameSites(Messenger):
    """Refuses code whose latent sites depend on what was drawn: a chain lives in one space."""

    def __init__(self, program: Program):
        super().__init__()
        self.known = set(program.sites())
        self.name = type(program).__name__

    def __enter__(self) -> _SameSites:
        self.seen = set[str]()
        super().__enter__()
        return self

    def _pyro_sample(self, msg: Any) -> None:
        # A value that the chain gives may stand as observed by now.
        if msg["name"] in self.known or not (msg["is_observed"] or site_is_subsample(msg)):
            self.seen.add(msg["name"])

    def __exit__(self, kind: Any, *rest: Any) -> Any:
        if kind is None and self.seen != self.known:
            other = ", ".join(sorted(self.seen ^ self.known))
            raise CapabilityError(
                f"nuts {self.name}: whether there are the sites {other} depends on what was drawn, and a chain lives "
                "in one space; take 'svi'."
            )
        return super().__exit__(kind, *rest)


@dataclass
class _Chains:
    """The chains that are finished; what a checkpoint keeps."""

    samples: list[dict[str, Tensor]] = field(default_factory=list)
    divergences: int = 0
    gradients: int = 0
    rows: list[dict[str, float]] = field(default_factory=list)

    def add(self, samples: dict[str, Tensor], divergences: int, gradients: int) -> None:
        """One more; `gradients` of all so far."""
        self.samples.append({name: value.clone() for name, value in samples.items()})
        self.divergences += divergences
        self.gradients = gradients


@dataclass
class _Count:
    """Potential gradients so far: one a leapfrog step, one for a chain's start, two for a trial of the step size."""

    gradients: int = 0

    def add(self, grad: Tensor) -> None:
        """A hook for the backward pass."""
        self.gradients += 1
