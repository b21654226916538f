"""Which classes and modes samples cover, where there are classes or the modes are known.

- `class_accuracy`, `class_shares`: does a sample show the class asked for, and do all classes come?
- `gaussian_modes`, `stacked_modes`: how many modes are covered (Metz et al. 2017; Srivastava et al. 2017).

Classes are in the eyes of a classifier that has seen real data only (`inference.evaluation.samples.classifier`), whose
hash the results carry with the number of samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import scipy
import torch
from torch import Tensor

from inference.evaluation.samples.classifier import Classifier
from inference.evaluation.samples.quality import checked, distances, pair
from zoo.datasets.modes import GAUSSIANS
from zoo.errors import OptionError, ShapeError, UnknownNameError

__all__ = [
    "ClassAccuracy", "ClassShares", "GaussianModes", "StackedModes",
    "class_accuracy", "class_shares", "gaussian_modes", "stacked_modes",
]  # fmt: skip


# Classes


@dataclass(frozen=True)
class ClassAccuracy:
    """How many samples show the class that was asked for, in the classifier's eyes."""

    accuracy: float
    standard_error: float
    by_class: Tensor
    """(classes,); NaN for one that was not asked for."""
    ceiling: float | None
    """The classifier's accuracy on real test data, if known."""
    samples: int
    features: str


def class_accuracy(samples: Tensor, asked: Tensor, classifier: Classifier) -> ClassAccuracy:
    """Share of samples of a conditional generator that a classifier of real data puts into the class asked for.

    It sees a generator that ignores its condition. It does not see whether the samples of a class differ from each
    other, nor whether they look real: a classifier must choose, and an adversarial example passes. Its own errors bound
    the score near `ceiling`, though a generator of clear samples may exceed it.

    Args:
        samples: Images (n, ...).
        asked: Classes (n,), or one-hot (n, classes).
        classifier: Trained on real data only.
    """
    asked = (asked.argmax(1) if asked.ndim == 2 else asked).long()
    if asked.shape != (len(samples),):
        raise ShapeError(f"Expected one class for each of the {len(samples)} samples, got shape {tuple(asked.shape)}.")
    checked(samples)
    guessed = classifier.classify(samples)
    right = (guessed == asked.to(guessed.device)).double().cpu()
    by_class = torch.stack([right[asked.cpu() == c].mean() for c in range(classifier.classes)])
    accuracy, n = float(right.mean()), len(right)
    error = math.sqrt(accuracy * (1 - accuracy) / n)
    ceiling = classifier.training_of.test_accuracy if classifier.training_of is not None else None
    return ClassAccuracy(accuracy, error, by_class, ceiling=ceiling, samples=n, features=classifier.hash)


@dataclass(frozen=True)
class ClassShares:
    """Which classes come, and how often."""

    shares: Tensor
    """(classes,) of the samples, summing to 1."""
    reference: Tensor
    """(classes,) what they should be."""
    covered: int
    """Classes with a share of at least a tenth of what it should be."""
    entropy: float
    """Of the shares, in nats; log(classes) for equal ones."""
    total_variation: float
    """Between shares and reference: the share of samples that are in the wrong class."""
    kl: float
    """KL(shares || reference), in nats."""
    samples: int
    features: str


def class_shares(samples: Tensor, classifier: Classifier, data: Tensor | None = None) -> ClassShares:
    """The classes of samples, by a classifier, against those of data, by the same one, or against equal shares.

    It sees dropped and preferred classes, and nothing inside a class. Even perfect samples have a KL of about
    (classes - 1) / 2n by chance (plus as much again with m for the data's part).

    Args:
        samples: Images (n, ...).
        classifier: Trained on real data only.
        data: Images (m, ...), classified likewise so that errors of the classifier weigh on both; None: equal shares.
    """
    checked(samples)
    shares = _shares(classifier.classify(samples), classifier.classes)
    if data is None:
        reference = torch.full_like(shares, 1 / classifier.classes)
    else:
        reference = _shares(classifier.classify(checked(data)), classifier.classes)
    return ClassShares(
        shares=shares,
        reference=reference,
        covered=int(((shares >= reference / 10) & (shares > 0)).sum()),
        entropy=float(torch.special.entr(shares).sum()),
        total_variation=float((shares - reference).abs().sum()) / 2,
        kl=_kl(shares, reference),
        samples=len(samples),
        features=classifier.hash,
    )


# Known modes


