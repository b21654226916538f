"""Particles of a user's own code (`zoo.adopt`), which may use batch dimensions as it likes: one run for each.

What comes out has the shapes that `inference.particles` promises: local sites (S, B, *event), global ones (S, 1,
*event), other plates being the first dimensions of the event. Densities at given values, and draws of Gaussian
autoguides, are computed under `torch.func.vmap` where the code allows it, so that it still sees a single particle.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.infer import TraceEnum_ELBO, config_enumerate
from pyro.infer.autoguide import AutoContinuous, AutoNormal
from pyro.infer.traceenum_elbo import _compute_dice_elbo, _compute_model_factors
from pyro.ops import packed
from pyro.ops.contract import contract_tensor_tree
from pyro.ops.rings import LogRing
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.func import vmap

from inference.densities import Draws, LogDensity, NoneMasked, has_path
from zoo.arguments import Arguments
from zoo.errors import CapabilityError
from zoo.flat import FlatPriors, drawing

__all__ = [
    "Layout",
    "densities",
    "density_of",
    "draw",
    "everything",
    "layout_of",
    "prior_draws",
    "single_value",
    "together",
]

CHUNK = 512
"""Particles evaluated at once under vmap."""
APART = (AutoNormal, AutoContinuous)
"""Guides that draw at random from sites none of which hangs on what another gave, and nothing else."""


Part = tuple[Tensor, Tensor, bool]
"""Of a log density of one run: that by example (B,), that of all else (), and whether there is anything else."""


@dataclass(frozen=True)
class Layout:
    """How the value of a site of one run is laid out."""

    is_local: bool
    event_dim: int
    is_latent: bool
    is_auxiliary: bool
    is_enumerable: bool


LAYOUTS: weakref.WeakKeyDictionary[Any, dict[Any, tuple[Any, Any]]] = weakref.WeakKeyDictionary()
"""Program -> its model or guide -> the arguments that it had last, and what `layout_of` said of them."""


def layout_of(code: Callable[..., Any], x: Tensor, context: Arguments) -> tuple[dict[str, Layout], int]:
    """Site -> its layout, from a run that leaves the random state; and how many dimensions plates take.

    A program is run once for as long as its arguments stay the same object: a density is asked for many times.

    Raises: CapabilityError for a plate that draws a subsample, which makes every density another one.
    """
    owner, function = getattr(code, "__self__", None), getattr(code, "__func__", None)
    if owner is None or function is None:
        return _layout_of(code, x, context)
    known = LAYOUTS.setdefault(owner, {})
    of, found = known.get(function, (lambda: None, ({}, 0)))
    if of() is not context:
        found = _layout_of(code, x, context)
        known[function] = weakref.ref(context), found
    return found


@torch.no_grad()
def _layout_of(code: Callable[..., Any], x: Tensor, context: Arguments) -> tuple[dict[str, Layout], int]:
    with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []), pyro.validation_enabled(False):
        trace = poutine.trace(FlatPriors()(code)).get_trace(x, context, None)
    found, nesting = {}, 0
    for name, site in trace.nodes.items():
        if site["type"] != "sample":
            continue
        frames = [frame for frame in site["cond_indep_stack"] if frame.vectorized]
        nesting = max([nesting, *(-frame.dim for frame in frames)])
        drawn = [frame.name for frame in frames if frame.full_size not in (None, frame.size)]
        if drawn:
            raise CapabilityError(
                f"The plate {drawn[0]!r} draws a subsample at every run, so its density is another one each time; "
                "SVI with elbo='trace', 'mean_field' or 'enum' averages over that, all else needs the whole plate."
            )
        if site_is_subsample(site):
            continue
        found[name] = Layout(
            context.examples is not None and any(frame.name == context.examples for frame in frames),
            event_dim=site["fn"].event_dim, is_latent=not site["is_observed"],
            is_auxiliary=bool(site["infer"].get("is_auxiliary")),
            is_enumerable=bool(site["fn"].has_enumerate_support) and site["fn"].event_dim == 0,
        )  # fmt: skip
    return found, nesting


def _laid_out(value: Tensor, is_local: bool, event_dim: int) -> Tensor:
    """The value of one run as (B or 1, *event)."""
    return value.movedim(-1 - event_dim, 0) if is_local else value[None]


def single_value(value: Tensor, layout: Layout) -> Tensor:
    """(B or 1, *event) as the code has it."""
    return value.movedim(0, -1 - layout.event_dim) if layout.is_local else value[0]


def _is_local(site: Mapping[str, Any], context: Arguments) -> bool:
    return context.examples is not None and any(frame.name == context.examples for frame in site["cond_indep_stack"])


def density_of(
    trace: poutine.Trace, x: Tensor, context: Arguments, only: Callable[[Any], bool] = lambda site: True
) -> Part:
    """Summed log densities of a run."""
    local, rest, joint = x.new_zeros(len(x)), x.new_zeros(()), context.examples is None
    for site in trace.nodes.values():
        if site["type"] != "sample" or site_is_subsample(site) or site["infer"].get("_deterministic") or not only(site):
            continue
        log_prob = scale_and_mask(site["fn"].log_prob(site["value"]), site["scale"], site["mask"])
        if not isinstance(log_prob, Tensor):
            continue
        if _is_local(site, context):
            local = local + (log_prob.reshape(-1, log_prob.shape[-1]).sum(0) if log_prob.ndim else log_prob)
        else:
            rest, joint = rest + log_prob.sum(), True
    return local, rest, joint


def together(parts: list[Part]) -> LogDensity:
    """What `density_of` found at each of several particles."""
    return LogDensity(
        torch.stack([local for local, _, _ in parts]), torch.stack([rest for _, rest, _ in parts]), parts[0][2]
    )


def draw(guide: Callable[..., Any], n: int, x: Tensor, context: Arguments, density: bool) -> Draws:
    """As `inference.particles.draw`; of autoguides that are `APART` all at once, where no gradient is asked for."""
    if n > 1 and isinstance(guide, APART) and guide not in LOOPED and not torch.is_grad_enabled():
        found = _drawn_by_vmap(guide, n, x, context, density)
        if found is not None:
            return found
    return _gathered([poutine.trace(guide).get_trace(x, context, None) for _ in range(n)], x, context, density)


def _drawn_by_vmap(guide: Callable[..., Any], n: int, x: Tensor, context: Arguments, density: bool) -> Draws | None:
    """All draws at once: what is random, then what the guide makes of each; None where vmap cannot do that."""
    joint: list[bool] = []

    def single(mine: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        trace = poutine.trace(poutine.condition(guide, data=dict(mine))).get_trace(x, context, None)
        one = _gathered([trace], x, context, False)
        local, rest, tied = density_of(trace, x, context, lambda site: site["name"] not in known)
        joint.append(tied)
        return {name: value[0] for name, value in one.values.items()}, local, rest

    sites = poutine.trace(guide).get_trace(x, context, None).nodes
    noise = {name: site["fn"].sample((n,)) for name, site in sites.items() if _is_auxiliary(site)}
    # A vector of all latents: its density is asked for while a flow still knows where the draws came from.
    whole = [name for name in noise if density and isinstance(guide, AutoContinuous)]
    known = {name: sites[name]["fn"].log_prob(noise[name]) for name in whole}
    try:
        with pyro.validation_enabled(False):
            values, local, rest = vmap(single, chunk_size=CHUNK)(noise)
    except Exception:  # as for densities: run plainly, it shows what is the guide's own fault
        LOOPED.add(guide)
        return None
    if not density:
        rest = torch.full_like(rest, torch.nan)
        return Draws(values, LogDensity(torch.full_like(local, torch.nan), rest, False))
    return Draws(values, LogDensity(local, sum(known.values(), rest), joint[0] or bool(known)))


def _is_auxiliary(site: Mapping[str, Any]) -> bool:
    return site["type"] == "sample" and bool(site["infer"].get("is_auxiliary"))


def _gathered(traces: list[poutine.Trace], x: Tensor, context: Arguments, density: bool) -> Draws:
    names = [
        name for name, site in traces[0].nodes.items()
        if site["type"] == "sample" and not site["infer"].get("is_auxiliary", False) and not site_is_subsample(site)
    ]  # fmt: skip
    values = {
        name: torch.stack(
            [
                _laid_out(t.nodes[name]["value"], _is_local(t.nodes[name], context), t.nodes[name]["fn"].event_dim)
                for t in traces
            ]
        )
        for name in names
    }
    if not density:
        nan = x.new_full((), float("nan"))
        return Draws(values, LogDensity(nan.expand(len(traces), len(x)), nan.expand(len(traces)), False))
    sites = [site for site in traces[0].nodes.values() if site["type"] == "sample"]
    score = None
    if not all(has_path(site) for site in sites):
        score = together([density_of(t, x, context, lambda site: not has_path(site)) for t in traces])
    return Draws(values, together([density_of(t, x, context) for t in traces]), score)


def prior_draws(
    model: Callable[..., Any], n: int, x: Tensor, context: Arguments, given: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """As `inference.particles.prior_draws`."""
    layout, _ = layout_of(model, x, context)
    traces = []
    for i in range(n):
        mine = {name: single_value(value[i], layout[name]) for name, value in (given or {}).items()}
        with drawing("This program"):
            traces.append(poutine.trace(poutine.condition(model, data=mine)).get_trace(x, context, None))
    return {
        name: torch.stack([_laid_out(t.nodes[name]["value"], each.is_local, each.event_dim) for t in traces])
        for name, each in layout.items()
        if isinstance(traces[0].nodes[name]["value"], Tensor)
    }


LOOPED: weakref.WeakSet[Any] = weakref.WeakSet()
"""Programs whose code, and guides that, vmap cannot take."""
TRIED: weakref.WeakSet[Any] = weakref.WeakSet()
"""Programs whose code gives the same under vmap as without."""


def densities(
    code: Callable[..., Any],
    values: Mapping[str, Tensor],
    n: int,
    x: Tensor,
    context: Arguments,
    *only: Callable[[Any], bool],
) -> list[LogDensity]:
    """Log densities of a model with its data, or a guide, at n particles; enumerable latents left out are summed out.

    Args:
        code: With the signature of `Program.model`.
        values: Site -> value (n, B or 1, *event).
        n: Number of particles.
        x, context: The data.
        only: Of each density, says of a site whether it counts; one run is enough for several.

    Raises: CapabilityError for a site that has no value and cannot be summed out, and for a plate with a subsample.
    """
    layout, nesting = layout_of(code, x, context)
    missing = {name: each for name, each in layout.items() if each.is_latent and name not in values}
    if any(each.is_auxiliary for each in missing.values()):
        raise CapabilityError(
            "This guide draws all its sites from one auxiliary site, so conditioning does not give its density; use "
            "inference.evaluation.estimates.density or a site-wise guide."
        )
    for name, each in missing.items():
        if not each.is_enumerable:
            raise CapabilityError(
                f"log_joint: no value for the latent site {name!r}, and it cannot be summed out; got values for "
                f"{sorted(values)}."
            )
    known = {name: value for name, value in values.items() if name in layout}

    def single(mine: Mapping[str, Tensor]) -> list[Part]:
        at = poutine.condition(code, data={name: single_value(v, layout[name]) for name, v in mine.items()})
        if missing:
            return [_summed_out(at, nesting, x, context)] * len(only)
        trace = poutine.trace(at).get_trace(x, context, None)
        return [density_of(trace, x, context, counts) for counts in only]

    if known and n > 1:
        found = _by_vmap(code, single, known)
        if found is not None:
            return found
    runs = [single({name: value[i] for name, value in known.items()}) for i in range(n)]
    return [together(list(parts)) for parts in zip(*runs, strict=True)]


def everything(site: Any) -> bool:
    """That each site counts."""
    return True


def _summed_out(code: Callable[..., Any], nesting: int, x: Tensor, context: Arguments) -> Part:
    """log of the sum over all values of the enumerable sites that are left, in the parts that `density_of` gives."""
    elbo = TraceEnum_ELBO(max_plate_nesting=nesting, strict_enumeration_warning=False)
    with pyro.validation_enabled(False):
        (traces,) = elbo._get_traces(config_enumerate(code), _nothing, (x, context, None), {})
        if context.examples is None:
            with NoneMasked():
                return x.new_zeros(len(x)), torch.as_tensor(_compute_dice_elbo(*traces)), True
        model, guide = traces
        return _by_example(model, guide, x, context)


def _by_example(model: poutine.Trace, guide: poutine.Trace, x: Tensor, context: Arguments) -> Part:
    """The terms of Pyro's sum, which stay apart by plate, summed over all plates but that of the examples."""
    costs, factors, _, summed, scale = _compute_model_factors(model, guide)
    terms = [(plates, term) for plates, each in costs.items() for term in each]
    if factors:
        every = [term for each in factors.values() for term in each]
        sizes = {dim: n for term in every for dim, n in zip(term._pyro_dims, term.shape, strict=True)}
        found = contract_tensor_tree(factors, summed, ring=LogRing(dim_to_size=sizes))
        terms += [(plates, packed.scale_and_mask(term, scale=scale)) for plates, each in found.items() for term in each]
    local, rest, joint, symbol = x.new_zeros(len(x)), x.new_zeros(()), False, model.plate_to_symbol[context.examples]
    for plates, term in terms:
        at = term._pyro_dims.find(symbol)
        if symbol not in plates:
            rest, joint = rest + term.sum(), True
        else:
            local = local + (term.sum() if at < 0 else term.movedim(at, 0).flatten(1).sum(1) if term.ndim > 1 else term)
    return local, rest, joint


