"""Forward-backward and Baum-Welch, ours against hmmlearn's C++: the same sequences, parameters, iterations.

    zoo bench speed --only hmm --out runs/speed

hmmlearn is timed with both its implementations, 'scaling' and 'log'; the ratio is to the faster. It takes sequences one
by one on one thread. Memory is the most that the work adds to a process of its own that already holds the data.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.speed import duel
from benchmarks.speed.duel import Comparison
from benchmarks.speed.resources import limited
from zoo.chains.hmm import HMM
from zoo.errors import OptionError

__all__ = ["SIDES", "TASKS", "Problem", "Result", "compare", "hmmlearns", "ours", "warm_up"]

TASKS = ("posteriors", "baum-welch")


@dataclass(frozen=True)
class Problem:
    """One piece of work.

    Args:
        task: 'posteriors', p(z_t | x) of all steps, or 'baum-welch', so many iterations without a test of convergence.
        sequences: Number B, drawn from a random model with as many states.
        steps: T.
        states: K.
        emission: 'categorical', or 'normal' with a diagonal covariance.
        values: Number of values of a category.
        dim: Features a step, for 'normal'.
        iterations: Of Baum-Welch.
        seed: Of the data; the next seed makes the parameters at the start.
        dtype: Ours, 'float64' or 'float32'; hmmlearn has float64 only.
    """

    task: str = "baum-welch"
    sequences: int = 1000
    steps: int = 100
    states: int = 32
    emission: str = "categorical"
    values: int = 32
    dim: int = 4
    iterations: int = 3
    seed: int = 0
    dtype: str = "float64"

    def __post_init__(self) -> None:
        for name, known in (
            ("task", TASKS),
            ("emission", ("categorical", "normal")),
            ("dtype", ("float64", "float32")),
        ):
            if getattr(self, name) not in known:
                raise OptionError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}.")
        for name in ("sequences", "steps", "states", "dim", "iterations"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name} must be at least 1, got {getattr(self, name)}.")

    def model(self, seed: int) -> HMM:
        """A random model: transitions and categories from softmax of normal logits, means from a normal."""
        shape = [self.steps] if self.emission == "categorical" else [self.steps, self.dim]
        options: dict[str, Any] = {"emission": self.emission, "values": self.values, "smoothing": 0.0, "window": 1}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            program = HMM(shape, self.states, **options, min_scale=1e-6).double()
            with torch.no_grad():
                for name, p in program.named_parameters():
                    if not name.startswith("emission.scale"):
                        p.copy_(1.5 * torch.randn(p.shape, dtype=p.dtype))
        return program.to(getattr(torch, self.dtype))

    def data(self) -> Tensor:
        """The sequences (B, T) or (B, T, D), drawn some at a time, so that memory stays with what they take."""
        program = self.model(self.seed)
        x = torch.empty(self.sequences, *program.event_shape, dtype=getattr(torch, self.dtype))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            for rows in x.split(16):
                rows.copy_(program.generate(len(rows)))
        return x


@dataclass(frozen=True)
class Result:
    """What one piece of work took and found."""

    seconds: float
    """Of all posteriors, or per iteration of Baum-Welch."""
    log_likelihood: float
    """Of all sequences at the end, in nats; computed outside of the time."""
    answer: Tensor = field(repr=False)
    """Posteriors (B T, K), or the transition probabilities (K, K) at the end."""


def ours(problem: Problem, x: Tensor, score: bool = True) -> Result:
    """Our forward-backward or Baum-Welch; sequences x as `problem.data` makes them."""
    program = problem.model(problem.seed + 1)
    started = time.perf_counter()
    if problem.task == "posteriors":
        answer = program.marginals(x).flatten(0, 1)
        seconds = time.perf_counter() - started
    else:
        for _ in range(problem.iterations):
            program.m_step(program.e_step(x)[1])
        seconds = (time.perf_counter() - started) / problem.iterations
        answer = program.transition_logits.detach().softmax(-1)
    with torch.no_grad():
        value = float(program.log_prob(x).double().sum()) if score else float("nan")
    return Result(seconds, value, answer)


def hmmlearns(problem: Problem, x: Tensor, score: bool = True, implementation: str = "scaling") -> Result:
    """hmmlearn's, with its priors flat and its floor of variances gone.

    Raises: OptionError where hmmlearn is not installed.
    """
    program = problem.model(problem.seed + 1).double()
    peer = _peer(problem, implementation)
    peer.startprob_ = program.initial_logits.detach().softmax(-1).numpy()
    peer.transmat_ = program.transition_logits.detach().softmax(-1).numpy()
    if problem.emission == "categorical":
        peer.emissionprob_ = program.emission.logits.detach().softmax(-1)[:, 0].numpy()
        rows = x.reshape(-1, 1).long().numpy()
    else:
        peer.means_ = program.emission.loc.detach().numpy().copy()
        peer.covars_ = program.emission.scale.detach().square().numpy()
        rows = x.reshape(-1, problem.dim).double().numpy()
    lengths = [problem.steps] * len(x)
    started = time.perf_counter()
    if problem.task == "posteriors":
        value, posteriors = peer.score_samples(rows, lengths)
        seconds = time.perf_counter() - started
        return Result(seconds, float(value), torch.from_numpy(posteriors))
    peer.fit(rows, lengths)
    seconds = (time.perf_counter() - started) / problem.iterations
    value = peer.score(rows, lengths) if score else float("nan")
    return Result(seconds, float(value), torch.from_numpy(peer.transmat_))


def _peer(problem: Problem, implementation: str) -> Any:
    try:
        from hmmlearn.hmm import CategoricalHMM, GaussianHMM  # type: ignore[import-untyped]
    except ImportError as error:
        raise OptionError("The comparison needs hmmlearn, which is not installed: pip install hmmlearn.") from error
    logging.getLogger("hmmlearn").setLevel(logging.ERROR)  # it warns of few data in the warm-up
    options = {"n_iter": problem.iterations, "tol": -np.inf, "init_params": "", "implementation": implementation}
    if problem.emission == "categorical":
        return CategoricalHMM(problem.states, n_features=problem.values, **options)
    flat = {"min_covar": 0, "covars_prior": 0, "covars_weight": 0, "means_weight": 0}
    return GaussianHMM(problem.states, "diag", **flat, **options)


SIDES: dict[str, Callable[..., Result]] = {
    "ours": ours,
    "scaling": partial(hmmlearns, implementation="scaling"),
    "log": partial(hmmlearns, implementation="log"),
}


def warm_up(problem: Problem, sides: tuple[str, ...] = tuple(SIDES)) -> None:
    """A few sequences, for imports and buffers that a first call makes."""
    small = replace(problem, sequences=4, iterations=1)
    for side in sides:
        SIDES[side](small, small.data())


def compare(problem: Problem, repeats: int = 3, threads: int = 2) -> Comparison:
    """The same work by each side in turn; the difference is the largest relative one of log-likelihoods."""
    with limited(threads):
        warm_up(problem)
    return duel.compare(problem, SIDES, ("scaling", "log"), _difference, repeats, threads)


def _difference(found: Mapping[str, Result]) -> float:
    return max(abs(found[side].log_likelihood / found["ours"].log_likelihood - 1) for side in ("scaling", "log"))
