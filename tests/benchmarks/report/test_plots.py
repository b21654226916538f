"""Plots: sheets of images, maps of codes."""

from __future__ import annotations

import numpy as np

from benchmarks.report import plots
from benchmarks.report.summary import Row, Value
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


def test_errors_stand_over_what_they_cost_with_chance_as_a_line() -> None:
    def row(program: str, method: str, error: float | None, cost: float | None) -> Row:
        values = {"mean_worst": Value(error, error, error), "gradient_evaluations": Value(cost)}
        return Row("posterior", "", "train", program, method, values)

    rows = [
        row("posteriordb/a", "other chains", 0.01, None), row("posteriordb/a", "NUTS", 0.02, 1e4),
        row("posteriordb/a", "SVI", 0.5, 1e3), row("posteriordb/b", "SVI", 0.7, 1e3),
        row("posteriordb/b", "NUTS", None, None),
    ]  # fmt: skip
    figure = plots.error_against_cost(rows)
    first, second = (ax for ax in figure.axes if ax.get_visible())
    assert [ax.get_title() for ax in (first, second)] == ["a", "b"]
    points = [line.get_xydata().tolist() for line in first.lines if line.get_marker() in plots.MARKERS]
    assert points == [[[1e4, 0.02]], [[1e3, 0.5]]]
    assert [line.get_ydata()[0] for line in first.lines if line.get_linestyle() == ":"] == [0.01]
    assert len(second.lines) == 1
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["NUTS", "SVI"]
