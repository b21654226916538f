"""Estimates in nats, with how they were made and their Monte Carlo error; importance weights and the ELBO by unit.

A *unit* is what has an evidence of its own: each example, or everything at once when a global latent ties the examples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoContinuous, AutoDelta, AutoGuide, AutoNormal, AutoStructured
from torch import Tensor
from torch.distributions import biject_to

from inference import one_by_one
from inference.environment import evaluating
from inference.guides.named import needs_full_batch, refuse_point
from inference.particles import LogDensity, draw, guide_log_prob, log_joint, trace_log_density, unit_log_weights
from zoo import datasets
from zoo.adopted import Adopted
from zoo.arguments import Arguments
from zoo.arrays import count_gaps
from zoo.datasets import Data, Dataset
from zoo.errors import CapabilityError, ImplicitDensityError, NonFiniteError, ShapeError
from zoo.options import Count, check_value
from zoo.program import ImplicitProgram, Program

__all__ = [
    "Estimate",
    "checked",
    "density",
    "elbo",
    "importance_log_weights",
    "log_mean_exp",
    "weight_batches",
]

CHUNK = 2**14
"""Particle-example pairs evaluated at once: 16,384 rows of a 784-pixel decoder are about 100 MB in float64."""
PIXELS = 784
"""Numbers of an example up to which a pair counts as one; a chorale of 160 steps of 88 keys counts as eighteen."""
BATCH = 256
"""Examples evaluated at once."""


@dataclass(frozen=True)
class Estimate:
    """Log densities of U independent units, in nats: examples, or one unit when a global latent ties them."""

    values: Tensor
    """(U,)."""
    how: str
    """'exact', 'grid', 'ELBO-1000', 'IWAE-5000', 'AIS-500', 'Parzen-10000', ..."""
    bound: bool
    """Whether the expectation of the estimate is below the truth."""
    monte_carlo_error: Tensor | None = None
    """Standard error of each value (U,) from the estimator's own randomness; None when it has none."""
    error_of_mean: float | None = None
    """That of their mean, where the values share their draws; None where each has draws of its own."""

    @property
    def mean(self) -> float:
        """Mean over units."""
        return float(self.values.mean())

    @property
    def standard_error(self) -> float | None:
        """Standard error of the mean as an estimate for the population of examples; None for a single unit."""
        units = len(self.values)
        return float(self.values.std()) / math.sqrt(units) if units > 1 else None

    @property
    def mean_error(self) -> float:
        """Monte Carlo standard error of `mean` for these very units; 0 for an exact value."""
        if self.error_of_mean is not None:
            return self.error_of_mean
        if self.monte_carlo_error is None:
            return 0.0
        return float(self.monte_carlo_error.square().sum().sqrt()) / len(self.values)

    def bits_per_dim(self, event_numel: int) -> float:
        """-mean / (event_numel ln 2); for a single unit of N examples give N times the numbers in one example."""
        return -self.mean / (event_numel * math.log(2.0))

    def perplexity(self, words: float = 1.0) -> float:
        """exp(-mean / words), each unit being so many words: how many equally likely ones would be as hard to guess."""
        return math.exp(-self.mean / words)


def checked(program: Program, data: Any, context: Any = None, complete: bool = False) -> Data:
    """Data of any kind as a program takes them; every instrument asks this before it computes.

    Args:
        program: Says what it takes.
        data: What `fit` takes: what `Data.of` does; or a name, a file or a `Dataset`, of which it is the test split.
        context: That of x, where `data` is x alone.
        complete: Whether the instrument can do nothing with missing values, also where the program can.

    Raises: what `datasets.load`, `Dataset.split` and `Program.take` raise; NonFiniteError for missing values.
    """
    if isinstance(data, str | Path) and not isinstance(program, Adopted):
        data = datasets.load(data)
    if isinstance(data, Dataset):
        data = data.split("test")
    found = program.take(data, context)
    missing = count_gaps(found.x)[0] if complete else 0
    if missing:
        raise NonFiniteError(f"{missing} values are missing (NaN), and this looks at whole examples; fill them in.")
    return found


