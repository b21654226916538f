"""Sounds as what is heard when, so that whoever looks at images can judge them.

Two takes of a word are never alike sample by sample, and a phase is not heard: distances of waveforms say little.
Donahue, McAuley & Puckette, "Adversarial audio synthesis", ICLR 2019, judge theirs by a classifier of spectrograms; so
does this.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from zoo.datasets import Data, Dataset, base_name
from zoo.datasets.audio import amplitudes, spectrogram
from zoo.datasets.data import Card
from zoo.errors import OptionError

__all__ = ["heard", "spectrograms"]


def spectrograms(dataset: Dataset) -> Dataset:
    """A data set of sounds as images in [0, 1], (bands, columns), with the same contexts and labels.

    Raises: OptionError where the examples are no sounds.
    """
    card = dataset.card
    if not card.rate:
        raise OptionError(f"{dataset.name!r} has no rate on its card: its examples are no sounds.")
    train, valid, test = (heard(split, card) for split in (dataset.train, dataset.valid, dataset.test))
    shape = tuple(train.x.shape[1:])
    # Of the base, so that data with and without labels as contexts share a classifier.
    seen = replace(card, name=f"{base_name(card.name)}-spectrogram", shape=shape, support="unit", rate=0, levels=0)
    return Dataset(seen, train=train, valid=valid, test=test, labels=dataset.labels)


def heard(sounds: Data, card: Card) -> Data:
    """Spectrograms of sounds as they are in the data of a card, with their contexts."""
    x: Tensor = spectrogram(amplitudes(sounds.x, card.levels), card.rate)
    return Data(x, sounds.context)
