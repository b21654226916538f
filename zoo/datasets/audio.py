r"""Sound on its way to levels and back: mu-law companding, as in WaveNet, and files in the format WAVE.

ITU-T recommendation G.711; van den Oord et al., "WaveNet: a generative model for raw audio", 2016 (section 2.2).

    f(w) = sign(w) log(1 + mu |w|) / log(1 + mu),   -1 <= w <= 1,   mu = values - 1

f(w) in [-1, 1] is rounded to levels 0, 1/mu, ..., 1, which programs take as x: fine steps near silence, coarse ones
where it is loud.
"""

from __future__ import annotations

import os
import wave
from typing import IO

import numpy as np
import torch
from torch import Tensor

from zoo.errors import DatasetError, OptionError, ShapeError

__all__ = [
    "amplitudes",
    "compress",
    "edges",
    "expand",
    "from_levels",
    "read_wav",
    "spectrogram",
    "to_levels",
    "write_wav",
]

FULL = 32768
"""What an amplitude of one is in 16 bits."""

# Levels.


def compress(waveform: Tensor, values: int = 256) -> Tensor:
    """f: amplitudes in [-1, 1] to companded ones in [-1, 1], any shape."""
    mu = _mu(values)
    return waveform.sign() * torch.log1p(mu * waveform.abs()) / np.log1p(mu)


def expand(companded: Tensor, values: int = 256) -> Tensor:
    """The inverse of f, any shape."""
    return companded.sign() * torch.expm1(companded.abs() * np.log1p(_mu(values))) / _mu(values)


def to_levels(waveform: Tensor, values: int = 256) -> Tensor:
    """Amplitudes to the nearest levels 0, 1/(values-1), ..., 1, any shape; what is beyond [-1, 1] is cut off."""
    mu = _mu(values)
    return (0.5 * mu * (compress(waveform.clamp(-1, 1), values) + 1)).round() / mu


def from_levels(levels: Tensor, values: int = 256) -> Tensor:
    """The amplitudes in [-1, 1] that levels stand for, any shape."""
    return expand(2 * levels - 1, values)


def amplitudes(sounds: Tensor, levels: int) -> Tensor:
    """Sounds as amplitudes, any shape: from so many levels, or as they are where `levels` is 0, as on a card."""
    return from_levels(sounds, levels) if levels else sounds


def edges(values: int = 256) -> Tensor:
    """Amplitudes (values - 1,) between neighbouring levels, in rising order: the k-th is where level k ends."""
    mu = _mu(values)
    return expand((2 * torch.arange(mu, dtype=torch.float64) + 1) / mu - 1, values)


def _mu(values: int) -> int:
    if values < 2:
        raise OptionError(f"values (the number of levels) must be at least 2, got {values}.")
    return values - 1


# What is heard when.

BANDS = 32
"""Of a spectrogram."""
QUIET = 80.0
"""Decibels from the loudest that there can be to what counts as silence."""


def spectrogram(waveform: Tensor, rate: int, bands: int = BANDS) -> Tensor:
    """The strength of frequency bands over time, as images: bands from high to low, 32 ms from column to column.

    The powers of windows of 64 ms (Hann's) are summed over triangular bands evenly spaced on the mel scale (Stevens,
    Volkmann & Newman 1937; 2595 log10(1 + f / 700)), from 50 Hz to half the rate, and given in decibels: 0 where they
    are 80 or more below those of a sine wave of amplitude 1, 1 where they are as strong.

    Args:
        waveform: Amplitudes (N, samples).
        rate: Samples a second.
        bands: Rows.

    Shapes: (N, bands, samples / (0.032 rate), rounded up), in [0, 1].
    Raises: ShapeError for what are no sounds, or sounds shorter than a window.
    """
    step = max(1, round(0.032 * rate))
    if waveform.ndim != 2 or waveform.shape[1] < 2 * step:
        raise ShapeError(
            f"A spectrogram is of sounds (N, samples) of at least {2 * step} samples at a rate of {rate}, got the "
            f"shape {tuple(waveform.shape)}."
        )
    window = torch.hann_window(2 * step, dtype=waveform.dtype, device=waveform.device)
    padded = torch.nn.functional.pad(waveform, (step, step + -waveform.shape[1] % step))
    power = torch.stft(padded, 2 * step, step, window=window, center=False, return_complex=True).abs().square()
    # A sine wave of amplitude 1 has half of the window's sum at its frequency.
    strength = _mel_bands(bands, 2 * step, rate).to(waveform) @ power[:, :, :-1] * (2 / window.sum()).square()
    decibels = 10 * strength.clamp(min=10 ** (-QUIET / 10)).log10()
    return (1 + decibels / QUIET).clamp(0, 1).flip(1)


def _mel_bands(bands: int, window: int, rate: int) -> Tensor:
    """The weight of each frequency of a window in each band, (bands, window // 2 + 1)."""
    low, high = (2595 * np.log10(1 + f / 700) for f in (50, rate / 2))
    corners = 700 * (10 ** (torch.linspace(low, high, bands + 2, dtype=torch.float64) / 2595) - 1)
    frequency = torch.arange(window // 2 + 1, dtype=torch.float64) * rate / window
    below, middle, above = (corners[i : bands + i, None] for i in range(3))
    rising, falling = (frequency - below) / (middle - below), (above - frequency) / (above - middle)
    return torch.minimum(rising, falling).clamp(min=0)


# Files.


def write_wav(path: str | os.PathLike[str], waveform: Tensor, rate: int = 8000) -> None:
    """Writes one channel of 16 bits.

    Args:
        path: Where to; a file that is there is replaced.
        waveform: Amplitudes (samples,) in [-1, 1]; what is beyond is cut off.
        rate: Samples a second.

    Raises: ShapeError for anything but one dimension.
    """
    if waveform.ndim != 1:
        raise ShapeError(f"A .wav file holds one waveform (samples,), got the shape {tuple(waveform.shape)}.")
    whole = (waveform.detach().double().cpu() * FULL).round().clamp(-FULL, FULL - 1)
    with wave.open(os.fspath(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(whole.numpy().astype("<i2").tobytes())


def read_wav(path: str | os.PathLike[str] | IO[bytes]) -> tuple[Tensor, int]:
    """Amplitudes (samples,) in [-1, 1) and samples a second of a file with one channel of 16 bits.

    Raises: DatasetError for other files.
    """
    try:
        with wave.open(os.fspath(path) if isinstance(path, os.PathLike) else path, "rb") as file:
            form = (file.getnchannels(), file.getsampwidth())
            rate, frames = file.getframerate(), file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise DatasetError(f"{path} cannot be read as a .wav file: {error}.") from error
    if form != (1, 2):
        raise DatasetError(
            f"{path} has {form[0]} channels of {8 * form[1]} bits; expected one of 16 bits. Convert it first."
        )
    return torch.tensor(np.frombuffer(frames, "<i2").astype(np.float64) / FULL).to(torch.get_default_dtype()), rate
