"""What codes are good for: classes told by a plain classifier of codes, or by neighbours; one code for each factor.

Linear probe: Alain & Bengio, "Understanding intermediate layers using linear classifier probes", 2016. Mutual
information gap: Chen, Li, Grosse & Duvenaud, "Isolating sources of disentanglement in variational autoencoders",
NeurIPS 2018, section 4.1. Choices (a penalty, a number of neighbours) are made on validation examples.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.errors import EmptyDataError, NonFiniteError, OptionError, ShapeError
from zoo.options import Count, Seed, Values, check_value
from zoo.process import guest

__all__ = [
    "BINS",
    "SHUFFLES",
    "Gap",
    "Probe",
    "few_of_each",
    "linear_probe",
    "mutual_information_gap",
    "neighbour_probe",
    "plane",
]

Array = np.ndarray[Any, Any]
Splits = Mapping[str, Tensor]

WEIGHTS = (1e-3, 1e-2, 1e-1, 1.0)
"""Of the likelihood beside a penalty of the squared weights: what a linear probe chooses from."""
NEIGHBOURS = (1, 3, 5, 10, 20)
"""What a probe by neighbours chooses from."""
ITERATIONS = 300
BINS = 20
"""Of each code, in which its information is counted."""
SHUFFLES = 10


@dataclass(frozen=True)
class Probe:
    """How well codes tell classes."""

    accuracy: float
    """Share of test examples."""
    standard_error: float
    """Of that share."""
    chosen: float
    """Weight of the likelihood, or number of neighbours; chosen on validation examples."""
    train: int
    """Examples that were learned from."""


def linear_probe(codes: Splits, labels: Splits) -> Probe:
    """Accuracy of logistic regression on standardised codes.

    Args:
        codes: Of 'train', 'valid' and 'test', (N, d) each.
        labels: Of the same, (N,) of integers.

    Raises: ShapeError, EmptyDataError, NonFiniteError; OptionError for a single class.
    """
    pipeline, scaler = guest("sklearn.pipeline").make_pipeline, guest("sklearn.preprocessing").StandardScaler
    model = guest("sklearn.linear_model").LogisticRegression

    def fitted(weight: float, x: Array, y: Array) -> Any:
        with warnings.catch_warnings():
            # Far from converged a probe is one that was stopped early; validation examples say which is good.
            warnings.simplefilter("ignore", guest("sklearn.exceptions").ConvergenceWarning)
            return pipeline(scaler(), model(C=weight, max_iter=ITERATIONS)).fit(x, y)

    return _probe(codes, labels, WEIGHTS, fitted)


def neighbour_probe(codes: Splits, labels: Splits) -> Probe:
    """Accuracy of the class that most of the nearest training codes have, by Euclidean distance of codes as they are.

    Args, raises: As of `linear_probe`.
    """
    model = guest("sklearn.neighbors").KNeighborsClassifier
    few = [k for k in NEIGHBOURS if k <= len(codes["train"])]
    return _probe(codes, labels, few, lambda k, x, y: model(int(k)).fit(x, y))


def _probe(
    codes: Splits, labels: Splits, values: Sequence[float], fitted: Callable[[float, Array, Array], Any]
) -> Probe:
    rows = {split: (_checked(codes[split]), labels[split].cpu().numpy()) for split in ("train", "valid", "test")}
    for x, y in rows.values():
        if y.shape != (len(x),):
            raise ShapeError(f"Expected codes (N, d) and labels (N,), got {x.shape} and {y.shape}.")
    if len(np.unique(rows["train"][1])) < 2:
        raise OptionError("A probe tells classes apart, and all training labels are the same: give labels of several.")
    models = [fitted(value, *rows["train"]) for value in values]
    # The first of the best: the strongest penalty, or the nearest neighbour.
    scores = [float(model.score(*rows["valid"])) for model in models]
    best = int(np.argmax(scores))
    accuracy, n = float(models[best].score(*rows["test"])), len(rows["test"][0])
    error = (accuracy * (1 - accuracy) / n) ** 0.5
    return Probe(accuracy, error, chosen=values[best], train=len(rows["train"][0]))


def _checked(codes: Tensor) -> Array:
    """Codes (N, d) as numbers of double precision."""
    if codes.ndim != 2:
        raise ShapeError(f"Expected codes (N, d), got {tuple(codes.shape)}.")
    if codes.numel() == 0:
        raise EmptyDataError(f"There are no codes to look at (shape {tuple(codes.shape)}).")
    if not bool(codes.isfinite().all()):
        raise NonFiniteError(f"{int((~codes.isfinite()).sum())} numbers of the codes are not finite.")
    return codes.detach().cpu().double().numpy()


def few_of_each(labels: Tensor, count: Count, seed: Seed = 0) -> Tensor:
    """Places of so many examples of each class, at random: (classes * count,), in order.

    Args:
        labels: (N,) of integers.
        count: Of each class.
        seed: Of the choice.

    Raises: OptionError where a class has fewer.
    """
    check_value("count", count, Count)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    classes, sizes = labels.cpu().unique(return_counts=True)
    if int(sizes.min()) < count:
        raise OptionError(
            f"count is {count}, and class {int(classes[sizes.argmin()])} has {int(sizes.min())} examples."
        )
    return torch.cat([order[labels.cpu()[order] == each][:count] for each in classes]).sort().values


@dataclass(frozen=True)
class Gap:
    """The mutual information gap of codes, and what it is by chance."""

    value: float
    """Between 0 and 1, over the factors."""
    chance: float
    """Of the same codes in another order, which know nothing of the factors: the bias of counting so few examples."""
    of_factors: dict[str, float]
    """Of each factor."""
    examples: int


def mutual_information_gap(codes: Tensor, factors: Mapping[str, Tensor], *, bins: Values = BINS, seed: Seed = 0) -> Gap:
    """How much more the best number of a code tells of a factor than the second best, as a share of the factor.

    One where each factor has a number of its own that tells it, near zero where several tell the same: after a
    rotation, in pixels. Information is counted in a table of each number's bins (as many examples in each; a number of
    no more than `bins` values has these) and the values of the factor, which is biased upwards by little and for all
    codes alike: see `Gap.chance`. Factors that hang together share what a code tells of them.

    Args:
        codes: (N, d).
        factors: Name -> (N,) of integers, each of several values.
        bins: How many.
        seed: Of the order in which codes are for `chance`.

    Raises: ShapeError, EmptyDataError, NonFiniteError; OptionError for a factor of one value, or none at all.
    """
    check_value("bins", bins, Values)
    numbers = _checked(codes)
    if not factors:
        raise OptionError("There are no factors to be told by codes; give one or more.")
    values = {name: np.unique(factor.cpu().numpy(), return_inverse=True)[1] for name, factor in factors.items()}
    for name, value in values.items():
        if value.shape != (len(numbers),):
            raise ShapeError(f"Expected {len(numbers)} values of the factor {name!r}, got {value.shape}.")
        if value.max() == 0:
            raise OptionError(f"The factor {name!r} has the same value everywhere: there is nothing to tell.")
    binned = [_binned(column, bins) for column in numbers.T]
    gaps = {name: _gap(binned, value) for name, value in values.items()}
    rng = np.random.RandomState(seed % 2**32)
    orders = [rng.permutation(len(numbers)) for _ in range(SHUFFLES)]
    chance = np.mean([_gap(binned, value[order]) for value in values.values() for order in orders])
    return Gap(float(np.mean(list(gaps.values()))), float(chance), of_factors=gaps, examples=len(numbers))


def _binned(column: Array, bins: int) -> Array:
    """The bin of each of (N,) numbers."""
    distinct, index = np.unique(column, return_inverse=True)
    if len(distinct) <= bins:
        return index
    edges = np.quantile(column, np.linspace(0, 1, bins + 1)[1:-1])
    return np.searchsorted(edges, column, side="right")


def _gap(binned: Sequence[Array], factor: Array) -> float:
    told = sorted((_information(column, factor) for column in binned), reverse=True)
    return (told[0] - (told[1] if len(told) > 1 else 0.0)) / _information(factor, factor)


def _information(a: Array, b: Array) -> float:
    """Mutual information of two rows of small integers, in nats, of their table; with itself the entropy."""
    width = int(b.max()) + 1
    table = np.bincount(a * width + b, minlength=(int(a.max()) + 1) * width).reshape(-1, width) / len(a)
    apart = table.sum(1, keepdims=True) * table.sum(0)
    there = table > 0
    return float((table[there] * np.log(table[there] / apart[there])).sum())


def plane(codes: Tensor, *, how: str = "pca", seed: Seed = 0) -> Tensor:
    """Codes (N, d) in two dimensions, (N, 2), to be looked at.

    Args:
        codes: Two numbers or fewer stay as they are, beside a zero.
        how: 'pca', the directions in which they vary most; 'tsne', neighbours beside each other (van der Maaten &
            Hinton, "Visualizing data using t-SNE", 2008).
        seed: Of t-SNE.

    Raises: OptionError; ShapeError, EmptyDataError, NonFiniteError.
    """
    if how not in ("pca", "tsne"):
        raise OptionError(f"how must be 'pca' or 'tsne', got {how!r}.")
    numbers = _checked(codes)
    if numbers.shape[1] <= 2:
        return torch.from_numpy(np.pad(numbers, ((0, 0), (0, 2 - numbers.shape[1]))))
    if how == "pca" or len(numbers) < 8:
        _, _, axes = np.linalg.svd(numbers - numbers.mean(0), full_matrices=False)
        shown = (numbers - numbers.mean(0)) @ axes[:2].T
        return torch.from_numpy(np.pad(shown, ((0, 0), (0, 2 - shown.shape[1]))))
    scaled = (numbers - numbers.mean(0)) / max(float(numbers.std()), 1e-12)
    model = guest("sklearn.manifold").TSNE(perplexity=min(30, len(numbers) // 4), random_state=seed % 2**32)
    return torch.from_numpy(np.asarray(model.fit_transform(scaled), np.float64))
