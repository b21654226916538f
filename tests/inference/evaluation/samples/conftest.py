"""Digits and quickly trained classifiers of them."""

from __future__ import annotations

import pytest

from inference.evaluation.samples.classifier import Classifier, train_classifier
from inference.evaluation.samples.judge import Networks, classifiers_for
from zoo import datasets
from zoo.datasets import Dataset


def quick(name: str) -> Classifier:
    return train_classifier(name, steps=150)


@pytest.fixture
def digits() -> Dataset:
    return datasets.load("digits")


@pytest.fixture
def networks(digits: Dataset) -> Networks:
    return classifiers_for(digits, train=quick)
