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

__all__ = ["compress", "edges", "expand", "from_levels", "read_wav", "to_levels", "write_wav"]

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


def edges(values: int = 256) -> Tensor:
    """Amplitudes (values - 1,) between neighbouring levels, in rising order: the k-th is where level k ends."""
    mu = _mu(values)
    return expand((2 * torch.arange(mu, dtype=torch.float64) + 1) / mu - 1, values)


def _mu(values: int) -> int:
    if values < 2:
        raise OptionError(f"values (the number of levels) must be at least 2, got {values}.")
    return values - 1


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
