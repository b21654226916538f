"""A posterior that is one density of one vector: all latents of all data, unconstrained, in double precision.

What second-order methods stand on. Values, slopes and curvatures are of many vectors at a time, since a program bears
particles; curvature is exact, by differentiating twice, or where code can be differentiated once only by differences.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer.autoguide.initialization import InitMessenger
from torch import Tensor
from torch.distributions import biject_to

from inference.densities import where_it_can
from inference.one_by_one import LOOPED
from inference.particles import log_joint, prior_draws
from inference.requirements import why_no_fixed_density
from inference.unconstrained import Coordinates
from zoo.adopted import Adopted
from zoo.datasets.data import Data
from zoo.errors import CapabilityError, ZooError
from zoo.flat import FlatPriors
from zoo.program import Implicit, ImplicitProgram, Program, Site
from zoo.weights import Weighted

__all__ = ["Target", "following", "make_target", "why_no_target", "why_no_vector"]

AT_ONCE = 2**21
"""Vectors times examples whose densities are computed together."""
MOST_NUMBERS = 200
"""Latent numbers up to which curvature is kept as a matrix."""
NEAR = 1e-5
"""Step of a difference of slopes, beside a number or 1."""
MOST_EXAMPLES = 100_000
"""Examples up to which every step sees all of them."""


def why_no_vector(program: Program) -> str | None:
    """Why no data would make the posterior a density of one vector, or None."""
    if isinstance(program, ImplicitProgram):
        return "it is implicit: it has no density"
    sites = program.sites()
    free = {name: site for name, site in sites.items() if not site.is_discrete}
    if not any(site.is_global for site in free.values()):
        return "no continuous latent is global"
    if any(site.is_global and site.is_discrete for site in sites.values()):
        return "a discrete latent is global"
    if any(site.distribution == Implicit.__name__ for site in free.values()):
        return "a latent has no density"
    if isinstance(program, Adopted) and any(not site.is_global for site in sites.values()):
        return "adopted code has latents of single examples"
    if any(site.is_discrete and not site.is_enumerable for site in sites.values()):
        return "a discrete latent cannot be summed out"
    if why_no_fixed_density(program) is not None:
        return "a plate draws a subsample at every run"
    try:
        Coordinates(free, 1)
    except NotImplementedError:
        return "a latent's support maps to no unconstrained space"
    return None


def why_no_target(program: Program, data: Data, most: int = MOST_NUMBERS) -> str | None:
    """Why the posterior given these data is no density of one vector of moderate length, or None.

    Args:
        program: Any.
        data: All of them.
        most: Latent numbers that are still moderate.
    """
    if (reason := why_no_vector(program)) is not None:
        return reason
    if isinstance(data.context, Weighted):
        return "rows have weights"
    if data.size > MOST_EXAMPLES:
        return f"there are more than {MOST_EXAMPLES:,} examples"
    numbers = Coordinates({n: s for n, s in program.sites().items() if not s.is_discrete}, data.size).size
    return f"there are {numbers:,} latent numbers, more than {most:,}" if numbers > most else None


@contextmanager
def _default(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


class Target:
    """log p(x, latents) of all data, as a function of latents laid out in a vector of D unconstrained numbers.

    Rows count as often as their weights say. The program is copied: its own parameters keep their precision. Where a
    matrix of the program has no decomposition there is no density.

    Args:
        program: With a density and continuous latents; discrete ones can be summed out.
        data: All of them, and their weights if they have any.
        jacobian: Whether the density is that of the unconstrained vector, or of the latents themselves, whose mode is
            the MAP estimate.
        precision: That in which the program runs; vectors and densities are double precision all the same.

    Raises: CapabilityError for weights beside a discrete latent of all examples.
    """

    def __init__(self, program: Program, data: Data, jacobian: bool = True, precision: torch.dtype = torch.float64):
        self.program = copy.deepcopy(program).to(precision).eval()
        self.data, self.jacobian, self.precision = data.plain().to(precision), jacobian, precision
        self.dtype = data.x.dtype if data.x.is_floating_point() else torch.get_default_dtype()
        together = [name for name, site in program.sites().items() if site.is_discrete and site.is_global]
        if together and isinstance(data.context, Weighted):
            raise CapabilityError(
                f"Site {together[0]!r} is discrete and of all examples together, so that rows have no weights of their "
                "own once it is summed out: repeat the rows."
            )
        self.weights = data.context.weights.to(precision) if isinstance(data.context, Weighted) else None
        self.coordinates = Coordinates(self._sites(program), data.size, tied=True)
        self.size = self.coordinates.size
        self.evaluations = 0
        """Vectors whose slope was asked for so far."""
        self._smooth = True

    def _sites(self, program: Program) -> dict[str, Site]:
        """The continuous latents, with their supports on these data, whose bounds may be of each example."""
        sites = {name: site for name, site in program.sites().items() if not site.is_discrete}
        if isinstance(program, Adopted):  # whose sites are those of its data already
            return sites
        with _default(self.precision), torch.random.fork_rng([]), torch.no_grad(), pyro.validation_enabled(False):
            trace = poutine.trace(FlatPriors()(self.program.model)).get_trace(*self.data, None)
        return {name: replace(site, support=trace.nodes[name]["fn"].support) for name, site in sites.items()}

    def depends_on_parameters(self) -> bool:
        """Whether a parameter of the program moves the density, at the origin."""
        free = [p for p in self.program.parameters() if p.requires_grad]
        if not free:
            return False
        with torch.enable_grad():
            value = self._log_density(self.data.x.new_zeros(1, self.size).double())
        if not value.requires_grad:
            return False
        return any(g is not None for g in torch.autograd.grad(value.sum(), free, allow_unused=True))

    def one_by_one(self) -> bool:
        """Whether a run of the program takes one vector: adopted code that bears no more, as it turned out."""
        return self.program in LOOPED

    def held(self) -> None:
        """Parameters of the program are constants from now on."""
        self.program.requires_grad_(False)

    @torch.no_grad()
    def starts(self, n: int) -> Tensor:
        """The origin, where Pyro's autoguides start, and n - 1 draws of the prior, (n, D); uniform if that is flat."""
        origin = self.data.x.new_zeros(1, self.size, dtype=torch.float64)
        if n == 1:
            return origin
        try:
            with _default(self.precision), pyro.validation_enabled(False):
                drawn = prior_draws(self.program.model, n - 1, *self.data)
            drawn = {name: drawn[name].double() for name in self.coordinates.sites}
            return torch.cat([origin, self.coordinates.pack(drawn)[:, 0]])
        except CapabilityError:  # a prior that is flat
            return torch.cat([origin, 4 * torch.rand(n - 1, self.size).to(origin) - 2])

    def located(self, init: Callable[..., Any]) -> Tensor:
        """Where one of Pyro's init functions puts the latents, (1, D)."""
        with _default(self.precision), torch.no_grad(), pyro.validation_enabled(False):
            trace = poutine.trace(InitMessenger(init)(self.program.model)).get_trace(*self.data, None)
            parts = []
            for name, site in self.coordinates.sites.items():
                free = biject_to(site.support).inv(trace.nodes[name]["value"].double())
                parts.append(free.reshape(1, -1))
        return torch.cat(parts, 1)

    def samples(self, z: Tensor) -> dict[str, Tensor]:
        """Vectors (S, D) as `Outcome.samples` has latents: global sites (S, *event), local ones (S, N, *event)."""
        values, sites = self.coordinates.unpack(z[:, None, :])[0], self.coordinates.sites
        return {n: (v[:, 0] if sites[n].is_global else v).to(self.dtype).contiguous() for n, v in values.items()}

    def _log_density(self, z: Tensor) -> Tensor:
        values, log_dets = self.coordinates.unpack(z.to(self.precision)[:, None, :])
        with _default(self.precision), pyro.validation_enabled(False):
            density = log_joint(self.program, values, *self.data)
        found = density.total
        if self.weights is not None:
            found = (density.local * self.weights).sum(-1) + density.globals
        found = found + self.coordinates.total(log_dets)[:, 0] if self.jacobian else found
        return found.double()

    def _parts(self, z: Tensor) -> Iterator[Tensor]:
        yield from z.split(max(1, AT_ONCE // self.data.size))

    @torch.no_grad()
    def __call__(self, z: Tensor) -> Tensor:
        """Log density of S vectors, (S, D) -> (S,); minus infinity where there is none."""
        parts = [where_it_can(lambda at: (self._log_density(at),), part, ())[0] for part in self._parts(z)]
        return torch.cat(parts).nan_to_num(nan=-torch.inf, posinf=-torch.inf, neginf=-torch.inf)

    def slope(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Log density (S,) and its gradient (S, D); not finite where there is none."""
        parts = [where_it_can(self._slope, part, (), (self.size,)) for part in self._parts(z.detach())]
        self.evaluations += len(z)
        values, slopes = zip(*parts, strict=True)
        return torch.cat(values), torch.cat(slopes)

    def _slope(self, z: Tensor) -> tuple[Tensor, ...]:
        at = z.detach().requires_grad_()
        with torch.enable_grad():
            value = self._log_density(at)
            (slope,) = torch.autograd.grad(value.sum(), at)
        return value.detach(), slope

    def curvature(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log density (S,), its gradient (S, D), and minus its Hessian (S, D, D); not finite where there is none."""
        d = (self.size,)
        if self._smooth:
            try:
                value, slope, curvature = where_it_can(self._curvature, z.detach(), (), d, d + d)
            except (CapabilityError, NotImplementedError, RuntimeError):  # which its slope shows, if it is a fault
                self._smooth = False
            else:
                self.evaluations += len(z) * (1 + self.size)
                return value, slope, curvature
        return *self.slope(z), self._differences(z)

    def _differences(self, z: Tensor) -> Tensor:
        """Minus the Hessian (S, D, D) by central differences of the slope."""
        steps = NEAR * z.abs().clamp(min=1.0)
        apart = torch.diag_embed(steps)
        after, before = (self.slope((z[:, None] + sign * apart).flatten(0, 1))[1] for sign in (1, -1))
        rows = (after - before).reshape(apart.shape) / (2 * steps[..., None])
        return -(rows + rows.mT) / 2

    def _curvature(self, z: Tensor) -> tuple[Tensor, ...]:
        at = z.clone().requires_grad_()
        with torch.enable_grad():
            value = self._log_density(at)
            (slope,) = torch.autograd.grad(value.sum(), at, create_graph=True)
            rows = self._rows(slope, at)
        hessian = rows.movedim(0, 1).detach()
        return value.detach(), slope.detach(), -(hessian + hessian.mT) / 2

    def _rows(self, slope: Tensor, at: Tensor) -> Tensor:
        """Slopes of slopes, (D, S, D), all at once."""
        each = torch.eye(self.size).to(at)[:, None].expand(-1, *at.shape)
        if not slope.requires_grad:  # flat, or linear
            return torch.zeros_like(each)
        (rows,) = torch.autograd.grad(slope, at, (each,), is_grads_batched=True, allow_unused=True)
        return torch.zeros_like(each) if rows is None else rows


@contextmanager
def following(method: str, program: Program) -> Iterator[None]:
    """Runs a block that follows a program's density in double precision; what that is too much for is named.

    Raises: CapabilityError.
    """
    try:
        yield
    except ZooError:
        raise
    except (ArithmeticError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        said = " ".join(str(error).split())[:200]
        raise CapabilityError(
            f"{method} cannot follow the density of {type(program).__name__} in double precision "
            f"({type(error).__name__}: {said}); take 'svi' or 'nuts'."
        ) from error


def make_target(method: str, program: Program, data: Data, most: int = MOST_NUMBERS) -> Target:
    """The posterior as one density, the program's parameters held as they are.

    Args:
        method: Who asks, for the message.
        program, data, most: As for `why_no_target`.

    Raises: CapabilityError where there is none.
    """
    if (reason := why_no_target(program, data, most)) is not None:
        raise CapabilityError(f"{method} cannot approximate the posterior of {type(program).__name__}: {reason}.")
    target = Target(program, data)
    target.held()
    return target
