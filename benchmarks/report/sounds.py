"""Sounds that a generator made: one file to listen to, or a sheet of their spectrograms to look at."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from benchmarks.report.plots import image_sheet
from zoo.datasets.audio import amplitudes, spectrogram, write_wav

__all__ = ["write_sounds"]

PAUSE = 0.25
"""Seconds between two sounds."""


def write_sounds(path: Path, sounds: Tensor, rate: int, levels: int = 0) -> None:
    """Writes sounds as a .wav file, one after the other with a pause between, or as a .png of their spectrograms.

    Args:
        path: Ends in .wav or .png.
        sounds: Amplitudes (n, samples) in [-1, 1]; what is beyond is cut off. Or levels.
        rate: Samples a second.
        levels: How many there are, if sounds are given as such.
    """
    sounds = amplitudes(sounds, levels)
    if path.suffix == ".png":
        image_sheet(spectrogram(sounds, rate).cpu().numpy(), path)
        return
    apart = torch.nn.functional.pad(sounds, (0, round(PAUSE * rate)))
    write_wav(path, apart.flatten()[: apart.numel() - round(PAUSE * rate)], rate)
