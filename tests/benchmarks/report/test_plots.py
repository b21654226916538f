"""Plots: sheets of images."""

from __future__ import annotations

import numpy as np

from benchmarks.report import plots
from zoo import datasets


def test_tiles_keep_every_image_whole() -> None:
    images = np.arange(5 * 2 * 3).reshape(5, 2, 3) + 1.0
    sheet = plots.tile(images, 2)
    assert sheet.shape == (3 * 3 - 1, 2 * 4 - 1)
    np.testing.assert_array_equal(sheet[3:5, 4:7], images[3])
    assert plots.tile(np.zeros((4, 3, 8, 8)), 2).shape == (17, 17, 3)


def test_faces_are_no_negatives_and_digits_are_ink_on_paper() -> None:
    assert plots.greys(datasets.load("digits").test.x.numpy()) == "gray_r"
    assert plots.greys(datasets.load("photo-patches").test.x.numpy()) == "gray"
