"""Fits as ArviZ knows them, 0.x and 1.x: export and summary.

ArviZ 1 turned `from_dict` to nested groups and `InferenceData` to xarray's DataTree.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor

from inference.chains import arviz, is_modern
from inference.evaluation.estimates import checked
from inference.evaluation.predictive import pointwise
from inference.fitted import Fit
from inference.particles import log_joint
from zoo.errors import CapabilityError, OptionError
from zoo.program import ImplicitProgram

__all__ = ["summary", "to_inference_data"]

CHUNK = 2**14


def to_inference_data(
    fit: Fit, x: Any = None, context: Any = None, draws: int = 1000, *, predictive: bool = False
) -> Any:
    """A fit's posterior as ArviZ `InferenceData` (0.x) or `DataTree` (1.x).

    Groups: `posterior` (one variable a latent site); `log_likelihood` (log p(x_n | latents), variable "x", with what
    else is observed of example n) and `sample_stats` (`lp`, the log joint density), both with discrete sites summed out
    that the draws leave out, unless the program is implicit or another site is left out; `posterior_predictive` if
    asked for; `observed_data`. MCMC draws keep their chains if `fit.info` has "chains"; draws from a guide are one
    chain.

    Args:
        fit: A fit with a guide or samples.
        x: The examples (B, *event_shape) whose latents are wanted; None is the training data.
        context: Their context, or None.
        draws: Number of draws from a guide; MCMC samples are taken as they are.
        predictive: Also the examples generated again, from `Fit.predict`: what ArviZ plots beside the data.

    Raises: CapabilityError when the fit has no posterior.
    """
    x, context = fit.posterior.training() if x is None else checked(fit.program, x, context)
    stored = 0 if fit.samples is None else len(next(iter(fit.samples.values())))
    values = fit.draw(stored or draws, x, context)
    chains = int(fit.info.get("chains", 1)) if stored else 1
    if stored % chains:
        raise OptionError(f"fit.info says {chains} chains, which do not divide the {stored} stored samples.")

    def chained(value: Tensor) -> np.ndarray:
        return value.detach().cpu().numpy().reshape(chains, -1, *value.shape[1:])

    groups = {"posterior": {name: chained(value) for name, value in values.items()}}
    densities = _densities(fit, values, x, context)
    if densities is not None:
        groups["log_likelihood"] = {"x": chained(densities[0])}
        groups["sample_stats"] = {"lp": chained(densities[1])}
    if predictive:
        again = fit.predict(stored or draws, x, context)
        groups["posterior_predictive"] = {name: chained(value) for name, value in again.items()}
    groups["observed_data"] = {"x": x.detach().cpu().numpy()}
    if is_modern():
        return arviz().from_dict(groups)
    with warnings.catch_warnings():
        # More chains than draws, or vice versa, is for the reader to judge.
        warnings.simplefilter("ignore", UserWarning)
        return arviz().from_dict(**groups)


@torch.no_grad()
def _densities(fit: Fit, values: dict[str, Tensor], x: Tensor, context: Any) -> tuple[Tensor, Tensor] | None:
    """log p(x_n | latents) (S, B) and log p(x, latents) (S,); None where there is no density, or none at these."""
    if isinstance(fit.program, ImplicitProgram) or not values:
        return None
    sites = fit.program.sites()
    if not set(values) <= set(sites):
        return None
    given = {name: value.unsqueeze(1) if sites[name].is_global else value for name, value in values.items()}
    try:
        with pyro.validation_enabled(False):
            return pointwise(fit.program, given, x, context), _joint(fit, given, x, context)
    except CapabilityError:  # a latent site is left out that cannot be summed out
        return None


def _joint(fit: Fit, values: dict[str, Tensor], x: Tensor, context: Any) -> Tensor:
    rows = max(1, CHUNK // len(x))
    parts = []
    for start in range(0, len(next(iter(values.values()))), rows):
        part = {name: value[start : start + rows] for name, value in values.items()}
        parts.append(log_joint(fit.program, part, x, context).total)
    return torch.cat(parts)


def summary(data: Any) -> Any:
    """A pandas table of means, standard deviations, intervals, R-hat and ESS for an export of `to_inference_data`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return arviz().summary(data)
