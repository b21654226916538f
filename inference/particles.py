"""Particles: vectorised draws from a guide and the log joint density at them; every estimator here is built on these.

Programs keep to one data plate at dim -1, so one more plate at dim -2 holds S particles. Local sites come out as
(S, B, *event), global ones as (S, 1, *event). Densities are kept apart by example, (S, B), as long as nothing global
ties the examples together: a bound that sums the batch before its logsumexp is silently wrong (pyro#2220).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.poutine.indep_messenger import IndepMessenger
from pyro.poutine.messenger import block_messengers
from pyro.poutine.runtime import _DIM_ALLOCATOR
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from inference import one_by_one
from inference.densities import Draws, LogDensity, has_path
from zoo.arguments import Arguments
from zoo.errors import CapabilityError
from zoo.flat import drawing
from zoo.process import one_at_a_time
from zoo.program import Program

__all__ = [
    "Draws",
    "LogDensity",
    "Simulated",
    "draw",
    "flatten_draws",
    "guide_log_prob",
    "log_joint",
    "log_weights",
    "outside_handlers",
    "prior_and_likelihood",
    "prior_draws",
    "simulate",
    "trace_log_density",
    "unit_log_weights",
]


@contextmanager
def outside_handlers() -> Iterator[int | None]:
    """Runs a block as if no Pyro handler enclosed it; yields the size of the enclosing plate at dim -2, if any.

    A guide that must evaluate the model in order to sample (a grid, an enumeration) does it in here.
    """
    with block_messengers(lambda messenger: True) as blocked:
        plates = [m for m in blocked if isinstance(m, IndepMessenger) and m.dim is not None]
        # Pyro reserves dimensions apart from the handler stack, so they are handed back for the time being.
        for plate in plates:
            _DIM_ALLOCATOR.free(plate.name, plate.dim)
        try:
            yield next((int(plate.size) for plate in plates if plate.dim == -2), None)
        finally:
            for plate in plates:
                _DIM_ALLOCATOR.allocate(plate.name, plate.dim)


GuideFn = Callable[..., Any]
"""Anything with the signature of `Program.guide`: the program's own, an autoguide, an exact posterior, a grid."""


def trace_log_density(trace: poutine.Trace, n: int, batch: int, exclude: tuple[str, ...] = ()) -> LogDensity:
    """Sums the sites of a trace that was run under the particle plate, examples kept apart; no minibatch scaling.

    Args:
        trace: Of a model or guide.
        n: Number of particles S.
        batch: Number of examples B.
        exclude: Names of sites to leave out.
    """
    local: Tensor | float = 0.0
    globals_: Tensor | float = 0.0
    joint, reference = False, None
    for name, site in trace.nodes.items():
        if site["type"] != "sample" or name in exclude or site_is_subsample(site):
            continue
        log_prob = scale_and_mask(site["fn"].log_prob(site["value"]), 1.0, site["mask"])
        if not isinstance(log_prob, Tensor):
            continue
        reference = log_prob
        frames = {frame.name for frame in site["cond_indep_stack"]}
        if "data" in frames:
            local = local + log_prob
        else:
            globals_, joint = globals_ + log_prob.reshape(-1, 1)[:, 0], True
    like = reference if reference is not None else torch.zeros(())
    return LogDensity(
        torch.as_tensor(local, dtype=like.dtype, device=like.device).expand(n, batch),
        torch.as_tensor(globals_, dtype=like.dtype, device=like.device).expand(n),
        joint,
    )


