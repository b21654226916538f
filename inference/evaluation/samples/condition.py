"""Does a sample show what was asked for: the class, the attributes, the true translation of the image that was given?

What can be asked depends on what the context is, which the data set's card says. All of it is in the eyes of a
classifier of real data, or in plain pixels; `inference.evaluation.samples.judge` says which.
"""

from __future__ import annotations

import torch
from torch import Tensor

from inference.evaluation.samples.classifier import Classifier
from inference.evaluation.samples.coverage import class_accuracy
from inference.evaluation.samples.quality import Score
from inference.evaluation.samples.translation import absolute_error, recognition
from zoo.datasets import Data, Dataset

__all__ = ["CONDITION_SCORES", "attributes_of_classes", "condition_scores"]

CONDITION_SCORES = ("class_accuracy", "recognition", "pixel_error", "attribute_accuracy")
"""What `condition_scores` may give, in the order in which to read it."""


def condition_scores(
    samples: Data, dataset: Dataset, split: str, network: Classifier | None = None, *, how: str = ""
) -> dict[str, Score]:
    """The scores of CONDITION_SCORES that data of this kind have.

    Args:
        samples: x (n, *event_shape), for a network as it sees images, and the contexts that they were made for.
        dataset: What the generator learnt from; its card says what a context is.
        split: Where the contexts come from.
        network: A classifier of real data; with one only what it can be asked is scored, without one all else.
        how: What it sees, in words.
    """
    kind = dataset.card.context_kind
    if network is None:
        return _translated(samples, dataset, split) if dataset.translates else {}
    if kind == "attributes":
        return {"attribute_accuracy": _attributes(samples, dataset, split, network, how)}
    return {"class_accuracy": _class(samples, network, how)} if kind in ("", "class") else {}


def _class(samples: Data, network: Classifier, how: str) -> Score:
    """Whether the class asked for is shown."""
    context = samples.context
    if context is None:
        return Score(None, how="n/a: not conditional on a class")
    if context.ndim != 2 or context.shape[1] != network.classes:
        return Score(None, how=f"n/a: contexts {tuple(context.shape)} are not {network.classes} classes")
    asked = class_accuracy(samples.x, context, network)
    how = f"{how}; {100 * (asked.ceiling or 0):.1f}% of real test images are classified rightly"
    return Score(asked.accuracy, asked.standard_error, how=how)


def _translated(samples: Data, dataset: Dataset, split: str) -> dict[str, Score]:
    """Recognition among all true answers, and the error in pixels, where the samples answer the split's contexts."""
    context, real = samples.context, dataset.split(split)
    if split in dataset.card.unpaired:
        why = f"n/a: images of the {split} split are no answers to its contexts, and none are known"
        return {name: Score(None, how=why) for name in ("recognition", "pixel_error")}
    if context is None or context.shape != real.context.shape or not torch.equal(context, real.context.to(context)):
        why = f"n/a: not one answer to each image of the {split} split, in its order"
        return {name: Score(None, how=why) for name in ("recognition", "pixel_error")}
    seen, error = recognition(samples.x, real.x), absolute_error(samples.x, real.x)
    how = f"{seen.images} {split} images; pixels"
    return {
        "recognition": Score(seen.share, seen.standard_error, how=f"{how}, all true answers are candidates"),
        "pixel_error": Score(float(error.mean()), float(error.std() / len(error) ** 0.5), how=how),
    }


def _attributes(samples: Data, dataset: Dataset, split: str, network: Classifier, how: str) -> Score:
    """Share of samples that have the attribute asked for, of the attribute that is shown worst."""
    table = attributes_of_classes(dataset)
    if table is None or samples.context is None:
        return Score(None, how="n/a: no class labels that attributes follow from")

    def read(x: Tensor, asked: Tensor) -> Tensor:
        shown = network.log_probabilities(x).exp().double() @ table.double().cpu() > 0.5
        return (shown == (asked.cpu() > 0.5)).double().mean(0)

    real, right = dataset.split(split), read(samples.x, samples.context)
    names, worst = dataset.card.context_names, int(right.argmin())
    share = float(right[worst])
    said = ", ".join(
        f"{name} {made:.3f} ({true:.3f} of real ones)"
        for name, made, true in zip(names, right.tolist(), read(real.x, real.context).tolist(), strict=True)
    )
    error = (share * (1 - share) / len(samples.x)) ** 0.5
    return Score(share, error, how=f"the worst of {said}, as the classes say that are seen; {how}")


def attributes_of_classes(dataset: Dataset) -> Tensor | None:
    """The attributes of each class, (classes, K), where every training example of a class has the same; else None."""
    labels, context = dataset.labels.get("train"), dataset.train.context
    if labels is None or context is None:
        return None
    table = torch.full((int(labels.max()) + 1, context.shape[1]), torch.nan).to(context)
    table[labels] = context
    return table if bool((table[labels] == context).all()) else None
