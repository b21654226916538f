"""Pictures of a comparison, from arrays: nothing here computes a result. They can be read in black and white.

The truth is filled grey with a black line; each method has a line style, a marker and a colour of its own, the same in
every picture (`STYLES`, in the order of the methods).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from benchmarks.report.plots import mass_levels, panels
from zoo.notebook import figure
from zoo.process import guest

__all__ = [
    "STYLES", "Style", "curves_picture", "gaps_picture", "marginals_picture", "pairs_picture", "predictions_picture",
    "ranks_picture", "style", "traces_picture",
]  # fmt: skip

Array = np.ndarray[Any, Any]

TRUTH = "#b3bac4"
MASS = (0.9, 0.5)
"""Shares of the mass that the contours of pairs enclose."""
BINS = 48


@dataclass(frozen=True)
class Style:
    """How one method is drawn."""

    colour: str
    line: Any
    marker: str
    hatch: str


STYLES = (
    Style("#d1495b", "--", "o", hatch="//"),
    Style("#2e6f9e", ":", "^", hatch=".."),
    Style("#2f7d4f", "-.", "s", hatch="xx"),
    Style("#8a5a00", (0, (6, 1)), "D", hatch="||"),
    Style("#5b3a8c", (0, (1, 2.5)), "v", hatch="--"),
    Style("#1c2430", (0, (4, 1, 1, 1, 1, 1)), "P", hatch="++"),
)


def style(place: int) -> Style:
    """That of the method at a place of the list; styles come again after the sixth."""
    return STYLES[place % len(STYLES)]


def _name(ax: Axes, across: str, down: str, title: str = "") -> None:
    ax.set_xlabel(across, fontsize=8)
    ax.set_ylabel(down, fontsize=8)
    ax.set_title(title, fontsize=9)
    ax.tick_params(labelsize=7)
    ax.grid(alpha=0.25)


def _legend(drawn: Figure, handles: Sequence[Any]) -> None:
    # About so many inches a label takes, line and margins included.
    inches = 0.65 + 0.075 * max(len(handle.get_label()) for handle in handles)
    columns = max(1, min(len(handles), int(drawn.get_figwidth() / inches)))
    drawn.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=8, frameon=False)


def _window(truth: Array, others: Sequence[Array]) -> tuple[float, float]:
    """Around the truth, widened for the methods, but not so far that a stray one hides the rest."""
    low, high = np.quantile(truth, [0.002, 0.998])
    width = max(high - low, 1e-9)
    ends = [np.quantile(values, [0.01, 0.99]) for values in others]
    lower = max(min([low, *(a for a, _ in ends)]), low - 0.75 * width)
    upper = min(max([high, *(b for _, b in ends)]), high + 0.75 * width)
    return lower - 0.06 * width, upper + 0.06 * width


def marginals_picture(columns: Sequence[tuple[str, bool, Array, Sequence[tuple[str, Array]]]]) -> Figure:
    """Marginals of some numbers: the truth filled, each method a line.

    Args:
        columns: (title, whether it is discrete, true draws (S,), (label, draws) of each method in the order of styles).
    """
    drawn, axes = panels(len(columns), 3, 3.3, 2.5)
    labels = [label for label, _ in columns[0][3]]
    for ax, (title, discrete, truth, answers) in zip(axes, columns, strict=True):
        (_shares if discrete else _densities)(ax, truth, [values for _, values in answers])
        _name(ax, title.partition(":")[0], "probability" if discrete else "density", title)
    lines = [_line(i, label) for i, label in enumerate(labels)]
    _legend(drawn, [Patch(facecolor=TRUTH, edgecolor="black", label="truth"), *lines])
    return drawn


def _line(place: int, label: str, marked: bool = False) -> Line2D:
    mine = style(place)
    marker = mine.marker if marked else ""
    return Line2D([], [], color=mine.colour, ls=mine.line, lw=1.6, marker=marker, ms=5, label=label)


def _densities(ax: Axes, truth: Array, answers: Sequence[Array]) -> None:
    low, high = _window(truth, answers)
    bins = np.linspace(low, high, 41)
    heights = ax.hist(
        truth, list(bins), density=True, histtype="stepfilled", facecolor=TRUTH, edgecolor="black", lw=0.8
    )[0]
    top = float(np.max(heights))
    for i, values in enumerate(answers):
        mine = style(i)
        if values.std() < 1e-3 * truth.std():  # a point: a line at its place
            ax.axvline(values.mean(), color=mine.colour, ls=mine.line, lw=1.6)
            continue
        # A method with draws outside of the window has less area in it, not higher bars.
        edges = bins if len(values) >= 1000 else bins[::4]
        heights = np.histogram(values, edges)[0] / (len(values) * np.diff(edges))
        ax.stairs(heights, edges, color=mine.colour, ls=mine.line, lw=1.6)
        top = max(top, min(float(heights.max()), 3 * top))
    ax.set(xlim=(low, high), ylim=(0, 1.08 * top))
    ax.locator_params(axis="x", nbins=5)  # numbers of six digits must not touch


def _shares(ax: Axes, truth: Array, answers: Sequence[Array]) -> None:
    values = np.unique(np.concatenate([truth, *answers]))
    width = 0.8 / (1 + len(answers))
    for i, draws in enumerate([truth, *answers]):
        heights = [(draws == value).mean() for value in values]
        mine = None if i == 0 else style(i - 1)
        ax.bar(
            np.arange(len(values)) - 0.4 + (i + 0.5) * width, heights, width, edgecolor="black", lw=0.6,
            facecolor=TRUTH if mine is None else "white", hatch=None if mine is None else mine.hatch,
        )  # fmt: skip
    ax.set_xticks(np.arange(len(values)), [f"{value:g}" for value in values])


def pairs_picture(
    pairs: Sequence[tuple[str, str]], truth: Sequence[Array], answers: Sequence[tuple[str, Sequence[Array]]]
) -> Figure:
    """Each method's draws over the truth in some pairs of numbers: a row for each method, a column for each pair.

    A single pair has its methods side by side, three in a row.

    Args:
        pairs: Names of the two numbers.
        truth: True draws (S, 2) of each pair.
        answers: (label, draws (S, 2) of each pair), in the order of styles.
    """
    panels = len(answers) * len(pairs)
    columns = len(pairs) if len(pairs) > 1 else min(3, panels)
    lines = -(-panels // columns)
    drawn = figure(3.1 * columns + 0.3, 2.7 * lines + 0.5)
    axes = drawn.subplots(lines, columns, squeeze=False, sharex="col", sharey="col").ravel()
    for ax in axes[panels:]:
        ax.set_visible(False)
    for k, (across, down) in enumerate(pairs):
        others = [values[k] for _, values in answers]
        window = [_window(truth[k][:, i], [values[:, i] for values in others]) for i in range(2)]
        for i, (label, values) in enumerate(answers):
            place, mine = i * len(pairs) + k, style(i)
            ax = axes[place]
            _contours(ax, truth[k], window, filled=True, colour="black", line="-")
            points = values[k][:: max(1, len(values[k]) // 120)]
            ax.scatter(points[:, 0], points[:, 1], s=9, marker=mine.marker, facecolor="none", edgecolor=mine.colour,
                       linewidths=0.6, alpha=0.7)  # fmt: skip
            _contours(ax, values[k], window, filled=False, colour=mine.colour, line=mine.line)
            ax.set(xlim=window[0], ylim=window[1])
            ax.locator_params(axis="x", nbins=4)  # numbers of six digits must not touch
            lowest = place + columns >= panels
            ax.tick_params(axis="x", labelbottom=lowest)  # shared axes leave it to the last line, which may be short
            _name(ax, across if lowest else "", down, label if k == 0 else "")
    shares = " and ".join(f"{100 * share:.0f}%" for share in reversed(MASS))
    marks = [_line(i, label, marked=True) for i, (label, _) in enumerate(answers)]
    _legend(drawn, [Patch(facecolor=TRUTH, edgecolor="black", label=f"truth, {shares} of its mass"), *marks])
    return drawn


def _contours(
    ax: Axes, points: Array, window: Sequence[tuple[float, float]], *, filled: bool, colour: str, line: Any
) -> None:
    """Around the shares `MASS` of draws, smoothed; none where they are a point or hardly in the window."""
    if points.std(0).min() < 1e-9:
        return
    counts, *edges = np.histogram2d(points[:, 0], points[:, 1], bins=BINS, range=window)
    if counts.sum() < 0.2 * len(points):
        return
    # Scott's rule, in bins, so that contours neither follow the noise nor lose the shape.
    widths = [float(np.diff(each[:2])[0]) for each in edges]
    smooth = [max(0.8, 0.8 * s * len(points) ** (-1 / 6) / w) for s, w in zip(points.std(0), widths, strict=True)]
    density = guest("scipy.ndimage").gaussian_filter(counts, smooth)
    levels = mass_levels(density, MASS)
    middles = [(each[:-1] + each[1:]) / 2 for each in edges]
    if filled:
        shades = ["#dde1e6", TRUTH][-len(levels) :]
        ax.contourf(*middles, density.T, levels=[*levels, density.max() * 1.01], colors=shades)
    ax.contour(*middles, density.T, levels=levels, colors=colour, linestyles=[line], linewidths=0.7 if filled else 1.5)


def curves_picture(curves: Sequence[tuple[int, str, Array, Array]], level: float | None) -> Figure:
    """Bounds over the steps of the fits, and the log evidence that none can exceed.

    Args:
        curves: (place of the method, label, steps (T,), bound (T,)).
        level: log p(x) in the same unit; None where it is not known.
    """
    drawn = figure(6.4, 3.4)
    ax = drawn.subplots()
    for place, label, steps, bound in curves:
        mine = style(place)
        ax.plot(steps, bound, color=mine.colour, ls=mine.line, marker=mine.marker, ms=4.5, lw=1.3, label=label,
                markevery=max(1, len(steps) // 8))  # fmt: skip
    if level is not None:
        ax.axhline(level, color="black", lw=1.0, label="log p(x)")
    # What a bound was at its start says nothing of where it ends, and would flatten all that does.
    late = np.concatenate([bound[len(bound) // 5 :] for *_, bound in curves] + ([[level]] if level is not None else []))
    low, high = float(late.min()), float(late.max())
    pad = 0.08 * max(high - low, 1e-3)
    ax.set_ylim(low - pad, high + pad)
    _name(ax, "step", "bound, nats per example")
    ax.legend(fontsize=8)
    return drawn


def traces_picture(chains: Sequence[tuple[str, Array]]) -> Figure:
    """The draws of each chain in their order.

    Args:
        chains: (name of a number, draws (chains, n)).
    """
    drawn = figure(7.4, 1.9 * len(chains) + 0.5)
    axes = drawn.subplots(len(chains), 1, squeeze=False)[:, 0]
    for ax, (name, values) in zip(axes, chains, strict=True):
        for k, chain in enumerate(values):
            ax.plot(chain, color=style(k).colour, ls=style(k).line, lw=0.7, alpha=0.8)
        _name(ax, "draw" if ax is axes[-1] else "", name)
    _legend(drawn, [_line(k, f"chain {k + 1}") for k in range(min(len(chains[0][1]), len(STYLES)))])
    return drawn


def ranks_picture(ranks: Sequence[tuple[str, Array, float]]) -> Figure:
    """How the ranks of each chain's draws among all draws are spread; those of chains that agree are uniform.

    Args:
        ranks: (name of a number, counts (chains, bins), the count that is expected).
    """
    drawn, axes = panels(len(ranks), 3, 3.6, 2.6)
    for ax, (name, counts, expected) in zip(axes, ranks, strict=True):
        edges = np.linspace(0, 1, counts.shape[1] + 1)
        for k, mine in enumerate(counts):
            ax.stairs(mine, edges, color=style(k).colour, ls=style(k).line, lw=1.4)
        ax.axhline(expected, color="black", lw=1.0)
        ax.set_ylim(0, max(2 * expected, 1.1 * counts.max()))
        _name(ax, f"rank of {name} among all draws", "draws")
    lines = [_line(k, f"chain {k + 1}") for k in range(min(len(ranks[0][1]), len(STYLES)))]
    _legend(drawn, [Line2D([], [], color="black", lw=1.0, label="expected"), *lines])
    return drawn


PARTS = (("approximation", "#5b6675", ""), ("amortisation", "#c9ced6", "//"), ("optimisation", "#ffffff", ".."))


def gaps_picture(gaps: Sequence[tuple[str, Mapping[str, tuple[float, float]]]]) -> Figure:
    """log p(x) - ELBO of each method as a bar of its parts, with the numbers.

    Args:
        gaps: (label, `Gap.summary()`).
    """
    drawn = figure(6.6, 0.55 * len(gaps) + 1.3)
    ax = drawn.subplots()
    for row, (_, parts) in enumerate(gaps):
        start = 0.0
        for part, colour, hatch in PARTS:
            width = max(parts[part][0], 0.0)
            ax.barh(row, width, left=start, height=0.6, color=colour, hatch=hatch, edgecolor="black", lw=0.7)
            start += width
        ax.annotate(f"{parts['total'][0]:.3f} ± {parts['total'][1]:.3f}", (start, row), (4, 0),
                    textcoords="offset points", va="center", fontsize=8)  # fmt: skip
    ax.set_yticks(range(len(gaps)), [label for label, _ in gaps])
    ax.set_ylim(len(gaps) - 0.4, -0.6)
    ax.margins(x=0.25)
    ax.set_xlim(left=0)
    _name(ax, "log p(x) - ELBO, nats per unit", "")
    _legend(drawn, [Patch(facecolor=c, hatch=h, edgecolor="black", label=name) for name, c, h in PARTS])
    return drawn


def predictions_picture(checks: Sequence[tuple[str, float, Sequence[tuple[int, str, Array]]]]) -> Figure:
    """A statistic of data that each fit generated again, and that of the data.

    Args:
        checks: (name of the statistic, its value in the data, (place of the method, label, values (n,))).
    """
    drawn, axes = panels(len(checks), 4, 2.9, 2.5)
    for ax, (name, seen, answers) in zip(axes, checks, strict=True):
        everything = np.concatenate([[seen], *(values for *_, values in answers)])
        low, high = min(np.quantile(everything, 0.005), seen), max(np.quantile(everything, 0.995), seen)
        pad = 0.05 * max(high - low, 1e-9)
        bins = np.linspace(low - pad, high + pad, 26)
        for i, _, values in answers:
            heights = np.histogram(values, bins)[0] / len(values)
            ax.stairs(heights, bins, color=style(i).colour, ls=style(i).line, lw=1.4)
        ax.axvline(seen, color="black", lw=1.6)
        ax.ticklabel_format(axis="x", useOffset=False)
        _name(ax, name, "share of data sets")
    lines = [_line(i, label) for i, label, _ in checks[0][2]]
    _legend(drawn, [Line2D([], [], color="black", lw=1.6, label="the data"), *lines])
    return drawn
