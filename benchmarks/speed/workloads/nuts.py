"""NUTS, ours against those of Pyro, NumPyro, BlackJAX and PyMC: one posterior, seconds for as many effective draws.

    zoo bench speed --only nuts --out runs/speed

Times are those of whole runs, tracing and compiling included. NumPyro's chains run one after the other, or vectorized;
Pyro's and BlackJAX's one after the other; PyMC's are sampled by nutpie, on as many threads as there may be. A second
run finds what the first has compiled, where the library keeps it (NumPyro, of chains one after the other, does not);
what PyMC keeps on disk for later processes is not used. The worst parameter counts: the one with the smallest effective
sample size (Vehtari et al., 2021). BlackJAX is given NumPyro's density.
"""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro import infer
from pyro.distributions import constraints
from pyro.poutine.messenger import Messenger
from torch import Tensor

from benchmarks.speed import duel
from benchmarks.speed.contender import Unavailable
from benchmarks.speed.duel import Comparison
from benchmarks.speed.resources import limited
from benchmarks.speed.workloads import eight_schools, logistic, numpyro_posteriors, pymc_posteriors
from benchmarks.targets import posteriordb
from benchmarks.targets.posteriordb import time_series
from inference.chains import ess
from inference.fit import fit
from zoo import datasets
from zoo.bayes.eight_schools import EightSchools
from zoo.datasets import Data
from zoo.datasets.reference import source_of
from zoo.datasets.sources import local
from zoo.distributions import Restricted
from zoo.errors import OptionError
from zoo.program import Program

__all__ = ["SIDES", "Posterior", "Problem", "Result", "compare", "numpyros", "ours", "pyros", "warm_up"]

REFERENCES = {
    "gaussian-mixture": "low_dim_gauss_mix-low_dim_gauss_mix",
    "hmm": "hmm_example-hmm_example",
    "test-scores": "kidiq-kidscore_interaction",
    "mesquite": "mesquite-logmesquite",
}
"""Models that are posteriordb's, with its data."""
MODELS = ("eight-schools", "logistic", *REFERENCES)
TOO_LONG = ("hmm", "test-scores")
"""Models for whose draws Pyro's sampler takes a quarter of an hour."""
THOUSAND = 1000


@dataclass(frozen=True)
class Posterior:
    """What is sampled, as each side writes it."""

    program: Program
    data: Data
    """Of the program."""
    model: Callable[..., Any]
    """Pyro's."""
    theirs: Callable[[], Callable[..., Any]]
    """Makes NumPyro's, with the same arguments and sites."""
    pymcs: Callable[..., Any]
    """Makes PyMC's of the arguments, as arrays."""
    given: Mapping[str, Any]
    """Arguments of all, by name and in order: tensors, numbers or None."""


@dataclass(frozen=True)
class Problem:
    """One posterior to be sampled.

    Args:
        model: 'eight-schools', not centred; 'logistic': regression on generated data; or one of posteriordb's, in
            double precision: 'gaussian-mixture', 'hmm', 'test-scores', 'mesquite'.
        n: Rows of generated data.
        d: Their features.
        warmup, draws, chains: Of the sampler.
        seed: Of generated data and of the chains.
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

    @property
    def dtype(self) -> torch.dtype:
        """Of the data and of all others; ours computes in double precision wherever the code bears it."""
        return torch.float64 if self.model in REFERENCES else torch.float32

    def posterior(self) -> Posterior:
        """As everyone writes it; the default dtype must be `dtype`."""
        if self.model in REFERENCES:
            return _of_posteriordb(REFERENCES[self.model])
        theirs: Callable[[], tuple[Any, ...]]
        pymcs: Callable[..., Any]
        if self.model == "logistic":
            job = logistic.work(seed=self.seed, n=self.n, d=self.d)
            program, model, theirs = (
                logistic.by_zoo(job)[0],
                logistic.by_pyro(job)[0],
                partial(logistic.by_numpyro, job),
            )
            pymcs = partial(pymc_posteriors.logistic, bias_scale=logistic.BIAS_SCALE)
        else:
            job, program, pymcs = eight_schools.work(seed=self.seed), EightSchools(), pymc_posteriors.eight_schools
            model, theirs = eight_schools.by_pyro_of(job)()[0], eight_schools.by_numpyro
        given = dict(zip(("x", "context"), job.data, strict=True))
        return Posterior(program, job.data, model, theirs=lambda: theirs()[0], pymcs=pymcs, given=given)

    def data(self) -> Tensor:
        """What is observed."""
        with precision(self.dtype):
            return self.posterior().data.x


def _of_posteriordb(name: str) -> Posterior:
    compact, *originals = source_of(name).files
    if not any(all(local(file) for file in way) for way in ([compact], originals)):
        raise Unavailable(f"posteriordb's {name} is not on this machine: set ZOO_DATA, or load it once")
    reference = posteriordb.load(name)
    module, _, function = posteriordb.PROGRAMS[name].partition(":")
    model = getattr(import_module(module), function)
    known = datasets.reference_posterior(name).data
    given = {
        key: torch.as_tensor(known[key]) if isinstance(known[key], np.ndarray) else known[key]
        for key in inspect.signature(model).parameters
    }
    theirs, pymcs = (getattr(module, model.__name__) for module in (numpyro_posteriors, pymc_posteriors))
    pyros = hmm_by_pyro if model is time_series.hmm_example else _Drawable()(model)
    return Posterior(reference.program(), reference.data, pyros, theirs=lambda: theirs, pymcs=pymcs, given=given)


class _Drawable(Messenger):
    """Flat priors as Pyro's sampler takes them, which draws once to see the sites: any other, its density left out."""

    def _pyro_sample(self, msg: Any) -> None:
        if isinstance(msg["fn"], dist.ImproperUniform):
            flat, event = msg["fn"], torch.zeros(msg["fn"].event_shape)
            made = dist.Normal(event, 1.0) if flat.support is constraints.real_vector else dist.LogNormal(event, 1.0)
            msg["fn"] = made.to_event(event.ndim).mask(False)


