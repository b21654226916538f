"""What a program makes of latents that were drawn before: its observed and deterministic sites stand open.

One plate of particles at dim -2, as in `inference.particles`: latents are (S, B or 1, *event). A user's own code
(`zoo.adopt`) is run once for each draw.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import Unit
from pyro.infer import config_enumerate
from pyro.infer.discrete import infer_discrete
from pyro.poutine.uncondition_messenger import UnconditionMessenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from inference.densities import Draws, LogDensity
from inference.one_by_one import layout_of, single_value
from inference.particles import draw
from zoo.arguments import Arguments
from zoo.errors import CapabilityError
from zoo.process import one_at_a_time
from zoo.program import Program

__all__ = ["draw_given", "fill_discrete", "observed", "predicted"]

CHUNK = 2**16
"""Particle-example pairs generated at once."""
AUXILIARY = (
    "This guide draws its sites from an auxiliary one, so the local latents of other examples cannot be drawn given "
    "the global ones; give no x, and the model draws them."
)


LEFT_OUT = (
    "This fit leaves out the latent site {name!r}, which cannot be enumerated, so it has no posterior draws of it; "
    "give no x, and the model draws it."
)


class _Open(UnconditionMessenger):
    """Draws observed sites anew; what is computed (`pyro.deterministic`) or weighed (`pyro.factor`) stays."""

    def _pyro_sample(self, msg: Any) -> None:
        if not msg["infer"].get("_deterministic") and not isinstance(msg["fn"], Unit):
            super()._pyro_sample(msg)


@one_at_a_time
@torch.no_grad()
def predicted(
    program: Program, latents: Mapping[str, Tensor], n: int, size: int, context: Any = None
) -> dict[str, Tensor]:
    """Site -> n draws of every observed and every deterministic site, given latents; those not given are drawn too.

    Args:
        program: Any program.
        latents: Latent site -> value (n, N or 1, *event); a site that is left out is drawn from the model.
        n: Number of draws of the latents.
        size: Number N of examples that the program generates under each.
        context: Their context (N, ...), or None; or `Arguments`.

    Returns: (n, N, *event) for a site in the plate of examples, (n, *event) for one outside of it.
    """
    with pyro.validation_enabled(False):
        if isinstance(context, Arguments):
            return _one_by_one(program, latents, n, size, context)
        rows = max(1, CHUNK // size)
        parts = []
        for start in range(0, n, rows):
            given = {name: value[start : start + rows] for name, value in latents.items()}
            parts.append(_generated(program, given, min(rows, n - start), size, context))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _generated(
    program: Program, latents: Mapping[str, Tensor], n: int, size: int, context: Tensor | None
) -> dict[str, Tensor]:
    """Of n draws side by side."""
    with pyro.plate("particles", n, dim=-2):
        trace = poutine.trace(poutine.condition(program.model, data=dict(latents))).get_trace(None, context, size)
    found = {}
    for name, site in _open_sites(trace, program).items():
        value = trace.nodes["_RETURN"]["value"] if name == "x" else site["value"]  # which has the program's dtype
        local = any(frame.name == "data" for frame in site["cond_indep_stack"])
        event_dim = site["fn"].event_dim
        if site["infer"].get("_deterministic") and event_dim == value.ndim:
            # Pyro says so unless told: all but the two of the plates.
            event_dim = max(value.ndim - 2, 0)
        value = value.expand(((n, size) if local else (n, 1)) + value.shape[value.ndim - event_dim :])
        found[name] = value if local else value[:, 0]
    return found


def _one_by_one(
    program: Program, latents: Mapping[str, Tensor], n: int, size: int, context: Arguments
) -> dict[str, Tensor]:
    """Of n runs of a user's own code."""
    x = torch.zeros(size)
    layout, _ = layout_of(program.model, x, context)
    found: dict[str, list[Tensor]] = {}
    for i in range(n):
        given = {name: single_value(value[i], layout[name]) for name, value in latents.items()}
        model = poutine.condition(_Open()(program.model), data=given)
        trace = poutine.trace(model).get_trace(x, context, None)
        for name, site in _open_sites(trace, program).items():
            value, each = site["value"], layout[name]
            explicit = not site["infer"].get("_deterministic") or each.event_dim < value.ndim
            local = each.is_local and explicit
            found.setdefault(name, []).append(value.movedim(-1 - each.event_dim, 0) if local else value)
    return {name: torch.stack(values) for name, values in found.items()}


@one_at_a_time
@torch.no_grad()
def observed(program: Program, x: Tensor, context: Any = None) -> dict[str, Tensor]:
    """Observed site -> its value in the data, (N, *event) in the plate of examples: what `predicted` draws again."""
    if not isinstance(context, Arguments):
        return {"x": x}
    layout, _ = layout_of(program.model, x, context)
    trace = poutine.trace(program.model).get_trace(x, context, None)
    found = {}
    for name, site in _open_sites(trace, program).items():
        if not site["infer"].get("_deterministic"):
            each, value = layout[name], site["value"]
            found[name] = value.movedim(-1 - each.event_dim, 0) if each.is_local else value
    return found


