"""What a method may ask of a program before any compute; each answer is a reason to refuse, or None."""

from __future__ import annotations

import pyro
import torch
from pyro import poutine
from pyro.poutine.util import site_is_subsample
from torch.distributions import biject_to, constraints

from inference.particles import log_joint, prior_draws
from zoo.adopted import Adopted
from zoo.program import Implicit, ImplicitProgram, Program

__all__ = [
    "why_no_draws",
    "why_no_dreams",
    "why_no_fixed_density",
    "why_no_implicit_guide",
    "why_not_local",
    "why_not_local_density",
]

OWN_PLATES = "it is adopted code, whose examples cannot be dreamt or taken one by one: take 'svi', 'nuts' or 'avb'"


def _given(name: str) -> str:
    """Of a latent that is an implicit site, such as a source image."""
    return f"its latent {name!r} is what it was given, and not drawn"


def why_no_fixed_density(program: Program) -> str | None:
    """Why the density of a program is another one at every run, or None."""
    program.sites()  # adopted code is known from then on
    if program.subsampled is None:
        return None
    return f"its plate {program.subsampled!r} draws a subsample at every run: give it the whole plate, or take 'svi'"


def why_no_implicit_guide(program: Program, contrast: str | None = None) -> str | None:
    """Why a program can have no implicit guide, or None; with a contrast, why it cannot be fitted by that one.

    Any program with continuous latents can have the guide. To fit it by the ELBO ('adaptive', 'prior') takes a density
    of x, and discrete latents that can be summed out; by pairs ('joint') latents that belong to the examples.
    """
    sites, adopted = program.sites(), isinstance(program, Adopted)
    if all(site.is_discrete for site in sites.values()):
        return "it has no continuous latent sites" if sites else "it has no latent sites"
    if (drawn := why_no_fixed_density(program)) is not None:
        return drawn
    if adopted and not all(site.is_global for site in sites.values()):
        return OWN_PLATES
    for name, site in sites.items():
        if site.distribution == Implicit.__name__:
            return _given(name)
        try:
            if not site.is_discrete:
                biject_to(site.support)
        except NotImplementedError:
            return f"the support of its latent site {name!r}, {site.support}, maps to no unconstrained space"
    if contrast == "joint":
        for name, site in sites.items():
            if site.is_global:
                return f"its latent site {name!r} is global, and pairs are of an example and its own latents"
        return why_no_dreams(program)
    elif contrast is not None:
        if isinstance(program, ImplicitProgram):
            return "it is implicit: x has no density for an ELBO (contrast='joint' needs none)"
        finite = (type(constraints.boolean), constraints.integer_interval)
        for name, site in sites.items():
            endless = site.is_global or len(site.event_shape) > 0 or not isinstance(site.support, finite)
            if site.is_discrete and (not site.is_enumerable if adopted else endless):
                return (
                    f"the discrete latent site {name!r} cannot be summed out: it is not local with finitely many values"
                )
        if not adopted and _exclusive(program):
            return "each x is possible under the latents it came from alone, so its posterior has no support of its own"
    return None


@torch.no_grad()
def _exclusive(program: Program) -> bool:
    """Whether latents drawn anew leave every x impossible, as where x is the latents rounded."""
    with torch.random.fork_rng(devices=[]), pyro.validation_enabled(False):
        context = program.example_context(4)
        x = program.model(None, context, 4)
        drawn = prior_draws(program.model, 8, x, context)
        values = {name: drawn[name] for name, site in program.sites().items() if not site.is_discrete}
        return bool((log_joint(program, values, x, context).total == -torch.inf).all())


def why_not_local_density(program: Program) -> str | None:
    """Why a program is refused by the methods that want continuous latents of the examples and no others, or None."""
    if isinstance(program, ImplicitProgram):
        return "it is implicit: it has no density"
    return why_not_local(program)


def why_not_local(program: Program) -> str | None:
    """Why a program's latents are not all continuous and of single examples, or None; a density is not asked for."""
    if isinstance(program, Adopted):
        return OWN_PLATES
    sites = program.sites()
    if not sites:
        return "it has no latents"
    for name, site in sites.items():
        if site.is_global:
            return f"its latent {name!r} is global, and only latents of single examples can be dreamt or sampled alone"
        if site.is_discrete:
            return f"its latent {name!r} is discrete"
        if site.distribution == Implicit.__name__:
            return _given(name)
    return None


def why_no_dreams(program: Program) -> str | None:
    """Why latents that a program makes x of are no draws of their posterior given that x, or None.

    They are not where it observes more than x (a reading in the context, `pyro.factor`): nothing that is generated
    heeds that. `pyro.deterministic` observes nothing.
    """
    with torch.no_grad(), torch.random.fork_rng(devices=[]), pyro.validation_enabled(False):
        made = poutine.trace(program.model).get_trace(None, program.example_context(2), 2)
    for name, site in made.nodes.items():
        if site["type"] != "sample" or not site["is_observed"] or site_is_subsample(site):
            continue
        if name != "x" and not site["infer"].get("_deterministic", False):
            return f"it observes {name!r} besides x, and what it generates does not heed that"
    return None


def why_no_draws(program: Program) -> str | None:
    """Why a game cannot teach the program's own guide through its draws of all latents, or None."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]), pyro.validation_enabled(False):
        context = program.example_context(2)
        like = next((p.dtype for p in program.parameters() if p.is_floating_point()), torch.get_default_dtype())
        trace = poutine.trace(program.guide).get_trace(program.generate(2, context).to(like), context, None)
    for name in program.sites():
        if name not in trace.nodes:
            return f"its guide leaves out {name!r}; take guide='implicit'"
        if not trace.nodes[name]["fn"].has_rsample:
            return f"its guide's draws of {name!r} have no gradient; take guide='implicit'"
    return None
