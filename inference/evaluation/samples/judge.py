"""Judges what a generator draws, whether it has a density or not: every score that applies, from one call.

    program = catalogue.load(folder)                 # or fit(...).program
    samples = draw_samples(program, dataset.test, 250)
    found = judge(samples, dataset, **classifiers_for(dataset))

What is looked at depends on the data:

- *Images with class labels* through a classifier of these data (`inference.evaluation.samples.classifier`). They are
  judged on equal terms whatever the program makes: samples and real images are thresholded at 0.5 (a binary program's
  are draws, not means, and stay as they are) and looked at by a network of binarised images. Grey samples have a second
  Fréchet distance, of grey images.
- *Sounds with class labels* as spectrograms through a classifier of such (`inference.evaluation.samples.sounds`), which
  are grey and stay so.
- *Points of known Gaussians* ('ring', 'narrow-ring', 'grid25') and *stacks of digits*: modes are counted, those of a
  stack by a classifier of single digits, channel by channel.
- *All else*: numbers as they are, which for images means pixels.

No score means anything alone: put those of `held_out` data beside them, which are what a perfect generator would have.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypedDict

import torch
from torch import Tensor

from inference.environment import evaluating
from inference.evaluation.samples.classifier import Classifier, train_classifier
from inference.evaluation.samples.condition import condition_scores
from inference.evaluation.samples.coverage import ClassShares, class_shares, gaussian_modes, stacked_modes
from inference.evaluation.samples.quality import (
    NearestTraining,
    Score,
    checked,
    frechet,
    inception_score,
    manifold_scores,
    nearest_training,
)
from inference.evaluation.samples.sounds import heard, spectrograms
from inference.evaluation.two_samples import c2st, mmd
from inference.games.game import diversity
from zoo import datasets
from zoo.datasets import Data, Dataset, base_name, binarise
from zoo.datasets.modes import GAUSSIANS
from zoo.errors import OptionError, ShapeError, UnknownNameError
from zoo.options import Count, check_value
from zoo.program import MakesContexts, Program

__all__ = [
    "SCORES",
    "Judgement",
    "Networks",
    "Score",
    "classifiers_for",
    "draw_samples",
    "fair_size",
    "has_known_modes",
    "held_out",
    "judge",
]

SCORES = (
    "modes", "good", "mode_kl", "frechet", "frechet_grey", "precision", "recall", "sample_density", "coverage", "mmd",
    "mmd_p", "c2st_features", "inception", "class_accuracy", "recognition", "pixel_error", "attribute_accuracy",
    "classes", "class_difference", "memorisation", "diversity",
)  # fmt: skip
"""What `judge` may give, in the order in which to read it; `benchmarks.metrics.METRICS` says what each means."""

STACK = "stacked-"
MODES_SAMPLES = 10_000
SPREAD_ROWS = 1000
"""Points whose diversity is taken: it needs all pairs."""
C2ST_NUMBERS = 100
"""The quadratic classifier takes half the square of so many."""


@dataclass(frozen=True)
class Judgement:
    """The scores that were asked for, in the order of SCORES; those that data of the kind never have are left out."""

    scores: dict[str, Score]
    how: str
    """How many samples and data, how they were made alike, and whose features (a hash)."""
    shares: ClassShares | None = None
    """Which classes the samples show; None without a classifier."""
    nearest: NearestTraining | None = None
    """The nearest training example of each sample, for a picture of both; None where it was not looked for."""

    def __getitem__(self, name: str) -> Score:
        return self.scores[name]


# What is judged, and by whom


def draw_samples(program: Program, data: Data, n: int, seed: int = 0) -> Data:
    """n samples on the CPU, with the contexts that they were given: those of the data in turn, if the data have any.

    Raises: ShapeError when the program is conditional and the data have no contexts.
    """
    check_value("n", n, Count)
    device = _device(program)
    if data.context is None and isinstance(program, MakesContexts):
        data = Data(*program.accept(data.x))
    if data.context is None and program.example_context(1) is not None:
        raise ShapeError(f"{type(program).__name__} is conditional: it needs data with contexts to be drawn for.")
    context = None if data.context is None else data.context[torch.arange(n) % data.size].to(device)
    with evaluating(program, seed=seed, device=device):
        x = program.generate(n, context)
    return Data(x.cpu(), None if context is None else context.cpu())


@torch.no_grad()
def draw_answers(program: Program, context: Tensor, count: int, seed: int = 0) -> Tensor:
    """Several samples for each context (B, ...), on the CPU, (count, B, *event_shape)."""
    device = _device(program)
    with evaluating(program, seed=seed, device=device):
        return torch.stack([program.generate(context=context.to(device)).cpu() for _ in range(count)])


def held_out(dataset: Dataset, n: int, split: str = "test") -> Data:
    """n real examples in place of samples, other than those of the split: the yardstick of every score.

    From validation data (of which test data are the others); where modes are counted nothing is compared with training
    data, and as many of these are taken as there are.

    Raises: OptionError when there are not so many.
    """
    if has_known_modes(dataset):
        return dataset.train.rows(slice(0, n))
    name = "valid" if split != "valid" else "test"
    kept = dataset.split(name)
    if kept.size < n:
        what = "validation" if name == "valid" else "test"
        raise OptionError(f"{dataset.name} has {kept.size} {what} data, fewer than {n} samples.")
    return kept.rows(slice(0, n))


def fair_size(dataset: Dataset, split: str = "test") -> int:
    """How many samples to draw: as many as there are data to compare with, and 10,000 where modes are counted."""
    return MODES_SAMPLES if has_known_modes(dataset) else dataset.split(split).size


def has_known_modes(dataset: Dataset) -> bool:
    """Whether modes are counted."""
    return dataset.name in GAUSSIANS or dataset.name.startswith(STACK)


class Networks(TypedDict, total=False):
    """Arguments of `judge`."""

    classifier: Classifier
    grey_classifier: Classifier


def classifiers_for(
    dataset: Dataset,
    scores: Collection[str] | None = None,
    train: Callable[[Any], Classifier] = train_classifier,
) -> Networks:
    """The networks that `judge` looks at samples of these data with, by the names of its arguments; maybe none.

    Args:
        dataset: What was learnt from.
        scores: Those that are wanted, all by default; not all need the network of grey images.
        train: Data set, or its name -> classifier; by default trained with 2,000 steps, or found in the cache.
    """
    name, card = base_name(dataset.name), dataset.card
    if name.startswith(STACK):
        return {"classifier": train(dataset.name.removeprefix(STACK))}
    if card.classes and card.rate:
        return {"classifier": train(spectrograms(datasets.load(card.judged_by) if card.judged_by else dataset))}
    if card.judged_by:
        name = card.judged_by
    elif not card.classes or len(card.shape) not in (2, 3) or card.support not in ("unit", "binary"):
        return {}
    found: Networks = {"classifier": train(f"{name}-binary")}
    if card.support == "unit" and (scores is None or {"frechet_grey", "attribute_accuracy"} & set(scores)):
        found["grey_classifier"] = train(name)
    return found


# Judging samples


def judge(
    samples: Data,
    dataset: Dataset,
    *,
    split: str = "test",
    classifier: Classifier | None = None,
    grey_classifier: Classifier | None = None,
    scores: Collection[str] | None = None,
    seed: int = 0,
) -> Judgement:
    """Every score of samples that their data allow; what each sees and is blind to is said where it is computed.

    Args:
        samples: x (n, *event_shape), and the contexts (n, classes) if classes were asked for.
        dataset: What the generator learnt from; its training data are looked through for copies.
        split: What samples are compared with, 'test' for instance.
        classifier: Of the data, binarised at 0.5 if grey; of single channels for stacks. None: numbers as they are.
        grey_classifier: Of the grey data, for the second Fréchet distance.
        scores: Some of SCORES; None is all.
        seed: Of permutations and folds.

    Raises: UnknownNameError for a score that does not exist, ShapeError, EmptyDataError, NonFiniteError.
    """
    for name in scores or ():
        if name not in SCORES:
            raise UnknownNameError("score of samples", name, SCORES)
    case = _Case(samples, dataset, split, wanted=set(SCORES if scores is None else scores), seed=seed)
    if samples.x.shape[1:] != case.real.shape[1:]:
        raise ShapeError(
            f"Samples and data differ in shape: {tuple(samples.x.shape[1:])} and {tuple(case.real.shape[1:])}."
        )
    checked(samples.x)
    if dataset.card.rate:
        case = replace(case, samples=heard(samples, dataset.card), dataset=spectrograms(dataset), binarised=False)
    if dataset.name in GAUSSIANS:
        found = _of_points(case)
    elif dataset.name.startswith(STACK):
        found = _of_stacks(case, classifier)
    elif classifier is None:
        found = _of_numbers(case, case.as_they_are(case.samples.x))
    else:
        found = _of_images(case, classifier, grey_classifier)
    found = replace(found, scores={**found.scores, **condition_scores(samples, dataset, split)})
    kept = [name for name in SCORES if name in case.wanted and name in found.scores]
    return replace(found, scores={name: found.scores[name] for name in kept})


@dataclass(frozen=True)
class _Sides:
    """Samples and data, made alike, and how that is said; `network` looks at them, if there is one."""

    samples: Tensor
    real: Tensor
    train: Tensor
    sizes: str
    how: str
    noun: str = "images"
    network: Classifier | None = None

    @cached_property
    def rows(self) -> tuple[Tensor, Tensor]:
        """Samples and data in features, or as they are, (n, d) and (m, d)."""
        if self.network is None:
            return self.samples.flatten(1), self.real.flatten(1)
        return self.network.describe(self.samples), self.network.describe(self.real)


@dataclass(frozen=True)
class _Case:
    """What was asked of `judge`."""

    samples: Data
    dataset: Dataset
    split: str
    wanted: set[str]
    seed: int
    binarised: bool = True
    """Whether a classifier sees images thresholded."""

    @property
    def real(self) -> Tensor:
        """What samples are compared with."""
        return self.dataset.split(self.split).x

    def as_they_are(self, x: Tensor) -> _Sides:
        """Without anyone who looks."""
        noun, unit = ("images", "raw pixels") if x.ndim > 2 else ("examples", "numbers as they are")
        sizes = f"{len(x)} samples, {len(self.real)} {self.split} {noun}"
        return _Sides(x, self.real, self.dataset.train.x, sizes=sizes, how=f"{sizes}; {unit}", noun=noun)

    def seen_by(self, network: Classifier) -> _Sides:
        """In features; images thresholded, spectrograms as they are."""
        if not self.binarised:
            sides = self.as_they_are(self.samples.x)
            sizes = sides.sizes.replace("images", "sounds")
            return replace(sides, sizes=sizes, how=f"{sizes}, as spectrograms; {about(network)}", network=network)
        x, real, train = (black_and_white(each) for each in (self.samples.x, self.real, self.dataset.train.x))
        grey = "grey, " if self.grey else ""
        sizes = f"{len(x)} samples, {len(real)} {self.split} images, {grey}thresholded at 0.5"
        return _Sides(x, real, train, sizes=sizes, how=f"{sizes}; {about(network)}", network=network)

    @property
    def grey(self) -> bool:
        """Whether samples have values between 0 and 1."""
        x = self.samples.x
        return bool(((x != 0) & (x != 1)).any())


def _of_images(case: _Case, network: Classifier, of_grey: Classifier | None) -> Judgement:
    """Images of classes: black and white ones by a classifier, and the distance of grey ones; sounds of classes."""
    sides = case.seen_by(network)
    judged, wanted = _of_numbers(case, sides), case.wanted
    found, shares = dict(judged.scores), None
    if "frechet_grey" in wanted and case.binarised:
        found["frechet_grey"] = _frechet_grey(case, of_grey)
    if "inception" in wanted:
        score = inception_score(sides.samples, network)
        found["inception"] = Score(score.value, how=f"of {network.classes} at most; {sides.how}")
    if of_grey is not None and case.dataset.card.context_kind == "attributes":  # thin strokes tell much by their grey
        how = f"{len(sides.samples)} samples; {about(of_grey)}"
        found |= condition_scores(case.samples, case.dataset, case.split, of_grey, how=how)
    else:
        seen = Data(sides.samples, case.samples.context)
        found |= condition_scores(seen, case.dataset, case.split, network, how=sides.how)
    if wanted & {"classes", "class_difference"}:
        shares = class_shares(sides.samples, network, sides.real)
        how = f"{sides.how}; shares of {case.split} images by the same classifier"
        found["classes"] = Score(
            float(shares.covered), how=f"of {network.classes}, each by a tenth of its share or more; {how}"
        )
        found["class_difference"] = Score(shares.total_variation, how=how)
    grey = f"; grey ones by {about(of_grey)}" if of_grey is not None and case.grey else ""
    return replace(judged, scores=found, shares=shares, how=sides.how + grey)


def _of_numbers(case: _Case, sides: _Sides) -> Judgement:
    """Scores that need neither classes nor modes."""
    found, nearest = _distances(case, sides), None
    if "memorisation" in case.wanted:
        nearest = nearest_training(sides.samples, sides.train, sides.real)
        what = "pixels" if sides.noun == "images" else "numbers"
        how = (
            f"medians of distances of {what}, {sides.sizes}, {nearest.train} training {sides.noun}; "
            f"z = {nearest.z:.1f} (copies: < 0)"
        )
        found["memorisation"] = Score(nearest.ratio, how=how)
    if "diversity" in case.wanted:
        found["diversity"] = Score(float(diversity(sides.samples, sides.real)), how=sides.sizes)
    return Judgement(found, sides.how, nearest=nearest)


def _distances(case: _Case, sides: _Sides) -> dict[str, Score]:
    """Is the distribution near, in features or in numbers as they are?"""
    found: dict[str, Score] = {}
    (a, b), how, wanted = sides.rows, sides.how, case.wanted
    n, d = min(len(a), len(b)), a.shape[1]
    if "frechet" in wanted and sides.network is None and n <= d:
        why = f"n/a: {n} examples have no covariance of {d} numbers, and there is no classifier to make them fewer"
        found["frechet"] = Score(None, how=why)
    elif "frechet" in wanted:
        found["frechet"] = Score(frechet(a, b).value, how=how)
    if wanted & {"precision", "recall", "sample_density", "coverage"}:
        shares = manifold_scores(a, b)
        text = f"{how}, {shares.k} neighbours"
        found["precision"], found["recall"] = Score(shares.precision, how=text), Score(shares.recall, how=text)
        found["sample_density"], found["coverage"] = Score(shares.density, how=text), Score(shares.coverage, how=text)
    if wanted & {"mmd", "mmd_p"}:
        test = mmd(a, b, seed=case.seed)
        found["mmd"] = Score(test.value, how=f"{how}; bandwidth the median distance")
        found["mmd_p"] = Score(test.p_value, how=f"{how}; 200 permutations")
    if "c2st_features" in wanted and d > C2ST_NUMBERS:
        found["c2st_features"] = Score(None, how=f"n/a: {d} numbers are too many for a quadratic classifier")
    elif "c2st_features" in wanted:
        told = c2st(b, a, classifier="quadratic", seed=case.seed)
        text = f"{how}; quadratic classifier, 5 folds"
        found["c2st_features"] = Score(told.accuracy, told.standard_error, how=text)
    return found


def _frechet_grey(case: _Case, network: Classifier | None) -> Score:
    """The Fréchet distance of images as they are."""
    if case.dataset.card.support == "binary" or not case.grey:
        return Score(None, how="n/a: samples are binary")
    if network is None:
        return Score(None, how="n/a: no classifier of grey images was given")
    how = f"{case.samples.size} samples, {len(case.real)} {case.split} images; {about(network)}"
    return Score(frechet(case.samples.x, case.real, network).value, how=how)


def _of_points(case: _Case) -> Judgement:
    """Modes and good samples of Gaussians; everything else of as many samples as there are data."""
    x, real, name = case.samples.x, case.real, case.dataset.name
    least = max(1, len(x) // (10 * len(GAUSSIANS[name].centres)))
    modes = gaussian_modes(x, name, least=least)
    how = f"{modes.samples} samples, within {modes.reach:g} standard deviations of a centre"
    others = _of_numbers(replace(case, wanted=case.wanted - {"diversity"}), case.as_they_are(x[: len(real)]))
    found = {
        "modes": Score(float(modes.covered), how=f"of {modes.of}, by at least {least} good samples each; {how}"),
        "good": Score(modes.good, how=f"{how}; {modes.expected_good:.3f} for the truth"),
        "mode_kl": Score(modes.kl, how=how),
        **others.scores,
    }
    if "diversity" in case.wanted:
        spread = float(diversity(x[:SPREAD_ROWS], real[:SPREAD_ROWS]))
        found["diversity"] = Score(spread, how=f"up to {SPREAD_ROWS:,} of each")
    return replace(others, scores=found, how=f"modes of {len(x)} samples; all else of {others.how}")


def _of_stacks(case: _Case, network: Classifier | None) -> Judgement:
    """Modes of stacked digits, each channel by a classifier of single digits."""
    if network is None:
        why = "n/a: a classifier of single digits tells the modes of a stack, and none was given"
        return Judgement({name: Score(None, how=why) for name in ("modes", "mode_kl")}, why)
    modes = stacked_modes(case.samples.x, network)
    how = f"{modes.samples} grey samples, each channel by itself; {about(network)}"
    found = {
        "modes": Score(float(modes.covered), how=f"of {modes.of}, {how}; {modes.expected_covered:.0f} if even"),
        "mode_kl": Score(modes.kl, how=f"{how}; {modes.expected_kl:.3f} if even"),
    }
    return Judgement(found, how)


# Judging a guide


# What they share


def black_and_white(x: Tensor) -> Tensor:
    """Thresholded at 0.5; what is binary stays as it is."""
    return binarise(x.clamp(0, 1), "threshold")


def about(network: Classifier) -> str:
    """Which network looked, in words for `how`."""
    training = network.training_of
    if training is None:
        return f"features {network.hash}"
    return f"features {network.hash} (classifier of {training.data}, {100 * training.test_accuracy:.1f}% on test)"


def _device(program: Program) -> torch.device:
    return next((t.device for t in program.state_dict().values()), torch.device("cpu"))