def _open_sites(trace: poutine.Trace, program: Program) -> dict[str, Any]:
    """The observed and the deterministic sites of a run, by name."""
    latent = program.sites()
    return {
        name: site
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and name not in latent and not site_is_subsample(site)
        and not isinstance(site["fn"], Unit) and not site["infer"].get("is_auxiliary")
    }  # fmt: skip


@torch.no_grad()
def draw_given(
    guide: Callable[..., Any], values: Mapping[str, Tensor], x: Tensor, context: Any = None, *, density: bool = True
) -> Draws:
    """Draws of all sites of a guide given values of the global ones (n, 1, *event).

    `log_prob.local` is the density of the local sites given the global ones; without `density` it is NaN.

    Raises: CapabilityError for a guide that draws several sites as one, of which no part can be given.
    """
    n = max(value.shape[0] for value in values.values())
    if isinstance(context, Arguments):
        return _drawn_one_by_one(guide, values, n, x, context, density)

    def conditioned(*arguments: Any) -> None:
        trace = poutine.trace(poutine.condition(guide, data=dict(values))).get_trace(*arguments)
        if any(site["infer"].get("is_auxiliary") for site in trace.nodes.values() if site["type"] == "sample"):
            raise CapabilityError(AUXILIARY)

    drawn = draw(conditioned, n, x, context, density=density)
    return replace(drawn, values={**values, **drawn.values})


def _drawn_one_by_one(
    guide: Callable[..., Any], values: Mapping[str, Tensor], n: int, x: Tensor, context: Any, density: bool
) -> Draws:
    layout, _ = layout_of(guide, x, context)
    if any(each.is_auxiliary for each in layout.values()):
        raise CapabilityError(AUXILIARY)
    parts = []
    for i in range(n):
        given = {name: single_value(value[i], layout[name]) for name, value in values.items()}
        parts.append(draw(poutine.condition(guide, data=given), 1, x, context, density=density))
    log_prob = LogDensity(
        torch.cat([part.log_prob.local for part in parts]), torch.cat([part.log_prob.globals for part in parts]), True
    )
    rest = {name: torch.cat([part.values[name] for part in parts]) for name in parts[0].values}
    return Draws({**values, **rest}, log_prob)


def _filled_one_by_one(
    program: Program, latents: Mapping[str, Tensor], n: int, x: Tensor, context: Arguments
) -> dict[str, Tensor]:
    """The same for a user's own code."""
    layout, nesting = layout_of(program.model, x, context)
    missing = [name for name, each in layout.items() if each.is_latent and name not in latents]
    for name in missing:
        if not layout[name].is_enumerable:
            raise CapabilityError(LEFT_OUT.format(name=name))
    if not missing:
        return dict(latents)
    found: dict[str, list[Tensor]] = {name: [] for name in missing}
    with pyro.validation_enabled(False):
        for i in range(n):
            given = {name: single_value(value[i], layout[name]) for name, value in latents.items()}
            model = config_enumerate(poutine.condition(program.model, data=given))
            complete = infer_discrete(model, first_available_dim=-1 - nesting, temperature=1)
            trace = poutine.trace(complete).get_trace(x, context, None)
            for name in missing:
                value, each = trace.nodes[name]["value"], layout[name]
                found[name].append(value.movedim(-1 - each.event_dim, 0) if each.is_local else value[None])
    return {**latents, **{name: torch.stack(values) for name, values in found.items()}}


@one_at_a_time
@torch.no_grad()
def fill_discrete(
    program: Program, latents: Mapping[str, Tensor], n: int, x: Tensor, context: Any = None
) -> dict[str, Tensor]:
    """The latents with those discrete local ones that they leave out, drawn from p(discrete | the others, x).

    Args:
        program: Whose discrete sites can be enumerated.
        latents: Latent site -> value (n, B or 1, *event).
        n: Number of draws.
        x: The examples (B, *event_shape).
        context: Their context, or None.

    Raises: CapabilityError when a site is missing that cannot be enumerated.
    """

    if isinstance(context, Arguments):
        return _filled_one_by_one(program, latents, n, x, context)

    def vectorised(*arguments: Any) -> None:
        with pyro.plate("particles", n, dim=-2):
            program.model(*arguments)

    model = poutine.condition(vectorised, data=dict(latents))
    with pyro.validation_enabled(False):
        missing = {
            name: site["fn"]
            for name, site in poutine.trace(model).get_trace(x, context, None).nodes.items()
            if site["type"] == "sample" and not site["is_observed"] and not site_is_subsample(site)
        }
        for name, fn in missing.items():
            if not fn.has_enumerate_support or fn.event_dim:
                raise CapabilityError(LEFT_OUT.format(name=name))
        if not missing:
            return dict(latents)
        complete = infer_discrete(config_enumerate(model), first_available_dim=-3, temperature=1)
        trace = poutine.trace(complete).get_trace(x, context, None)
    return {**latents, **{name: trace.nodes[name]["value"] for name in missing}}
