"""Distances between two sets of draws: what can be said without any density.

Sliced Wasserstein (Rabin et al. 2011), maximum mean discrepancy (Gretton et al. 2012), the classifier two-sample test
(Lopez-Paz & Oquab 2017, in the form of Lueckmann et al. 2021).

All of them compute on the CPU in float64, wherever the draws are: squared distances lose digits to cancellation.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.arrays import as_tensor, check_finite, check_rows
from zoo.errors import EmptyDataError, OptionError, ShapeError
from zoo.process import guest

__all__ = ["C2ST", "MMD", "c2st", "gaussian_kl", "mmd", "sliced_wasserstein"]

ROUNDS = 1000
"""Passes over the draws, at most, in which the networks of the C2ST are trained."""


@dataclass(frozen=True)
class MMD:
    """Unbiased squared MMD (it can be negative), the p-value of "both are the same" and the kernel's bandwidth."""

    value: float
    p_value: float
    bandwidth: float


@dataclass(frozen=True)
class C2ST:
    """Held-out accuracy of a classifier: 0.5 if it cannot tell the draws apart, 1 if it always can."""

    accuracy: float
    standard_error: float


def _pair(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    a, b = as_tensor(a, "draws"), as_tensor(b, "draws")
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ShapeError(
            f"Expected draws (n, d) and (m, d), got {tuple(a.shape)} and {tuple(b.shape)}; see flatten_draws."
        )
    if len(a) < 2 or len(b) < 2:
        raise EmptyDataError(f"A distance needs at least 2 draws on each side, got {len(a)} and {len(b)}.")
    check_rows(a, "A distance")
    for draws in (a, b):
        check_finite("A distance", draws)
    return a.detach().cpu().double(), b.detach().cpu().double()


def _thin(draws: Tensor, most: int | None) -> Tensor:
    """At most that many draws, evenly spaced."""
    if most is None or len(draws) <= most:
        return draws
    return draws[torch.linspace(0, len(draws) - 1, most).long()]


def sliced_wasserstein(a: Tensor, b: Tensor, *, projections: int = 200, order: float = 2.0, seed: int = 0) -> float:
    """Wasserstein distance of one-dimensional projections, averaged over random directions.

    Args:
        a: Draws (n, d).
        b: Draws (m, d); where m differs from n, quantiles are compared.
        projections: Number of random directions.
        order: p of the distance (mean |.|^p)^(1/p).
        seed: Of the directions.
    """
    a, b = _pair(a, b)
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(a.shape[1], projections, generator=generator, dtype=torch.float64)
    directions = directions / directions.norm(dim=0)
    left, right = (a @ directions).sort(0).values, (b @ directions).sort(0).values
    if len(a) != len(b):
        grid = (torch.arange(min(len(a), len(b))) + 0.5) / min(len(a), len(b))
        left, right = (v[(grid * len(v)).long()] for v in (left, right))
    return float((left - right).abs().pow(order).mean().pow(1 / order))


def mmd(
    a: Tensor,
    b: Tensor,
    *,
    bandwidth: float | None = None,
    permutations: int = 200,
    max_draws: int = 1000,
    seed: int = 0,
) -> MMD:
    """Squared maximum mean discrepancy under exp(-|x - y|^2 / (2 h^2)), as an unbiased U-statistic.

    Args:
        a: Draws (n, d).
        b: Draws (m, d).
        bandwidth: h; None is the median distance of the pooled draws, or, where that is zero (most draws are equal),
            of those that differ.
        permutations: Random relabellings behind the p-value.
        max_draws: Draws used of each side (evenly spaced); cost and memory grow with the square.
        seed: Of the permutations.
    """
    a, b = _pair(a, b)
    a, b = _thin(a, max_draws), _thin(b, max_draws)
    n, m = len(a), len(b)
    pooled = torch.cat([a, b])
    # Equal draws have distance 0, exactly.
    squares = torch.cdist(pooled, pooled, compute_mode="donot_use_mm_for_euclid_dist").square()
    if bandwidth is None:
        upper = torch.triu_indices(n + m, n + m, 1)
        pairs = squares[upper[0], upper[1]]
        bandwidth = math.sqrt(float(pairs.median()))
        if bandwidth == 0:  # most draws are the same, a collapsed generator's say
            apart = pairs[pairs > 0]
            bandwidth = math.sqrt(float(apart.median())) if len(apart) else 1.0
    if not bandwidth > 0:
        raise OptionError(f"The kernel's bandwidth must be positive, got {bandwidth}.")
    kernel = torch.exp(-squares / (2 * bandwidth**2)).fill_diagonal_(0)
    generator = torch.Generator().manual_seed(seed)
    labels = torch.zeros(n + m, permutations + 1, dtype=kernel.dtype)
    labels[:n, 0] = 1
    for j in range(1, permutations + 1):
        labels[torch.randperm(n + m, generator=generator)[:n], j] = 1
    within = kernel @ labels
    first = (labels * within).sum(0)
    cross = within.sum(0) - first
    second = kernel.sum() - first - 2 * cross
    values = first / (n * (n - 1)) + second / (m * (m - 1)) - 2 * cross / (n * m)
    # The observed labelling counts as one of the permutations, so that the test keeps its level.
    exceed = int((values[1:] >= values[0]).sum())
    return MMD(float(values[0]), (exceed + 1) / (permutations + 1), bandwidth)


def c2st(
    a: Tensor, b: Tensor, *, classifier: str = "mlp", folds: int = 5, max_draws: int | None = None, seed: int = 0
) -> C2ST:
    """Classifier two-sample test: accuracy in cross-validation on balanced, z-scored draws.

    Args:
        a: Draws (n, d); their mean and standard deviation do the z-scoring, as in sbibm.
        b: Draws (m, d).
        classifier: 'mlp', sbibm's protocol: two hidden layers of 10 d units; 'quadratic', a logistic regression on
            first and second powers and products, which sees means and covariances alone and takes milliseconds.
        folds: Of the cross-validation.
        max_draws: Draws used of each side; None uses all of the smaller.
        seed: Of classifier and folds.
    """
    if classifier not in ("mlp", "quadratic"):
        raise OptionError(f"classifier must be 'mlp' or 'quadratic', got {classifier!r}.")
    a, b = _pair(a, b)
    n = min(len(a), len(b), max_draws if max_draws is not None else len(a))
    a, b = _thin(a, n), _thin(b, n)
    scale = a.std(0)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    features = ((torch.cat([a, b]) - a.mean(0)) / scale).numpy()
    targets = np.repeat([0, 1], n)
    guessed = _guessed(features, targets, classifier, folds, seed=seed)
    accuracy = float((guessed == targets).mean())
    return C2ST(accuracy, math.sqrt(accuracy * (1 - accuracy) / (2 * n)))


def _guessed(features: Any, targets: Any, classifier: str, folds: int, *, seed: int) -> Any:
    """What a classifier says of rows that it was not trained on."""
    if classifier == "mlp":
        width = 10 * features.shape[1]
        model = guest("sklearn.neural_network").MLPClassifier(
            (width, width), activation="relu", solver="adam", max_iter=ROUNDS, random_state=seed
        )
    else:
        quadratic = guest("sklearn.preprocessing").PolynomialFeatures(2, include_bias=False)
        linear = guest("sklearn.linear_model").LogisticRegression(max_iter=1000)
        model = guest("sklearn.pipeline").make_pipeline(quadratic, linear)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", guest("sklearn.exceptions").ConvergenceWarning)
        split = guest("sklearn.model_selection").KFold(folds, shuffle=True, random_state=seed)
        return guest("sklearn.model_selection").cross_val_predict(model, features, targets, cv=split)


def gaussian_kl(a: Tensor, b: Tensor) -> float:
    """KL(N_a || N_b) of the Gaussians with the draws' means and covariances; needs more draws than dimensions.

    Infinite where the draws of a side lie in a plane (all are equal, say): one Gaussian then has no density.
    """
    a, b = _pair(a, b)
    if min(len(a), len(b)) <= a.shape[1]:
        raise OptionError(f"gaussian_kl needs more than d = {a.shape[1]} draws a side, got {len(a)} and {len(b)}.")
    covariances = [torch.cov(v.T).reshape(v.shape[1], v.shape[1]) for v in (a, b)]
    factors = [torch.linalg.cholesky_ex(c) for c in covariances]
    for factor, c in zip(factors, covariances, strict=True):
        # What is left of a variance given the others, at rounding: no variance.
        left = factor.L.diagonal().square() > 1e3 * torch.finfo(c.dtype).eps * c.diagonal()
        if int(factor.info) != 0 or not bool(left.all()):
            return math.inf
    fitted = [
        torch.distributions.MultivariateNormal(v.mean(0), scale_tril=factor.L)
        for v, factor in zip((a, b), factors, strict=True)
    ]
    return float(torch.distributions.kl_divergence(fitted[0], fitted[1]))
