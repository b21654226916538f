"""Annealed importance sampling with HMC transitions: log p(x) where nothing closed or cheap exists, from both sides.

Neal, "Annealed importance sampling", Statistics and Computing 11, 2001; Wu, Burda, Salakhutdinov & Grosse, "On the
quantitative analysis of decoder-based generative models", ICLR 2017; bidirectional: Grosse, Ghahramani & Adams 2015.

    f_t(z) = start(z) rest(z)^b_t,  0 = b_0 < ... < b_T = 1,     log w = sum_t (b_t - b_{t-1}) log rest(z_{t-1})

z_t follows an HMC transition that leaves f_t invariant, so E[w] is the evidence: log of the mean weight is a lower
bound in expectation. Run backwards from an exact posterior draw, 1/w is unbiased for 1/evidence: an upper bound.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from inference.environment import evaluating
from inference.evaluation.estimates import Estimate, checked, density, log_mean_exp
from inference.particles import draw, log_joint, simulate
from inference.requirements import why_no_dreams
from inference.tempering import TARGET_ACCEPTANCE, LogDensities, Tempered, TemperedSlope, move, why_not_summed_out
from inference.training.scripted import Scripted
from inference.training.tracing import NotStatic
from zoo.adopted import Adopted
from zoo.datasets.data import Data
from zoo.errors import CapabilityError, ImplicitDensityError, OptionError
from zoo.options import Count, check_value
from zoo.program import ImplicitProgram, Program

__all__ = ["Annealed", "Bracket", "Path", "ais", "anneal", "bidirectional", "sigmoid_schedule", "without_python"]

TRACED_FROM = 500
"""Slopes of a run from which tracing, which costs some hundred of them, pays."""


@dataclass(frozen=True)
class Path:
    """A frozen annealing path: inverse temperatures (T + 1,), HMC step sizes (T, U), leapfrog steps."""

    betas: Tensor
    step_sizes: Tensor
    leapfrog: int


@dataclass(frozen=True)
class Annealed:
    """The outcome of a run: log weights (S, U), final states (S, U, D), acceptance rate (U,) and the path taken."""

    log_weights: Tensor
    states: Tensor
    acceptance: Tensor
    path: Path


@dataclass(frozen=True)
class Bracket:
    """Bounds on log p(x) of simulated data, from below and from above; their distance bounds the error of AIS."""

    lower: Estimate
    upper: Estimate
    data: Data

    @property
    def width(self) -> float:
        """Mean distance of the bounds, in nats."""
        return self.upper.mean - self.lower.mean


def sigmoid_schedule(steps: int, sharpness: float = 4.0) -> Tensor:
    """Inverse temperatures (steps + 1,) from 0 to 1, dense near both ends (Wu et al. 2017)."""
    raw = torch.sigmoid(sharpness * torch.linspace(-1, 1, steps + 1))
    return (raw - raw[0]) / (raw[-1] - raw[0])


def anneal(
    log_densities: LogDensities,
    draw_start: Callable[[int], Tensor],
    *,
    chains: int = 16,
    steps: int = 200,
    leapfrog: int = 5,
    step_size: float = 0.3,
    path: Path | None = None,
    traced: bool = True,
) -> Annealed:
    """AIS on plain callables, vectorised over S chains and U units.

    A decoder under an observation model, for instance a GAN's generator G with x ~ N(G(z), sigma^2), is the pair
    `lambda z: (log_normal(z), log_normal(x - G(z), sigma))` with `draw_start=lambda s: torch.randn(s, U, D)`.

    Args:
        log_densities: z -> (log start, log rest), each (S, U), differentiable in z.
        draw_start: Number of chains -> exact draws (S, U, D) of the start density, which must be normalised.
        chains: S.
        steps: T, the number of temperatures after the first.
        leapfrog: Leapfrog steps of a transition.
        step_size: HMC step size with which the preliminary run begins.
        path: A frozen path; None finds step sizes for each temperature and unit in a preliminary run of other chains.
            (Sizes that adapt within the counted run would make them depend on its states and break exactness.)
        traced: Whether a long run may trace the densities and leave Python; they must do the same at every z.
    """
    if chains < 1 or steps < 1 or leapfrog < 1:
        raise OptionError(f"chains, steps and leapfrog must be at least 1, got {chains}, {steps}, {leapfrog}.")
    if path is None:
        z = draw_start(max(4, chains // 4))
        betas = sigmoid_schedule(steps).to(z)
        guess = Path(betas, torch.full((steps, z.shape[1]), step_size).to(z), leapfrog)
        path = _run(log_densities, z, guess, adapt=True, traced=traced).path
    return _run(log_densities, draw_start(chains), path, traced=traced)


def _run(
    log_densities: LogDensities,
    z: Tensor,
    path: Path,
    *,
    adapt: bool = False,
    backwards: bool = False,
    traced: bool = True,
) -> Annealed:
    """One pass along the path, from start to target or backwards; `backwards` weights are those of 1/evidence."""
    count = len(path.betas) - 1
    sizes = path.step_sizes.clone()
    log_weights, accepted = z.new_zeros(z.shape[:-1]), z.new_zeros(z.shape[1])
    with torch.no_grad():
        rest = log_densities(z)[1]
    slope = without_python(log_densities, z) if traced and count * (path.leapfrog + 1) >= TRACED_FROM else None
    for i in range(count):
        t = count - i if backwards else i + 1
        rise = path.betas[t] - path.betas[t - 1]
        if not backwards:
            log_weights = log_weights + rise * rest
        z, rest, accept = move(log_densities, z, path.betas[t], sizes[t - 1], path.leapfrog, slope)
        if backwards:
            log_weights = log_weights - rise * rest
        accepted = accepted + accept
        if adapt and t < count:
            sizes[t] = sizes[t - 1] * torch.exp(0.2 * (accept - TARGET_ACCEPTANCE))
    return Annealed(log_weights, z, accepted / count, path=Path(path.betas, sizes, path.leapfrog))


def without_python(log_densities: LogDensities, z: Tensor) -> TemperedSlope | None:
    """The tempered density and its slope as traced at z (S, U, D); None where the code cannot be traced."""

    def together(point: Tensor) -> tuple[Tensor, ...]:
        at, beta = point[..., :-1].detach().requires_grad_(), point[..., -1]
        with torch.enable_grad():
            start, rest = log_densities(at)
            density = start + beta * rest
            (slope,) = torch.autograd.grad(density.sum(), at)
        return density.detach(), rest.detach(), slope

    def point(z: Tensor, beta: Tensor) -> Tensor:
        return torch.cat([z, beta.expand(*z.shape[:-1], 1)], -1)

    half = z.new_tensor(0.5)
    try:
        scripted = Scripted(
            together, (point(z, half), point(z / 2, half / 2)), 1e-9 if z.dtype == torch.float64 else 1e-4
        )
    except NotStatic:
        return None
    return lambda z, beta: cast("tuple[Tensor, Tensor, Tensor]", scripted(point(z, beta)))


def ais(
    program: Program,
    x: Any,
    context: Any = None,
    *,
    start: Callable[..., Any] | None = None,
    chains: int = 16,
    steps: int = 200,
    leapfrog: int = 5,
    seed: int = 0,
) -> Estimate:
    """log p(x) of each unit by annealing from the prior, or from a guide, to the posterior.

    Works in unconstrained coordinates; global latents make the whole batch one unit. Discrete sites that the start
    leaves out are summed out exactly.

    Args:
        program: A program with a density and continuous latents.
        x: Examples (B, *event_shape).
        context: Their context, or None.
        start: A guide to anneal from; None is the prior, which will not do for programs with discrete latents.
        chains: Independent chains S for each unit.
        steps: Temperatures.
        leapfrog: Leapfrog steps of a transition.
        seed: Everything random follows from it.

    Raises: ImplicitDensityError; CapabilityError.
    """
    x, context = checked(program, x, context)
    problem = _Problem(program, x, context, start=start)
    with evaluating(program, start, seed, x.device):
        run = anneal(
            problem.log_densities, problem.draw_start, chains=chains, steps=steps, leapfrog=leapfrog,
            traced=not isinstance(program, Adopted),
        )  # fmt: skip
    values, error = log_mean_exp(run.log_weights)
    return Estimate(values, f"AIS-{steps}x{chains}", True, monte_carlo_error=error)


def bidirectional(
    program: Program,
    n: int,
    context: Tensor | None = None,
    *,
    chains: int = 16,
    steps: int = 200,
    leapfrog: int = 5,
    seed: int = 0,
) -> Bracket:
    """Brackets log p(x) of n simulated examples, whose latents are exact posterior draws (BDMC).

    On such data the truth lies between the bounds in expectation, so their distance says how far AIS with these
    settings can be off on data like these.

    Raises: CapabilityError for a program that observes more than x, whose latents are no such draws.
    """
    check_value("n", n, Count)
    reason = why_no_dreams(program)
    if reason is not None:
        raise CapabilityError(f"bidirectional cannot bracket {type(program).__name__}: {reason}.")
    context = program.accept_context(context)
    with evaluating(program, None, seed, next(program.parameters(), torch.zeros(())).device):
        with torch.no_grad():
            made = simulate(program, n, context)
        problem = _Problem(program, made.x, context, start=None)
        traced = not isinstance(program, Adopted)
        forward = anneal(
            problem.log_densities, problem.draw_start, chains=chains, steps=steps, leapfrog=leapfrog, traced=traced
        )
        # Sites outside the plate get its dimension, so that all have the form (S, B or 1, *event) with S = 1.
        truth = {
            name: (made.latents[name][None] if site.is_global else made.latents[name])[None]
            for name, site in problem.coordinates.sites.items()
        }
        z = problem.coordinates.pack(truth).expand(chains, -1, -1)
        backward = _run(problem.log_densities, z, forward.path, backwards=True, traced=traced)
    lower, lower_error = log_mean_exp(forward.log_weights)
    inverse, upper_error = log_mean_exp(backward.log_weights)
    return Bracket(
        Estimate(lower, f"AIS-{steps}x{chains}", True, monte_carlo_error=lower_error),
        Estimate(-inverse, f"reverse AIS-{steps}x{chains}", False, monte_carlo_error=upper_error),
        Data(made.x, context),
    )


class _Problem(Tempered):
    """The same from a guide, or from the prior."""

    def __init__(self, program: Program, x: Tensor, context: Tensor | None, start: Callable[..., Any] | None):
        if isinstance(program, ImplicitProgram):
            raise ImplicitDensityError(
                f"{type(program).__name__} has no density; give inference.evaluation.anneal an observation "
                "model around it."
            )
        sites = program.sites()
        if all(site.is_discrete for site in sites.values()):
            raise CapabilityError(
                f"{type(program).__name__} has no continuous latents to anneal, at most discrete ones; use "
                "log_likelihood."
            )
        if start is None and (reason := why_not_summed_out(program)) is not None:
            raise CapabilityError(
                f"The prior of {type(program).__name__} cannot be annealed from: {reason}. Give a guide that leaves "
                "them out as start."
            )
        super().__init__(program, x, context)
        self.start = start

    @torch.no_grad()
    def draw_start(self, n: int) -> Tensor:
        """Exact draws (n, U, D)."""
        if self.start is None:
            return super().draw_start(n)
        return self.coordinates.pack(draw(self.start, n, self.x, self.context, density=False).values)

    def log_densities(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """(log start, log joint - log start), each (S, U)."""
        if self.start is None:
            return super().log_densities(z)
        values, log_dets = self.coordinates.unpack(z)
        joint = log_joint(self.program, values, self.x, self.context)
        given = self.units(density(self.start, values, self.x, self.context))
        return given + self.coordinates.total(log_dets), self.units(joint) - given
