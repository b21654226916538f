"""The exact posterior of a program as a guide, and its exact evidence: the truth the others are measured against.

A program answers for itself where it can (conjugacy, forward-backward, linear-Gaussian closed forms: the capabilities
of `zoo.program`). Otherwise one discrete latent is enumerated, and one or two continuous dimensions lie on a grid.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor

from inference.guides.grid import GridGuide, _why_not_grid
from inference.particles import log_joint, log_weights, outside_handlers, unit_log_weights
from zoo.adopted import Adopted
from zoo.errors import CapabilityError
from zoo.program import ExactDensity, ExactEvidence, ExactPosterior, Program

__all__ = ["EnumeratedGuide", "exact_guide", "exact_log_evidence"]


class EnumeratedGuide:
    """The exact posterior of the one discrete local latent of a program, by trying all its values."""

    def __init__(self, program: Program):
        reason = self.why_not(program)
        if reason is not None:
            raise CapabilityError(f"No enumeration for {type(program).__name__}: {reason}.")
        self.program = program
        self.site = next(iter(program.sites()))

    @staticmethod
    def why_not(program: Program) -> str | None:
        """Why a program's posterior cannot be enumerated, or None."""
        sites = list(program.sites().values())
        if len(sites) != 1 or not sites[0].is_discrete or sites[0].is_global or sites[0].event_shape:
            return "only a single discrete local latent without event dimensions can be enumerated"
        return None

    def log_joint(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """log p(x, z = k), (K, B)."""
        with torch.no_grad():
            trace = poutine.trace(self.program.model).get_trace(x, context, None)
        support = trace.nodes[self.site]["fn"].enumerate_support(expand=False).flatten()
        values = {self.site: support[:, None].expand(-1, len(x))}
        return log_joint(self.program, values, x, context).local

    def __call__(self, x: Tensor, context: Tensor | None = None, size: int | None = None) -> None:
        """Samples the latent site."""
        with outside_handlers():
            logits = self.log_joint(x, context).T
        with self.program.plate(x, context, size):
            pyro.sample(self.site, dist.Categorical(logits=logits))


MOST_ASSIGNMENTS = 4096


class JointEnumeration:
    """The exact posterior of adopted code whose latents are all discrete, by trying all assignments together."""

    def __init__(self, program: Adopted):
        reason = self.why_not(program)
        if reason is not None:
            raise CapabilityError(f"No enumeration for {type(program).__name__}: {reason}.")
        self.program = program

    @staticmethod
    def why_not(program: Program) -> str | None:
        """Why there is no such guide, or None."""
        sites = program.sites()
        if not isinstance(program, Adopted):
            return "its assignments are not tried together"
        if not sites or not all(site.is_enumerable and site.is_global for site in sites.values()):
            return "its latents are not all discrete, finite and of one unit"
        try:
            return None if _assignments(program) is not None else f"it has more than {MOST_ASSIGNMENTS} assignments"
        except NotImplementedError:
            return "its values cannot be listed"

    def log_joint(self, x: Tensor, context: Any) -> tuple[dict[str, Tensor], Tensor]:
        """All assignments, site -> (K, 1, *event), and log p(x, assignment), (K,)."""
        values = _assignments(self.program)
        assert values is not None
        with torch.no_grad():
            return values, log_joint(self.program, values, x, context).total

    def __call__(self, x: Tensor, context: Any = None, size: int | None = None) -> None:
        """Samples an assignment, then its sites."""
        with outside_handlers():
            values, logits = self.log_joint(x, context)
        chosen = pyro.sample("_assignment", dist.Categorical(logits=logits), infer={"is_auxiliary": True})
        for name, value in values.items():
            pyro.sample(name, dist.Delta(value[chosen, 0], event_dim=value.ndim - 2))


def _assignments(program: Adopted) -> dict[str, Tensor] | None:
    """Site -> the values of all sites in all assignments (K, 1, *event); None where there are too many."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        trace = poutine.trace(program.model).get_trace(*program.met(), None)
    supports, total = [], 1
    for name, site in program.sites().items():
        support = trace.nodes[name]["fn"].enumerate_support(expand=False).flatten()
        supports += [support] * site.event_shape.numel()
        total *= len(support) ** site.event_shape.numel()
        if total > MOST_ASSIGNMENTS:
            return None
    table = torch.cartesian_prod(*supports).reshape(total, -1)
    found, start = {}, 0
    for name, site in program.sites().items():
        stop = start + site.event_shape.numel()
        found[name] = table[:, start:stop].reshape(total, 1, *site.event_shape)
        start = stop
    return found


def enumerated_guide(program: Program) -> EnumeratedGuide | JointEnumeration:
    """The posterior of discrete latents, by trying their values.

    Raises: CapabilityError.
    """
    return JointEnumeration(program) if isinstance(program, Adopted) else EnumeratedGuide(program)


def exact_guide(program: Program, *, points: int | None = None) -> Callable[..., Any]:
    """The exact posterior of a program as a guide: its own, enumerated, or on a grid; in this order.

    Raises: CapabilityError, saying why each way fails.
    """
    reason = why_not_exact(program)
    if reason is not None:
        raise CapabilityError(f"No exact posterior for {type(program).__name__}: {reason}.")
    if isinstance(program, ExactPosterior):
        return program.posterior
    if _why_not_enumerated(program) is None:
        return enumerated_guide(program)
    return GridGuide(program, points)


def _why_not_enumerated(program: Program) -> str | None:
    kind = JointEnumeration if isinstance(program, Adopted) else EnumeratedGuide
    return kind.why_not(program)


def why_not_exact(program: Program) -> str | None:
    """Why there is no exact posterior, or None."""
    if isinstance(program, ExactPosterior):
        return None
    if not program.sites():
        return "it has no latents, so there is no posterior"
    if program.subsampled is not None:
        return f"its plate {program.subsampled!r} draws a subsample at every run; give it the whole plate"
    enumeration, grid = _why_not_enumerated(program), _why_not_grid(program)
    return None if enumeration is None or grid is None else f"no closed form; {enumeration}; {grid}"


def exact_log_evidence(program: Program, x: Tensor, context: Tensor | None = None) -> Tensor:
    """log p(x) of each independent unit: (B,) without global latents, (1,) with.

    Raises: CapabilityError when there is no exact way.
    """
    if isinstance(program, ExactDensity):
        return program.log_prob(x, context)
    if isinstance(program, ExactEvidence):
        return program.log_evidence(x, context).reshape(1)
    guide = exact_guide(program)
    if isinstance(guide, GridGuide):
        return guide.grid(x, context).log_evidence
    if isinstance(guide, JointEnumeration):
        return guide.log_joint(x, context)[1].logsumexp(0, keepdim=True)
    if isinstance(guide, EnumeratedGuide):
        return guide.log_joint(x, context).logsumexp(0)
    return unit_log_weights(log_weights(program, guide, 1, x, context)[1])[0]