def hmm_by_pyro(y: Tensor) -> None:
    """`hmm_example` by Pyro's own distribution of sequences, which multiplies matrices in log2 T turns."""
    rows = [pyro.sample(f"theta{k}", dist.Dirichlet(y.new_ones(2))) for k in (1, 2)]
    prior = dist.Normal(y.new_tensor([3.0, 10.0]), 1.0).to_event(1)
    mu = pyro.sample("mu", Restricted(prior, dist.constraints.positive_ordered_vector))
    transition = torch.stack(rows).log()[None]
    # Its sequences begin with a step from an earlier state, so that the first observation counts as a prior.
    first = dist.Normal(mu, 1.0).log_prob(y[0]) - math.log(2.0)
    pyro.factor("first", first.logsumexp(0))
    path = dist.DiscreteHMM(first, transition, dist.Normal(mu[None], 1.0), duration=len(y) - 1)
    pyro.sample("y", path, obs=y[1:])


@contextmanager
def precision(dtype: torch.dtype) -> Iterator[None]:
    """torch's default dtype, and JAX's where it is installed, as long as it lasts."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        if find_spec("jax") is None:
            yield
        else:
            import jax

            with jax.enable_x64(dtype == torch.float64):
                yield
    finally:
        torch.set_default_dtype(before)


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
    with precision(problem.dtype):
        made = problem.posterior()
        options = {"warmup": problem.warmup, "draws": problem.draws, "chains": problem.chains}
        started = time.perf_counter()
        found = fit(made.program, made.data, "nuts", seed=problem.seed, device="cpu", **options)  # type: ignore[arg-type]
        assert found.samples is not None
        shape = (problem.chains, problem.draws)
        return Result.of(started, {name: value.unflatten(0, shape) for name, value in found.samples.items()})


def pyros(problem: Problem, x: Tensor, score: bool = True) -> Result:
    """Pyro's own sampler, chain after chain."""
    with precision(problem.dtype), torch.random.fork_rng(devices=[]):
        made = problem.posterior()
        started = time.perf_counter()
        chains = []
        torch.manual_seed(problem.seed)
        for _ in range(problem.chains):
            mcmc = infer.MCMC(infer.NUTS(made.model), problem.draws, problem.warmup, disable_progbar=True)
            mcmc.run(*made.given.values())
            chains.append(mcmc.get_samples())
        return Result.of(started, {name: torch.stack([each[name] for each in chains]) for name in chains[0]})


def numpyros(problem: Problem, x: Tensor, score: bool = True, how: str = "sequential", runs: int = 1) -> Result:
    """NumPyro's; the last of so many runs, each of another seed, is timed."""
    import jax
    from numpyro.infer import MCMC
    from numpyro.infer import NUTS as Kernel

    with precision(problem.dtype):
        made = problem.posterior()
        given = _for_jax(made.given)
        started = time.perf_counter()
        mcmc = MCMC(
            Kernel(made.theirs()), num_warmup=problem.warmup, num_samples=problem.draws, num_chains=problem.chains,
            chain_method=how, progress_bar=False,
        )  # fmt: skip
        for turn in range(runs):
            started = time.perf_counter() if turn else started
            mcmc.run(jax.random.PRNGKey(problem.seed + turn), *given.values())
        return Result.of(started, _for_torch(mcmc.get_samples(group_by_chain=True)))