@one_at_a_time
def draw(guide: GuideFn, n: int, x: Tensor, context: Tensor | None = None, *, density: bool = True) -> Draws:
    """Draws n particles from a guide for a batch, with gradients where the guide is reparameterised.

    Args:
        guide: A guide.
        n: Number of particles S.
        x: The batch (B, *event_shape).
        context: Its context, or None.
        density: False for implicit guides, whose log density does not exist; it is then all NaN.
    """
    if isinstance(context, Arguments) and not getattr(guide, "takes_particles", False):
        return one_by_one.draw(guide, n, x, context, density)
    with pyro.plate("particles", n, dim=-2):
        trace = poutine.trace(guide).get_trace(x, context, None)
    values = {
        name: site["value"]
        for name, site in trace.nodes.items()
        if site["type"] == "sample"
        and not (site["infer"].get("is_auxiliary", False) or site["is_observed"] or site_is_subsample(site))
    }
    if density:
        smooth = tuple(name for name, site in trace.nodes.items() if site["type"] == "sample" and has_path(site))
        rest = any(site["type"] == "sample" and name not in smooth for name, site in trace.nodes.items())
        score = trace_log_density(trace, n, len(x), exclude=smooth) if rest else None
        return Draws(values, trace_log_density(trace, n, len(x)), score)
    nan = x.new_full((), float("nan"))
    return Draws(values, LogDensity(nan.expand(n, len(x)), nan.expand(n), False))


@one_at_a_time
def guide_log_prob(
    guide: GuideFn, values: Mapping[str, Tensor], x: Tensor, context: Tensor | None = None
) -> LogDensity:
    """Log density of a guide at given values (S, B or 1, *event); not for guides with an auxiliary site.

    Raises: CapabilityError for a guide that samples an auxiliary site.
    """
    n = max(v.shape[0] for v in values.values())
    if isinstance(context, Arguments):
        return one_by_one.densities(guide, values, n, x, context, one_by_one.everything)[0]
    with pyro.plate("particles", n, dim=-2):
        trace = poutine.trace(poutine.condition(guide, data=dict(values))).get_trace(x, context, None)
    if any(site["infer"].get("is_auxiliary", False) for site in trace.nodes.values() if site["type"] == "sample"):
        raise CapabilityError(
            "This guide draws all its sites from one auxiliary site, so conditioning does not give its density; use "
            "inference.evaluation.estimates.density or a site-wise guide."
        )
    return trace_log_density(trace, n, len(x))


@one_at_a_time
def log_joint(
    program: Program,
    values: Mapping[str, Tensor],
    x: Tensor,
    context: Tensor | None = None,
    *,
    particles: int | None = None,
) -> LogDensity:
    """log p(x, latents) at given latent values, differentiable in them and in the parameters.

    Discrete latents that `values` leaves out are summed out exactly, as `TraceEnum_ELBO` does. Where one of them is
    global, all is in `globals`.

    Args:
        program: Any program with a density.
        values: Latent site -> value (S, B or 1, *event).
        x, context: The batch (B, *event_shape) and its context, or None.
        particles: S, needed only when `values` is empty.

    Raises: CapabilityError when a continuous latent is missing.
    """
    n = particles or max((v.shape[0] for v in values.values()), default=1)
    if isinstance(context, Arguments):
        return one_by_one.densities(program.model, values, n, x, context, one_by_one.everything)[0]

    def run(given: Mapping[str, Tensor]) -> poutine.Trace:
        with pyro.plate("particles", n, dim=-2):
            return poutine.trace(poutine.condition(program.model, data=dict(given))).get_trace(x, context, None)

    trace = run(values)
    missing = {
        name: site["fn"]
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and not site["is_observed"] and not site_is_subsample(site)
    }
    if not missing:
        return trace_log_density(trace, n, len(x))
    for name, fn in missing.items():
        if not fn.has_enumerate_support or fn.event_dim > 0:
            raise CapabilityError(
                f"log_joint: no value for the latent site {name!r}, and it cannot be summed out; "
                f"got values for {sorted(values)}."
            )
    local = [name for name in missing if any(f.name == "data" for f in trace.nodes[name]["cond_indep_stack"])]
    rest = [name for name in missing if name not in local]

    def given(names: list[str], rows: int) -> Iterator[dict[str, Tensor]]:
        """All values of some sites together."""
        supports = [missing[name].enumerate_support(expand=False).flatten() for name in names]
        for assignment in itertools.product(*supports):
            yield {name: value.expand(n, rows) for name, value in zip(names, assignment, strict=True)}

    parts = []
    for outer in given(rest, 1):
        inner = [trace_log_density(run({**values, **outer, **each}), n, len(x)) for each in given(local, len(x))]
        summed = torch.stack([p.local for p in inner]).logsumexp(0)
        parts.append(LogDensity(summed, inner[0].globals, any(p.joint for p in inner)))
    return _together(parts) if rest else parts[0]


