"""Spoken digits: windows of mu-law levels, which WaveNet is tried on, and whole takes, for WaveGAN.

Jackson et al., the Free Spoken Digit Dataset: six speakers, ten digits, fifty takes of each, 8 kHz.
"""

from __future__ import annotations

import tarfile
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch

from zoo.datasets.audio import read_wav, to_levels
from zoo.datasets.data import File
from zoo.datasets.remote import converted
from zoo.datasets.sources import fetch
from zoo.datasets.splits import SPLITS, Splits

__all__ = ["LEVELS", "RATE", "SPOKEN_DIGITS", "TAKE", "WINDOW", "recordings", "spoken_digits", "whole_takes"]

Array = np.ndarray[Any, Any]

RATE = 8000
"""Samples a second."""
WINDOW = 1024
"""Samples of a window, an eighth of a second."""
LEVELS = 256
"""Of mu-law, numbers from 0 to 255."""
TAKE = 8192
"""Samples of a whole take, longer than all but 17 of 3,000, whose ends are cut off."""

# The hash of the archive is that of `git archive` of the tag through `gzip -n`, which is how GitHub makes its own; this
# archive itself could not be downloaded to see that it is so.
SPOKEN_DIGITS = (
    File("spoken_digits.npz", "a26f18ce97c39c11d13ed2308295eb15200487dcba9646cf97bfb198e0610bf9"),
    File(
        "spoken_digits/free-spoken-digit-dataset-1.0.10.tar.gz",
        "feb479fad3a37883c3d21ed7f982281c2dd1c18d5aefd7e8a5d50f58023392aa",
        ("https://github.com/Jakobovski/free-spoken-digit-dataset/archive/v1.0.10.tar.gz",),
    ),
)


def spoken_digits() -> Splits:
    """Windows of levels, given the digit one-hot."""
    compact, *archive = SPOKEN_DIGITS
    found = converted(compact, lambda: recordings(*fetch(archive, compact)))
    whole = found["lengths"] // WINDOW
    starts = np.cumsum(found["lengths"]) - found["lengths"]
    # Each window by its first sample; the windows of a recording follow each other.
    first = np.concatenate([start + WINDOW * np.arange(n) for start, n in zip(starts, whole, strict=True)])
    split, label = (np.repeat(found[name], whole) for name in ("split", "labels"))
    levels = _levels(found["audio"])
    windows = np.lib.stride_tricks.sliding_window_view(levels, WINDOW)
    digit = np.eye(10, dtype=np.uint8)
    rows = {name: np.flatnonzero(split == i) for i, name in enumerate(SPLITS)}
    return Splits(
        {name: windows[first[index]] for name, index in rows.items()},
        context={name: digit[label[index]] for name, index in rows.items()},
        scale=LEVELS - 1,
    )


def whole_takes(slower: int = 1, levels: int = 0) -> Splits:
    """Takes from their start, then silence, as amplitudes of at most 1 or as levels; labels are the digits.

    Speakers sat at other distances from other microphones: every take is scaled to a largest amplitude of 1.

    Args:
        slower: Keeps one of so many samples, after a low-pass filter.
        levels: How many levels of mu-law; 0 for amplitudes as they are.
    """
    compact, *archive = SPOKEN_DIGITS
    found = converted(compact, lambda: recordings(*fetch(archive, compact)))
    takes = np.zeros((len(found["lengths"]), TAKE), np.float32)
    for row, take in zip(takes, np.split(found["audio"], np.cumsum(found["lengths"])[:-1]), strict=True):
        row[: len(take)] = take[:TAKE]
    if slower > 1:
        from scipy.signal import resample_poly  # slow to import

        takes = resample_poly(takes, 1, slower, axis=1)
    takes /= np.abs(takes).max(1, keepdims=True)
    if levels:
        takes = to_levels(torch.from_numpy(takes), levels).numpy()
    rows = {name: found["split"] == i for i, name in enumerate(SPLITS)}
    return Splits(
        {name: takes[index] for name, index in rows.items()},
        labels={name: found["labels"][index] for name, index in rows.items()},
    )


def recordings(path: Path) -> dict[str, Array]:
    """The archive's recordings/DIGIT_SPEAKER_TAKE.wav, in the order of names -> what the compact file holds.

    Takes 0 to 4 are the data set's own test split (2); takes 5 to 9 serve as validation (1).
    """
    found = {}
    with tarfile.open(path) as archive:
        for member in archive:
            name = PurePosixPath(member.name)
            if name.suffix == ".wav" and name.parent.name == "recordings":
                file = archive.extractfile(member)
                assert file is not None  # a regular file
                found[name.stem] = _sixteen_bits(read_wav(file)[0])
    names = sorted(found, key=lambda stem: f"{stem}.wav")
    labels, speakers, takes = zip(*(name.split("_") for name in names), strict=True)
    take = np.array(takes, np.uint8)
    return {
        "audio": np.concatenate([found[name] for name in names]),
        "lengths": np.array([len(found[name]) for name in names], np.int32),
        "labels": np.array(labels, np.uint8),
        "speakers": np.searchsorted(sorted(set(speakers)), speakers).astype(np.uint8),
        "takes": take,
        "split": np.where(take < 5, 2, np.where(take < 10, 1, 0)).astype(np.uint8),
    }


def _sixteen_bits(waveform: torch.Tensor) -> Array:
    return (waveform.numpy() * 32768).astype(np.int16)


def _levels(audio: Array) -> Array:
    """16 bits to bytes 0 to 255, by a table of all amplitudes there are."""
    every = torch.arange(-32768, 32768, dtype=torch.float64) / 32768
    table = (to_levels(every) * 255).round().to(torch.uint8).numpy()
    return table[audio.astype(np.int32) + 32768]