def blackjaxs(problem: Problem, x: Tensor, score: bool = True, runs: int = 1) -> Result:
    """BlackJAX's with its window adaptation, chain after chain, of the density that NumPyro makes of its model."""
    import blackjax
    import jax
    from numpyro.infer.util import initialize_model

    with precision(problem.dtype):
        made = problem.posterior()
        given = _for_jax(made.given)
        started = time.perf_counter()
        model, key = made.theirs(), jax.random.PRNGKey(problem.seed)
        potential = initialize_model(key, model, model_kwargs=given).potential_fn

        def density(z: Any) -> Any:
            return -potential(z)

        @jax.jit
        def chain(start: Any, warming: Any, drawing: Any) -> Any:
            warm_up = blackjax.window_adaptation(blackjax.nuts, density)
            (state, parameters), _ = warm_up.run(warming, start, num_steps=problem.warmup)
            sampler = blackjax.nuts(density, **parameters)

            def step(at: Any, key: Any) -> tuple[Any, Any]:
                new, _ = sampler.step(key, at)
                return new, new.position

            return jax.lax.scan(step, state, jax.random.split(drawing, problem.draws))[1]

        for turn in range(runs):
            started = time.perf_counter() if turn else started
            chains = []
            for first, warming, drawing in jax.random.split(jax.random.fold_in(key, turn), (problem.chains, 3)):
                found = initialize_model(first, model, model_kwargs=given)
                draws = chain(found.param_info.z, warming, drawing)
                chains.append(_for_torch(jax.vmap(found.postprocess_fn)(draws)))
        return Result.of(started, {name: torch.stack([each[name] for each in chains]) for name in chains[0]})


def pymcs(problem: Problem, x: Tensor, score: bool = True, runs: int = 1) -> Result:
    """PyMC's model, compiled and sampled by nutpie in its defaults; the last of so many runs is timed."""
    import nutpie
    from pytensor import config

    with precision(problem.dtype):
        made = problem.posterior()
        given = {name: v.numpy() if isinstance(v, Tensor) else v for name, v in made.given.items()}
        started = time.perf_counter()
        with config.change_flags(numba__cache=False):
            compiled = nutpie.compile_pymc_model(made.pymcs(**given))
            for turn in range(runs):
                started = time.perf_counter() if turn else started
                found = nutpie.sample(
                    compiled, draws=problem.draws, tune=problem.warmup, chains=problem.chains, save_warmup=False,
                    cores=torch.get_num_threads(), seed=problem.seed + turn, progress_bar=False,
                ).posterior  # fmt: skip
        # What ends so is a site in the units of its chain.
        return Result.of(started, _for_torch({name: found[name] for name in found if not name.endswith("__")}))


def _for_jax(given: Mapping[str, Any]) -> dict[str, Any]:
    import jax.numpy as jnp

    return {name: jnp.asarray(v.numpy()) if isinstance(v, Tensor) else v for name, v in given.items()}


def _for_torch(found: Mapping[str, Any]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.asarray(value).copy()) for name, value in found.items()}


SIDES: dict[str, Any] = {"ours": ours, "Pyro": pyros}
if find_spec("numpyro") is not None:
    SIDES |= {
        "NumPyro": numpyros,
        "NumPyro, vectorized": partial(numpyros, how="vectorized"),
        "NumPyro, vectorized, second run": partial(numpyros, how="vectorized", runs=2),
    }
    if find_spec("blackjax") is not None:
        SIDES |= {"BlackJAX": blackjaxs, "BlackJAX, second run": partial(blackjaxs, runs=2)}
if find_spec("pymc") is not None and find_spec("nutpie") is not None:
    SIDES |= {"PyMC, nutpie": pymcs, "PyMC, nutpie, second run": partial(pymcs, runs=2)}


def warm_up(problem: Problem, sides: Sequence[str] = ()) -> None:
    """A few draws of each side: imports, and what a process does once."""
    few = replace(problem, n=min(problem.n, 100), warmup=4, draws=4, chains=1)
    for side in sides or SIDES:
        SIDES[side](few, few.data())
    ess(torch.randn(2, 8))


def compare(problem: Problem, repeats: int = 3, threads: int = 2) -> Comparison:
    """The same work by each side in turn; the difference is the largest of a mean, in standard deviations.

    Ours is set against the fastest of the others. Pyro's takes minutes and runs once where it is not alone with ours,
    and not at all for `TOO_LONG`.
    """
    left_out = {"Pyro"} if problem.model in TOO_LONG and len(SIDES) > 2 else set[str]()
    sides = {side: work for side, work in SIDES.items() if side not in left_out}
    with limited(threads):
        warm_up(problem, list(sides))
    others = tuple(side for side in sides if side != "ours")
    return duel.compare(problem, sides, others, _difference, repeats, threads, once=("Pyro",) if others[1:] else ())


def _difference(found: Mapping[str, Result]) -> float:
    mine = found["ours"]
    return max(
        float(((each.means - mine.means) / mine.sds).abs().max()) for side, each in found.items() if side != "ours"
    )
