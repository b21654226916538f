"""Does an image show what its caption says? The right caption is looked for among others.

Who looks has learned from real training pairs alone, from a seed of its own, and shares nothing with the generator
(`caption_scorer`: a joint embedding, as of Reed et al., CVPR 2016). Three numbers go beside the score: chance, that of
real images of the same captions, which is the most that this judge can see, and that of a generator that has no
imagination and shows a training image of the caption that shares most words (`nearest_captions`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from inference.environment import seeded
from inference.evaluation.samples.quality import checked
from zoo.datasets import Data, Dataset
from zoo.errors import OptionError, ShapeError
from zoo.implicit.joint_embedding import CaptionEncoder, JointEmbedding

__all__ = ["CaptionRetrieval", "caption_retrieval", "caption_scorer", "nearest_captions"]

SEED, STEPS = 1000, 1000
"""Of the scorer: a seed that no fit is likely to have."""


@dataclass(frozen=True)
class CaptionRetrieval:
    """How many images are told by their caption."""

    accuracy: float
    standard_error: float
    """Over captions, since images of one caption stand or fall together."""
    by_caption: Tensor
    """(C,), of each of the different captions, in the order of `captions`."""
    captions: Tensor
    """(C, L)."""
    candidates: int
    samples: int

    @property
    def chance(self) -> float:
        """Of somebody who guesses."""
        return 1 / self.candidates


@torch.no_grad()
def caption_retrieval(
    samples: Data, score: Callable[[Tensor, Tensor], Tensor], candidates: int = 100, seed: int = 0
) -> CaptionRetrieval:
    """Share of images whose own caption scores above all of the others it is put among; a tie is no success.

    It sees whether what was asked for can be told from what others asked for. It does not see whether images of a
    caption differ, nor whether they look real to anyone but the scorer.

    Args:
        samples: Images (n, *event_shape) and the captions (n, L) that they were made for.
        score: Images (n, *event_shape), captions (C, L) -> (n, C), larger where they fit.
        candidates: The right caption and so many less one of the other captions of the samples, drawn anew for each
            image; if there are fewer, all.
        seed: Of the draw.

    Raises: OptionError where there are no two captions; ShapeError without captions.
    """
    if samples.context is None or samples.context.ndim != 2:
        raise ShapeError("Images are looked up by their captions (n, L), and there are none.")
    captions, own = torch.unique(samples.context, dim=0, return_inverse=True)
    candidates = min(candidates, len(captions))
    if candidates < 2:
        raise OptionError(f"The right caption needs another one beside it, got {len(captions)} captions.")
    scores = score(checked(samples.x), captions).double().cpu()
    own = own.cpu()[:, None]
    mine = scores.gather(1, own)
    generator = torch.Generator().manual_seed(seed)
    # The others in a random order: its first places are a draw without replacement.
    order = torch.rand(scores.shape, generator=generator).scatter(1, own, 2.0).argsort(1)[:, : candidates - 1]
    right = (mine > scores.gather(1, order)).all(1).double()
    by_caption = torch.zeros(len(captions), dtype=torch.float64).scatter_reduce(
        0, own[:, 0], right, "mean", include_self=False
    )
    return CaptionRetrieval(
        accuracy=float(right.mean()),
        standard_error=float(by_caption.std() / math.sqrt(len(by_caption))),
        by_caption=by_caption,
        captions=captions,
        candidates=candidates,
        samples=len(right),
    )


def caption_scorer(dataset: Dataset, *, seed: int = SEED, steps: int = STEPS) -> JointEmbedding:
    """A joint embedding of the training images and their captions, in eval mode; its `similarity` is a score.

    Args:
        dataset: Of images and captions; its card has the words.
        seed: Another one than the generator's encoder had.
        steps: Of 128 pairs each.

    Raises: ShapeError where the contexts are no captions.
    """
    if dataset.card.context_kind != "caption":
        raise ShapeError(f"The contexts of {dataset.name!r} are no captions.")
    x, captions = dataset.train
    with seeded(seed):
        scorer = JointEmbedding(CaptionEncoder(len(dataset.card.context_names), 64, 64), x.shape[1:]).to(x)
        scorer.learn(x, captions, steps)
    return scorer.eval()


def nearest_captions(captions: Tensor, train: Tensor) -> Tensor:
    """For each caption (n, L) the first training caption (m, L') that shares most words with it: its row, (n,).

    Shared words over words of either (Jaccard); order and repetition do not count.
    """
    words = 1 + int(max(captions.max(), train.max()))

    def bags(rows: Tensor) -> Tensor:
        bag = torch.zeros(len(rows), words, dtype=torch.float64).scatter(1, rows.long().cpu(), 1.0)
        return bag[:, 1:]

    ours, theirs = bags(captions), bags(train)
    shared = ours @ theirs.T
    return (shared / (ours.sum(1, keepdim=True) + theirs.sum(1) - shared).clamp(min=1)).argmax(1)
