"""From the prior to the posterior by degrees: log p(z) + b log p(x | z) in unconstrained coordinates, and moves at b.

What annealed importance sampling (`inference.evaluation.annealing`) and sequential Monte Carlo
(`inference.methods.smc`) stand on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from inference.densities import where_it_can
from inference.hmc import transition
from inference.particles import log_joint, prior_and_likelihood, prior_draws, unit_log_weights
from inference.requirements import why_no_fixed_density
from inference.unconstrained import Coordinates
from zoo.adopted import Adopted
from zoo.program import Implicit, ImplicitProgram, Program

__all__ = [
    "TARGET_ACCEPTANCE", "LogDensities", "Tempered", "TemperedSlope", "move", "why_no_tempering", "why_not_summed_out",
]  # fmt: skip

LogDensities = Callable[[Tensor], tuple[Tensor, Tensor]]
"""z (S, U, D) -> (log start(z), log rest(z)), each (S, U); rows must not depend on each other."""
TemperedSlope = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
"""(z, inverse temperature b ()) -> (log start + b log rest (S, U), log rest (S, U), the gradient of the first)."""
TARGET_ACCEPTANCE = 0.7


def why_no_tempering(program: Program) -> str | None:
    """Why the way from a program's prior to its posterior cannot be taken by degrees, or None."""
    if isinstance(program, ImplicitProgram):
        return "it is implicit: it has no density"
    if (reason := why_no_fixed_density(program)) is not None:
        return reason
    sites = program.sites()
    if all(site.is_discrete for site in sites.values()):
        return "it has no continuous latent site to move"
    for name, site in sites.items():
        if site.distribution == "ImproperUniform":
            return f"the prior of its latent {name!r} is flat, and cannot be drawn from"
        if site.distribution == Implicit.__name__:
            return f"its latent {name!r} has no density"
    return why_not_summed_out(program)


def why_not_summed_out(program: Program) -> str | None:
    """Why its discrete latents cannot be summed out beside a prior of the others that is known, or None."""
    sites = program.sites()
    discrete = [name for name, site in sites.items() if site.is_discrete]
    if not discrete:
        return None
    if isinstance(program, Adopted) or any(sites[n].is_global or not sites[n].is_enumerable for n in discrete):
        return f"its discrete latent sites {discrete} cannot be summed out"
    if any(not site.is_discrete and not site.is_global for site in sites.values()):
        return f"its discrete latent sites {discrete} stand beside continuous ones of the same examples"
    return None


class Tempered:
    """A program's posterior as a pair of log densities over unconstrained coordinates, the prior and the rest.

    Args:
        program: For which `why_no_tempering` has nothing to say.
        x, context: The data.
    """

    def __init__(self, program: Program, x: Tensor, context: Any = None):
        sites = program.sites()
        self.program, self.x, self.context = program, x, context
        self.coordinates = Coordinates({name: s for name, s in sites.items() if not s.is_discrete}, len(x))
        self.sums_out = len(self.coordinates.sites) < len(sites)

    @torch.no_grad()
    def draw_start(self, n: int) -> Tensor:
        """Exact draws of the start (n, U, D)."""
        drawn = prior_draws(self.program.model, n, self.x, self.context)
        return self.coordinates.pack({name: drawn[name] for name in self.coordinates.sites})

    def log_densities(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """(log start, log joint - log start), each (S, U); NaN where a matrix of the program has no decomposition."""
        start, rest = where_it_can(self._log_densities, z, z.shape[1:-1], z.shape[1:-1])
        return start, rest

    def _log_densities(self, z: Tensor) -> tuple[Tensor, Tensor]:
        values, log_dets = self.coordinates.unpack(z)
        prior, likelihood = prior_and_likelihood(self.program, values, self.x, self.context)
        start = self.units(prior)
        rest = self.units(likelihood)
        if self.sums_out:
            rest = self.units(log_joint(self.program, values, self.x, self.context)) - start
        return start + self.coordinates.total(log_dets), rest

    def units(self, density: Any) -> Tensor:
        """A density as that of each unit, (S, U)."""
        return density.total[:, None] if self.coordinates.tied else unit_log_weights(density)


def move(
    log_densities: LogDensities,
    z: Tensor,
    beta: Tensor,
    size: Tensor,
    leapfrog: int,
    tempered_slope: TemperedSlope | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """One Hamiltonian transition of every chain and unit at one temperature.

    Args:
        log_densities: Of start and rest.
        z: (S, U, D).
        beta: Inverse temperature ().
        size: Step sizes (U,), or ().
        leapfrog: Leapfrog steps.
        tempered_slope: A faster way to the density and its slope; None differentiates `log_densities`.

    Returns: states (S, U, D), their log rest (S, U), rate of acceptance (U,).
    """

    def tempered(at: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        start, rest = log_densities(at["z"])
        return start + beta * rest, rest

    def known(at: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Mapping[str, Tensor]]:
        assert tempered_slope is not None
        density, rest, slope = tempered_slope(at["z"], beta)
        return density, rest, {"z": slope}

    # A random length for each chain, since a fixed one can be a period of the orbit and go nowhere.
    step = size * (0.6 + 0.8 * torch.rand_like(z[..., 0]))
    moved = transition(tempered, {"z": z}, step, leapfrog, None if tempered_slope is None else known)
    return moved.values["z"], moved.aside, moved.acceptance.mean(0)
