r"""Conditionals by annealed importance sampling and Hamiltonian Monte Carlo: of latents, or of x itself.

Chains start where they can be drawn exactly (latents from the prior; x of a flow from a normal of the program's own
moments), are annealed to the conditional (`inference.evaluation.annealing`), are resampled by their weights and moved
on by Hamiltonian transitions that leave it invariant. With more chains and temperatures that comes to the exact answer.

What an observation without noise knows of x is a plane: chains move in coordinates along it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import constraints

from inference.evaluation.annealing import LogDensities, anneal
from inference.evaluation.queries.pixels import Numbers, numbers_of, why_no_numbers
from inference.evaluation.queries.questions import Answer, Question, Sampling, Way
from inference.hmc import transition
from inference.particles import trace_log_density
from inference.unconstrained import Coordinates
from zoo.errors import DivergenceError
from zoo.guards import same_support
from zoo.program import ExactDensity, ImplicitProgram, MakesContexts, Program

__all__ = ["LATENTS", "VALUES"]

REFRESHED = 10
"""Transitions after resampling, by which draws of the same chain part."""
STARTED = 200
"""Draws of a program by whose moments chains in x start."""


# Latents


def _why_no_latents(program: Program, question: Question) -> str | None:
    if isinstance(program, ImplicitProgram):
        return "it has no density"
    if isinstance(program, MakesContexts):
        return "it answers given its own contexts alone"
    sites = program.sites()
    if not sites:
        return "it has no latents to be sampled"
    if any(site.is_global or site.is_discrete for site in sites.values()):
        return "its latents are global or discrete"
    return why_no_numbers(program, question)


def _latents(program: Program, question: Question, sampling: Sampling) -> Answer:
    """Latents given y, then x given both."""
    rows = len(question.y)
    coordinates = Coordinates(program.sites(), rows)

    def densities(z: Tensor) -> tuple[Tensor, Tensor]:
        values, log_dets = coordinates.unpack(z)
        prior, numbers = _given(program, values, question)
        return prior + coordinates.total(log_dets), numbers.log_likelihood()

    def start(n: int) -> Tensor:
        with torch.no_grad(), pyro.plate("particles", n, dim=-2):
            trace = poutine.trace(program.model).get_trace(None, question.context, rows)
        return coordinates.pack({name: trace.nodes[name]["value"] for name in coordinates.sites})

    z, effective = _annealed(densities, start, sampling)
    with torch.no_grad():
        drawn = _given(program, coordinates.unpack(z)[0], question)[1].draw()
    return Answer.of(drawn, "latents", False, effective)


def _given(program: Program, values: Mapping[str, Tensor], question: Question) -> tuple[Tensor, Numbers]:
    """log p(latents) (S, B) at values (S, B, *event), and the numbers of x given them."""
    n, rows = len(next(iter(values.values()))), len(question.y)
    with pyro.plate("particles", n, dim=-2):
        model = poutine.condition(program.model, data=dict(values))
        trace = poutine.trace(model).get_trace(None, question.context, rows)
    numbers = numbers_of(trace.nodes["x"]["fn"], question)
    assert numbers is not None
    return trace_log_density(trace, n, rows, exclude=("x",)).local, numbers


# x itself


def _why_no_values(program: Program, question: Question) -> str | None:
    if not isinstance(program, ExactDensity) or program.sites():
        return "it has no exact density of x without latents"
    return None if same_support(program.support, constraints.real) else "its values are no real numbers"


def _values(program: Program, question: Question, sampling: Sampling) -> Answer:
    """Rows with the same gaps together."""
    assert isinstance(program, ExactDensity)
    y = question.y
    values, effective = y.new_zeros(sampling.draws, len(y), question.sites.numel()), y.new_zeros(len(y))
    context = None if question.context is None else question.context.repeat(-(-STARTED // len(y)), *_ones(question))
    made = program.generate(STARTED if context is None else len(context), context)
    made = made.reshape(len(made), -1)
    for rows, there in question.patterns():
        origin, basis = _plane(question, rows, there)
        if basis.shape[1] == 0:  # all of it is known
            values[:, rows], effective[rows] = origin, float(sampling.particles)
            continue
        start = made @ basis
        loc, scale = start.mean(0), start.std(0).clamp(min=1e-3)
        target = _target(program, question, rows, origin)

        def whole(v: Tensor, origin: Tensor = origin, basis: Tensor = basis, at: Any = (loc, scale)) -> Tensor:
            return origin + (at[0] + at[1] * v) @ basis.T

        def densities(v: Tensor, whole: Any = whole, target: Any = target) -> tuple[Tensor, Tensor]:
            first = -(v.square() + math.log(2 * math.pi)).sum(-1) / 2
            return first, target(whole(v)) - first

        def standard(n: int, shape: tuple[int, int] = (len(rows), basis.shape[1])) -> Tensor:
            return torch.randn(n, *shape, dtype=y.dtype, device=y.device)

        v, effective[rows] = _annealed(densities, standard, sampling)
        values[:, rows] = whole(v)
    return Answer.of(values, "values", False, effective)


def _ones(question: Question) -> list[int]:
    return [1] * (question.context.ndim - 1) if question.context is not None else []


def _plane(question: Question, rows: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
    """A point (b, D) of what is known for certain of each row, and an orthonormal basis (D, r) of what is free."""
    y, size = question.y, question.sites.numel()
    if not question.noiseless:
        return y.new_zeros(len(rows), size), torch.eye(size).to(y)
    origin = question.spread(torch.where(there, y[rows], 0.0))
    if question.single:
        return origin, torch.eye(size).to(y)[:, ~question.spread(there.to(y)).bool()]
    return origin, torch.linalg.svd(question.matrix(y)[there])[2][int(there.sum()) :].T


def _target(program: Any, question: Question, rows: Tensor, origin: Tensor) -> Callable[[Tensor], Tensor]:
    """log p(x) and what is known of x through noise, of x (S, b, D), up to a constant."""
    y = question.y[rows]

    def log_prob(x: Tensor) -> Tensor:
        context = None if question.context is None else question.context[rows].repeat(len(x), *_ones(question))
        found = program.log_prob(x.reshape(-1, *program.event_shape), context).reshape(x.shape[:2])
        if question.noiseless:
            return found
        off = torch.where(y.isnan(), 0.0, (y - question.means(x)) / question.sd)
        return found - off.square().sum(-1) / 2

    return log_prob


# Both


def _annealed(densities: LogDensities, start: Callable[[int], Tensor], sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Draws (draws, B, D) of what is annealed to, and the effective sample size (B,) of the chains."""
    run = anneal(densities, start, chains=sampling.particles, steps=sampling.steps)
    logs = run.log_weights.nan_to_num(-torch.inf, -torch.inf, -torch.inf)
    if bool(logs.isneginf().all(0).any()):
        raise DivergenceError(
            "No chain came to a place where what was observed is possible: take more particles and steps, or an "
            "observation that the program can explain."
        )
    shares = logs.softmax(0)
    chosen = torch.multinomial(shares.T, sampling.draws, replacement=True).T
    z = run.states[chosen, torch.arange(chosen.shape[1], device=chosen.device)]

    def full(at: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        first, rest = densities(at["z"])
        return first + rest, rest

    for _ in range(REFRESHED):
        step = run.path.step_sizes[-1] * (0.6 + 0.8 * torch.rand_like(z[..., 0]))
        z = transition(full, {"z": z}, step, run.path.leapfrog).values["z"]
    return z, 1 / shares.square().sum(0)


LATENTS = Way(_why_no_latents, _latents)
VALUES = Way(_why_no_values, _values)
