"""log p(x) of data under a fitted program: exactly, or by importance sampling (IWAE: Burda et al. 2016).

Two questions that are one where nothing global is latent: how well held-out examples are predicted (`log_likelihood`),
and how well the program, averaged over its prior, explains these data together (`log_evidence`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from inference.environment import evaluating
from inference.evaluation.estimates import (
    BATCH,
    CHUNK,
    Estimate,
    checked,
    log_mean_exp,
    weight_batches,
)
from inference.evaluation.partition import energy_log_likelihood
from inference.evaluation.predictive import log_predictive_density
from inference.fitted import Fit
from inference.particles import log_joint
from zoo.datasets.data import Data
from zoo.energy.base import EnergyProgram
from zoo.errors import CapabilityError, ImplicitDensityError, OptionError
from zoo.options import Count, check_value
from zoo.program import ExactDensity, ExactEvidence, ImplicitProgram, Program

__all__ = ["log_evidence", "log_likelihood"]


@torch.no_grad()
def log_likelihood(
    program: Program | Fit,
    data: Any,
    *,
    guide: Callable[..., Any] | None = None,
    how: str = "auto",
    particles: int = 1000,
    chunk: int = CHUNK,
    seed: int = 0,
) -> Estimate:
    """How well examples that were held out are predicted: log p(x_n) of each.

    Of a program with global latents this is the log predictive density log p(x_n | training data), which only a fit
    has: see `inference.evaluation.predictive`. `log_evidence` is the density of all examples together.

    Args:
        program: A program with a density, or a fit of one, whose guide is then the proposal.
        data: Examples, of any kind that `Data.of` takes.
        guide: The proposal of IWAE; None is that of the fit, or the program's own.
        how: 'exact' (the program's own density), 'iwae' (Burda et al. 2016), or 'auto': exact where that exists, and
            predictive where latents are global. Of energy-based models how log Z is estimated, as in
            `inference.evaluation.partition`.
        particles: Importance samples for each example; draws of global latents.
        chunk: Particle-example pairs evaluated at once; bounds the memory.
        seed: Everything random follows from it.

    Returns: values (N,); a guide with factors for the examples that it was fitted on gives one for all, (1,).

    Raises: ImplicitDensityError; what `Program.accept` raises; CapabilityError for how='exact' without a closed form,
        and for a program with global latents that comes without a fit; OptionError.
    """
    made = program.program if isinstance(program, Fit) else program
    if isinstance(made, EnergyProgram):
        return energy_log_likelihood(made, data, how, seed)
    _check(made, how, particles, chunk)
    if any(site.is_global for site in made.sites().values()):
        if not isinstance(program, Fit):
            raise CapabilityError(
                f"{type(made).__name__} has global latents, so an example has a density only given training data: hand "
                "over the fit. All examples together have the evidence: log_evidence."
            )
        if how != "auto" or guide is not None:
            raise OptionError(
                f"The predictive density of {type(made).__name__}, whose latents are global, is that of the fit's own "
                f"draws: leave out how ({how!r}) and guide, or call log_evidence."
            )
        return log_predictive_density(program, data, draws=particles, seed=seed, chunk=chunk)
    given = program.guide if isinstance(program, Fit) and guide is None else guide
    return log_evidence(made, data, guide=given, how=how, particles=particles, chunk=chunk, seed=seed)


@torch.no_grad()
def log_evidence(
    program: Program | Fit,
    data: Any,
    *,
    guide: Callable[..., Any] | None = None,
    how: str = "auto",
    particles: int = 1000,
    chunk: int = CHUNK,
    seed: int = 0,
) -> Estimate:
    """log p(x) of each unit: of each example, or of all together where a global latent ties them.

    Args: as for `log_likelihood`; 'exact' is the program's own density or evidence.

    Raises: ImplicitDensityError; what `Program.accept` raises; CapabilityError for how='exact' without a closed form;
        OptionError.
    """
    if isinstance(program, Fit):
        program, guide = program.program, program.guide if guide is None else guide
    if isinstance(program, EnergyProgram):
        return energy_log_likelihood(program, data, how, seed)
    _check(program, how, particles, chunk)
    data = checked(program, data)
    if how != "iwae":
        with evaluating(program, None, seed, data.x.device):
            values = _exact(program, data, strict=how == "exact")
        if values is not None:
            return Estimate(values, "exact", False)
        if how == "exact":
            raise CapabilityError(
                f"{type(program).__name__} has no closed-form likelihood; use how='iwae', inference.evaluation.ais, or "
                "inference.guides.exact.exact_log_evidence for one- and two-dimensional latents."
            )
    with evaluating(program, guide, seed, data.x.device):
        found = [log_mean_exp(weights) for weights in weight_batches(program, guide, data, particles, chunk)]
    errors = [error for _, error in found if error is not None]
    return Estimate(
        torch.cat([value for value, _ in found]),
        f"IWAE-{particles}",
        True,
        monte_carlo_error=torch.cat(errors) if errors else None,
    )


def _check(program: Program, how: str, particles: int, chunk: int) -> None:
    """Raises what is wrong with the options, or with asking this program at all."""
    for name, value in (("particles", particles), ("chunk", chunk)):
        check_value(name, value, Count)
    if how not in ("auto", "exact", "iwae"):
        raise OptionError(
            f"how must be 'auto', 'exact' or 'iwae', got {how!r}; for annealing call inference.evaluation.ais."
        )
    if isinstance(program, ImplicitProgram):
        raise ImplicitDensityError(
            f"{type(program).__name__} is implicit: it has no density to score with. Use "
            "inference.evaluation.parzen.parzen, or inference.evaluation.anneal with an observation model."
        )


def _exact(program: Program, data: Data, strict: bool) -> Tensor | None:
    """What the program promises of log p(x), (U,); None if nothing, or nothing for so much data unless `strict`."""
    if isinstance(program, ExactDensity):
        return torch.cat([program.log_prob(*batch) for batch in data.batches(BATCH)])
    if isinstance(program, ExactEvidence):
        try:
            return program.log_evidence(*data).reshape(1)
        except CapabilityError:
            if strict:
                raise
            return None
    if not program.sites():
        return torch.cat([log_joint(program, {}, *batch, particles=1).local[0] for batch in data.batches(BATCH)])
    return None
