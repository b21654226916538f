"""Sounds to files: what is read back, and the size of a sheet of spectrograms."""

from __future__ import annotations

from pathlib import Path

import matplotlib.image
import torch

from benchmarks.report.sounds import write_sounds
from zoo.datasets.audio import read_wav


def test_sounds_follow_each_other_with_a_pause(tmp_path: Path) -> None:
    sounds = torch.tensor([[0.5, -0.5, 0.25], [0.0, 0.125, -1.0]])
    write_sounds(tmp_path / "two.wav", sounds, rate=8)
    found, rate = read_wav(tmp_path / "two.wav")
    assert rate == 8
    assert found.tolist() == [0.5, -0.5, 0.25, 0, 0, 0, 0.125, -1]
    write_sounds(tmp_path / "one.wav", sounds[:1], rate=8)
    assert read_wav(tmp_path / "one.wav")[0].tolist() == sounds[0].tolist()


def test_a_sheet_has_a_tile_for_each_sound(tmp_path: Path) -> None:
    write_sounds(tmp_path / "sheet.png", 0.5 * torch.randn(4, 1024), rate=1000)
    image = matplotlib.image.imread(tmp_path / "sheet.png")
    assert image.shape[0] > 4 * 2 * 32  # two rows of 32 bands, four dots each
    assert image[..., 0].std() > 0.05
