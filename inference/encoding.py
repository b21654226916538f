"""Codes: a vector that stands for each example, by whatever a program makes of it.

A program may say what its code is (`zoo.program.Encodes`): the noise of a flow, the states of a hidden Markov model. Of
all others it is the mean of the latents of an example given the example: exactly where the program has its posterior,
else as its guide believes. Whoever writes a guide has codes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from inference.environment import evaluating
from inference.guides.named import needs_full_batch
from inference.particles import flatten_draws
from zoo.adopted import Adopted
from zoo.datasets.data import Data
from zoo.errors import CapabilityError, NonFiniteError
from zoo.options import Seed, check_value
from zoo.process import one_at_a_time
from zoo.program import Encodes, ExactPosterior, Implicit, Program, Site

__all__ = ["DRAWS", "encode", "why_no_codes"]

DRAWS = 64
"""Of a guide, whose average stands for a mean that has no closed form."""
BATCH = 256
"""Examples at once."""
ABLE = (
    "Programs that encode: those over latents of each example that have a guide or an exact posterior (ppca, vae, "
    "cvae, hvae, aae, ali, infogan, rbm, mixtures, lgssm, dmm), and those that say what their code is (flows, nade, "
    "hmm, vq-vae)."
)
NO_GUIDE = "it was fitted without a guide, or by samples of its training data alone"


def why_no_codes(program: Program, guide: Callable[..., Any] | None = None) -> str | None:
    """Why a program has no codes by this guide, or None.

    Args:
        program: Any program.
        guide: None is the program's own.
    """
    if isinstance(program, Adopted):
        return "it is adopted code, whose latents are those of the data that it was given"
    if isinstance(program, Encodes):
        return None
    sites = program.sites().values()
    if all(site.is_global for site in sites):
        return "it has no latents that belong to examples"
    if any(site.is_global for site in sites):
        return "its latents of an example depend on global ones, which Fit.draw draws together"
    if isinstance(program, ExactPosterior):
        return None
    if guide is None and not program.has_guide:
        return "it has no guide"
    if guide is not None and needs_full_batch(guide, program):
        return "its guide holds the factors of the examples that it was fitted to, and knows nothing of others"
    return None


def refuse_codes(program: Program, reason: str) -> NoReturn:
    """Raises the CapabilityError that says why there are no codes, and what has some."""
    raise CapabilityError(f"{type(program).__name__} has no codes: {reason}. {ABLE}")


@one_at_a_time
@torch.no_grad()
def encode(
    program: Program,
    data: Any,
    context: Any = None,
    *,
    guide: Callable[..., Any] | None = None,
    seed: Seed = 0,
) -> Tensor:
    """The codes of examples, (N, d), in evaluation mode.

    Without `codes_of` they are the means of all latents of an example that posterior or guide sample, side by side in
    the order of their names: probabilities of a categorical one, the mean of a continuous one. Means without a closed
    form (a flow, a latent that depends on another) are averages of `DRAWS` draws.

    Args:
        program: Whose codes.
        data: Of any kind that `Program.take` takes.
        context: That of x, where `data` is x alone.
        guide: Reads the examples, where the program has neither `codes_of` nor an exact posterior; None is its own.
        seed: Of the draws.

    Raises: CapabilityError for a program without codes, which names those that have some; NonFiniteError where codes
        are no numbers; what `Program.take` raises.
    """
    check_value("seed", seed, Seed)
    if (reason := why_no_codes(program, guide)) is not None:
        refuse_codes(program, reason)
    rows = program.take(data, context)
    rows = rows.to(next((t.device for t in program.state_dict().values()), rows.x.device))
    with evaluating(program, guide, seed, rows.x.device):
        codes = torch.cat([_codes(program, batch, guide) for batch in rows.batches(BATCH)])
    if not bool(codes.isfinite().all()):
        raise NonFiniteError(f"Some codes of {type(program).__name__} are not finite: fit it before it is asked.")
    return codes


def _codes(program: Program, rows: Data, guide: Callable[..., Any] | None) -> Tensor:
    if isinstance(program, Encodes):
        return program.codes_of(*rows).flatten(1)
    exact = program.posterior if isinstance(program, ExactPosterior) else None
    means = _means(exact or guide or program.guide, rows, program.sites())
    if not means:
        refuse_codes(program, "its guide samples none of its latents")
    return flatten_draws(means)


def _means(guide: Callable[..., Any], rows: Data, sites: Mapping[str, Site]) -> dict[str, Tensor]:
    """Site -> mean (B, ...) of what a guide samples of the latents."""
    found, alone = _sampled(guide, rows, 1, sites)
    means = {name: _mean(site["fn"]) for name, site in found.items()}
    if not alone or None in means.values():  # what one draw says of a mean may hang on other draws
        found, _ = _sampled(guide, rows, DRAWS, sites)
        means = {name: _mean(site["fn"]) for name, site in found.items()}
    averaged = {}
    for name, mean in means.items():
        value: Tensor = found[name]["value"] if mean is None else mean
        averaged[name] = value.to(rows.x.dtype).mean(0)
    return averaged


def _sampled(guide: Callable[..., Any], rows: Data, n: int, sites: Mapping[str, Site]) -> tuple[dict[str, Any], bool]:
    """Name -> node of Pyro's trace of n runs side by side, of the program's latents alone.

    And whether nothing was drawn besides one of them: an auxiliary variable of the guide counts.
    """
    with pyro.plate("particles", n, dim=-2):
        nodes = poutine.trace(guide).get_trace(*rows, None).nodes
    drawn = {
        name: node
        for name, node in nodes.items()
        if node["type"] == "sample" and not (node["is_observed"] or site_is_subsample(node))
    }
    return {name: node for name, node in drawn.items() if name in sites}, len(drawn) == 1


def _mean(fn: Any) -> Tensor | None:
    """The mean of a distribution, of a categorical one its probabilities; None where it is known by draws alone."""
    base = fn
    while isinstance(base, dist.Independent | dist.ExpandedDistribution | dist.MaskedDistribution):
        base = base.base_dist
    if isinstance(base, dist.Categorical):
        return base.probs
    if isinstance(base, Implicit):  # one draw of who knows what
        return None
    try:
        mean: Tensor = fn.mean
    except NotImplementedError:
        return None
    return mean if bool(mean.isfinite().all()) else None