@dataclass(frozen=True)
class GaussianModes:
    """How many of the known Gaussians are covered, and how many samples are good."""

    covered: int
    of: int
    good: float
    """Share of samples that lie within `reach` standard deviations of a centre."""
    expected_good: float
    """The same for the truth: P(chi^2_d <= reach^2)."""
    kl: float
    """Of the good samples' modes to equal shares, in nats; infinite if there are none."""
    counts: Tensor
    """Good samples by mode, (of,)."""
    reach: float
    least: int
    samples: int


def gaussian_modes(
    samples: Tensor, centres: str | Tensor, sd: float | None = None, *, reach: float = 3.0, least: int = 1
) -> GaussianModes:
    """Modes covered and share of good samples on a ring or grid of Gaussians (Srivastava et al. 2017).

    A sample is good within three standard deviations of a centre, and a mode is covered by one good sample, as there;
    on a plane the truth itself has 1 - exp(-4.5) = 98.9% good samples. It sees missing modes and samples between them,
    and does not see the shape inside a mode: a generator of the bare centres has 100%. With one sample enough, more
    samples cover more modes; `least` asks for more.

    Args:
        samples: Points (n, d).
        centres: A data set with known ones ('ring', 'narrow-ring', 'grid25'), or the centres (K, d).
        sd: Standard deviation of each Gaussian; that of the data set if one is named.
        reach: Standard deviations within which a sample is good.
        least: Good samples that cover a mode.
    """
    if isinstance(centres, str):
        if centres not in GAUSSIANS:
            raise UnknownNameError("data set with known Gaussian modes", centres, GAUSSIANS)
        sd = GAUSSIANS[centres].sd if sd is None else sd
        centres = torch.from_numpy(GAUSSIANS[centres].centres)
    if sd is None or sd <= 0 or reach <= 0 or least < 1:
        raise OptionError(f"sd and reach must be positive, least at least 1; got {sd}, {reach} and {least}.")
    points, at, _ = pair(samples, centres, None)
    nearest = torch.cat([torch.stack(d.min(1), 1) for d in distances(points, at)])
    good = nearest[:, 0] <= reach * sd
    counts = torch.bincount(nearest[good, 1].long(), minlength=len(at))
    shares = counts.double() / counts.sum()
    return GaussianModes(
        covered=int((counts >= least).sum()),
        of=len(at),
        good=float(good.double().mean()),
        expected_good=float(scipy.stats.chi2.cdf(reach**2, at.shape[1])),
        kl=_kl(shares, torch.full_like(shares, 1 / len(at))) if counts.sum() > 0 else math.inf,
        counts=counts,
        reach=reach,
        least=least,
        samples=len(points),
    )


@dataclass(frozen=True)
class StackedModes:
    """How many of the classes^channels modes of stacked images are covered."""

    covered: int
    of: int
    expected_covered: float
    """By as many samples that are spread evenly."""
    kl: float
    """KL of the samples' modes to equal shares, in nats."""
    expected_kl: float
    """By as many samples that are spread evenly, (of - 1) / 2n to first order."""
    least: int
    samples: int
    features: str


def stacked_modes(samples: Tensor, classifier: Classifier, *, least: int = 1) -> StackedModes:
    """Modes covered by stacks of images, each channel classified by itself (Metz et al. 2017; Srivastava et al. 2017).

    Papers draw 26,000 samples of 1,000 modes. It sees missing combinations, and nothing of quality: noise is classified
    too, and lands in some mode; look at precision beside it.

    Args:
        samples: Images (n, channels, height, width), such as of 'stacked-digits'.
        classifier: Of a single channel (height, width).
        least: Samples that cover a mode.
    """
    if samples.ndim != 4:
        raise ShapeError(f"Expected stacks of images (n, channels, height, width), got {tuple(samples.shape)}.")
    n, channels = checked(samples).shape[:2]
    guessed = classifier.classify(samples.flatten(0, 1)).reshape(n, channels)
    powers = classifier.classes ** torch.arange(channels - 1, -1, -1, device=guessed.device)
    of = classifier.classes**channels
    shares = _shares((guessed * powers).sum(1), of)
    return StackedModes(
        covered=int(((shares * n).round() >= least).sum()),
        of=of,
        expected_covered=of * float(scipy.stats.binom.sf(least - 1, n, 1 / of)),
        kl=_kl(shares, torch.full_like(shares, 1 / of)),
        expected_kl=(of - 1) / (2 * n),
        least=least,
        samples=n,
        features=classifier.hash,
    )


def _shares(classes: Tensor, of: int) -> Tensor:
    return torch.bincount(classes.cpu(), minlength=of).double() / len(classes)


def _kl(shares: Tensor, reference: Tensor) -> float:
    return float((torch.xlogy(shares, shares) - torch.xlogy(shares, reference)).sum())
