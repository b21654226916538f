"""Markov chain Monte Carlo: the no-U-turn sampler, the reference that is exact in the limit of many draws.

The chains are those of `inference.no_u_turn`; every gradient is of all chains at once, and runs without Python where
the program can be traced. Discrete latents are summed out exactly. Where the posterior has a mode, chains start around
it and walk in units of its curvature, so that columns of data may be correlated and differ by any factor.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import biject_to

from inference.chains import ess, rhat
from inference.guides.named import init_function
from inference.history import History
from inference.method import Method, Outcome, Run
from inference.methods.chain_starts import Starts
from inference.no_u_turn import Chain, Vector
from inference.requirements import why_no_fixed_density
from inference.training.loop import progress_bar
from inference.training.scripted import Scripted
from inference.training.target import Target
from inference.training.tracing import NotStatic
from zoo.adopted import Adopted
from zoo.datasets.data import Data
from zoo.errors import CapabilityError, DivergenceError
from zoo.options import Count, Probability, Range
from zoo.program import ImplicitProgram, Program

__all__ = ["NUTS"]

# Vehtari, Gelman, Simpson, Carpenter & Buerkner, "Rank-normalization, folding, and localization", 2021.
RHAT_LIMIT = 1.01
ESS_PER_CHAIN = 100
STARTS = 100
"""Places at which a chain may try to start."""
LOOKS = 5
"""Places at which code that runs for each chain alone is looked at before."""
KEEP_SECONDS = 30.0
"""Between two checkpoints."""
SCRIPTED_FROM = 50
"""Steps of a chain from which tracing, which costs some hundred gradients in Python, pays."""
SHOWN_EVERY = 25
"""Draws between two looks of the progress bar."""


@dataclass(frozen=True, kw_only=True)
class NUTS(Method):
    """NUTS with step size and mass matrix adapted during warm-up; the chains run side by side.

    Samples latents alone: the program's parameters are held as they are. Its density is that of `Target`, in double
    precision where the program's code bears it. Every gradient is counted, those of starts and warm-up included.

    Args:
        warmup: Steps of each chain that adapt and are thrown away.
        draws: Steps of each chain that are kept.
        chains: Number of chains, each from its own random start.
        target_accept: Acceptance probability that the step size is adapted to; raise it against divergences.
        max_tree_depth: At most 2^depth - 1 leapfrog steps a draw.
        init_strategy: Where chains start: one of Pyro's init functions, or its name without init_to_ ('uniform',
            'sample'). None looks for the modes of the posterior of all latents: each chain starts at a draw of the
            Gaussians there, weighed by evidence, and the mass matrix is diagonal in units of the best one's curvature,
            unless the draws of its warm-up are less correlated along the axes. Where there is no mode, they start
            within 2 of the origin, as Stan's do; `Fit.info['start']` says so.
    """

    name: ClassVar[str] = "nuts"
    takes_weights: ClassVar[bool] = True
    moves_program: ClassVar[bool] = False

    warmup: Count = 500
    draws: Annotated[int, Range(least=4)] = 500
    chains: Count = 4
    target_accept: Probability = 0.8
    max_tree_depth: Count = 10
    init_strategy: str | Callable[..., Any] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.init_strategy is not None:
            init_function(self.init_strategy)  # knows the names

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
        for name, site in sites.items():
            try:
                if not site.is_discrete:
                    biject_to(site.support)
            except NotImplementedError:
                return f"the support of its latent site {name!r}, {site.support}, maps to no unconstrained space"
        return None

    def run(self, program: Program, run: Run) -> Outcome:
        """Runs the chains; `samples` holds them one after the other, (chains * draws, *shape) for each site.

        With a folder, the chains are kept there every half minute: a killed run goes on from there, to the same draws.
        """
        program.eval()
        with np.errstate(all="ignore"):  # what overflows is no density, and ends a path
            density = _Density(program, run.train, self.chains)
            chains = [
                Chain(
                    density.target.size, np.random.SeedSequence(run.seed, spawn_key=(i,)), warmup=self.warmup,
                    draws=self.draws, target_accept=self.target_accept, max_tree_depth=self.max_tree_depth,
                )
                for i in range(self.chains)
            ]  # fmt: skip
            with progress_bar(run.progress) as bar:
                total = self.chains * (self.warmup + self.draws)
                task = bar.add_task(f"nuts {type(program).__name__}", total=total, note="")
                watch = _Watch(run, density, chains, show=lambda **now: bar.update(task, **now))
                if not watch.resumed:
                    bar.update(task, note="looking for modes")
                    starts = Starts(program, density.target, init=self.init_strategy, seed=run.seed)
                    density.started = starts.how
                    self._start(program, density, chains, starts)
                if self.warmup + self.draws >= SCRIPTED_FROM:
                    density.script(np.stack([chain.where for chain in chains]))
                if not watch.resumed:
                    watch.prepared = density.target.evaluations
                _sample(density, chains, watch)
        samples = density.samples(np.concatenate([chain.kept for chain in chains]))
        stacked = {name: value.unflatten(0, (self.chains, self.draws)) for name, value in samples.items()}
        info = self._diagnose(stacked, sum(chain.divergences for chain in chains))
        info |= {"start": density.started, "density": density.how}
        return Outcome(
            samples=samples, history=History(watch.rows), info=info,
            gradient_evaluations=watch.prepared + sum(chain.gradients for chain in chains),
        )  # fmt: skip

    def _start(self, program: Program, density: _Density, chains: list[Chain], starts: Starts) -> None:
        """Puts each chain where log density and slope are finite.

        Raises: DivergenceError.
        """
        where, left = np.stack([chain.place for chain in chains]), list(range(len(chains)))
        for _ in range(STARTS):
            for i in left:
                where[i] = starts.propose(chains[i])
            values, slopes = density(where)
            for i in list(left):
                if np.isfinite(values[i]) and np.isfinite(slopes[i]).all():
                    chains[i].begin(where[i].copy(), float(values[i]), slopes[i], starts.frame)
                    left.remove(i)
            if not left:
                return
        raise DivergenceError(
            f"nuts {type(program).__name__}: found no start with a finite log density and gradient in {STARTS} random "
            "places. Check the scale of the data and the priors."
        )

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


class _Density:
    """Log densities (S,) and slopes (S, D) of a posterior at the places of S chains (S, D), as NumPy has them.

    Args:
        program, data: Of the posterior.
        chains: S, whose shape a traced density has.
    """

    def __init__(self, program: Program, data: Data, chains: int):
        self.how, self.started = "run by Python, the chains being short", ""
        # Code may hold tensors of its own in single precision, which those of double precision do not go with.
        own = data.x.dtype if data.x.is_floating_point() else torch.get_default_dtype()
        for precision in dict.fromkeys((torch.float64, own)):
            try:
                self.target = Target(program, data, precision=precision)
                self.target.held()
                self.target(torch.zeros(chains, self.target.size, dtype=torch.float64, device=data.x.device))
                break
            except RuntimeError:
                if precision == own:
                    raise
        if isinstance(program, Adopted) and (chains == 1 or self.target.one_by_one()):
            # A run for each chain, which may go another way at every place.
            self.target.program.model = _SameSites(program)(self.target.program.model)
            for place in np.random.default_rng(0).uniform(-2, 2, (LOOKS, chains, self.target.size)):
                self.target(torch.from_numpy(place).to(data.x.device))
        self._slope: Callable[[Tensor], tuple[Tensor, ...]] = self.target.slope

    def script(self, where: Vector) -> None:
        """Lets the density run without Python from now on, if it then gives the same, at places of its own."""
        places = self._places(where)
        rtol = 1e-9 if self.target.precision == torch.float64 else 1e-4
        try:
            self._slope = Scripted(self.target.slope, (places, places / 2, -places), rtol)
            self.how = "run by TorchScript"
        except NotStatic as error:
            self.how = f"run by Python: {error}"

    def __call__(self, where: Vector) -> tuple[Vector, Vector]:
        """Minus infinity where there is no density."""
        values, slopes = self._slope(self._places(where))
        found, down = values.cpu().numpy(), slopes.cpu().numpy()
        return np.where(np.isfinite(found), found, -np.inf), down

    def _places(self, where: Vector) -> Tensor:
        return torch.from_numpy(where).to(self.target.data.x.device)

    def samples(self, kept: Vector) -> dict[str, Tensor]:
        """Places of chains (S, D) as sites have them."""
        return self.target.samples(self._places(kept))


class _Watch:
    """What becomes of draws while the chains run: history, progress and checkpoints.

    Args:
        run: The circumstances; if its folder holds chains, these go on from there.
        density: Whose start is that of the chains.
        chains: At their beginning.
        show: Updates the progress bar.
    """

    def __init__(self, run: Run, density: _Density, chains: list[Chain], show: Callable[..., None]):
        self.density, self.chains, self.show = density, chains, show
        self.checkpoint, self.listeners = run.checkpoint, run.listeners
        self.rows: list[dict[str, float]] = []
        self.prepared = 0
        """Gradients before the first step."""
        self.started = self.kept = time.perf_counter()
        found = None if run.checkpoint is None else run.checkpoint.take()
        self.resumed = found is not None
        if found is not None:
            for chain, state in zip(chains, found["chains"], strict=True):
                chain.restore(_arrays(state))
            self.rows, self.prepared, density.started = found["rows"], found["prepared"], found["started"]
            self.started -= found["seconds"]
            self.listeners.report(self.rows)

    def due(self) -> bool:
        """Whether it is time for a checkpoint."""
        return self.checkpoint is not None and time.perf_counter() - self.kept >= KEEP_SECONDS

    def keep(self) -> None:
        """Writes one; no chain is within a draw."""
        if self.checkpoint is not None:
            state: dict[str, Any] = {"chains": [_tensors(chain.state()) for chain in self.chains], "rows": self.rows}
            state |= {"prepared": self.prepared, "started": self.density.started}
            self.checkpoint.write({**state, "seconds": time.perf_counter() - self.started})
            self.listeners.tell("on_checkpoint", sum(chain.done for chain in self.chains), self.checkpoint.path)
        self.kept = time.perf_counter()

    def drawn(self, chain: Chain) -> None:
        """A chain has made a draw."""
        if chain.finished:
            ended = [each for each in self.chains if each.finished]
            row = {"step": len(ended) * chain.done, "seconds": time.perf_counter() - self.started}
            self.rows.append({**row, "divergences": float(sum(each.divergences for each in ended))})
            self.listeners.report(self.rows)
        if chain.finished or chain.done % SHOWN_EVERY == 0:
            diverged = sum(each.divergences for each in self.chains)
            stage = "warmup" if chain.done < chain.warmup else "sample"
            note = f"{stage}, {diverged} diverged" if diverged else stage
            self.show(completed=sum(each.done for each in self.chains), note=note)


def _sample(density: _Density, chains: list[Chain], watch: _Watch) -> None:
    """Runs chains to their ends; each evaluation of the density serves all that ask for one.

    A chain that has ended keeps its row, so that what the others are told does not depend on it.
    """
    where = np.stack([chain.where for chain in chains])
    running = {i: chain.run() for i, chain in enumerate(chains) if not chain.finished}
    asking, resting = list[int](), list(running)
    while running:
        due = watch.due()
        if not (due and asking):
            if due:
                watch.keep()
            for i in resting:
                where[i] = next(running[i])
            asking, resting = asking + resting, []
        values, slopes = density(where)
        told, asking = asking, []
        for i in told:
            place = running[i].send((float(values[i]), slopes[i]))
            if place is not None:
                where[i] = place
                asking.append(i)
                continue
            if chains[i].finished:
                del running[i]
            else:
                resting.append(i)
            watch.drawn(chains[i])
    watch.keep()


def _tensors(value: Any) -> Any:
    """Arrays as tensors, as a checkpoint has them."""
    if isinstance(value, dict):
        return {key: _tensors(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_tensors(each) for each in value]
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


def _arrays(value: Any) -> Any:
    """And back."""
    if isinstance(value, dict):
        return {key: _arrays(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_arrays(each) for each in value]
    return value.numpy() if isinstance(value, Tensor) else value


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
