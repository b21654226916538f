"""Fits as ArviZ knows them, 0.x and 1.x: export and summary.

ArviZ 1 turned `from_dict` to nested groups and `InferenceData` to xarray's DataTree.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pyro
import torch
from pyro import poutine
from torch import Tensor

from inference.chains import arviz, is_modern
from inference.evaluation.estimates import checked
from inference.fitted import Fit
from inference.particles import trace_log_density
from zoo.errors import OptionError
from zoo.program import ImplicitProgram

__all__ = ["summary", "to_inference_data"]

CHUNK = 2**14


def to_inference_data(fit: Fit, x: Any, context: Any = None, draws: int = 1000) -> Any:
    """A fit's posterior as ArviZ `InferenceData` (0.x) or `DataTree` (1.x).

    Groups: `posterior` (one variable a latent site); `log_likelihood` (log p(x_n | latents), variable "x", with what
    else is observed of example n) and `sample_stats` (`lp`, the log joint density) unless the program is implicit or
    the draws leave a latent site out;
    `observed_data`. MCMC draws keep their chains if `fit.info` has "chains"; draws from a guide are one chain.

    Args:
        fit: A fit with a guide or samples.
        x: The examples (B, *event_shape) whose latents are wanted.
        context: Their context, or None.
        draws: Number of draws from a guide; MCMC samples are taken as they are.

    Raises: CapabilityError when the fit has no posterior.
    """
    x, context = checked(fit.program, x, context)
    stored = 0 if fit.samples is None else len(next(iter(fit.samples.values())))
    values = fit.draw(stored or draws, x, context)
    chains = int(fit.info.get("chains", 1)) if stored else 1
    if stored % chains:
        raise OptionError(f"fit.info says {chains} chains, which do not divide the {stored} stored samples.")

    def chained(value: Tensor) -> np.ndarray:
        return value.detach().cpu().numpy().reshape(chains, -1, *value.shape[1:])

    groups = {"posterior": {name: chained(value) for name, value in values.items()}}
    sites = fit.program.sites()
    if not isinstance(fit.program, ImplicitProgram) and set(values) == set(sites):
        likelihood, joint = _densities(fit, values, x, context)
        groups["log_likelihood"] = {"x": chained(likelihood)}
        groups["sample_stats"] = {"lp": chained(joint)}
    groups["observed_data"] = {"x": x.detach().cpu().numpy()}
    if is_modern():
        return arviz().from_dict(groups)
    with warnings.catch_warnings():
        # More chains than draws, or vice versa, is for the reader to judge.
        warnings.simplefilter("ignore", UserWarning)
        return arviz().from_dict(**groups)


@torch.no_grad()
def _densities(fit: Fit, values: dict[str, Tensor], x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    """log p(x_n | latents) (S, B) and log p(x, latents) (S,)."""
    sites, n = fit.program.sites(), len(next(iter(values.values())))
    likelihood, joint = [], []
    rows = max(1, CHUNK // len(x))
    for start in range(0, n, rows):
        part = {
            name: value[start : start + rows].unsqueeze(1) if sites[name].is_global else value[start : start + rows]
            for name, value in values.items()
        }
        count = min(rows, n - start)
        with pyro.validation_enabled(False), pyro.plate("particles", count, dim=-2):
            trace = poutine.trace(poutine.condition(fit.program.model, data=part)).get_trace(x, context, None)
        likelihood.append(trace_log_density(trace, count, len(x), exclude=tuple(values)).local)
        joint.append(trace_log_density(trace, count, len(x)).total)
    return torch.cat(likelihood), torch.cat(joint)


def summary(data: Any) -> Any:
    """A pandas table of means, standard deviations, intervals, R-hat and ESS for an export of `to_inference_data`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return arviz().summary(data)