def weight_batches(
    program: Program, guide: Callable[..., Any] | None, data: Data, particles: int, chunk: int = CHUNK
) -> Iterator[Tensor]:
    """Yields log importance weights (particles, U_b) by batches of examples; one batch when the examples are tied.

    At most `chunk` particle-example pairs of up to `PIXELS` numbers are evaluated at once, fewer of longer examples,
    each at weight log p(x, z) - log q(z | x). A guide of None is the program's own.

    Raises: ImplicitDensityError, OptionError, ShapeError for an autoguide that was set up on other data,
        CapabilityError for a guide that is a point.
    """
    if isinstance(program, ImplicitProgram):
        raise ImplicitDensityError(
            f"{type(program).__name__} is implicit: it has no density. Use a Parzen score, AIS on a decoder with an "
            "observation model (inference.evaluation.annealing.anneal), or a two-sample distance."
        )
    guide = guide if guide is not None else program.guide
    for name, value in (("particles", particles), ("chunk", chunk)):
        check_value(name, value, Count)
    tied = any(site.is_global for site in program.sites().values())
    if needs_full_batch(guide, program):
        _check_autoguide_rows(guide, data)
        tied = True
    refuse_point(guide, program, data, "An importance weight (ELBO, IWAE, k-hat)")
    for batch in [data] if tied else data.batches(BATCH):
        pairs = chunk * PIXELS // max(PIXELS, batch.x[:1].numel())
        rows = max(1, pairs // batch.size)
        parts = []
        for start in range(0, particles, rows):
            n = min(rows, particles - start)
            draws = draw(guide, n, *batch)
            parts.append(unit_log_weights(log_joint(program, draws.values, *batch, particles=n) - draws.log_prob))
        yield torch.cat(parts)


def _check_autoguide_rows(guide: Any, data: Data) -> None:
    """An autoguide keeps one factor for each row it was set up on, in that order (pyro#3468)."""
    for frame in guide._prototype_frames.values():
        if frame.name == "data" and frame.size != data.size:
            raise ShapeError(
                f"{type(guide).__name__} holds factors for the {frame.size} examples it was fitted on and knows "
                f"nothing of other rows; got {data.size}. Evaluate it on its own data, or fit an amortised guide "
                "(guide='own')."
            )


@torch.no_grad()
def importance_log_weights(
    program: Program,
    guide: Callable[..., Any] | None,
    data: Any,
    particles: int = 1000,
    *,
    seed: int = 0,
    chunk: int = CHUNK,
) -> Tensor:
    """All log importance weights (particles, U): for k-hat, effective sample sizes, resampling."""
    data = checked(program, data)
    with evaluating(program, guide, seed, data.x.device):
        return torch.cat(list(weight_batches(program, guide, data, particles, chunk)), 1)


def log_mean_exp(log_weights: Tensor) -> tuple[Tensor, Tensor | None]:
    """log of the mean weight over particles, (S, U) -> (U,), and its standard error by the delta method.

    With unbiased weights the value is a lower bound in expectation (Burda et al. 2016), tighter with every particle.
    Minus infinity, with an infinite error, where all weights are zero.
    """
    n = len(log_weights)
    total = log_weights.logsumexp(0)
    if n == 1:
        return total, None
    # Var[log mean w] ~ Var[w] / (n E[w]^2) = (sum w^2 / (sum w)^2 - 1/n) n / (n - 1)
    squares = torch.exp((2 * log_weights).logsumexp(0) - 2 * total)
    error = ((squares - 1 / n).clamp(min=0) * n / (n - 1)).sqrt()
    return total - math.log(n), torch.where(total == -torch.inf, torch.inf, error)


@torch.no_grad()
def elbo(
    program: Program,
    guide: Callable[..., Any] | None,
    data: Any,
    particles: int = 1000,
    seed: int = 0,
    *,
    chunk: int = CHUNK,
) -> Estimate:
    """E_q[log p(x, z) - log q(z | x)] of each unit.

    Args:
        program: A program with a density.
        guide: A guide; None is the program's own.
        data: Examples, of any kind that `Data.of` takes.
        particles: Draws from the guide for each unit.
        seed: Everything random follows from it.
        chunk: Particle-example pairs evaluated at once; bounds the memory.
    """
    weights = importance_log_weights(program, guide, data, particles, seed=seed, chunk=chunk)
    error = None
    if particles > 1:  # one draw that the model excludes makes the bound minus infinity
        error = torch.where((weights == -torch.inf).any(0), torch.inf, weights.std(0) / math.sqrt(particles))
    return Estimate(weights.mean(0), f"ELBO-{particles}", True, monte_carlo_error=error)


def density(
    guide: Callable[..., Any], values: Mapping[str, Tensor], x: Tensor, context: Tensor | None = None
) -> LogDensity:
    """Log density of any guide at given values (S, B or 1, *event), autoguides included.

    Pyro's autoguides draw an auxiliary site in unconstrained space and derive the latent sites from it, so their
    density follows by computing that auxiliary value and conditioning on it.

    Raises: CapabilityError for a point guide (AutoDelta), which has no density.
    """
    if isinstance(guide, AutoDelta):
        raise CapabilityError("AutoDelta is a point, not a distribution: it has no density. Use guide='normal'.")
    if not isinstance(guide, AutoGuide):
        return guide_log_prob(guide, values, x, context)
    if isinstance(context, Arguments):
        return _one_by_one(guide, values, x, context)
    n = max(v.shape[0] for v in values.values())
    with pyro.plate("particles", n, dim=-2):
        conditioned = poutine.condition(guide, data=_auxiliary(guide, values, (n, 1)))
        trace = poutine.trace(conditioned).get_trace(x, context, None)
    return trace_log_density(trace, n, len(x))


def _one_by_one(guide: AutoGuide, values: Mapping[str, Tensor], x: Tensor, context: Arguments) -> LogDensity:
    """The same for adopted code, a particle at a time."""
    layout, _ = one_by_one.layout_of(guide, x, context)
    parts = []
    for i in range(max(v.shape[0] for v in values.values())):
        mine = {name: one_by_one.single_value(v[i], layout[name]) for name, v in values.items()}
        conditioned = poutine.condition(guide, data=_auxiliary(guide, mine, ()))
        parts.append(one_by_one.density_of(poutine.trace(conditioned).get_trace(x, context, None), x, context))
    return one_by_one.together(parts)


def _auxiliary(guide: AutoGuide, values: Mapping[str, Tensor], batch: tuple[int, ...]) -> dict[str, Tensor]:
    """The auxiliary values from which an autoguide derives the given latent values, in a batch of particles."""
    if isinstance(guide, AutoStructured):
        return _noise(guide, values, batch)
    free = {
        name: biject_to(site["fn"].support).inv(values[name])
        for name, site in guide.prototype_trace.iter_stochastic_nodes()
    }
    if isinstance(guide, AutoNormal):
        return {f"{name}_unconstrained": value for name, value in free.items()}
    if isinstance(guide, AutoContinuous):
        packed = torch.cat([value.reshape(*batch, -1) for value in free.values()], -1)
        return {f"_{guide._pyro_name}_latent": packed}
    raise CapabilityError(f"The density of a {type(guide).__name__} at a given point is not available.")


def _noise(guide: AutoStructured, values: Mapping[str, Tensor], batch: tuple[int, ...]) -> dict[str, Tensor]:
    """The standard normals of a structured guide: what a site owes to those before it, then its scales, undone."""
    noise, apart = {}, {}
    for name, site in guide._sorted_sites:
        loc, scale, deps = (attrgetter(name)(part) for part in (guide.locs, guide.scales, guide.deps))
        apart[name] = biject_to(site["fn"].support).inv(values[name]).reshape(*batch, -1) - loc
        own = apart[name]
        for upstream in guide.dependencies.get(name, {}):
            own = own - attrgetter(upstream)(deps)(apart[upstream])
        own = own / scale
        if guide.conditionals[name] == "mvn":
            factor = attrgetter(name)(guide.scale_trils)
            own = torch.linalg.solve_triangular(factor, own[..., None], upper=False)[..., 0]
        noise[f"{name}_aux"] = own
    return noise
