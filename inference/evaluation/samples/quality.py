"""How good are samples when nobody has a density? Scores that look at samples and data alone.

Each score sees one thing and is blind to another, which its docstring says; none replaces a held-out likelihood. All of
them depend on how many samples and data they are given, and those in features on the network, so every result carries
the sizes and the network's hash. Give as many samples as data, and data that the generator was not trained on.

- `frechet`: the distance of two Gaussians fitted in features (Heusel et al. 2017).
- `manifold_scores`: precision, recall (Kynkäänniemi et al. 2019), density, coverage (Naeem et al. 2020).
- `inception_score`: is every sample of a clear class, and are there many classes (Salimans et al. 2016)?
- `nearest_training`: does the generator replay its training data (Meehan, Chaudhuri & Dasgupta 2020)?

Classes and known modes are in `inference.evaluation.samples.coverage`, tests of two samples in
`inference.evaluation.two_samples`.

Distances are computed on the CPU in float64, whatever samples and data come as; classifiers run where they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy
import torch
from torch import Tensor

from inference.evaluation.samples.classifier import Classifier
from inference.particles import flatten_draws
from zoo.errors import EmptyDataError, NonFiniteError, OptionError, ShapeError

__all__ = [
    "Frechet", "InceptionScore", "ManifoldScores", "NearestTraining", "Score", "checked", "distances", "frechet",
    "frechet_gaussians", "inception_score", "manifold_scores", "nearest_training", "pair",
]  # fmt: skip

CHUNK = 2**24
"""Distances held at once, 128 MB."""


@dataclass(frozen=True)
class Score:
    """One score. `value` None means that it does not apply, and `how` says why; else sizes and features."""

    value: float | None
    standard_error: float | None = None
    how: str = ""


# Distances in features


@dataclass(frozen=True)
class Frechet:
    """A Fréchet distance, squared as everyone prints it, with its two parts and what it was estimated from."""

    value: float
    """|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a^1/2 C_b C_a^1/2)^1/2)."""
    of_means: float
    """The first term."""
    of_covariances: float
    """The second."""
    samples: int
    data: int
    dimension: int
    features: str
    """The network's hash, or 'as given'."""
    limit: float | None = None
    """Extrapolated to infinitely many samples (Chong & Forsyth 2020), if that was asked for."""


