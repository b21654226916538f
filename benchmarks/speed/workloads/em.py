"""EM for Gaussian mixtures, ours against scikit-learn's: the same data, start, iterations and threads.

    zoo bench speed --only em --out runs/speed

Both do one E-step more than iterations: ours at the start, theirs at the end. Times are those of whole fits, checks of
the data included. Memory is the most that a fit adds to a process of its own that already holds the data. Where other
jobs use the same cores set OMP_WAIT_POLICY=passive: threads that wait by spinning hold up the one they wait for, and
ours, whose parallel parts are short, suffers more of it (at a load of 5 on two cores a fit took 7 times as long).
"""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass, replace

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as SklearnMixture
from torch import Tensor

from benchmarks.speed import duel
from benchmarks.speed.duel import Comparison
from benchmarks.speed.resources import limited
from inference.fit import fit
from zoo.errors import OptionError
from zoo.mixtures.gaussian import GaussianMixture

__all__ = ["SIDES", "Problem", "Timing", "compare", "ours", "sklearns", "warm_up"]


@dataclass(frozen=True)
class Problem:
    """One mixture to be fitted.

    Args:
        n: Rows N, drawn from a mixture of as many Gaussians with covariances of their own.
        dim: D.
        components: K.
        covariance: 'spherical', 'diagonal' or 'full'.
        iterations: M-steps; there is no tolerance.
        seed: Of the data and of the start (means at random rows, unit covariances, equal weights).
        dtype: 'float64' or 'float32'.
        floor: Our `covariance_floor` and their `reg_covar`. They add it and we bound by it, so that results are equal
            to rounding only when it is 0.
        noise: Standard deviation of the part of the noise that is independent: the least in any direction. Where it is
            small, full covariances are ill-conditioned and ours goes its slower way.
    """

    n: int = 1_000_000
    dim: int = 16
    components: int = 32
    covariance: str = "diagonal"
    iterations: int = 3
    seed: int = 0
    dtype: str = "float64"
    floor: float = 0.0
    noise: float = 0.3

    def __post_init__(self) -> None:
        if self.n < self.components:
            raise OptionError(f"n must be at least components, got {self.n} rows for {self.components} components.")
        if self.dtype not in ("float64", "float32"):
            raise OptionError(f"dtype must be 'float64' or 'float32', got {self.dtype!r}.")

    def data(self) -> Tensor:
        """The rows (N, D), made in place so that they never take more memory than their own."""
        x = torch.empty(self.n, self.dim, dtype=getattr(torch, self.dtype))
        generator = torch.Generator().manual_seed(self.seed)
        for rows in x.chunk(self.components):
            centre = 3 * torch.randn(self.dim, generator=generator, dtype=torch.float64)
            shape = torch.randn(self.dim, self.dim, generator=generator, dtype=torch.float64) / self.dim**0.5
            for part in rows.split(2**14):  # draws of one component
                z, e = torch.randn(2, *part.shape, generator=generator, dtype=torch.float64)
                part.copy_(centre + z @ shape + self.noise * e)
        return x

    def start(self, x: Tensor) -> Tensor:
        """The first means (K, D)."""
        generator = torch.Generator().manual_seed(self.seed + 1)
        return x[torch.randperm(self.n, generator=generator)[: self.components]].clone()


@dataclass(frozen=True)
class Timing:
    """What one fit took and found."""

    seconds: float
    """Per iteration."""
    log_likelihood: float
    """Mean log-likelihood of the rows at the end, in nats."""


def ours(problem: Problem, x: Tensor, score: bool = True) -> Timing:
    """Our EM; rows x (N, D) as `problem.data` makes them. Its last E-step has scored the rows already."""
    options = {"components": problem.components, "covariance": problem.covariance, "covariance_floor": problem.floor}
    program = GaussianMixture([problem.dim], **options).to(x.dtype)  # type: ignore[arg-type]
    with torch.no_grad():
        program.means.copy_(problem.start(x))
    started = time.perf_counter()
    found = fit(
        program,
        x,
        "em",
        iterations=problem.iterations,
        tolerance=0.0,
        initialise=False,
        device="cpu",
        progress=False,
        seed=problem.seed,
    )
    seconds = time.perf_counter() - started
    return Timing(seconds / problem.iterations, -found.history.last("loss"))


def sklearns(problem: Problem, x: Tensor, score: bool = True) -> Timing:
    """scikit-learn's EM. It keeps no final log-likelihood: with `score` it is computed, outside of the time."""
    k, d = problem.components, problem.dim
    dtype = getattr(np, problem.dtype)
    precisions = {"spherical": np.ones(k), "diagonal": np.ones((k, d)), "full": np.tile(np.eye(d), (k, 1, 1))}
    mixture = SklearnMixture(
        k,
        covariance_type="diag" if problem.covariance == "diagonal" else problem.covariance,
        tol=0.0,
        reg_covar=problem.floor,
        max_iter=problem.iterations,
        weights_init=np.full(k, 1 / k, dtype),
        means_init=problem.start(x).numpy(),
        precisions_init=precisions[problem.covariance].astype(dtype),
        random_state=problem.seed,
    )
    rows = x.numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the number of iterations is given
        started = time.perf_counter()
        mixture.fit(rows)
        seconds = time.perf_counter() - started
    return Timing(seconds / problem.iterations, float(mixture.score(rows)) if score else float("nan"))


SIDES = {"ours": ours, "sklearn": sklearns}


def warm_up(problem: Problem, sides: tuple[str, ...] = tuple(SIDES)) -> None:
    """A fit of few rows, for imports and buffers that a first call makes."""
    small = replace(problem, n=max(problem.components, 1000), iterations=1, floor=1e-6)
    for side in sides:
        SIDES[side](small, small.data())


def compare(problem: Problem, repeats: int = 3, threads: int = 2) -> Comparison:
    """Fits the same rows with each side in turn; the difference is ours less theirs, mean log-likelihood in nats."""
    with limited(threads):
        warm_up(problem)
    return duel.compare(
        problem, SIDES, ("sklearn",), lambda found: found["ours"].log_likelihood - found["sklearn"].log_likelihood,
        repeats, threads,
    )  # fmt: skip
