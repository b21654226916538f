"""Posterior predictive checks: p-values of a statistic, coverage of predictive intervals.

Gelman, Meng & Stern, "Posterior predictive assessment of model fitness via realized discrepancies", 1996. The pictures
are ArviZ's: `plot_ppc` and `plot_bpv` take `to_inference_data(fit, predictive=True)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from inference.evaluation.estimates import checked
from inference.fitted import Fit
from inference.prediction import observed
from zoo.errors import OptionError, ShapeError, UnknownNameError
from zoo.options import Count, Seed, check_value

__all__ = ["Coverage", "PredictiveCheck", "interval_coverage", "predictive_check"]


@dataclass(frozen=True)
class PredictiveCheck:
    """A statistic of the data among those of data that the fit generated again."""

    p_value: float
    """How often the generated value is above the observed one, ties counting half; near 0 or 1 they do not agree."""
    monte_carlo_error: float
    """Standard error of the p-value."""
    observed: float
    replicated: Tensor
    """(n,)."""


def predictive_check(
    found: Fit,
    statistic: Callable[[Tensor], Any],
    *,
    site: str = "x",
    new_latents: bool = False,
    n: Count = 1000,
    seed: Seed = 0,
) -> PredictiveCheck:
    """The posterior predictive p-value of a statistic of the training data.

    The data have been seen by the fit, so a p-value under the true model is not uniform but nearer to 1/2.

    Args:
        found: A fit with its training data.
        statistic: All examples of one data set (N, *event_shape) -> a number.
        site: The observed site, where there are others than x (adopted code).
        new_latents: Generates new examples, with local latents drawn from the model, rather than these again.
        n: Data sets to generate.
        seed: Of the draws.

    Raises: ShapeError for a statistic that is no single number; what `Fit.predict` raises.
    """
    check_value("n", n, Count)
    x, context = found.posterior.training()
    truth = _site(found, x, context, site)
    drawn = found.predict(n, None if new_latents else x, context, seed=seed)[site]
    values = torch.stack([torch.as_tensor(statistic(each)) for each in (truth, *drawn)])
    if values.ndim != 1:
        raise ShapeError(f"The statistic of a data set must be one number, got shape {tuple(values.shape[1:])}.")
    values = values.detach().cpu().double()
    mine, replicated = values[0], values[1:]
    p = float((replicated > mine).double().mean() + (replicated == mine).double().mean() / 2)
    error = math.sqrt(p * (1 - p) / n)
    return PredictiveCheck(p, error, observed=float(mine), replicated=replicated)


@dataclass(frozen=True)
class Coverage:
    """How much of the data lies in the central predictive intervals of a level."""

    level: float
    share: float
    """Of the numbers in the data."""
    standard_error: float
    """Over examples."""


def interval_coverage(
    found: Fit, data: Any, levels: Sequence[float] = (0.5, 0.9), *, site: str = "x", n: Count = 2000, seed: Seed = 0
) -> list[Coverage]:
    """Whether predictive intervals hold what they promise: how many held-out numbers lie in theirs.

    Each number of each example has an interval of its own, between quantiles of `Fit.predict` for new examples in its
    context. Intervals of discrete values are wider than asked, so they cover more.

    Args:
        found: A fit.
        data: Examples that were held out, of any kind that `Data.of` takes.
        levels: Probabilities of the intervals, each in (0, 1).
        site: The observed site, where there are others than x (adopted code).
        n: Draws for the quantiles, which are off by about n^-1/2 of probability.
        seed: Of the draws.

    Raises: OptionError for a level outside of (0, 1); what `Fit.predict` and `Program.accept` raise.
    """
    for level in levels:
        if not 0 < level < 1:
            raise OptionError(f"A level must lie between 0 and 1, got {level}.")
    x, context = checked(found.program, data)
    truth = _site(found, x, context, site)
    size = None if context is not None else len(x)
    drawn = found.predict(n, context=context, size=size, seed=seed)[site].sort(0).values
    results = []
    for level in levels:
        below = int((1 - level) / 2 * n)
        inside = ((truth >= drawn[below]) & (truth <= drawn[n - 1 - below])).to(drawn).reshape(len(truth), -1).mean(1)
        error = float(inside.std(correction=0)) / math.sqrt(len(truth))
        results.append(Coverage(level, float(inside.mean()), error))
    return results


def _site(found: Fit, x: Tensor, context: Any, site: str) -> Tensor:
    values = observed(found.program, x, context)
    if site not in values:
        raise UnknownNameError("observed site", site, values)
    return values[site]
