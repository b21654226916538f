"""Guides by name: the program's own, its exact posterior, or an autoguide; rebuilt the same from a checkpoint.

A spec is a small JSON object, {"kind": "own" | "posterior" | "auto", "name": ...}, so that a saved fit can say which
guide it had without pickling code.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import autoguide
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn

from inference.guides.implicit import ImplicitGuide
from zoo.datasets.data import Data
from zoo.errors import CapabilityError, UnknownNameError
from zoo.flat import FlatPriors, within
from zoo.guide_flows import BatchedAffine, flow_layers
from zoo.parameters import KEPT, keeps_statements, state_parameters
from zoo.program import ExactPosterior, Implicit, Program

__all__ = [
    "AUTOGUIDES",
    "AutoFlow",
    "build_guide",
    "guide_parameters",
    "guide_sites",
    "guide_spec",
    "guided_sites",
    "init_function",
    "needs_full_batch",
    "refuse_partial",
    "refuse_point",
    "stated_guide",
]


class AutoFlow(autoguide.AutoMultivariateNormal):
    """A full-rank Gaussian in unconstrained space whose standard normal goes through flows first.

    So the family holds every Gaussian, training starts from one, and the box of a spline lies where the mass is. The
    first flow sees the coordinates in the order of the model: with a scale before what it scales, that is a funnel.

    Args:
        model: The model, without its discrete sites.
        kind: A key of `zoo.guide_flows.FLOWS`.
        steps: Number of flows.
        options: Of Pyro's guide.
    """

    def __init__(self, model: Callable[..., Any], kind: str, steps: int = 2, **options: Any):
        super().__init__(model, **options)
        self.kind, self.steps = kind, steps

    def _setup_prototype(self, *args: Any, **kwargs: Any) -> None:
        super()._setup_prototype(*args, **kwargs)
        hidden = max(32, 2 * self.latent_dim)
        # Bounded units, so that an affine flow does not grow without limit where few draws are; a spline has its box.
        units = nn.Tanh() if self.kind == "iaf" else nn.ReLU()
        self.flows = flow_layers(self.kind, self.latent_dim, self.steps, hidden, nonlinearity=units).to(self.loc)

    def get_posterior(self, *args: Any, **kwargs: Any) -> Any:
        """The distribution of all latents side by side, unconstrained."""
        # The cache keeps what was drawn, so that its density needs no inversion.
        affine = BatchedAffine(self.loc, self.scale[..., None] * self.scale_tril, cache_size=1)
        return dist.TransformedDistribution(self.get_base_dist(), [*self.flows, affine])

    def _loc_scale(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("A flow has no closed form for its quantiles; take them from draws.")


AUTOGUIDES: dict[str, Callable[..., autoguide.AutoGuide]] = {
    "delta": autoguide.AutoDelta,
    "normal": autoguide.AutoNormal,
    "multivariate_normal": autoguide.AutoMultivariateNormal,
    "low_rank": autoguide.AutoLowRankMultivariateNormal,
    "structured": autoguide.AutoStructured,
    "iaf": partial(AutoFlow, kind="iaf"),
    "spline": partial(AutoFlow, kind="spline"),
}
"""Names of the autoguides: point; mean-field, full-rank, low-rank Gaussian; a Gaussian for each site, linear in those
that it depends on in the model; inverse autoregressive and spline flow."""

STARTS = ("feasible", "mean", "median", "sample", "uniform")
"""Pyro's functions that say where an autoguide starts, without init_to_."""
FLAT_SPREAD = 2.0
"""How far from the origin starts that differ lie on a flat prior: as Pyro's and Stan's init_to_uniform."""


def guide_spec(guide: str) -> dict[str, Any]:
    """The spec of a guide name: 'own', 'posterior' or a key of AUTOGUIDES.

    Raises: UnknownNameError.
    """
    if guide in ("own", "posterior"):
        return {"kind": guide}
    if guide not in AUTOGUIDES:
        raise UnknownNameError("guide", guide, ["own", "posterior", *AUTOGUIDES])
    return {"kind": "auto", "name": guide}


