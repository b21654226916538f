"""Plots: sheets of images, maps of codes."""

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


def test_a_map_draws_every_class_as_its_number() -> None:
    rng = np.random.RandomState(0)
    points, labels = rng.randn(60, 2), np.arange(60) % 3
    figure = plots.map_picture([("one", {"map": points, "labels": labels}), ("two", {"map": points, "labels": labels})])
    assert [ax.get_title() for ax in figure.axes] == ["one", "two"]
    drawn = figure.axes[0].collections
    assert len(drawn) == 3
    for number, dots in enumerate(drawn):
        np.testing.assert_array_equal(dots.get_offsets(), points[labels == number])
    outlines = [dots.get_paths()[0].vertices for dots in drawn]
    assert len({outline.tobytes() for outline in outlines}) == 3
    assert len({tuple(dots.get_facecolor()[0]) for dots in drawn}) == 3
    # What lies far away is left out, so that the rest can be seen.
    far = np.concatenate([rng.randn(600, 2), [[1e6, 0]]])
    (ax,) = plots.map_picture([("far", {"map": far, "labels": np.zeros(601)})]).axes
    assert ax.get_xlim()[1] < 10
