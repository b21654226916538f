"""Diagnostics of draws: R-hat, effective sample size, Pareto smoothing. The one door to ArviZ 0.x and 1.x.

ArviZ 1 moved Pareto smoothing to `arviz_stats`, where it takes log-likelihoods and negates them.
"""

from __future__ import annotations

import warnings
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
import scipy
import torch
from torch import Tensor

from zoo.errors import NonFiniteError, ShapeError
from zoo.process import guest

__all__ = ["arviz", "ess", "is_modern", "psis", "psis_khat", "rhat"]


@cache
def arviz() -> Any:
    """The library, imported when it is first asked for: that takes longer than all of ours."""
    with warnings.catch_warnings():
        # 0.23 announces version 1 at import.
        warnings.simplefilter("ignore", FutureWarning)
        return guest("arviz")


def is_modern() -> bool:
    """Whether it is ArviZ 1."""
    return int(arviz().__version__.split(".")[0]) >= 1


def _diagnose(name: str, draws: Tensor, **options: Any) -> Tensor:
    if draws.ndim < 2:
        raise ShapeError(f"{name} needs draws of shape (chains, draws, ...), got {tuple(draws.shape)}.")
    data = arviz().convert_to_dataset({"v": draws.detach().cpu().double().numpy()})
    return torch.as_tensor(np.asarray(getattr(arviz(), name)(data, **options)["v"]))


def rhat(draws: Tensor) -> Tensor:
    """Rank-normalised split R-hat (Vehtari et al. 2021) of draws (chains, draws, *shape) -> (*shape).

    As ArviZ has it, except that one chain is enough: its halves are compared. NaN where nothing ever moved.

    Raises: ShapeError for fewer than 4 draws of each chain.
    """
    if draws.ndim < 2 or draws.shape[1] < 4:
        raise ShapeError(f"rhat needs draws of shape (chains, draws >= 4, ...), got {tuple(draws.shape)}.")
    half = draws.shape[1] // 2
    values = draws.detach().cpu().double()
    halves = torch.cat([values[:, :half], values[:, -half:]])  # the middle one of an odd number belongs to neither
    flat = halves.flatten(2) if halves.ndim > 2 else halves[..., None]
    # Differences in scale, beside those in place.
    folded = (flat - torch.as_tensor(np.median(flat.flatten(0, 1).numpy(), axis=0))).abs()
    found = [_rhat(_normal_scores(v)) for v in (flat, folded)]
    # Of numbers with two values the distances may all be the same, and then say nothing.
    return torch.fmax(*found).reshape(draws.shape[2:])


def _normal_scores(draws: Tensor) -> Tensor:
    """Normal quantiles of the ranks of (M, N, D) among all draws of a coordinate; ties share ranks."""
    ranks = torch.as_tensor(scipy.stats.rankdata(draws.flatten(0, 1).numpy(), axis=0))
    return torch.special.ndtri((ranks - 3 / 8) / (len(ranks) + 1 / 4)).reshape(draws.shape)


def _rhat(draws: Tensor) -> Tensor:
    """The plain R-hat of M chains (M, N, D) -> (D,)."""
    n = draws.shape[1]
    between, within = n * draws.mean(1).var(0), draws.var(1).mean(0)
    return ((between / within + n - 1) / n).sqrt()


def ess(draws: Tensor, kind: str = "bulk") -> Tensor:
    """Effective sample size, 'bulk' or 'tail', of draws (chains, draws, *shape) -> (*shape)."""
    return _diagnose("ess", draws, method=kind)


def psis(log_weights: Tensor) -> tuple[Tensor, Tensor]:
    """Pareto smoothed importance sampling (Vehtari et al. 2024) of log weights (S, U).

    Returns: smoothed log weights (S, U), normalised to sum to one over S, and k-hat (U,).
    """
    if log_weights.ndim != 2:
        raise ShapeError(f"psis needs log weights of shape (S, U), got {tuple(log_weights.shape)}.")
    array = log_weights.detach().cpu().double().numpy().T.copy()
    if is_modern():
        # It takes the log-likelihoods of leave-one-out, whose weights are their inverses.
        smoothed, khat = import_module("arviz_stats.base").array_stats.psislw(-array)
    else:
        smoothed, khat = arviz().psislw(array)
    smooth = torch.as_tensor(np.asarray(smoothed)).T
    return smooth - smooth.logsumexp(0), torch.as_tensor(np.atleast_1d(khat))


def psis_khat(log_weights: Tensor) -> Tensor:
    """Pareto k-hat (U,) of importance weights (S, U): how heavy the upper tail of p / q is.

    Below 0.5 the guide is good, below 0.7 importance sampling still mends it, above 0.7 it cannot be trusted. Weights
    that are constant to rounding, 16 units in the last place of the largest log weight (an exact guide), have no tail,
    and get minus infinity. Where some weights are zero and all others alike, k-hat is 0: they are bounded, but a share
    of the draws is lost. Fewer than five weights above zero tell nothing, and get plus infinity.

    Args:
        log_weights: log p(x, z) - log q(z), see `inference.evaluation.importance_log_weights`; minus infinity
            is a weight of zero.

    Raises: ShapeError; NonFiniteError for a log weight that is NaN or plus infinity.
    """
    if log_weights.ndim != 2 or len(log_weights) < 25:
        raise ShapeError(f"k-hat needs at least 25 log weights a unit, (S, U); got {tuple(log_weights.shape)}.")
    if bool((log_weights.isnan() | (log_weights == torch.inf)).any()):
        raise NonFiniteError("A log weight is NaN or plus infinity, so k-hat means nothing; look for it in the model.")
    eps, zero = torch.finfo(log_weights.dtype).eps, log_weights == -torch.inf
    # Sums of log densities end with errors of a few units in the last place of what they come to.
    size = log_weights.masked_fill(zero, 0.0).abs().amax(0).double()
    top = log_weights.double().amax(0)
    spread = top - log_weights.double().masked_fill(zero, torch.inf).amin(0)
    constant = spread <= torch.clamp(16 * eps * size, min=eps**0.5)
    khat = torch.where(zero.any(0), 0.0, torch.full_like(top, -torch.inf))
    khat[(~zero).sum(0) < 5] = torch.inf
    rest = ~constant & ((~zero).sum(0) >= 5)
    if bool(rest.any()):
        khat[rest] = psis(log_weights.double()[:, rest] - top[rest])[1].to(khat)
    return khat.to(log_weights.dtype)
