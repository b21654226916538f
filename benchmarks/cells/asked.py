"""What a saved fit answers when it is asked for something, by the scores of its kind of cell.

Captions, puzzles and tags have scores of their own, beside those of samples. For another kind add it to `asked_scores`.
"""

from __future__ import annotations

import torch

from benchmarks.cells import captions, completions, tags
from benchmarks.metrics import Measurement
from inference.evaluation.samples.judge import draw_answers
from inference.evaluation.samples.tags import different_lists, rank_by_draws
from inference.fitted import Fit
from zoo.datasets import Data, Dataset
from zoo.datasets.tags import glyph_vectors
from zoo.implicit.puzzle import PuzzleGAN
from zoo.implicit.tags import TagGAN

__all__ = ["asked_scores"]

COMPLETIONS, TAGS = 10, 100
"""How many completions of a puzzle, and vectors of words of an image."""


def asked_scores(found: Fit, dataset: Dataset, split: str, samples: Data, seed: int = 0) -> list[Measurement]:
    """Scores of what was asked for; none where the scores of samples say it all.

    Args:
        found: The fit.
        dataset: What it is compared with.
        split: Of the data set.
        samples: As drawn for the contexts of the split.
        seed: Of what is drawn besides.
    """
    if dataset.card.context_kind == "caption":
        return [captions.retrieval(samples, dataset, seed=seed)]
    if isinstance(found.program, PuzzleGAN):
        return _completed(found, dataset, split, seed)
    if isinstance(found.program, TagGAN) and dataset.name == "glyphs-tags":
        return _tagged(found, split, seed)
    return []


def _completed(found: Fit, dataset: Dataset, split: str, seed: int) -> list[Measurement]:
    x, context, known = completions.puzzles(dataset, split)
    answers = draw_answers(found.program, context, COMPLETIONS, seed)
    how = f"{len(x)} {split} images, {COMPLETIONS} completions of each"
    return completions.compared(answers, x, known, dataset.train.x, how=how)


def _tagged(found: Fit, split: str, seed: int) -> list[Measurement]:
    images, truth = tags.tagged(split)
    answers = draw_answers(found.program, images, TAGS, seed)
    vectors = torch.tensor(glyph_vectors()).to(answers)
    how = f"{len(images)} {split} images, {TAGS} draws of each"
    lists = Measurement("tag_lists", different_lists(answers, vectors), how=how)
    return [*tags.ranked(rank_by_draws(answers, vectors), truth, how=how), lists]
