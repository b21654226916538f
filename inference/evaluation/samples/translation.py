"""How right is a translated image, where the true one is known? Recognition, distance, and what costs nothing to reach.

Translations are mostly judged by eye, since nobody has the true answer. Letters have one: the same character in the
other face. So a made image can be asked which of all true images it is nearest to, and whether that is its own
(retrieval at rank one, in pixels or in features). Beside it stand the translators that learn nothing: the input itself,
and the answer of the training pair whose input looks most alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from inference.evaluation.samples.classifier import Classifier
from inference.evaluation.samples.quality import distances, pair
from zoo.errors import ShapeError

__all__ = [
    "Recognition", "absolute_error", "counterparts", "nearest_pair", "recognition", "recognition_by_class",
]  # fmt: skip


@dataclass(frozen=True)
class Recognition:
    """How many made images are nearest to their own true one."""

    share: float
    standard_error: float
    """Binomial, over the images."""
    right: Tensor
    """Which, (n,)."""
    nearest: Tensor
    """Row of the nearest true image, (n,); where several are as near and its own is among them, its own."""
    images: int
    features: str
    """A network's hash, or 'as given'."""


def recognition(made: Tensor, truth: Tensor, features: Classifier | None = None) -> Recognition:
    """Share of made images whose own true image is the nearest of all true ones; ties with its own count as right.

    It sees blanks, blur into a mean, and the wrong character. It does not see a wrong style that keeps characters
    apart: a plain copy may score high, so put it beside. Equal true images (letters that look the same in two scripts)
    are not told apart. The more true images there are the harder it is: only numbers of the same set compare.

    Args:
        made: (n, ...).
        truth: The true image of each, in the same order; all of them are candidates.
        features: Whose hidden layer measures distances; None takes pixels.

    Raises: ShapeError unless there is a true image for each made one.
    """
    _check_rows(made, truth)
    a, b, name = pair(made, truth, features)
    apart = torch.cat(list(distances(a, b)))
    least, index = apart.min(1)
    right = apart.diagonal() <= least
    share = float(right.double().mean())
    return Recognition(
        share,
        standard_error=(share * (1 - share) / len(right)) ** 0.5,
        right=right,
        nearest=torch.where(right, torch.arange(len(right)), index),
        images=len(right),
        features=name,
    )


def absolute_error(made: Tensor, truth: Tensor) -> Tensor:
    """Mean absolute difference of each image to its true one, (n,), on the CPU: pix2pix's L1 of Isola et al. 2017.

    On white ground a blank image has a small one: it says little without `recognition`.
    """
    _check_rows(made, truth)
    a, b, _ = pair(made, truth, None)
    return (a - b).abs().mean(1)


def nearest_pair(source: Tensor, train_source: Tensor, train_target: Tensor) -> Tensor:
    """The translator that remembers: for each input the target of the training pair whose input is nearest in pixels.

    Args:
        source: Inputs (n, ...).
        train_source: Of the training pairs, (m, ...).
        train_target: Their answers, in the same order, (m, ...).

    Returns: (n, ...), rows of `train_target`.

    Raises: ShapeError for training pairs that do not match.
    """
    if len(train_source) != len(train_target):
        raise ShapeError(
            f"There are {len(train_source)} training inputs but {len(train_target)} targets; give pairs in one order."
        )
    a, b, _ = pair(source, train_source, None)
    index = torch.cat([rows.argmin(1) for rows in distances(a, b)])
    return train_target[index.to(train_target.device)]


def counterparts(classes: Tensor, items: Sequence[str], step: int = 1) -> Tensor:
    """For each example the row of the same item in the class `step` further on, round and round, (n,).

    So that, of letters in all faces, each letter in each face is the true answer to one other, whatever the step.

    Args:
        classes: (n,) of integers, from 0.
        items: What each example shows, (n,).
        step: Classes between an example and its counterpart.

    Raises: ShapeError where an item is not in each class once.
    """
    count = int(classes.max()) + 1
    row = {(item, label): i for i, (item, label) in enumerate(zip(items, classes.tolist(), strict=True))}
    if len(row) != len(items) or len(row) != count * len(set(items)):
        raise ShapeError(
            f"{len(items)} examples are not {len(set(items))} items in {count} classes each: give each item once in "
            "each class."
        )
    pairs = zip(items, classes.tolist(), strict=True)
    return torch.tensor([row[item, (label + step) % count] for item, label in pairs])


def recognition_by_class(made: Tensor, truth: Tensor, classes: Tensor) -> Recognition:
    """`recognition` where only true images of the same class are candidates: which letter of this face is it?

    Args:
        made: (n, ...).
        truth: The true image of each.
        classes: Of the true images, (n,) of integers.
    """
    rows = [torch.nonzero(classes == label)[:, 0] for label in classes.unique()]
    found = [recognition(made[index], truth[index]) for index in rows]
    right, nearest = torch.empty(len(made), dtype=torch.bool), torch.empty(len(made), dtype=torch.long)
    for index, part in zip(rows, found, strict=True):
        right[index], nearest[index] = part.right, index[part.nearest]
    share = float(right.double().mean())
    error = (share * (1 - share) / len(right)) ** 0.5
    return Recognition(share, error, right, nearest=nearest, images=len(right), features="as given")


def _check_rows(made: Tensor, truth: Tensor) -> None:
    if made.shape != truth.shape:
        raise ShapeError(
            f"Made and true images differ: {tuple(made.shape)} and {tuple(truth.shape)}; give the true image of each, "
            "in the same order."
        )
