"""What was asked for is seen by a context's kind: classes, attributes that follow from classes, true translations."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from inference.evaluation.samples.condition import attributes_of_classes, condition_scores
from zoo.datasets import Data, Dataset

LOOKS = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
"""Attributes of three classes."""


class Brightest:
    """A classifier whose classes are as likely as their pixels are bright."""

    classes, training_of, hash = 3, None, "brightest"

    def classify(self, x: Tensor) -> Tensor:
        return x.argmax(1)

    def log_probabilities(self, x: Tensor) -> Tensor:
        return (x / x.sum(1, keepdim=True)).log()


def attributes_data() -> Dataset:
    labels = torch.arange(30) % 3
    dataset = Dataset.of((torch.eye(3)[labels], LOOKS[labels]), *2 * [(torch.eye(3), LOOKS)])
    card = replace(dataset.card, context_kind="attributes", context_names=("tall", "wide"))
    return replace(dataset, card=card, labels={"train": labels})


def translations() -> Dataset:
    x, context = torch.rand(8, 4), torch.rand(8, 4)
    dataset = Dataset.of((x, context), (x, context), (x, context))
    return replace(dataset, card=replace(dataset.card, context_kind="image"))


def test_the_worst_attribute_is_scored() -> None:
    samples = Data(torch.eye(3)[[0, 1, 2, 1]], LOOKS[[0, 1, 2, 0]])  # the last is of the wrong class: neither is right
    samples = Data(torch.cat([samples.x, torch.eye(3)[[2]]]), torch.cat([samples.context, LOOKS[[0]]]))  # wide, unasked
    found = condition_scores(samples, attributes_data(), "test", Brightest(), how="five")["attribute_accuracy"]  # type: ignore[arg-type]
    assert found.value == pytest.approx(3 / 5)
    assert "tall 0.800 (1.000 of real ones), wide 0.600 (1.000 of real ones)" in found.how
    assert found.standard_error == pytest.approx((0.6 * 0.4 / 5) ** 0.5)


def test_an_attribute_is_seen_where_the_classes_that_have_it_are_likelier_together() -> None:
    # Tall are the first and the third class: 0.3 + 0.3, though the second, 0.4, is the likeliest of all. Wide: 0.7.
    samples = Data(torch.tensor([[0.3, 0.4, 0.3]]), torch.tensor([[1.0, 1.0]]))
    found = condition_scores(samples, attributes_data(), "test", Brightest())["attribute_accuracy"]  # type: ignore[arg-type]
    assert found.value == 1


def test_attributes_follow_from_classes_or_there_are_none() -> None:
    dataset = attributes_data()
    table = attributes_of_classes(dataset)
    assert table is not None
    assert torch.equal(table, LOOKS)
    torn = replace(dataset, train=Data(dataset.train.x, dataset.train.context.roll(1, 0)))
    assert attributes_of_classes(torn) is not None  # other attributes, and each class has its own
    mixed = dataset.train.context.clone()
    mixed[0] = 1 - mixed[0]
    torn = replace(dataset, train=Data(dataset.train.x, mixed))
    assert attributes_of_classes(torn) is None
    score = condition_scores(torn.train, torn, "test", Brightest())["attribute_accuracy"]  # type: ignore[arg-type]
    assert score.value is None


def test_translations_are_compared_with_the_answers_in_their_order() -> None:
    dataset = translations()
    truth, context = dataset.test
    found = condition_scores(Data(truth, context), dataset, "test")
    assert (found["recognition"].value, found["pixel_error"].value) == (1, 0)
    copied = condition_scores(Data(truth + 0.25, context), dataset, "test")
    assert copied["pixel_error"].value == pytest.approx(0.25)
    for other in (Data(truth[:5], context[:5]), Data(truth, context.flip(0)), Data(truth)):
        assert condition_scores(other, dataset, "test")["recognition"].value is None


def test_without_pairs_no_answer_is_right() -> None:
    dataset = translations()
    torn = replace(dataset, card=replace(dataset.card, unpaired=("train", "test")))
    found = condition_scores(Data(*torn.test), torn, "test")
    assert all(score.value is None and "no answers to its contexts" in score.how for score in found.values())
    assert condition_scores(Data(*torn.valid), torn, "valid")["recognition"].value == 1


def test_a_class_is_asked_for_one_hot() -> None:
    x = torch.eye(3)
    dataset = Dataset.of((x, x), (x, x), (x, x))
    samples = Data(x[[0, 1, 1, 2]], x[[0, 1, 2, 2]])
    score = condition_scores(samples, dataset, "test", Brightest())["class_accuracy"]  # type: ignore[arg-type]
    assert score.value == 0.75
    assert condition_scores(samples, dataset, "test") == {}
    for context in (None, LOOKS[[0, 1, 2, 0]]):
        assert condition_scores(Data(samples.x, context), dataset, "test", Brightest())["class_accuracy"].value is None  # type: ignore[arg-type]
