"""Sounds are judged by their spectrograms: on tones, whose pitch is their class."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import one_hot

from inference.evaluation.samples.classifier import train_classifier
from inference.evaluation.samples.judge import classifiers_for, judge
from inference.evaluation.samples.sounds import heard, spectrograms
from zoo import datasets
from zoo.datasets import Data, Dataset
from zoo.datasets.audio import spectrogram, to_levels
from zoo.errors import OptionError, ShapeError

RATE, SAMPLES, CLASSES = 1000, 256, 3


def tones(n: int) -> tuple[Data, torch.Tensor]:
    labels = torch.arange(n) % CLASSES
    frequency = torch.tensor([100.0, 200.0, 350.0])[labels] * (1 + 0.05 * torch.randn(n))
    time = torch.arange(SAMPLES) / RATE
    x = 0.9 * torch.sin(2 * math.pi * (frequency[:, None] * time + torch.rand(n, 1)))
    return Data(x, one_hot(labels, CLASSES).to(x)), labels


@pytest.fixture
def sounds() -> Dataset:
    made = {split: tones(n) for split, n in (("train", 300), ("valid", 60), ("test", 60))}
    plain = Dataset.of(*(data for data, _ in made.values()), name="tones")
    labels = {split: labels for split, (_, labels) in made.items()}
    return replace(plain, card=replace(plain.card, rate=RATE, classes=CLASSES), labels=labels)


def test_the_shortest_sound_is_one_window() -> None:
    assert spectrogram(torch.randn(2, 512), 8000).shape[0] == 2
    with pytest.raises(ShapeError, match="at least 512 samples"):
        spectrogram(torch.randn(2, 511), 8000)


def test_spectrograms_keep_contexts_and_labels(sounds: Dataset) -> None:
    seen = spectrograms(sounds)
    assert torch.equal(seen.test.x, spectrogram(sounds.test.x, RATE))
    assert torch.equal(seen.test.context, sounds.test.context)
    assert torch.equal(heard(sounds.valid, sounds.card).x, seen.valid.x)
    assert seen.labels is sounds.labels
    fine = 2**16
    companded = heard(Data(to_levels(sounds.valid.x, fine)), replace(sounds.card, levels=fine))
    assert float((companded.x - seen.valid.x).abs().mean()) < 1e-2  # as loud as rounding is
    assert (seen.card.shape, seen.card.support, seen.card.rate) == (tuple(seen.train.x.shape[1:]), "unit", 0)
    with pytest.raises(OptionError, match="'digits' has no rate"):
        spectrograms(datasets.load("digits"))


def test_a_generator_of_sounds_is_judged_by_ear(sounds: Dataset) -> None:
    networks = classifiers_for(sounds, train=lambda data: train_classifier(data, steps=100, cache=False))
    assert networks["classifier"].training_of.test_accuracy > 0.95
    # The same tones with another phase are as good as the test data, though no sample is alike.
    other, _ = tones(60)
    good = judge(other, sounds, **networks)
    assert good["class_accuracy"].value > 0.9
    assert good["inception"].value > 2.5
    assert good["memorisation"].value == pytest.approx(1, abs=0.5)
    assert "as spectrograms" in good.how
    assert "frechet_grey" not in good.scores
    # One tone, whatever was asked for.
    dull = judge(Data(other.x[:1].repeat(60, 1), other.context), sounds, **networks)
    assert dull["class_accuracy"].value == pytest.approx(1 / CLASSES)
    assert dull["inception"].value == pytest.approx(1)
    assert dull["classes"].value == 1
    assert dull["frechet"].value > 10 * good["frechet"].value
    assert judge(other, sounds)["frechet"].value is None  # nobody who listens
