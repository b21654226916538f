"""Translations beside the truth: recognition counted by hand, distances, and the translator that remembers."""

from __future__ import annotations

import pytest
import torch

from inference.evaluation.samples.translation import (
    absolute_error,
    counterparts,
    nearest_pair,
    recognition,
    recognition_by_class,
)
from zoo import datasets
from zoo.datasets import glyphs
from zoo.errors import NonFiniteError, ShapeError

TRUTH = torch.tensor([[0.0, 0.0], [0.0, 1.0], [4.0, 0.0], [4.0, 0.0]])


def test_recognition_counts_those_nearest_to_their_own() -> None:
    made = torch.tensor([[0.1, 0.2], [0.0, 0.4], [4.0, 3.0], [3.0, 0.0]])
    found = recognition(made, TRUTH)
    # The second is nearer to the first true one; the last two true ones look the same, which both may be.
    assert found.right.tolist() == [True, False, True, True]
    assert found.nearest.tolist() == [0, 0, 2, 3]
    assert found.share == 0.75
    assert found.standard_error == pytest.approx((0.75 * 0.25 / 4) ** 0.5)
    assert (found.images, found.features) == (4, "as given")


def test_the_truth_is_recognised_and_a_blank_page_is_not() -> None:
    truth = torch.rand(30, 5, 5)
    assert recognition(truth, truth).share == 1
    blank = recognition(torch.zeros(30, 5, 5), truth)
    assert blank.share == pytest.approx(1 / 30)  # the one with the least ink
    assert recognition(truth.roll(1, 0), truth).share == 0


def test_recognition_in_features_sees_what_the_network_sees() -> None:
    class Sums(torch.nn.Module):
        """Features: how much ink there is."""

        hash = "sums"

        def describe(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1).sum(1, keepdim=True)

    truth = torch.eye(4)[:, None].repeat(1, 3, 1) * torch.arange(1.0, 5.0)[:, None, None]
    moved = truth.roll(1, 2)
    assert recognition(moved, truth).share == 0
    found = recognition(moved, truth, Sums())  # type: ignore[arg-type]
    assert (found.share, found.features) == (1, "sums")


def test_absolute_error_is_the_mean_over_pixels() -> None:
    made = torch.tensor([[[0.0, 1.0], [0.5, 0.0]], [[1.0, 1.0], [1.0, 1.0]]])
    assert absolute_error(made, torch.zeros_like(made)).tolist() == [0.375, 1.0]


def test_the_nearest_pair_answers_with_its_target() -> None:
    source, target = torch.tensor([[0.0], [10.0], [20.0]]), torch.tensor([[5.0, 1.0], [6.0, 2.0], [7.0, 3.0]])
    assert nearest_pair(torch.tensor([[12.0], [1.0]]), source, target).tolist() == [[6.0, 2.0], [5.0, 1.0]]
    with pytest.raises(ShapeError, match="3 training inputs but 2 targets"):
        nearest_pair(source, source, target[:2])


def test_what_cannot_be_judged_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"\(4, 2\) and \(3, 2\)"):
        recognition(TRUTH, TRUTH[:3])
    with pytest.raises(ShapeError, match="differ"):
        absolute_error(TRUTH, TRUTH[:, :1])
    with pytest.raises(NonFiniteError):
        recognition(TRUTH / 0, TRUTH)


def test_counterparts_are_the_same_letter_in_another_face() -> None:
    classes = torch.tensor([0, 1, 2, 2, 0, 1])
    assert counterparts(classes, "aaabbb").tolist() == [1, 2, 0, 4, 5, 3]
    assert counterparts(classes, "aaabbb", step=2).tolist() == [2, 0, 1, 5, 3, 4]
    with pytest.raises(ShapeError, match="6 examples are not 2 items in 3 classes"):
        counterparts(classes, "aaabba")
    letters, names = datasets.load("glyphs"), glyphs.characters("glyphs")["test"]
    rows = counterparts(letters.labels["test"], names, step=4)
    assert sorted(rows.tolist()) == list(range(letters.test.size))
    assert [names[row] for row in rows] == names


def test_recognition_within_a_class_has_fewer_candidates() -> None:
    truth, classes = torch.tensor([[0.0], [1.0], [0.2], [5.0]]), torch.tensor([0, 0, 1, 1])
    made = torch.tensor([[0.15], [1.0], [0.2], [2.0]])
    found = recognition_by_class(made, truth, classes)
    assert found.right.tolist() == [True, True, True, False]
    assert found.nearest.tolist() == [0, 1, 2, 2]
    assert found.share == 0.75
    assert recognition(made, truth).right.tolist() == [False, True, True, False]
