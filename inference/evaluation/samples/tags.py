"""How good are the tags of an image? Words are ranked, and the ranks held against the words that it has.

A program that draws vectors of words ranks them by how often they are near a draw (Mirza & Osindero 2014); a
classifier ranks by probability. All rankings are scores (B, words), the larger the better.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, normalize

from inference.environment import seeded
from inference.evaluation.samples.classifier import Classifier
from inference.method import Run
from inference.training.loop import Loop, Schedule
from inference.training.optimizers import descend, rate
from zoo.datasets import Data
from zoo.errors import OptionError, ShapeError
from zoo.options import Count, check_value

__all__ = ["different_lists", "mean_average_precision", "precision_at", "rank_by_draws", "train_tagger"]

TAGGER_RATE = 3e-3
"""Adam's, at the start."""


@torch.no_grad()
def rank_by_draws(draws: Tensor, vectors: Tensor, nearest: Count = 1) -> Tensor:
    """How often a word is among those nearest to a draw by cosine, (B, words).

    Words that are as often near one are told apart by their mean cosine to the draws, scaled so that it never counts
    more than one draw does.

    Args:
        draws: (S, B, E).
        vectors: Of all words (words, E); one of length 0 is no word, and ranks last.
        nearest: How many words a draw counts for; the paper's is 20.

    Raises: ShapeError, OptionError for more words than there are.
    """
    check_value("nearest", nearest, Count)
    if draws.ndim != 3 or vectors.ndim != 2 or draws.shape[2] != vectors.shape[1]:
        raise ShapeError(
            f"Draws (S, B, E) and vectors (words, E) must agree in E, got {tuple(draws.shape)} and "
            f"{tuple(vectors.shape)}."
        )
    none = vectors.norm(dim=1) == 0
    if nearest > int((~none).sum()):
        raise OptionError(f"nearest must be at most the {int((~none).sum())} words with a vector, got {nearest}.")
    units = normalize(vectors, dim=1)
    count, total = torch.zeros(2, draws.shape[1], len(vectors)).to(draws)
    for draw in draws:
        cosine = (normalize(draw, dim=1) @ units.T).masked_fill(none, -torch.inf)
        total += cosine
        count.scatter_add_(1, cosine.topk(nearest).indices, torch.ones(len(draw), nearest).to(draw))
    return count + total / (3 * len(draws))


@torch.no_grad()
def precision_at(scores: Tensor, truth: Tensor, k: Count = 10) -> float:
    """Share of true words among the k that rank first, averaged over images.

    An image with fewer than k words cannot reach 1: compare with what `truth` itself scores.

    Args:
        scores: (B, words).
        truth: Which words an image has, booleans (B, words).
        k: At most the number of words.

    Raises: ShapeError, OptionError.
    """
    _check(scores, truth)
    check_value("k", k, Count)
    if k > scores.shape[1]:
        raise OptionError(f"k must be at most the {scores.shape[1]} words there are, got {k}.")
    return float(truth.gather(1, scores.topk(k).indices).double().mean())


@torch.no_grad()
def mean_average_precision(scores: Tensor, truth: Tensor) -> float:
    """Mean over images of the average precision: of the share of true words up to each true word.

    Images without words are left out. Of equal scores the word of lower number ranks first.

    Args:
        scores: (B, words).
        truth: Booleans (B, words).

    Raises: ShapeError.
    """
    _check(scores, truth)
    some = truth.any(1)
    order = scores[some].sort(dim=1, descending=True, stable=True).indices
    hit = truth[some].gather(1, order).double()
    precision = hit.cumsum(1) / torch.arange(1, hit.shape[1] + 1).to(hit)
    return float(((precision * hit).sum(1) / hit.sum(1)).mean())


def train_tagger(images: Tensor, truth: Tensor, *, seed: int = 0, steps: int = 2000) -> Classifier:
    """The plain way to tags: a classifier with a probability for each word, in eval mode; its logits rank words.

    The network of `inference.evaluation.samples.classifier`, by Adam on the cross-entropy of every word.

    Args:
        images: (N, *shape).
        truth: Which words an image has, booleans (N, words).
        seed: Of the weights, the order of the examples and the dropout.
        steps: Of 128 images each.
    """
    data = Data(images, truth.to(images))
    with seeded(seed):
        network = Classifier(images.shape[1:], truth.shape[1]).to(images)
        optimizer = torch.optim.Adam(network.parameters(), TAGGER_RATE)

        def step(batch: Data, now: Mapping[str, Any]) -> Mapping[str, Tensor]:
            loss = binary_cross_entropy_with_logits(network(batch.x), batch.context)
            descend(optimizer, loss, now["lr"])
            return {"loss": loss.detach()}

        parts = {"network": network, "optimizer": optimizer}
        scalars = {"lr": rate("cosine", TAGGER_RATE, steps)}
        loop = Loop(Run(data, seed=seed), Schedule(steps=steps), parts, label="tagger", step=step, scalars=scalars)
        loop.train()
    return network.eval()


@torch.no_grad()
def different_lists(draws: Tensor, vectors: Tensor) -> float:
    """Mean number of different words that the draws for one image are nearest to: 1 where all say the same.

    Args:
        draws: (S, B, E).
        vectors: (words, E).

    Raises: ShapeError.
    """
    return float((rank_by_draws(draws, vectors) > 0.5).sum(1).double().mean())


def _check(scores: Tensor, truth: Tensor) -> None:
    if scores.ndim != 2 or truth.shape != scores.shape or truth.dtype != torch.bool:
        raise ShapeError(
            f"Scores must be (B, words) and truth booleans of that shape, got {tuple(scores.shape)} and {truth.dtype} "
            f"of {tuple(truth.shape)}."
        )
