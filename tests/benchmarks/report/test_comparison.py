"""Pictures of comparisons: every axis has ticks and a name, every picture a legend, and no two methods look alike."""

from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.figure import Figure

from benchmarks.report import comparison

RNG = np.random.RandomState(0)
TRUTH = RNG.randn(500, 2)
ANSWERS = [("one", TRUTH + 1), ("<two>", 0.5 * TRUTH), ("a point", np.zeros((500, 2)))]
COUNTS = RNG.randint(1, 9, (2, 20))
PARTS = {"total": (0.4, 0.1), "approximation": (0.3, 0.1), "amortisation": (0.1, 0.1), "optimisation": (0.0, 0.0)}

PICTURES = {
    "marginals": lambda: comparison.marginals_picture(
        [
            ("a: off by 1", False, TRUTH[:, 0], [(label, v[:, 0]) for label, v in ANSWERS]),
            ("k: off by 1", True, TRUTH[:, 0].round(), [(label, v[:, 0].round()) for label, v in ANSWERS]),
        ]
    ),
    "pairs": lambda: comparison.pairs_picture([("a", "b")], [TRUTH], [(label, [v]) for label, v in ANSWERS]),
    "several pairs": lambda: comparison.pairs_picture(
        [("a", "b"), ("b", "c")], [TRUTH, TRUTH], [(label, [v, v]) for label, v in ANSWERS]
    ),
    "curves": lambda: comparison.curves_picture(
        [(i, label, np.arange(50), -1 / (1 + np.arange(50.0))) for i, (label, _) in enumerate(ANSWERS)], 0.1
    ),
    "traces": lambda: comparison.traces_picture([("a", RNG.randn(2, 40)), ("b", RNG.randn(2, 40))]),
    "ranks": lambda: comparison.ranks_picture([("a", COUNTS, 5.0)]),
    "gaps": lambda: comparison.gaps_picture([("one", PARTS), ("two", PARTS)]),
    "predictions": lambda: comparison.predictions_picture(
        [("mean", 0.0, [(i, label, v[:, 0]) for i, (label, v) in enumerate(ANSWERS)])]
    ),
}


def check(figure: Figure, name: str) -> None:
    figure.savefig(io.BytesIO(), dpi=30)
    shown = [ax for ax in figure.axes if ax.get_visible()]
    assert shown, name
    for ax in shown:
        assert len(ax.get_xticks()) > 1, name
        assert len(ax.get_yticks()) > 1, name
    assert any(ax.get_xlabel() for ax in shown), name
    legends = [*figure.legends, *(legend for ax in shown if (legend := ax.get_legend()) is not None)]
    assert legends, name
    for legend in legends:
        window = legend.get_window_extent()
        assert window.x0 >= 0, f"{name}: the legend is cut"
        assert window.x1 <= figure.bbox.x1 + 1, f"{name}: the legend is cut"


@pytest.mark.parametrize("name", PICTURES)
def test_every_axis_has_ticks_and_every_picture_a_legend(name: str) -> None:
    check(PICTURES[name](), name)


def test_methods_differ_in_more_than_colour() -> None:
    assert len({str(each.line) for each in comparison.STYLES}) == len(comparison.STYLES)
    assert len({each.marker for each in comparison.STYLES}) == len(comparison.STYLES)
    assert len({each.hatch for each in comparison.STYLES}) == len(comparison.STYLES)
    assert comparison.style(len(comparison.STYLES)) is comparison.STYLES[0]


def test_methods_stand_side_by_side_for_one_pair_and_below_each_other_for_several() -> None:
    for name, columns in (("pairs", 3), ("several pairs", 2)):
        axes = PICTURES[name]().axes
        assert len({ax.get_subplotspec().colspan.start for ax in axes}) == columns
        assert [ax.get_title() for ax in axes if ax.get_title()] == ["one", "<two>", "a point"]
    (last,) = [ax for ax in axes if ax.get_xlabel() == "b"]
    assert last.get_subplotspec().rowspan.start == 2


def test_what_is_drawn_is_what_was_given() -> None:
    (ax,) = PICTURES["curves"]().axes
    lines = {line.get_label(): line for line in ax.lines}
    assert set(lines) == {"one", "<two>", "a point", "log p(x)"}
    np.testing.assert_allclose(lines["one"].get_ydata(), -1 / (1 + np.arange(50.0)))
    assert list(lines["log p(x)"].get_ydata()) == [0.1, 0.1]
    (ax,) = PICTURES["gaps"]().axes
    bars = [bar for bar in ax.patches if bar.get_width() > 0]
    assert [bar.get_width() for bar in bars] == pytest.approx([0.3, 0.1, 0.3, 0.1])
    assert [text.get_text() for text in ax.texts] == ["0.400 ± 0.100"] * 2
