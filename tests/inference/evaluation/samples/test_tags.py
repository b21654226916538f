"""Scores of tags, by hand."""

from __future__ import annotations

import pytest
import torch

from inference.evaluation.samples.tags import (
    different_lists,
    mean_average_precision,
    precision_at,
    rank_by_draws,
    train_tagger,
)
from zoo.errors import OptionError, ShapeError

VECTORS = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0], [-1.0, 0.0]], dtype=torch.float64)
"""Number 0 is no word."""
DRAWS = torch.tensor([[[3.0, 1.0]], [[1.0, 0.5]], [[0.1, 1.0]]], dtype=torch.float64)
"""Of one image; nearest to 1, 1 and 2 by cosine, whatever their lengths."""


def test_words_are_ranked_by_how_often_they_are_nearest() -> None:
    scores = rank_by_draws(DRAWS, VECTORS)
    assert scores[0].round().tolist()[1:] == [2.0, 1.0, 0.0]
    assert scores[0].argsort(descending=True).tolist() == [1, 2, 3, 0]
    assert different_lists(DRAWS, VECTORS) == 2.0


def test_each_draw_can_count_for_several() -> None:
    # The second nearest are 2, 2 and 1.
    assert rank_by_draws(DRAWS, VECTORS, 2)[0].round().tolist()[1:] == [3.0, 3.0, 0.0]


def test_equals_are_told_apart_by_their_cosine_to_the_draws() -> None:
    draws = torch.tensor([[[1.0, 0.0]], [[0.3, 1.0]]])
    one, two = rank_by_draws(draws, VECTORS)[0, 1:3]
    cosine = 0.3 / 1.09**0.5, 1 / 1.09**0.5
    assert float(one) == pytest.approx(1 + (1 + cosine[0]) / 6)
    assert float(two) == pytest.approx(1 + cosine[1] / 6)


TRUTH = torch.tensor([[True, False, True, False], [False, True, False, False], [False, False, False, False]])
SCORES = torch.tensor([[0.9, 0.8, 0.7, 0.1], [0.5, 0.4, 0.3, 0.6], [0.1, 0.2, 0.3, 0.4]], dtype=torch.float64)


def test_precision() -> None:
    assert precision_at(SCORES, TRUTH, 1) == pytest.approx(1 / 3)
    assert precision_at(SCORES, TRUTH, 3) == pytest.approx((2 / 3 + 1 / 3 + 0) / 3)
    assert precision_at(TRUTH.double(), TRUTH, 2) == pytest.approx((1 + 0.5 + 0) / 3)


def test_average_precision() -> None:
    # Ranks 1 and 3; rank 3; the third image has no words.
    assert mean_average_precision(SCORES, TRUTH) == pytest.approx(((1 + 2 / 3) / 2 + 1 / 3) / 2)
    assert mean_average_precision(TRUTH.double(), TRUTH) == 1.0
    # Equal scores in the order of the words.
    assert mean_average_precision(torch.zeros(1, 4), TRUTH[1:2]) == pytest.approx(1 / 2)


def test_bad_questions() -> None:
    with pytest.raises(ShapeError, match="must agree in E"):
        rank_by_draws(DRAWS, VECTORS[:, :1])
    with pytest.raises(OptionError, match="at most the 3 words"):
        rank_by_draws(DRAWS, VECTORS, 4)
    with pytest.raises(OptionError, match="at most the 4 words"):
        precision_at(SCORES, TRUTH, 5)
    with pytest.raises(ShapeError, match="booleans of that shape"):
        mean_average_precision(SCORES, TRUTH.double())


def test_the_plain_tagger_learns_what_is_there() -> None:
    torch.manual_seed(0)
    truth = torch.rand(300, 3) < 0.4
    images = 0.1 * torch.rand(300, 8, 8)
    images[:, 1:7:2] += truth.float()[:, :, None].expand(-1, -1, 8)  # a row of ink for each word
    tagger = train_tagger(images[:200], truth[:200], steps=120)
    with torch.no_grad():
        ranks = tagger(images[200:])
    assert ((ranks > 0) == truth[200:]).double().mean() > 0.95
    again = train_tagger(images[:200], truth[:200], steps=3), train_tagger(images[:200], truth[:200], steps=3)
    assert again[0].sha256 == again[1].sha256
