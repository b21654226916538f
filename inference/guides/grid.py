"""The posterior on a grid, as a guide: one or two continuous dimensions, integrated where the mass is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor

from inference.particles import log_joint, outside_handlers, prior_draws
from inference.unconstrained import Coordinates
from zoo.adopted import Adopted
from zoo.arguments import Arguments
from zoo.errors import CapabilityError, OptionError
from zoo.process import set_seed
from zoo.program import ImplicitProgram, Program, Site

__all__ = ["Grid", "GridGuide", "grid_posterior"]


# Density this many nats below the mode is treated as zero: e^-30 of mass is lost at most per unit of volume.
NEGLIGIBLE = 30.0


# Elements of one chunk of (grid points x examples x event) that are evaluated at once.
CHUNK = 2_000_000


@dataclass(frozen=True)
class Grid:
    """A posterior on a grid, for U independent units (the examples, or 1 when the latents are global).

    `points` (G, U, d) are in *unconstrained* coordinates, the latents of all sites side by side; `log_mass` (G, U) are
    normalised cell masses; `cell` (U, d) the widths. `mean` and `sd` (U, d) are those of the constrained latents.
    """

    points: Tensor
    log_mass: Tensor
    cell: Tensor
    log_evidence: Tensor
    mean: Tensor
    sd: Tensor


def _why_not_grid(program: Program) -> str | None:
    if isinstance(program, ImplicitProgram):
        return "it is implicit"
    sites = _continuous(program)
    if isinstance(program, Adopted) and not all(site.is_global for site in sites.values()):
        return "it is adopted code with latents in the plate of its examples (leave examples= out for a grid)"
    if len({site.is_global for site in sites.values()}) > 1:
        return "it has both global and local continuous latents"
    dim = Coordinates(sites, 1).size
    if not 1 <= dim <= 2:
        return f"its continuous latents have {dim} dimensions in all; a grid takes 1 or 2"
    return None


def _continuous(program: Program) -> dict[str, Site]:
    return {name: site for name, site in program.sites().items() if not site.is_discrete}


def _coordinates(program: Program, x: Tensor) -> Coordinates:
    reason = _why_not_grid(program)
    if reason is not None:
        raise CapabilityError(f"No grid posterior for {type(program).__name__}: {reason}.")
    return Coordinates(_continuous(program), len(x))


@torch.no_grad()
def _log_density(program: Program, at: Coordinates, u: Tensor, x: Tensor, context: Tensor | None) -> Tensor:
    """log p(x, latents(u)) + log |d latents / d u| at points u (G, U, d): (G, U), in chunks."""
    parts = []
    for chunk in u.split(max(1, CHUNK // max(x.numel(), 1))):
        values, log_dets = at.unpack(chunk)
        joint = log_joint(program, values, x, context)
        parts.append((joint.total[:, None] if at.tied else joint.local) + at.total(log_dets))
    return torch.cat(parts)


@torch.no_grad()
def _prior_box(
    program: Program, at: Coordinates, x: Tensor, context: Tensor | None, draws: int = 2048
) -> tuple[Tensor, Tensor]:
    """A box (U, d) around the prior draws that the data leave plausible; the first guess of where to look."""
    with torch.random.fork_rng(devices=[]):
        set_seed(0)
        if isinstance(context, Arguments):
            draws //= 8  # one run for each
            drawn = prior_draws(program.model, draws, x, context)
        else:
            with pyro.plate("particles", draws, dim=-2):
                trace = poutine.trace(program.model).get_trace(None, None if context is None else context[:1], 1)
            drawn = {name: trace.nodes[name]["value"] for name in at.sites}
    u = at.pack({name: drawn[name].expand(draws, at.units, *site.event_shape) for name, site in at.sites.items()})
    lo, hi = _bounds(u, _log_density(program, at, u, x, context))
    # One draw alone may be plausible; a box needs a width.
    return lo - 0.1 * u.std(0), hi + 0.1 * u.std(0)


def _find_box(program: Program, at: Coordinates, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    """The box (U, d) that holds all of each unit's posterior and little more.

    A coarse lattice grows where density reaches an edge, and else closes in, until what is not negligible lies inside
    and spans enough cells to be seen.

    Raises: CapabilityError when a posterior is not found; a box that missed it would be a silent wrong evidence.
    """
    lo, hi = _prior_box(program, at, x, context)
    coarse, stride = 200 if at.size == 1 else 32, (hi - lo) / 2
    for _ in range(60):
        u, cell = _lattice(lo, hi, coarse)
        inner_lo, inner_hi = _bounds(u, _log_density(program, at, u, x, context))
        below, above = inner_lo < lo + cell, inner_hi > hi - cell
        seen = inner_hi - inner_lo > 6 * cell
        if bool((~below & ~above & seen).all()):
            return inner_lo - cell, inner_hi + cell
        if not bool(torch.isfinite(inner_lo).all()):
            break  # no point of a lattice has any density
        # What is only a glimpse at an edge lies elsewhere: walk there, no slower than at first.
        step = torch.where(seen, (hi - lo) / 2, torch.maximum((hi - lo) / 2, stride))
        lo = torch.where(below, inner_lo - step, inner_lo - 2 * cell)
        hi = torch.where(above, inner_hi + step, inner_hi + 2 * cell)
    missed = int((below | above | ~seen).any(-1).sum())
    raise CapabilityError(
        f"The grid did not find where the posterior of {missed} of {at.units} unit(s) of {type(program).__name__} "
        "lies: it may be too narrow, or improper. Give the box yourself (limits=(low, high)), or work in float64."
    )


def _bounds(u: Tensor, log_density: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest box around the points whose density is not negligible."""
    keep = (log_density >= log_density.amax(0) - NEGLIGIBLE)[..., None]  # the mode itself, whatever the rounding
    inf = u.new_full((), math.inf)
    return torch.where(keep, u, inf).amin(0), torch.where(keep, u, -inf).amax(0)


