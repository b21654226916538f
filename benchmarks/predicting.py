"""What `zoo sample` and `zoo score` ask of a fit: draws and densities given the training data, or without them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from inference.environment import seeded
from inference.evaluation.estimates import Estimate
from inference.evaluation.likelihood import log_evidence, log_likelihood
from inference.fitted import Fit
from inference.mixing import chain_mixing
from inference.prediction import predicted
from zoo.adopted import Adopted
from zoo.datasets import Data
from zoo.energy.base import EnergyProgram
from zoo.errors import OptionError

__all__ = ["QUANTITIES", "draw_examples", "score_examples"]

QUANTITIES = {
    "log_likelihood": "log p(x)",
    "log_predictive_density": "log p(x | training data), the predictive density",
    "log_evidence": "log p(all x together) / N, the evidence",
}
"""Name of a score -> what it is."""
BLOCK = 64
"""Contexts predicted at once, each of which is seen by the draws of all."""


def draw_examples(
    found: Fit, n: int, context: Any = None, *, prior: bool = False, seed: int = 0
) -> tuple[Tensor | dict[str, Tensor], str]:
    """n examples, and the name of the distribution that they are from.

    Where latents are global each example comes with draws of its own of them: from their posterior, or their prior.

    Args:
        found: A fit.
        n: How many.
        context: Their context (n, ...), or None.
        prior: Asks for the prior of global latents.
        seed: Of the draws.

    Returns: (n, *event_shape); of adopted code site -> n draws of it.

    Raises: OptionError for `prior` where nothing is global; what `Fit.predict` raises.
    """
    program = found.program
    if not any(site.is_global for site in program.sites().values()):
        if prior:
            raise OptionError(
                f"{type(program).__name__} has no global latents, so there is one distribution to draw from: leave out "
                "--prior."
            )
        where = "the fitted program"
        if isinstance(program, EnergyProgram):
            where = f"{where}, by {chain_mixing(program, seed=seed)}"
        with seeded(seed):
            return program.generate(n, context), where
    where = f"the {'prior' if prior else 'posterior'} predictive distribution"
    if isinstance(context, Tensor):
        parts = [_each_its_own(found, rows, prior, seed + i) for i, rows in enumerate(context.split(BLOCK))]
        return torch.cat(parts), where
    drawn = _drawn(found, n, None, prior, seed)
    return (drawn["x"][:, 0] if "x" in drawn else drawn), where


def _each_its_own(found: Fit, context: Tensor, prior: bool, seed: int) -> Tensor:
    """An example for each context, under latents of its own."""
    each = torch.arange(len(context))
    return _drawn(found, len(context), context, prior, seed)["x"][each, each]


def _drawn(found: Fit, n: int, context: Any, prior: bool, seed: int) -> dict[str, Tensor]:
    """Site -> n draws, each of the examples of the context, or of one."""
    size = 1 if context is None else len(context)
    if isinstance(found.program, Adopted):
        size, context = found.posterior.training().size, found.posterior.training().context
    if not prior:
        return found.predict(n, context=context, size=size, seed=seed)
    with seeded(seed):
        return predicted(found.program, {}, n, size, context)


def score_examples(
    found: Fit, data: Data, *, evidence: bool = False, how: str = "auto", particles: int = 1000, seed: int = 0
) -> tuple[str, Estimate]:
    """The score of held-out data and its name in `QUANTITIES`: predictive where latents are global, unless asked.

    Args:
        found: A fit.
        data: As the program takes them.
        evidence: Asks for the evidence of the data together, where latents are global.
        how, particles, seed: See `inference.evaluation.likelihood`.

    Raises: OptionError for `evidence` where nothing is global, and for a `how` of the evidence without it.
    """
    tied = any(site.is_global for site in found.program.sites().values())
    if evidence and not tied:
        raise OptionError(
            f"{type(found.program).__name__} has no global latents, so the evidence is the log-likelihood: leave out "
            "--evidence."
        )
    if evidence:
        return "log_evidence", log_evidence(found, data, how=how, particles=particles, seed=seed)
    if tied and how != "auto":
        raise OptionError(
            f"--how {how} is a way to the evidence: add --evidence, or leave it out for the predictive density."
        )
    name = "log_predictive_density" if tied else "log_likelihood"
    return name, log_likelihood(found, data, how=how, particles=particles, seed=seed)