def init_function(init: str | Callable[..., Any]) -> Callable[..., Any]:
    """One of Pyro's functions that say where an autoguide starts: itself, or by its name ('median' of init_to_median).

    A flat prior has no draws: where the function wants one, it starts at the origin of its unconstrained space, or,
    for starts that differ ('sample', 'uniform'), within two units of that.

    Raises: UnknownNameError.
    """
    if not callable(init) and init not in STARTS:
        raise UnknownNameError("init function", init, STARTS)
    found: Callable[..., Any] = init if callable(init) else getattr(autoguide, f"init_to_{init}")

    def start(site: Any) -> Any:
        try:
            return found(site)
        except NotImplementedError:
            return within(site["fn"], FLAT_SPREAD if init in ("sample", "uniform") else 0.0)

    return start


def build_guide(
    spec: dict[str, Any], program: Program, data: Data, init: Callable[..., Any] | None = None
) -> Callable[..., Any]:
    """Builds the guide that a spec names; autoguides are set up on `data` so that their parameters exist.

    Args:
        spec: What `guide_spec` gave.
        program: Whose latents it samples.
        data: What it sees.
        init: Where an autoguide starts, one of Pyro's init functions; None is as Pyro has it.

    Returns: the bound method `program.guide` or `program.posterior`, or an autoguide (an nn.Module).
    """
    if spec["kind"] == "own":
        return program.guide
    if spec["kind"] == "posterior":
        if not isinstance(program, ExactPosterior):
            raise CapabilityError(
                f"{type(program).__name__} has no exact posterior; use its own guide or an autoguide."
            )
        return program.posterior
    if spec["kind"] == "implicit":
        return ImplicitGuide(program, data, **spec["options"])
    if spec["kind"] in ("grid", "enumeration"):
        from inference.guides.exact import enumerated_guide  # exact is a method, built on this module
        from inference.guides.grid import GridGuide  # exact is a method, built on this module

        return GridGuide(program, spec.get("points")) if spec["kind"] == "grid" else enumerated_guide(program)
    hidden = [name for name, site in program.sites().items() if site.is_discrete]
    options = {} if init is None else {"init_loc_fn": init}
    model = poutine.block(program.model, hide=hidden)
    guide = AUTOGUIDES[spec["name"]](FlatPriors()(model) if init is None else model, **options)
    with torch.no_grad():
        guide(data.x, data.context, None)
    return guide.to(data.x.device)


