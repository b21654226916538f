"""Cells of kind 'tags': words for held-out images, ranked, beside the words of their names.

A program draws vectors of words for an image, which rank words by how often they are the nearest. Programs that are
none are yardsticks: 'common-words', one ranking for all, and 'multi-label', a classifier with a probability for each
word.

Options of the evaluation: `draws` for each image (100); `tagger_steps` (2000) of the classifier.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.cells import latents
from benchmarks.cells.fitting import fit_cell
from benchmarks.cells.samples import of_the_fit
from benchmarks.metrics import Measurement
from benchmarks.suite import Cell, file_name
from inference.evaluation.samples.judge import draw_answers
from inference.evaluation.samples.tags import (
    different_lists,
    mean_average_precision,
    precision_at,
    rank_by_draws,
    train_tagger,
)
from zoo import datasets
from zoo.datasets import Data
from zoo.datasets.letter_names import WORDS
from zoo.datasets.tags import glyph_vectors, named

__all__ = ["YARDSTICKS", "measure", "ranked", "tagged"]

Array = np.ndarray[Any, Any]

SHOWN, LISTS, LENGTH = 24, 3, 5


def measure(cell: Cell, artifacts: Path, device: str) -> list[Measurement]:
    """Fits, ranks words for each image, compares with its own; leaves images with several lists of tags."""
    dataset = datasets.load(cell.dataset)
    images, truth = tagged(cell.split)
    found = None if cell.program.name in YARDSTICKS else fit_cell(cell, dataset, device)
    vectors, count = torch.tensor(glyph_vectors()), int(cell.evaluation.get("draws", 100))
    how = f"{len(images)} {cell.split} images of letters, {len(WORDS) - 1} words"
    measured, columns = [], dict[str, Array]()
    if found is None:
        ranks = YARDSTICKS[cell.program.name](cell, images)
    else:
        draws = draw_answers(found.program, images, count, cell.seed + 1)
        ranks, how = rank_by_draws(draws, vectors.to(draws)), f"{how}, {count} draws of each"
        measured += [Measurement("tag_lists", different_lists(draws, vectors.to(draws)), how=how), *of_the_fit(found)]
        columns = {"captions": _lists(draws, vectors.to(draws))} | latents.history_arrays(found.history)
    measured += ranked(ranks, truth, how=how)
    shown = images[_rows(len(images))]
    columns |= {"samples": shown.numpy(), "data": shown.numpy()}
    np.savez_compressed(artifacts / f"{file_name(cell.key)}.npz", **columns)  # type: ignore[arg-type]
    return [m for m in measured if m.metric in cell.metrics]


def ranked(ranks: Tensor, truth: Tensor, *, how: str) -> list[Measurement]:
    """Scores of words (B, words) beside the words that are meant, booleans (B, words)."""
    best = precision_at(truth.double(), truth)
    return [
        Measurement("tag_precision", precision_at(ranks, truth), how=f"{how}; {best:.3f} at most"),
        Measurement("tag_map", mean_average_precision(ranks, truth), how=how),
    ]


def tagged(split: str) -> tuple[Tensor, Tensor]:
    """Images of letters (B, 32, 32) and which words their names have, booleans (B, words)."""
    x, captions = datasets.load("glyphs-captions").split(split)
    return x, torch.tensor(named(captions.long().numpy(), len(WORDS)))


def _common(cell: Cell, images: Tensor) -> Tensor:
    return tagged("train")[1].double().mean(0).expand(len(images), -1)


def _multi_label(cell: Cell, images: Tensor) -> Tensor:
    train = Data(*tagged("train"))
    network = train_tagger(*train, seed=cell.seed, steps=int(cell.evaluation.get("tagger_steps", 2000)))
    with torch.no_grad():
        return torch.cat([network(rows) for rows in images.split(500)])


YARDSTICKS: dict[str, Callable[[Cell, Tensor], Tensor]] = {"common-words": _common, "multi-label": _multi_label}
"""Names of programs that are none -> scores of words (B, words)."""


def _rows(n: int) -> Tensor:
    return torch.arange(n)[:: max(1, n // SHOWN)][:SHOWN]


def _lists(draws: Tensor, vectors: Tensor) -> Array:
    """Several lists of tags for some images, each from a part of the draws, one to a line."""
    rows = _rows(draws.shape[1])
    parts = draws[:, rows].chunk(LISTS)
    lists = [rank_by_draws(part, vectors).topk(LENGTH).indices for part in parts]
    texts = [" / ".join(" ".join(WORDS[int(k)] for k in ranks[i]) for ranks in lists) for i in range(len(rows))]
    return np.array(texts)
