r"""The log predictive density of held-out examples: log p(x_n | training data), global latents averaged over draws.

Vehtari & Ojanen, "A survey of Bayesian predictive methods for model assessment, selection and comparison", 2012.

    log p(x_n | training data)  =  log E[p(x_n | theta)],  theta ~ p(theta | training data)

so the log of a mean over draws of the fit estimates it. Where the draws are those of an approximate guide, it is the
score of the predictions that this guide makes, which is what one wants to know of it, and no bound on anything.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from torch import Tensor

from inference.environment import evaluating
from inference.evaluation.estimates import BATCH, CHUNK, Estimate, checked, log_mean_exp
from inference.fitted import Fit
from inference.guides.named import guide_sites, needs_full_batch, refuse_point
from inference.one_by_one import densities, layout_of, single_value
from inference.particles import log_joint, prior_draws
from inference.prediction import draw_given
from zoo.arguments import Arguments
from zoo.datasets.data import Data
from zoo.errors import CapabilityError, ImplicitDensityError
from zoo.options import Count, check_value
from zoo.program import ImplicitProgram, Program

__all__ = ["log_predictive_density", "pointwise"]


@torch.no_grad()
def log_predictive_density(
    found: Fit, data: Any, *, draws: Count = 1000, seed: int = 0, chunk: Count = CHUNK
) -> Estimate:
    """log p(x_n | training data) of each example, for programs with global latents.

    Local latents of the examples are integrated out: discrete ones by their sum; others by importance sampling, one
    draw with each draw of the global latents, from the fit's guide where it can be given these (the program's own, an
    exact posterior) and from the model otherwise. `how` says which.

    The log of a mean is too low by half the square of the Monte Carlo error, in expectation.

    Args:
        found: A fit with a posterior; its training data are those that the posterior is given.
        data: Examples that were held out, of any kind that `Data.of` takes.
        draws: Draws of the global latents from a guide. Samples of a chain are taken as they are; the error that is
            stated takes them for independent.
        seed: Everything random follows from it.
        chunk: Draw-example pairs evaluated at once; bounds the memory.

    Returns: values (N,), each with its Monte Carlo error; `standard_error` is that of the mean over examples.

    Raises: ImplicitDensityError; CapabilityError for a program without global latents or a fit without posterior;
        OptionError; what `Program.accept` raises.
    """
    check_value("draws", draws, Count)
    check_value("chunk", chunk, Count)
    program = found.program
    if isinstance(program, ImplicitProgram):
        raise ImplicitDensityError(f"{type(program).__name__} is implicit: it has no density to predict with.")
    if not any(site.is_global for site in program.sites().values()):
        raise CapabilityError(
            f"{type(program).__name__} has no global latents, so training data tell no more than its parameters do; "
            "use log_likelihood."
        )
    data = checked(program, data)
    if found.samples is not None:
        draws = len(next(iter(found.samples.values())))
    with evaluating(program, found.guide, seed, data.x.device):
        given = found.posterior.globals(draws)
        proposal = _Proposal(found, data)
        values: list[Tensor] = []
        errors: list[Tensor] = []
        shares = data.x.new_zeros(draws)
        for batch in data.batches(BATCH):
            weights = proposal.log_weights(given, draws, batch, chunk)
            value, error = log_mean_exp(weights)
            values.append(value)
            errors += [] if error is None else [error]
            shares = shares + (weights - value).exp().sum(1)
    how = f"predictive-{draws}{proposal.words}"
    if draws == 1:
        return Estimate(torch.cat(values), how, False)
    # All examples see the same draws, so their errors go together: the mean has that of the summed relative weights.
    whole = float(shares.std()) / math.sqrt(draws) / sum(map(len, values))
    return Estimate(
        torch.cat(values), how, False, monte_carlo_error=torch.cat(errors),
        error_of_mean=math.inf if math.isnan(whole) else whole,
    )  # fmt: skip


class _Proposal:
    """How the local latents of new examples are integrated out, given draws of the global ones."""

    def __init__(self, found: Fit, data: Data):
        self.program, self.guide = found.program, found.guide
        sites = self.program.sites()
        self.sampled = [name for name, site in sites.items() if not site.is_global and not site.is_discrete]
        self.by_guide = bool(self.sampled) and self._guide_will_do(data)

    @property
    def words(self) -> str:
        """What `how` adds."""
        if not self.sampled:
            return ""
        return f", local latents from the {'guide' if self.by_guide else 'model'}"

    def _guide_will_do(self, data: Data) -> bool:
        if self.guide is None or needs_full_batch(self.guide, self.program):
            return False
        try:
            refuse_point(self.guide, self.program, data, "A weight")
            draw_given(self.guide, self._few(data), *data.rows(slice(0, 1)))
        except (CapabilityError, ImplicitDensityError):
            return False
        return set(self.sampled) <= set(guide_sites(self.guide, data))

    def _few(self, data: Data) -> dict[str, Tensor]:
        found = prior_draws(self.program.model, 1, *data.rows(slice(0, 1)))
        return {name: found[name] for name, site in self.program.sites().items() if site.is_global}

    def log_weights(self, given: Mapping[str, Tensor], draws: int, batch: Data, chunk: int) -> Tensor:
        """(draws, B), whose mean over draws is unbiased for p(x_n | training data)."""
        rows = max(1, chunk // batch.size)
        parts = []
        for start in range(0, draws, rows):
            part = {name: value[start : start + rows] for name, value in given.items()}
            parts.append(self._weights(part, min(rows, draws - start), batch))
        return torch.cat(parts)

    def _weights(self, given: dict[str, Tensor], n: int, batch: Data) -> Tensor:
        if not self.sampled:
            return pointwise(self.program, given, *batch)
        if self.by_guide and self.guide is not None:
            drawn = draw_given(self.guide, given, *batch)
            return log_joint(self.program, drawn.values, *batch).local - drawn.log_prob.local
        found = prior_draws(self.program.model, n, *batch, given)
        return pointwise(self.program, {**given, **{name: found[name] for name in self.sampled}}, *batch)


def pointwise(
    program: Program, values: Mapping[str, Tensor], x: Tensor, context: Any = None, *, chunk: int = CHUNK
) -> Tensor:
    """log p(x_n | latents) of each example at each draw, (S, B); discrete latents that are left out are summed out.

    Adopted code that names no plate of examples has every observed value for one, sites side by side.

    Args:
        program: A program with a density.
        values: Latent site -> value (S, B or 1, *event).
        x: Examples (B, *event_shape).
        context: Their context, or None.
        chunk: Draw-example pairs evaluated at once; bounds the memory.

    Raises: CapabilityError when a latent is left out that cannot be summed out.
    """
    if isinstance(context, Arguments):
        return _of_own_code(program, values, x, context)
    sites, rows = program.sites(), max(1, chunk // len(x))
    local = any(name in values and not site.is_global for name, site in sites.items())
    latents: Any = SimpleNamespace(model=poutine.block(program.model, hide=["x"]))
    parts = []
    for start in range(0, max(len(value) for value in values.values()), rows):
        part = {name: value[start : start + rows] for name, value in values.items()}
        found = log_joint(program, part, x, context).local
        parts.append(found - log_joint(latents, part, x, context).local if local else found)
    return torch.cat(parts)


def _of_own_code(program: Program, values: Mapping[str, Tensor], x: Tensor, context: Arguments) -> Tensor:
    """By example where the code says what an example is; else by observed value, sites side by side."""
    latents = program.sites()
    if missing := sorted(set(latents) - set(values)):
        raise CapabilityError(
            f"The latent sites {missing} are left out, and summing them out ties all data together: only log_evidence "
            "is left. Give a guide that draws them."
        )
    n = max(len(value) for value in values.values())
    if context.examples is not None:
        return densities(program.model, values, n, x, context, lambda site: site["name"] not in latents)[0].local
    layout, _ = layout_of(program.model, x, context)
    rows = []
    for i in range(n):
        given = {name: single_value(value[i], layout[name]) for name, value in values.items()}
        with pyro.validation_enabled(False):
            trace = poutine.trace(poutine.condition(program.model, data=given)).get_trace(x, context, None)
        found = [
            scale_and_mask(site["fn"].log_prob(site["value"]), site["scale"], site["mask"]).flatten()
            for name, site in trace.nodes.items()
            if name in layout and name not in latents and not site["infer"].get("_deterministic")
        ]
        rows.append(torch.cat(found))
    return torch.stack(rows)
