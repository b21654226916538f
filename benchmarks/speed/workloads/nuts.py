"""NUTS, ours against Pyro's and NumPyro's: the same posterior, seconds for as many effective draws.

    zoo bench speed --only nuts --out runs/speed

Times are those of whole runs, tracing and compiling included, of chains one after the other where a side has no other
way on one core. The worst parameter counts: the one with the smallest effective sample size (Vehtari et al., 2021).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from pyro import infer
from torch import Tensor

from benchmarks.speed import duel
from benchmarks.speed.contender import Work
from benchmarks.speed.duel import Comparison
from benchmarks.speed.resources import limited
from benchmarks.speed.workloads import eight_schools, logistic
from inference.chains import ess
from inference.fit import fit
from zoo.bayes.eight_schools import EightSchools
from zoo.errors import OptionError
from zoo.program import Program

__all__ = ["SIDES", "Problem", "Result", "compare", "numpyros", "ours", "pyros", "warm_up"]

MODELS = ("eight-schools", "logistic")
THOUSAND = 1000


@dataclass(frozen=True)
class Problem:
    """One posterior to be sampled.

    Args:
        model: 'eight-schools', not centred, or 'logistic': regression on generated data.
        n: Rows of the latter.
        d: Its features.
        warmup, draws, chains: Of the sampler.
        seed: Of the data and of the chains.
    """

    model: str = "eight-schools"
    n: int = 10_000
    d: int = 20
    warmup: int = 500
    draws: int = 1000
    chains: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise OptionError(f"model must be one of {', '.join(MODELS)}, got {self.model!r}.")

    def work(self) -> Work:
        """The data as the training workloads of the same name have them."""
        if self.model == "logistic":
            return logistic.work(seed=self.seed, n=self.n, d=self.d)
        return eight_schools.work(seed=self.seed)

    def data(self) -> Tensor:
        """What is observed."""
        return self.work().data.x


@dataclass(frozen=True)
class Result:
    """What one run took and found."""

    seconds: float
    """For a thousand effective draws."""
    total: float
    effective: float
    """Smallest effective sample size."""
    means: Tensor
    sds: Tensor

    @classmethod
    def of(cls, started: float, draws: Mapping[str, Tensor]) -> Result:
        """Of a run that has just ended; draws by site, (chains, draws, ...)."""
        total = time.perf_counter() - started
        flat = torch.cat([draws[name].double().flatten(2) if draws[name].ndim > 2 else draws[name].double()[..., None]
                          for name in sorted(draws)], -1)  # fmt: skip
        least = float(ess(flat).min())
        return cls(total / least * THOUSAND, total, least, means=flat.mean((0, 1)), sds=flat.flatten(0, 1).std(0))


def ours(problem: Problem, x: Tensor, score: bool = True) -> Result:
    """`fit(..., "nuts")`."""
    job = problem.work()
    program: Program = EightSchools() if problem.model == "eight-schools" else logistic.by_zoo(job)[0]
    options = {"warmup": problem.warmup, "draws": problem.draws, "chains": problem.chains}
    started = time.perf_counter()
    found = fit(program, job.data, "nuts", seed=problem.seed, device="cpu", **options)  # type: ignore[arg-type]
    assert found.samples is not None
    shape = (problem.chains, problem.draws)
    return Result.of(started, {name: value.unflatten(0, shape) for name, value in found.samples.items()})


def pyros(problem: Problem, x: Tensor, score: bool = True) -> Result:
    """Pyro's own sampler, chain after chain."""
    job = problem.work()
    made = eight_schools.by_pyro_of(job)() if problem.model == "eight-schools" else logistic.by_pyro(job)
    started = time.perf_counter()
    chains = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(problem.seed)
        for _ in range(problem.chains):
            mcmc = infer.MCMC(infer.NUTS(made[0]), problem.draws, problem.warmup, disable_progbar=True)
            mcmc.run(*job.data)
            chains.append(mcmc.get_samples())
    return Result.of(started, {name: torch.stack([each[name] for each in chains]) for name in chains[0]})


def numpyros(problem: Problem, x: Tensor, score: bool = True) -> Result:
    """NumPyro's, compiled once for all chains."""
    import jax
    import jax.numpy as jnp
    from numpyro.infer import MCMC
    from numpyro.infer import NUTS as Kernel

    job = problem.work()
    made = eight_schools.by_numpyro() if problem.model == "eight-schools" else logistic.by_numpyro(job)
    data = [None if value is None else jnp.asarray(value.numpy()) for value in job.data]
    started = time.perf_counter()
    mcmc = MCMC(
        Kernel(made[0]), num_warmup=problem.warmup, num_samples=problem.draws, num_chains=problem.chains,
        chain_method="sequential", progress_bar=False,
    )  # fmt: skip
    mcmc.run(jax.random.PRNGKey(problem.seed), *data)
    found = {name: np.asarray(value) for name, value in mcmc.get_samples(group_by_chain=True).items()}
    return Result.of(started, {name: torch.from_numpy(value.copy()) for name, value in found.items()})


SIDES: dict[str, Any] = {"ours": ours, "Pyro": pyros}
if find_spec("numpyro") is not None:
    SIDES["NumPyro"] = numpyros


def warm_up(problem: Problem, sides: Sequence[str] = ()) -> None:
    """A few draws of each side: imports, and what a process does once."""
    few = replace(problem, n=min(problem.n, 100), warmup=4, draws=4, chains=1)
    for side in sides or SIDES:
        SIDES[side](few, few.data())
    ess(torch.randn(2, 8))


def compare(problem: Problem, repeats: int = 3, threads: int = 2) -> Comparison:
    """The same work by each side in turn; the difference is the largest of a mean, in standard deviations."""
    with limited(threads):
        warm_up(problem)
    return duel.compare(problem, SIDES, tuple(side for side in SIDES if side != "ours"), _difference, repeats, threads)


def _difference(found: Mapping[str, Result]) -> float:
    mine = found["ours"]
    return max(
        float(((each.means - mine.means) / mine.sds).abs().max()) for side, each in found.items() if side != "ours"
    )