class _StatedGuide(nn.Module):
    """A guide given as code, with the parameters that its `pyro.param` statements make."""

    def __init__(self, guide: Callable[..., Any]):
        super().__init__()
        self.guide = guide

    @keeps_statements
    def forward(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> None:
        """Samples what the guide samples."""
        self.guide(x, context, size)


def stated_guide(guide: Callable[..., Any], data: Data) -> Callable[..., Any]:
    """A guide given as code, ready to be optimised: the same, or a module that has its `pyro.param` statements."""
    if isinstance(guide, autoguide.AutoGuide):
        with torch.no_grad(), torch.random.fork_rng(devices=[data.x.device] if data.x.is_cuda else []):
            guide(*data, None)  # its parameters exist once it has run
        return guide
    stated = _StatedGuide(guide)
    state_parameters(stated, [stated], *data)
    return stated if KEPT in stated._modules else guide


def guided_sites(guide: Callable[..., Any], data: Data) -> set[str]:
    """Names of the latent sites that a guide samples (auxiliary ones left out)."""
    return set(guide_sites(guide, data))


def guide_sites(guide: Callable[..., Any], data: Data, auxiliary: bool = False) -> dict[str, Any]:
    """Name -> site of Pyro's trace, of the latent sites that a guide samples (observed ones left out).

    Args:
        guide: A guide.
        data: Examples that it can see.
        auxiliary: Whether variables of the guide alone are among them.
    """
    few = data if isinstance(guide, autoguide.AutoGuide) else data.rows(slice(0, 2))
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        trace = poutine.trace(guide).get_trace(*few, None)
    return {
        name: site
        for name, site in trace.nodes.items()
        if site["type"] == "sample"
        and not (site["is_observed"] or site_is_subsample(site))
        and (auxiliary or not site["infer"].get("is_auxiliary"))
    }


def refuse_point(guide: Callable[..., Any], program: Program, data: Data, what: str) -> None:
    """Refuses a guide that is a point in a continuous latent: log p(x, z) at its best z is above the evidence.

    Args:
        guide: A guide.
        program: Whose latents it samples.
        data: Examples that it can see.
        what: What was asked of it, for the message.

    Raises: CapabilityError.
    """
    point = isinstance(guide, nn.Module) and any(isinstance(m, autoguide.AutoDelta) for m in guide.modules())
    where = "" if point else _point_site(guide, program, data)
    if point or where:
        raise CapabilityError(
            f"{what} needs the density of the guide's draws, and this guide is a point{where}: it has none, and what "
            "would come out is no bound on the evidence. Use guide='normal' (or another that is no Delta), or score "
            "the point by its log joint density."
        )


def refuse_partial(guide: Callable[..., Any], program: Program, data: Data) -> None:
    """Refuses a guide that leaves out latents, where each is to have its Kullback-Leibler divergence.

    Raises: CapabilityError.
    """
    guided = guided_sites(guide, data)
    missing = [name for name in program.sites() if name not in guided]
    if missing:
        raise CapabilityError(
            f"elbo='mean_field' needs a guide over every latent, and this one leaves out {missing[0]!r}; use "
            "elbo='enum' (which sums it out) or another guide."
        )


def refuse_disordered(guide: Callable[..., Any], program: Program, data: Data) -> None:
    """Refuses a guide that draws latents in another order than the model, where each is to have its own divergence.

    KL(q(z_1 | z_2) || p(z_1 | z_2)) is of a z_2 that was there before. Where the guide draws z_2 *given* z_1, the two
    cannot be taken one by one.

    Raises: CapabilityError.
    """
    if isinstance(guide, autoguide.AutoGuide):
        return  # its sites are independent, or drawn together
    order = list(guide_sites(guide, data))
    wanted = [name for name in program.sites() if name in order]
    if order != wanted:
        raise CapabilityError(
            f"elbo='mean_field' takes the divergences of latents one by one, in the model's order {wanted}, and this "
            f"guide draws them as {order}; use elbo='trace', or draw them in that order."
        )


def _point_site(guide: Callable[..., Any], program: Program, data: Data) -> str:
    continuous = [name for name, site in program.sites().items() if not site.is_discrete]
    if not continuous:
        return ""
    few = data if isinstance(guide, autoguide.AutoGuide) else data.rows(slice(0, 2))
    with torch.no_grad(), torch.random.fork_rng(devices=[data.x.device] if data.x.is_cuda else []):
        trace = poutine.trace(guide).get_trace(*few, None)
    if any(site["type"] == "sample" and site["infer"].get("is_auxiliary") for site in trace.nodes.values()):
        return ""  # draws come from that site, whose density they have
    for name in [name for name in continuous if name in trace.nodes]:
        fn = trace.nodes[name]["fn"]
        while not isinstance(fn, dist.Delta) and hasattr(fn, "base_dist"):
            fn = fn.base_dist
        if isinstance(fn, dist.Delta) and not bool(torch.as_tensor(fn.log_density).any()):
            return f" in its site {name!r}"
    return ""


def needs_full_batch(guide: Callable[..., Any], program: Program) -> bool:
    """Whether a guide holds one factor for each example and so cannot see minibatches.

    An autoguide over a local latent would silently replace the model's minibatch by its own (pyro#3468).
    """
    local = any(not site.is_global and not site.is_discrete for site in program.sites().values())
    return isinstance(guide, autoguide.AutoGuide) and local


def guide_parameters(guide: Callable[..., Any], program: Program, data: Data) -> list[nn.Parameter]:
    """The parameters a guide depends on, its own or the program's, found by differentiating its draws and density."""
    owned = list(guide.parameters()) if isinstance(guide, nn.Module) else []
    candidates = [p for p in program.parameters() if p.requires_grad]
    if not candidates or not program.sites():
        return owned
    few = data if isinstance(guide, autoguide.AutoGuide) else data.rows(slice(0, 2))
    with torch.enable_grad(), torch.random.fork_rng(devices=[]):
        trace = poutine.trace(guide).get_trace(*few, None)
        total = torch.zeros((), device=data.x.device)
        for site in trace.nodes.values():
            if site["type"] != "sample" or site_is_subsample(site):
                continue
            if site["value"].is_floating_point():
                total = total + site["value"].sum()
            if not isinstance(site["fn"], Implicit):
                total = total + site["fn"].log_prob(site["value"]).sum()
    if not total.requires_grad:
        return owned
    grads = torch.autograd.grad(total, candidates, allow_unused=True)
    return owned + [p for p, g in zip(candidates, grads, strict=True) if g is not None]