def frechet_gaussians(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> tuple[float, float]:
    """The squared 2-Wasserstein distance of two Gaussians (Dowson & Landau 1982), its parts of means and covariances.

    tr (C_a^1/2 C_b C_a^1/2)^1/2 is the sum of the singular values of C_a^1/2 C_b^1/2, so that no root of a matrix that
    is not symmetric is taken: covariances of too few samples, which have no full rank, do no harm.

    Shapes: means (d,), covariances (d, d).
    """
    root_a, root_b = _root(cov_a), _root(cov_b)
    of_means = float((mean_a - mean_b).square().sum())
    cross = float(torch.linalg.svdvals(root_a @ root_b).sum())
    return of_means, float(cov_a.trace() + cov_b.trace()) - 2 * cross


def _root(cov: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(cov)
    return vectors * values.clamp(min=0).sqrt() @ vectors.T


def frechet(
    samples: Tensor, data: Tensor, features: Classifier | None = None, *, extrapolate: bool = False, seed: int = 0
) -> Frechet:
    """The Fréchet distance of samples and data, as Gaussians with their means and covariances (Heusel et al. 2017).

    It sees whatever moves means and covariances of the features: blur, noise, a missing class. It does not see what
    leaves them alone, nor memorised data; it mixes fidelity and diversity into one number. The estimate is biased
    upwards by about a constant over the number of samples, a constant that differs between generators (Bińkowski et al.
    2018; Chong & Forsyth 2020), so only numbers from equal sizes compare, and the floor is the score of held-out real
    data.

    Args:
        samples: (n, ...), images if a classifier is given, else features, flattened.
        data: (m, ...).
        features: Whose hidden layer to look at; None takes samples and data as they are.
        extrapolate: Also gives the limit for n to infinity, by a straight line in 1/n through subsets of the samples,
            five of each of ten sizes from a quarter to all. The bias that comes from the number of data stays; at a few
            hundred samples the limit itself is uncertain by about that bias, and may be negative.
        seed: Of the subsets.
    """
    a, b, name = pair(samples, data, features)
    d = a.shape[1]
    mean_b, cov_b = b.mean(0), torch.cov(b.T).reshape(d, d)

    def distance(rows: Tensor) -> tuple[float, float]:
        return frechet_gaussians(rows.mean(0), torch.cov(rows.T).reshape(d, d), mean_b, cov_b)

    of_means, of_covariances = distance(a)
    limit = None
    if extrapolate:
        generator = torch.Generator().manual_seed(seed)
        # Few rows, of a covariance with few directions, are off the line.
        sizes = [int(n) for n in torch.linspace(max(2, len(a) // 4), len(a), 10) for _ in range(5)]
        values = [sum(distance(a[torch.randperm(len(a), generator=generator)[:n]])) for n in sizes]
        limit = float(scipy.stats.linregress([1 / n for n in sizes], values).intercept)
    return Frechet(
        of_means + of_covariances,
        of_means,
        of_covariances,
        samples=len(a),
        data=len(b),
        dimension=d,
        features=name,
        limit=limit,
    )


@dataclass(frozen=True)
class ManifoldScores:
    """Four shares; each is near 1 for samples from the data's own distribution."""

    precision: float
    """Share of samples within the data's support: inside the ball of some datum."""
    recall: float
    """Share of data within the samples' support."""
    density: float
    """Balls of data that a sample lies in, over k; can exceed 1."""
    coverage: float
    """Share of data whose ball holds a sample."""
    k: int
    samples: int
    data: int
    features: str


def manifold_scores(samples: Tensor, data: Tensor, features: Classifier | None = None, *, k: int = 5) -> ManifoldScores:
    """Fidelity and diversity apart: supports as unions of balls that reach to the k-th nearest neighbour.

    Precision and density see bad samples, recall and coverage see what is never drawn. One outlier among the data makes
    a large ball and lifts precision; one among the samples lifts recall; density and coverage are built to bear that.
    In many dimensions all balls overlap: use features, not pixels; there, what the network maps near data counts as
    data, and uniform noise may have a precision of 0.9, so never read it without coverage. A generator that replays the
    training data scores well on all four. With n = m samples from the truth, E[density] = 1 and E[coverage] = 1 -
    prod_{i=1}^{k} (n - i) / (2n - i), which is 0.97 at k = 5 (Naeem et al. 2020, section 3.3); precision and recall
    have no such value for the truth; compare them with those of held-out real data.

    Args:
        samples: (n, ...), images if a classifier is given, else features, flattened.
        data: (m, ...).
        features: Whose hidden layer to look at; None takes samples and data as they are.
        k: Neighbours that a ball reaches to; a point on its edge is inside.

    Raises: OptionError unless 1 <= k < n and m.
    """
    a, b, name = pair(samples, data, features)
    if not 1 <= k < min(len(a), len(b)):
        raise OptionError(f"k must be at least 1 and less than the {min(len(a), len(b))} examples, got {k}.")
    radius_a, radius_b = (torch.cat([d.kthvalue(k + 1, 1).values for d in distances(v, v)]) for v in (a, b))
    precise, balls, covered = 0, 0, torch.zeros(len(b), dtype=torch.bool)
    for rows in distances(a, b):
        inside = rows <= radius_b
        precise += int(inside.any(1).sum())
        balls += int(inside.sum())
        covered |= inside.any(0)
    recalled = sum(int((rows <= radius_a).any(1).sum()) for rows in distances(b, a))
    return ManifoldScores(
        precision=precise / len(a),
        recall=recalled / len(b),
        density=balls / (k * len(a)),
        coverage=float(covered.double().mean()),
        k=k,
        samples=len(a),
        data=len(b),
        features=name,
    )


# Classes


@dataclass(frozen=True)
class InceptionScore:
    """How clear and how many the classes of samples are."""

    value: float
    """From 1 (nothing is told by a sample of its class) to the number of classes."""
    samples: int
    features: str


def inception_score(samples: Tensor, classifier: Classifier) -> InceptionScore:
    """exp of the mean KL(p(y | x) || p(y)) of the classes that a classifier sees (Salimans et al. 2016, section 4).

    That is e to the mutual information of a sample and its class, in the classifier's eyes. It sees blurred classes and
    missing ones. It does not see whether the samples of a class differ, nor copies, nor whether they look real: put the
    score of held-out data beside it, which clear samples may exceed.

    Args:
        samples: What the classifier takes, (n, ...).
        classifier: Trained on real data only.
    """
    log_p = classifier.log_probabilities(checked(samples)).cpu().double()
    log_mean = log_p.logsumexp(0) - math.log(len(log_p))
    information = (log_p.exp() * (log_p - log_mean)).sum(1).mean()
    return InceptionScore(float(information.exp()), len(samples), classifier.hash)


# Memorisation


@dataclass(frozen=True)
class NearestTraining:
    """How near samples are to the training data, against how near held-out data are."""

    ratio: float
    """Median distance of a sample to its nearest training example, over that of a held-out example."""
    z: float
    """Mann-Whitney z of the two sets of distances: far below 0 where samples are nearer than held-out data are."""
    p_value: float
    """Of "samples are not nearer", by that z."""
    distances: Tensor
    """Of each sample to its nearest training example, (n,)."""
    index: Tensor
    """Which one that is, (n,): for a picture with the two side by side."""
    closest: Tensor
    """The samples from nearest to farthest, (n,)."""
    samples: int
    train: int
    held_out: int
    features: str


def nearest_training(
    samples: Tensor, train: Tensor, held_out: Tensor, features: Classifier | None = None
) -> NearestTraining:
    """Does a generator replay its training data? The three-sample test of Meehan, Chaudhuri & Dasgupta (2020).

    If samples were as new as held-out data, they would lie as far from the training data: ratio 1, z standard normal.
    Below that is copying, above it are samples off the data altogether (blur in pixels can go either way: a mean image
    is near to everything). The z is over all of space, where the paper sums over cells: copies in one place can hide
    behind bad samples in another. A shift, a shade or a flip hides a copy in pixels; a classifier's features find it
    but also call two sevens alike.

    Args:
        samples: (n, ...).
        train: What the generator was trained on, all of it, (m, ...).
        held_out: Examples of the same data that it was not trained on.
        features: Whose hidden layer to measure distances in; None takes examples as they are.
    """
    a, b, name = pair(samples, train, features)
    c, _, _ = pair(held_out, train, features)
    nearest = torch.cat([torch.stack(d.min(1), 1) for d in distances(a, b)])
    found, others = nearest[:, 0], torch.cat([d.min(1).values for d in distances(c, b)])
    z, p_value = _mann_whitney(found, others)
    return NearestTraining(
        ratio=_ratio(float(found.median()), float(others.median())),
        z=z,
        p_value=p_value,
        distances=found,
        index=nearest[:, 1].long(),
        closest=found.argsort(),
        samples=len(a),
        train=len(b),
        held_out=len(c),
        features=name,
    )


def _ratio(mine: float, theirs: float) -> float:
    """mine / theirs; 1 where both are zero (held-out data repeat training data too), else infinite over zero."""
    if theirs == 0:
        return 1.0 if mine == 0 else math.inf
    return mine / theirs


def _mann_whitney(a: Tensor, b: Tensor) -> tuple[float, float]:
    """z of the rank sum of a (n,) among both, below 0 where a is smaller, and the p-value of "a is not smaller".

    Ties share ranks, which lowers the variance; where all are tied nothing speaks for either: 0 and 1.
    """
    n, m = len(a), len(b)
    ranks = scipy.stats.rankdata(torch.cat([a, b]).numpy())
    ties = np.unique(ranks, return_counts=True)[1]
    total = n + m
    variance = n * m / 12 * (total + 1 - (ties**3 - ties).sum() / (total * (total - 1)))
    excess = ranks[:n].sum() - n * (n + 1) / 2 - n * m / 2
    if not variance > 0:
        return 0.0, 1.0
    test = scipy.stats.mannwhitneyu(a.numpy(), b.numpy(), alternative="less", method="asymptotic")
    return float(excess / math.sqrt(variance)), float(test.pvalue)


# What they share


def pair(a: Tensor, b: Tensor, features: Classifier | None) -> tuple[Tensor, Tensor, str]:
    """Both as rows (n, d) on the CPU in float64, in features if a classifier is given, and the name of these."""
    if features is not None:
        a, b = features.describe(checked(a)), features.describe(checked(b))
    rows_a, rows_b = (flatten_draws(checked(v)).detach().cpu().double() for v in (a, b))
    if rows_a.shape[1] != rows_b.shape[1]:
        raise ShapeError(f"Samples and data differ in shape: {tuple(a.shape[1:])} and {tuple(b.shape[1:])}.")
    return rows_a, rows_b, features.hash if features is not None else "as given"


def checked(x: Tensor) -> Tensor:
    """x, which must have rows and be finite."""
    if len(x) < 2:
        raise EmptyDataError(f"A score needs at least 2 examples on each side, got {len(x)}.")
    if not bool(torch.isfinite(x).all()):
        raise NonFiniteError(
            f"{int((~torch.isfinite(x)).sum())} values are NaN or infinite; the fit may have diverged."
        )
    return x


def distances(a: Tensor, b: Tensor) -> Iterator[Tensor]:
    """Euclidean distances of all rows, some rows of a at a time, (rows, m). Equal rows have distance 0, exactly."""
    for rows in a.split(max(1, CHUNK // len(b))):
        yield torch.cdist(rows, b, compute_mode="donot_use_mm_for_euclid_dist")
