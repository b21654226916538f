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


def _kl(program: str, method: str, median: float, low: float, high: float) -> Row:
    return Row("posterior", "", "train", program, method, {"kl_reverse": Value(median, low, high)})


def test_bars_stand_below_the_name_of_their_program_and_say_their_number() -> None:
    rows = [_kl("a", "SVI", 0.5, 0.4, 0.6), _kl("b", "SVI", 2.0, 2.0, 2.0), _kl("a", "AVB", 0.0, 0.0, 0.1)]
    (ax,) = plots.bars(rows, "kl_reverse").axes
    names = [(tick.get_text(), tick.get_fontweight() == "bold") for tick in ax.get_yticklabels()]
    assert names == [("a", True), ("SVI", False), ("AVB", False), ("b", True), ("SVI", False)]
    assert [(text.get_position()[1], text.get_text()) for text in ax.texts] == [
        (1, "0.500"),
        (2, "0.000"),
        (4, "2.000"),
    ]
    ends = [bar.get_x() + bar.get_width() for bar in ax.patches]
    np.testing.assert_allclose(ends, [0.5, 1e-4, 2.0])
    assert ax.yaxis_inverted()
    assert ax.get_xlim()[1] > 2.0 * 1.15


def test_many_bars_stand_in_two_columns_that_part_no_program() -> None:
    rows = [_kl(f"program {i}", f"method {j}", 0.1, 0.1, 0.1) for i in range(9) for j in range(4)]
    left, right = plots.bars(rows, "kl_reverse").axes
    heads = [[t.get_text() for t in ax.get_yticklabels() if t.get_fontweight() == "bold"] for ax in (left, right)]
    assert sum(map(len, heads)) == 9
    assert abs(len(heads[0]) - len(heads[1])) == 1
    assert all(len(ax.patches) == 4 * len(head) for ax, head in zip((left, right), heads, strict=True))


def test_the_image_of_a_unit_hides_nothing_of_its_posterior() -> None:
    rng = np.random.RandomState(0)
    artifact = {
        "draws": rng.randn(2, 50, 2), "exact": rng.randn(2, 50, 2), "names": np.array(["a", "b"]),
        "images": rng.rand(2, 8, 8),
    }  # fmt: skip
    figure = plots.posterior_picture("title", [("SVI", artifact)])
    assert len(figure.axes) == 2 * 3
    assert not any(ax.child_axes for ax in figure.axes)
    for unit in range(2):
        np.testing.assert_array_equal(figure.axes[3 * unit].images[0].get_array(), artifact["images"][unit])
    assert [ax.get_title() for ax in figure.axes[:3]] == ["", "exact", "SVI"]
    few = {**artifact, "draws": artifact["draws"][:1], "exact": artifact["exact"][:1]}
    del few["images"]
    many = plots.posterior_picture("title", [(f"method {i}", few) for i in range(10)])
    shown = [ax for ax in many.axes if ax.get_visible()]
    assert [ax.get_title() for ax in shown] == ["exact", *(f"method {i}" for i in range(10))]
    assert {ax.get_subplotspec().rowspan.start for ax in shown} == {0, 1}
    assert len(shown[-1].collections) == 2  # the exact draws and the last method's