def _together(parts: list[LogDensity]) -> LogDensity:
    """The sum over the values of something that ties all examples."""
    return LogDensity(torch.zeros_like(parts[0].local), torch.stack([p.total for p in parts]).logsumexp(0), True)


def prior_and_likelihood(
    program: Program, values: Mapping[str, Tensor], x: Tensor, context: Any = None
) -> tuple[LogDensity, LogDensity]:
    """log p(latents) and log p(x | latents) at values (S, B or 1, *event) of all latents."""
    n = max(v.shape[0] for v in values.values())
    if isinstance(context, Arguments):
        of_latents, rest = one_by_one.densities(
            program.model, values, n, x, context,
            lambda site: site["name"] in values, lambda site: site["name"] not in values,
        )  # fmt: skip
        return of_latents, rest
    with pyro.plate("particles", n, dim=-2):
        model = poutine.condition(program.model, data=dict(values))
        trace = poutine.trace(model).get_trace(x, context, None)
    observed = tuple(name for name in trace.nodes if name not in values)
    return (
        trace_log_density(trace, n, len(x), exclude=observed),
        trace_log_density(trace, n, len(x), exclude=tuple(values)),
    )


def log_weights(
    program: Program, guide: GuideFn, n: int, x: Tensor, context: Tensor | None = None
) -> tuple[Draws, LogDensity]:
    """Draws n particles and their log importance weights log p(x, z) - log q(z | x)."""
    draws = draw(guide, n, x, context)
    return draws, log_joint(program, draws.values, x, context, particles=n) - draws.log_prob


def unit_log_weights(weights: LogDensity) -> Tensor:
    """Weights (S, U) of the U independent units: the examples, or 1 (everything) when a global site ties them."""
    return weights.total[:, None] if weights.joint else weights.local


def flatten_draws(draws: Mapping[str, Tensor] | Tensor) -> Tensor:
    """Site -> (n, ...)  =>  (n, d), sites side by side in alphabetical order; a tensor is flattened likewise."""
    if isinstance(draws, Tensor):
        return draws.reshape(len(draws), -1)
    return torch.cat([draws[name].reshape(len(draws[name]), -1) for name in sorted(draws)], 1)


@dataclass(frozen=True)
class Simulated:
    """What a program made when nothing was given but the context."""

    x: Tensor
    """(n, *event_shape)."""
    latents: dict[str, Tensor]
    """Site -> (n, *event), or (*event) where it is global."""
    trace: poutine.Trace
    """For who needs the sites' distributions."""


@one_at_a_time
def simulate(program: Program, n: int, context: Tensor | None = None) -> Simulated:
    """n examples with the latents they came from; gradients reach the program where its sites are reparameterised."""
    if isinstance(context, Arguments):
        raise CapabilityError(
            "What adopted code generates is no single x of examples; use `generate` or `Fit.predict`."
        )
    with drawing(type(program).__name__):
        trace = poutine.trace(program.model).get_trace(None, context, n)
    latents = {
        name: site["value"]
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and name != "x" and not site["is_observed"] and not site_is_subsample(site)
    }
    return Simulated(trace.nodes["_RETURN"]["value"], latents, trace)


@one_at_a_time
@torch.no_grad()
def prior_draws(
    model: Callable[..., Any],
    n: int,
    x: Tensor,
    context: Tensor | None = None,
    given: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Site -> n draws of the model (n, B or 1, *event) that x does not inform, given values of some."""
    if isinstance(context, Arguments):
        return one_by_one.prior_draws(model, n, x, context, given)
    with pyro.plate("particles", n, dim=-2), pyro.validation_enabled(False), drawing("This program"):
        trace = poutine.trace(poutine.condition(model, data=dict(given or {}))).get_trace(x, context, None)
    return {name: site["value"] for name, site in trace.nodes.items() if site["type"] == "sample"}