def _lattice(lo: Tensor, hi: Tensor, points: int) -> tuple[Tensor, Tensor]:
    """Cell centres (points^d, U, d) of a regular lattice on boxes (U, d), and cell widths (U, d)."""
    dim = lo.shape[-1]
    ticks = (torch.arange(points, dtype=lo.dtype, device=lo.device) + 0.5) / points
    unit = torch.cartesian_prod(*[ticks] * dim).reshape(-1, 1, dim)
    return lo + unit * (hi - lo), (hi - lo) / points


@torch.no_grad()
def grid_posterior(
    program: Program,
    x: Tensor,
    context: Tensor | None = None,
    *,
    points: int | None = None,
    limits: tuple[float, float] | None = None,
) -> Grid:
    """The posterior and the evidence of a program with one or two continuous latent dimensions, by quadrature.

    The box is found for each unit: prior draws, then repeated shrinking or growing until no mass that matters touches
    its edge. On smooth densities the midpoint rule is then exact to many digits. Discrete local latents are summed out.

    Args:
        program: The program.
        x: Data (B, *event_shape).
        context: Its context, or None.
        points: Grid points per dimension; None means 400 in one dimension and 80 in two.
        limits: The box in unconstrained coordinates, for all dimensions; None finds it.

    Raises: CapabilityError for more than two dimensions, or when the box is not found.
    """
    at = _coordinates(program, x)
    points = points or (400 if at.size == 1 else 80)
    if points < 3:
        raise OptionError(f"A grid needs at least 3 points per dimension, got {points}.")
    if limits is not None:
        lo, hi = (x.new_full((at.units, at.size), limit) for limit in limits)
    else:
        lo, hi = _find_box(program, at, x, context)
    u, cell = _lattice(lo, hi, points)
    log_density = _log_density(program, at, u, x, context)
    log_cell = cell.log().sum(-1)
    log_evidence = torch.logsumexp(log_density, 0) + log_cell
    log_mass = log_density + log_cell - log_evidence
    values = torch.cat([v.reshape(*u.shape[:-1], -1) for v in at.unpack(u)[0].values()], -1)
    mass = log_mass.exp()[..., None]
    mean = (mass * values).sum(0)
    sd = (mass * (values - mean) ** 2).sum(0).sqrt()
    return Grid(u, log_mass, cell, log_evidence=log_evidence, mean=mean, sd=sd)


class _GridDraw(dist.TorchDistribution):
    """One site of a grid posterior: the value drawn, and (on the first site) the joint density."""

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, value: Tensor, log_density: Tensor | None, event_dim: int, support: Any):
        self.value, self.log_density, self._support = value, log_density, support
        cut = value.ndim - event_dim
        super().__init__(value.shape[:cut], value.shape[cut:], validate_args=False)

    @property
    def support(self) -> Any:
        """That of the site."""
        return self._support

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        """The value."""
        return self.value.expand(torch.Size(sample_shape) + self.value.shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """The density at the value drawn; a grid cannot be asked elsewhere through this site."""
        if value is not self.value and not torch.equal(value, self.value):
            raise CapabilityError(
                "A grid posterior gives its density at its own draws; elsewhere use exact_log_evidence."
            )
        return self.value.new_zeros(self.batch_shape) if self.log_density is None else self.log_density


class GridGuide:
    """The grid posterior as a guide, for whatever data it is called with (the last grid is kept).

    Draws a cell, then a point uniformly inside it; its density is log p(x, z) - log p(x), with the grid's evidence.
    """

    takes_particles = True
    """Many draws in one run, of adopted code too: its sites are drawn here, not by the code."""

    def __init__(self, program: Program, points: int | None = None):
        self.program, self.points = program, points
        _coordinates(program, torch.empty(1))  # refuses before any compute
        self._kept: tuple[Tensor, Tensor | None, Grid] | None = None

    def grid(self, x: Tensor, context: Tensor | None = None) -> Grid:
        """The grid for this data; computed once."""
        kept = self._kept
        if kept is None or not (_same(kept[0], x) and _same(kept[1], context)):
            kept = self._kept = (x, context, grid_posterior(self.program, x, context, points=self.points))
        return kept[2]

    def __call__(self, x: Tensor, context: Tensor | None = None, size: int | None = None) -> None:
        """Samples the latent sites, as many particles as an enclosing plate asks for."""
        with outside_handlers() as particles:
            at = _coordinates(self.program, x)
            grid = self.grid(x, context)
            index = dist.Categorical(logits=grid.log_mass.T).sample(torch.Size((particles or 1,)))  # (S, U)
            u = grid.points[index, torch.arange(index.shape[1], device=index.device)]
            u = u + (torch.rand_like(u) - 0.5) * grid.cell
            values, log_dets = at.unpack(u)
            log_density = _log_density(self.program, at, u, x, context) - grid.log_evidence - at.total(log_dets)
            if particles is None:
                values, log_density = {name: v[0] for name, v in values.items()}, log_density[0]
                if at.tied:
                    values, log_density = {name: v[0] for name, v in values.items()}, log_density[0]
        for position, site in enumerate(at.sites.values()):
            # The joint density sits on the first site; the others are determined with it.
            fn = _GridDraw(
                values[site.name], log_density if position == 0 else None, len(site.event_shape), support=site.support
            )
            if at.tied:
                pyro.sample(site.name, fn)
            else:
                with self.program.plate(x, context, size):
                    pyro.sample(site.name, fn)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Arguments) and isinstance(b, Arguments):
        return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)
    return a is b or (a is not None and b is not None and torch.equal(a, b))
