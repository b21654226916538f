"""Retrieval of captions: by hand where the scores are given, by counting where they are random."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from scipy import stats

from inference.evaluation.samples.captions import caption_retrieval, caption_scorer, nearest_captions
from tests.conftest import FAILURE_RATE
from zoo import datasets
from zoo.datasets import Data, Dataset
from zoo.errors import OptionError, ShapeError


def reads(x: torch.Tensor, captions: torch.Tensor) -> torch.Tensor:
    """Images of one pixel that is the first word of their caption."""
    return -(x[:, 0, :1] - captions[:, 0]).abs()


def test_retrieval_by_hand() -> None:
    captions = torch.tensor([[1.0, 0], [1, 0], [2, 0], [5, 3]])
    shown = torch.tensor([1.0, 2.0, 2.1, 1.4])  # the second shows 2 and the fourth 1, which others asked for
    found = caption_retrieval(Data(shown[:, None, None], captions), reads)
    assert found.accuracy == 0.5
    assert found.captions.tolist() == [[1, 0], [2, 0], [5, 3]]
    assert found.by_caption.tolist() == [0.5, 1, 0]
    assert found.standard_error == pytest.approx(0.5 / math.sqrt(3))
    assert (found.candidates, found.samples, found.chance) == (3, 4, 1 / 3)


def test_a_tie_is_no_success() -> None:
    captions = torch.tensor([[1.0], [2.0]])
    found = caption_retrieval(Data(torch.tensor([1.5, 2.0])[:, None, None], captions), reads)
    assert found.by_caption.tolist() == [0, 1]


def test_guesses_are_right_by_chance() -> None:
    n, candidates = 4000, 5
    captions = torch.arange(n)[:, None] % 20 + 1.0
    scores = torch.rand(n, 20)
    # Candidates from another seed than the scores.
    found = caption_retrieval(Data(torch.zeros(n, 1, 1), captions), lambda x, c: scores, candidates=candidates, seed=91)
    error = math.sqrt(found.chance * (1 - found.chance) / n)
    assert found.chance == 0.2
    assert abs(found.accuracy - found.chance) < stats.norm.isf(FAILURE_RATE / 2) * error


def test_fewer_candidates_are_easier() -> None:
    """An image whose caption comes second of ten is found among two of them in eight draws of nine."""
    n = 3000
    captions = torch.arange(n)[:, None] % 10 + 1.0
    second = lambda x, c: 9 - (c[:, 0] - (x[:, 0, :1] - 1)) % 10  # noqa: E731 (the caption before has the best score)
    data = Data(captions[:, :, None], captions)
    assert caption_retrieval(data, second).accuracy == 0
    found = caption_retrieval(data, second, candidates=2).accuracy
    assert abs(found - 8 / 9) < stats.norm.isf(FAILURE_RATE / 2) * math.sqrt(8 / 81 / n)


def test_nearest_captions_share_most_words() -> None:
    train = torch.tensor([[1, 2, 3, 0], [1, 4, 0, 0], [5, 6, 7, 8]])
    asked = torch.tensor([[3, 2, 0], [4, 1, 9], [8, 8, 8]])
    assert nearest_captions(asked, train).tolist() == [0, 1, 2]
    # One word of two is more than two of six.
    assert nearest_captions(torch.tensor([[1, 2]]), torch.tensor([[1, 2, 3, 4, 5, 6], [1, 0, 0, 0, 0, 0]])).item() == 1


def test_a_scorer_of_real_pairs_tells_squares_by_their_words() -> None:
    """The words say which of four corners is white; the third word is of no matter."""
    corner = torch.arange(200) % 4
    x = 0.1 * torch.rand(200, 8, 8)
    for place, (i, j) in enumerate([(0, 0), (0, 4), (4, 0), (4, 4)]):
        x[corner == place, i : i + 4, j : j + 4] += 0.8
    captions = torch.stack([1.0 + corner // 2, 3.0 + corner % 2, torch.zeros(200)], 1)
    plain = Dataset.of((x, captions))
    names = ("", "upper", "lower", "left", "right")
    dataset = replace(plain, card=replace(plain.card, context_kind="caption", context_names=names))
    scorer = caption_scorer(dataset, steps=40)
    assert caption_retrieval(dataset.train, scorer.similarity).accuracy == 1
    wrong = Data(x, captions.roll(1, 0))
    assert caption_retrieval(wrong, scorer.similarity).accuracy == 0


def test_what_has_no_captions_is_refused() -> None:
    with pytest.raises(ShapeError, match="no captions"):
        caption_scorer(datasets.load("digits"))
    with pytest.raises(ShapeError, match="there are none"):
        caption_retrieval(Data(torch.zeros(3, 1, 1)), reads)
    with pytest.raises(OptionError, match="got 1 captions"):
        caption_retrieval(Data(torch.zeros(3, 1, 1), torch.ones(3, 1)), reads)