def _nothing(*args: Any) -> None:
    pass


def _by_vmap(
    code: Any, single: Callable[[Mapping[str, Tensor]], list[Part]], values: Mapping[str, Tensor]
) -> list[LogDensity] | None:
    """All particles at once, or None where the code does not allow that, or would give something else."""
    owner = getattr(code, "__self__", None)
    if owner is None or owner in LOOPED:
        return None
    joint: list[bool] = []

    def tensors(mine: Mapping[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
        found = single(mine)
        joint[:] = [tied for _, _, tied in found]
        return [(local, rest) for local, rest, _ in found]

    try:
        with pyro.validation_enabled(False):
            parts = vmap(tensors, chunk_size=CHUNK)(dict(values))
            if owner not in TRIED:
                near = partial(torch.allclose, rtol=1e-4, atol=1e-4, equal_nan=True)
                first = tensors({name: value[0] for name, value in values.items()})
                for (local, rest), (one_local, one_rest) in zip(parts, first, strict=True):
                    if not (near(local[0], one_local) and near(rest[0], one_rest)):
                        raise RuntimeError("it gives something else under vmap")
    except torch.linalg.LinAlgError:  # of a matrix at one of the particles, whoever runs it
        raise
    except Exception:  # whatever vmap has against the code; run plainly, it shows what is the code's own fault
        LOOPED.add(owner)
        return None
    TRIED.add(owner)
    return [LogDensity(local, rest, tied) for (local, rest), tied in zip(parts, joint, strict=True)]
