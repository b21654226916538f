"""How far a guide is from the true posterior: both Kullback-Leibler divergences, errors in mean and deviation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from inference.environment import evaluating
from inference.evaluation.estimates import (
    CHUNK,
    Estimate,
    checked,
    density,
    elbo,
)
from inference.guides.named import guided_sites
from inference.particles import draw, flatten_draws, log_joint, unit_log_weights
from zoo.errors import OptionError, ShapeError
from zoo.program import Program

__all__ = ["MomentErrors", "kl_divergences", "moment_errors"]


@torch.no_grad()
def kl_divergences(
    program: Program,
    guide: Callable[..., Any] | None,
    exact_guide: Callable[..., Any],
    x: Any,
    context: Any = None,
    particles: int = 1000,
    *,
    log_evidence: Tensor | Estimate | None = None,
    seed: int = 0,
) -> tuple[Estimate, Estimate]:
    """Reverse KL(q || p(z|x)) and forward KL(p(z|x) || q) of each unit, in nats.

    reverse = log p(x) - E_q[log p(x, z) - log q(z)];  forward = E_p[log p(x, z) - log q(z)] - log p(x). Only draws of
    the exact posterior are needed, not its density. Discrete sites that q leaves out are summed out on both sides.

    Args:
        program: A program with a density.
        guide: q; None is the program's own.
        exact_guide: The exact posterior as a guide (closed form, enumeration, grid).
        x: Examples (B, *event_shape).
        context: Their context, or None.
        particles: Draws of each side.
        log_evidence: (U,) or, where q ties the examples, (B,); None takes it from the exact guide's own weights, which
            are constant when it is exact. From an estimate that is a lower bound, reverse comes out as a lower bound
            and forward as an upper one; `how` says so.
        seed: Everything random follows from it.

    Returns: two estimates with Monte Carlo errors; a forward KL is +inf where q misses what p can draw.
    """
    guide, data = guide if guide is not None else program.guide, checked(program, x, context)
    x, context = data
    below = elbo(program, guide, data, particles, seed)
    names = guided_sites(guide, data)
    parts = []
    with evaluating(program, guide, seed + 1, x.device):
        rows = max(1, CHUNK // len(x))
        for start in range(0, particles, rows):
            values = draw(exact_guide, min(rows, particles - start), x, context, density=False).values
            seen = {name: value for name, value in values.items() if name in names}
            p, q = log_joint(program, seen, x, context), density(guide, seen, x, context)
            joint = p.joint or q.joint
            parts.append(unit_log_weights(type(p)(p.local - q.local, p.globals - q.globals, joint)))
    above = torch.cat(parts)
    if log_evidence is None:
        log_evidence = elbo(program, exact_guide, data, min(particles, 100), seed + 2).values
    source = log_evidence if isinstance(log_evidence, Estimate) else Estimate(log_evidence, "exact", False)
    log_evidence = source.values
    if len(below.values) == 1:
        log_evidence = log_evidence.sum().reshape(1)
    if log_evidence.shape != below.values.shape:
        raise ShapeError(f"log_evidence must have shape {tuple(below.values.shape)}, got {tuple(log_evidence.shape)}.")
    error = above.std(0) / math.sqrt(particles) if particles > 1 else None
    sides = [("at least", below.monte_carlo_error), ("at most", error)]
    how = [f", {side}: log p(x) by {source.how}" if source.bound else "" for side, _ in sides]
    reverse, forward = (_with_error(mine, source, len(below.values)) for _, mine in sides)
    return (
        Estimate(log_evidence - below.values, f"KL(q||p)-{particles}{how[0]}", source.bound, monte_carlo_error=reverse),
        Estimate(above.mean(0) - log_evidence, f"KL(p||q)-{particles}{how[1]}", False, monte_carlo_error=forward),
    )


def _with_error(mine: Tensor | None, source: Estimate, units: int) -> Tensor | None:
    """A Monte Carlo error (U,) together with that of the evidence."""
    other = source.monte_carlo_error
    if mine is None or other is None:
        return mine
    return torch.hypot(mine, other.norm().expand(1) if units == 1 else other)


@dataclass(frozen=True)
class MomentErrors:
    """Errors of mean and standard deviation over coordinates, in units of the true standard deviation."""

    mean_max: float
    mean_rms: float
    sd_max: float
    sd_rms: float
    sd_ratio: float
    """The largest ratio of a standard deviation to the true one, or of the true one to it: 1 is perfect."""


def moment_errors(
    draws: Mapping[str, Tensor] | Tensor,
    truth: Mapping[str, Tensor] | Tensor | None = None,
    *,
    mean: Tensor | None = None,
    sd: Tensor | None = None,
) -> MomentErrors:
    """(mean_q - mean_p) / sd_p and (sd_q - sd_p) / sd_p, largest and root mean square over coordinates.

    n draws alone bring an error of about n^-1/2 in the mean and (2n)^-1/2 in the standard deviation.

    Args:
        draws: Draws of q, (n, d) or site -> (n, ...).
        truth: Draws of p; None when its moments are given.
        mean: Exact mean (d,).
        sd: Exact standard deviation (d,).
    """
    q = flatten_draws(draws)
    if truth is not None:
        p = flatten_draws(truth)
        mean, sd = p.mean(0), p.std(0)
    if mean is None or sd is None:
        raise OptionError("moment_errors needs the truth: draws of it, or both its mean and its sd.")
    mean, sd = mean.flatten(), sd.flatten()
    if q.shape[1:] != mean.shape or mean.shape != sd.shape:
        raise ShapeError(f"The draws have {q.shape[1]} coordinates, the true mean {len(mean)} and sd {len(sd)}.")
    off_mean, off_sd = (q.mean(0) - mean) / sd, (q.std(0) - sd) / sd
    ratio = (q.std(0).log() - sd.log()).abs().max().exp()
    return MomentErrors(
        float(off_mean.abs().max()),
        float(off_mean.square().mean().sqrt()),
        float(off_sd.abs().max()),
        sd_rms=float(off_sd.square().mean().sqrt()),
        sd_ratio=float(ratio),
    )
