"""log p(x) of data under a fitted program: exactly, or by importance sampling (IWAE: Burda et al. 2016)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from inference.evaluation.estimates import (
    BATCH,
    CHUNK,
    Estimate,
    checked,
    evaluating,
    log_mean_exp,
    weight_batches,
)
from inference.particles import log_joint
from zoo.datasets.data import Data
from zoo.errors import CapabilityError, ImplicitDensityError, OptionError
from zoo.options import Count, check_value
from zoo.program import ExactDensity, ExactEvidence, ImplicitProgram, Program

__all__ = ["log_likelihood"]


@torch.no_grad()
def log_likelihood(
    program: Program,
    data: Any,
    *,
    guide: Callable[..., Any] | None = None,
    how: str = "auto",
    particles: int = 1000,
    chunk: int = CHUNK,
    seed: int = 0,
) -> Estimate:
    """log p(x) of each unit: of each example, or of all together when a global latent ties them.

    Args:
        program: A program with a density.
        data: Examples, of any kind that `Data.of` takes.
        guide: The proposal of IWAE; None is the program's own guide.
        how: 'exact' (the program's own density or evidence), 'iwae' (Burda et al. 2016), or 'auto': exact where that
            exists.
        particles: Importance samples for each unit.
        chunk: Particle-example pairs evaluated at once; bounds the memory.
        seed: Everything random follows from it.

    Raises: ImplicitDensityError; what `Program.accept` raises; CapabilityError for how='exact' without a closed form;
        OptionError.
    """
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
