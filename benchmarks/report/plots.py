"""Pictures of a report, from results and from the artifacts that cells left: nothing here computes a result.

A posterior cell leaves `draws` and `exact` (U, S, 2), the `names` of the two coordinates, and where the exact density
is known on a grid, `axis0` (U, G), `axis1` (U, G) and `density` (U, G, G); `images` (U, H, W) when units are images. A
density cell leaves `samples` and `data` (N, H, W); a cell of codes a `map` (N, 2) and `labels` (N,).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogFormatterSciNotation, NullFormatter

from benchmarks.metrics import METRICS
from benchmarks.report.summary import Row, cell_text
from zoo import notebook

__all__ = [
    "bars", "curves", "error_against_cost", "greys", "image_sheet", "map_picture", "panels", "posterior_picture",
    "samples_picture", "tile",
]  # fmt: skip

Array = np.ndarray[Any, Any]
Artifact = Mapping[str, Array]

MARKERS = "os^DvP*Xp<"
ACROSS = 7
"""Most panels of a single posterior side by side."""
MOST_LINES = 30
"""Of bars below each other."""
EXACT, GUIDE = "#7a8597", "#d1495b"


def load_artifact(path: Path) -> Artifact | None:
    """The arrays of a cell, or None if it left none."""
    if not path.exists():
        return None
    with np.load(path) as file:
        return dict(file)


def panels(count: int, columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure of so many panels (the sizes are those of one, in inches), those left over in the last line hidden."""
    columns = min(count, columns)
    lines = -(-count // columns)
    figure = notebook.figure(width * columns, height * lines)
    axes = list(figure.subplots(lines, columns, squeeze=False).ravel())
    for ax in axes[count:]:
        ax.set_visible(False)
    return figure, axes[:count]


def posterior_picture(title: str, panels: Sequence[tuple[str, Artifact]]) -> Figure:
    """The exact posterior beside each method's draws: one row a unit, or two of a single one; one column a method."""
    first = panels[0][1]
    names = [str(name) for name in first["names"]]
    if len(names) == 1:
        return _histograms(title, names[0], panels)
    units, columns = len(first["draws"]), len(panels) + 1
    # The image of a unit stands beside its posterior, where it hides nothing.
    beside = [0.4] if "images" in first else []
    lines = -(-columns // ACROSS) if units == 1 and not beside else 1
    across = -(-columns // lines)
    figure = notebook.figure(2.1 * (across + sum(beside)) + 0.4, 2.15 * units * lines + 0.55)
    ratios = [*beside, *[1.0] * across]
    every = figure.subplots(units * lines, len(ratios), squeeze=False, gridspec_kw={"width_ratios": ratios})
    axes = every[:, len(beside) :].reshape(units, -1)
    for ax in axes[:, columns:].ravel():
        ax.set_visible(False)
    for unit in range(units):
        limits = _limits(panels, unit)
        for ax, (label, artifact) in zip(axes[unit], [("exact", first), *panels], strict=False):
            _exact(ax, artifact, unit, filled=ax is axes[unit, 0])
            if ax is not axes[unit, 0]:
                points = artifact["draws"][unit][:400]
                ax.scatter(points[:, 0], points[:, 1], s=12, marker="+", color=GUIDE, alpha=0.6, linewidths=0.6)
            ax.set(xlim=limits[0], ylim=limits[1])
            ax.tick_params(labelsize=6)
            if unit == 0:
                ax.set_title(label, fontsize=9)
        axes[unit, 0].set_xlabel(names[0], fontsize=8)
        axes[unit, 0].set_ylabel(names[1], fontsize=8)
        if beside:
            every[unit, 0].imshow(first["images"][unit], cmap="gray_r", vmin=0, vmax=1)
            every[unit, 0].set(xticks=[], yticks=[], xlabel="x" if unit == 0 else "")
    exact = Line2D([], [], color="black", lw=0.8, label="exact") if "density" in first else _dots("exact", EXACT, ".")
    figure.legend(handles=[exact, _dots("draws of the method", GUIDE, "+")], loc="outside lower center", ncols=2,
                  fontsize=8, frameon=False)  # fmt: skip
    figure.suptitle(title, fontsize=10)
    return figure


def _dots(label: str, colour: str, marker: str) -> Line2D:
    return Line2D([], [], ls="", color=colour, marker=marker, label=label)


def _histograms(title: str, name: str, panels: Sequence[tuple[str, Artifact]]) -> Figure:
    """One coordinate: histograms of exact draws (filled) and of each method's."""
    figure = notebook.figure(2.4 * len(panels) + 0.4, 2.7)
    for ax, (label, artifact) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        exact, draws = artifact["exact"][0, :, 0], artifact["draws"][0, :, 0]
        low, high = np.quantile(np.concatenate([exact, draws]), [0.002, 0.998])
        bins = np.linspace(low, high, 31)
        ax.hist(exact, bins, density=True, color=EXACT, alpha=0.45)
        ax.hist(draws, bins, density=True, histtype="step", color=GUIDE, lw=1.4)
        ax.set_title(label, fontsize=9)
        ax.set_xlabel(name, fontsize=8)
        ax.tick_params(labelsize=7)
    handles = [Patch(color=EXACT, alpha=0.45, label="exact"), Line2D([], [], color=GUIDE, lw=1.4, label="the method")]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=10)
    return figure


def _limits(panels: Sequence[tuple[str, Artifact]], unit: int) -> list[tuple[float, float]]:
    """A window around the exact draws, widened for the others' but not so far that a stray method hides the rest."""
    exact = panels[0][1]["exact"][unit]
    low, high = np.quantile(exact, [0.005, 0.995], 0)
    width = np.maximum(high - low, 1e-9)
    low, high = low - 0.1 * width, high + 0.1 * width
    least, most = low - 0.3 * width, high + 0.3 * width
    for _, artifact in panels:
        draws = artifact["draws"][unit]
        low = np.minimum(low, np.maximum(np.quantile(draws, 0.02, 0), least))
        high = np.maximum(high, np.minimum(np.quantile(draws, 0.98, 0), most))
    return [(float(low[i]), float(high[i])) for i in range(2)]


def _exact(ax: Axes, artifact: Artifact, unit: int, filled: bool) -> None:
    if "density" not in artifact:
        points = artifact["exact"][unit][:1000]
        ax.scatter(points[:, 0], points[:, 1], s=3, color=EXACT, alpha=0.5 if filled else 0.35, linewidths=0)
        return
    density = artifact["density"][unit].T
    levels = mass_levels(density, (0.95, 0.8, 0.5, 0.2))
    axis0, axis1 = artifact["axis0"][unit], artifact["axis1"][unit]
    if filled:
        ax.contourf(axis0, axis1, density, levels=[*levels, density.max() * 1.001], cmap="Blues")
    else:
        ax.contour(axis0, axis1, density, levels=levels, colors="black", linewidths=0.7)


def mass_levels(density: Array, shares: Sequence[float]) -> Array:
    """The heights whose contours enclose so much of the mass, in rising order; shares fall."""
    order = np.sort(density.ravel())[::-1]
    mass = np.cumsum(order) / order.sum()
    return np.unique([order[np.searchsorted(mass, share)] for share in shares])


def bars(rows: Sequence[Row], metric: str) -> Figure:
    """A metric of every method, grouped by program: the bar is the median over seeds, the line its range."""
    shown = [row for row in rows if metric in row.values and row.values[metric].median is not None]
    lines: list[tuple[str, Row | None]] = []
    for program in dict.fromkeys(row.program for row in shown):
        lines += [(program, None), *((row.method, row) for row in shown if row.program == program)]
    columns = 1 if len(lines) <= MOST_LINES else 2
    cut = _cut(lines, columns)
    parts = [lines[:cut], lines[cut:]][:columns]
    figure = notebook.figure(6.2 if columns == 1 else 10.5, 0.21 * max(map(len, parts)) + 0.9)
    floor = 1e-4  # a logarithmic axis has no zero
    values = [row.values[metric] for row in shown]
    highest = max(max(value.high or 0.0, value.median or 0.0) for value in values)
    limits = (floor, 10 ** np.ceil(np.log10(max(highest, 10 * floor)) + 0.7))
    for ax, part in zip(figure.subplots(1, columns, squeeze=False)[0], parts, strict=True):
        for place, (_, row) in enumerate(part):
            if row is None:
                continue
            value = row.values[metric]
            median, low, high = (max(number or 0.0, floor) for number in (value.median, value.low, value.high))
            ax.barh(place, median - floor, left=floor, color="#2e6f9e", height=0.65)
            ax.hlines(place, low, high, color="black", lw=1.2)
            ax.text(max(median, high) * 1.15, place, cell_text(metric, value, spread=False), va="center", fontsize=7)
        ax.set_yticks(range(len(part)), [text for text, _ in part], fontsize=8)
        for tick, (_, row) in zip(ax.get_yticklabels(), part, strict=True):
            tick.set_fontweight("normal" if row else "bold")
        ax.set(xscale="log", xlim=limits, ylim=(len(part) - 0.4, -0.6))
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.tick_params(axis="x", labelsize=8)
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="x", alpha=0.3)
    figure.suptitle(f"{METRICS[metric].title}: {METRICS[metric].meaning}", fontsize=10)
    return figure


def _cut(lines: Sequence[tuple[str, Row | None]], columns: int) -> int:
    """Where the second column begins: with the program nearest to the middle."""
    heads = [place for place, (_, row) in enumerate(lines) if row is None and place]
    return min(heads, key=lambda place: abs(place - len(lines) / 2), default=len(lines)) if columns > 1 else len(lines)


def error_against_cost(rows: Sequence[Row], metric: str = "mean_worst", floor: str = "other chains") -> Figure:
    """A metric over gradient evaluations, one panel a program, a point a method; lines are ranges over seeds.

    Args:
        rows: Of all programs.
        metric: Of which less is better.
        floor: The method that costs nothing, drawn as a dotted line: what chance alone makes of the truth.
    """
    programs = list(dict.fromkeys(row.program for row in rows))
    names = list(dict.fromkeys(row.method for row in rows if row.method != floor))
    figure, axes = panels(len(programs), 4, 2.8, 2.4)
    for ax, program in zip(axes, programs, strict=True):
        for row in (row for row in rows if row.program == program):
            value, cost = row.values.get(metric), row.median("gradient_evaluations")
            if value is None or value.median is None:
                continue
            if row.method == floor:
                ax.axhline(value.median, color=EXACT, lw=0.9, ls=":")
            elif cost:
                place = names.index(row.method)
                ax.vlines(cost, value.low or value.median, value.high or value.median, color=f"C{place}", lw=1.2)
                marker = MARKERS[place % len(MARKERS)]
                ax.plot(cost, value.median, marker, color=f"C{place}", ms=6, alpha=0.8, label=row.method)
        ax.set(xscale="log", yscale="log")
        ax.xaxis.set_minor_formatter(NullFormatter())
        # Numbers between decades where there are hardly any decades.
        ax.yaxis.set_minor_formatter(LogFormatterSciNotation(minor_thresholds=(1.5, 0.7)))
        ax.tick_params(which="minor", labelsize=6)
        ax.set_title(program.removeprefix("posteriordb/"), fontsize=7)
        ax.tick_params(labelsize=7)
        ax.grid(alpha=0.3)
    handles = {text: handle for ax in axes for handle, text in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=3, fontsize=8, frameon=False)
    figure.supxlabel("gradient evaluations", fontsize=8)
    figure.supylabel(METRICS[metric].title, fontsize=8)
    return figure


def likelihood_bars(rows: Sequence[Row], metric: str = "log_likelihood") -> Figure:
    """Test log-likelihood of every program, best on top; the line is the range over seeds or the standard error."""
    shown = [row for row in rows if metric in row.values and row.values[metric].median is not None]
    shown.sort(key=lambda row: row.values[metric].median or 0.0)
    figure = notebook.figure(6.4, 0.34 * len(shown) + 0.9)
    ax = figure.subplots()
    for place, row in enumerate(shown):
        value = row.values[metric]
        middle, low, high = value.median or 0.0, value.low or 0.0, value.high or 0.0
        if value.standard_error is not None:
            low, high = middle - value.standard_error, middle + value.standard_error
        ax.hlines(place, low, high, color="#2e6f9e", lw=3, alpha=0.5)
        ax.plot(middle, place, "o", color="#2e6f9e", ms=5)
    ax.set_yticks(range(len(shown)), [f"{row.program} ({row.method})" for row in shown], fontsize=8)
    ax.set_ylim(-0.6, len(shown) - 0.4)
    ax.set_xlabel(METRICS[metric].meaning, fontsize=8)
    ax.tick_params(axis="x", labelsize=8)
    ax.grid(axis="x", alpha=0.3)
    return figure


def greys(images: Array) -> str:
    """The colour map of grey images: what is mostly ground, digits and letters, as ink on paper; faces as they are."""
    return "gray_r" if np.median(images) < 0.1 else "gray"


def tile(images: Array, columns: int) -> Array:
    """Images (N, H, W) or (N, C, H, W) as one sheet (H', W') or (H', W', C), with a line between them."""
    images = np.asarray(images)
    if images.ndim == 4:
        images = np.moveaxis(images, 1, -1)
    n, height, width = images.shape[:3]
    lines = -(-n // columns)
    sheet = np.full((lines * (height + 1) - 1, columns * (width + 1) - 1, *images.shape[3:]), 0.5)
    for i, image in enumerate(images):
        top, left = (i // columns) * (height + 1), (i % columns) * (width + 1)
        sheet[top : top + height, left : left + width] = image
    return sheet


def samples_picture(sheets: Sequence[tuple[str, Array]]) -> Figure:
    """A sheet of samples for each program, real data first."""
    figure, axes = panels(len(sheets), 4, 2.4, 2.6)
    colours = greys(sheets[0][1])
    for ax, (label, images) in zip(axes, sheets, strict=True):
        ax.set_axis_off()
        ax.imshow(tile(images[:64], 8), cmap=colours, vmin=0, vmax=1, interpolation="nearest")
        ax.set_title(label, fontsize=9)
    return figure


def image_sheet(images: Array, path: Path) -> None:
    """Writes images as one PNG sheet."""
    columns = max(1, round(len(images) ** 0.5))
    sheet = tile(images, columns)
    scale = 4 if sheet.shape[1] < 600 else 1
    figure = Figure(figsize=(sheet.shape[1] * scale / 100, sheet.shape[0] * scale / 100), dpi=100)
    ax = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    ax.set_axis_off()
    ax.imshow(np.clip(sheet, 0, 1), cmap=greys(images), vmin=0, vmax=1, interpolation="nearest")
    figure.savefig(path, dpi=100)


def curves(sequences: Array, lengths: Sequence[int]) -> Figure:
    """Sequences (N, T, D) of real numbers, each a line up to its length; a panel for each of the D numbers."""
    figure, axes = panels(sequences.shape[2], 3, 3.6, 2.4)
    for number, ax in enumerate(axes):
        for values, length in zip(sequences, lengths, strict=True):
            ax.plot(np.arange(1, length + 1), values[:length, number], lw=0.8, alpha=0.6, marker=".", ms=3)
        ax.set_title(f"number {number + 1} of a step", fontsize=8)
        ax.tick_params(labelsize=7)
        ax.grid(alpha=0.3)
    figure.supxlabel("step", fontsize=8)
    return figure


def map_picture(maps: Sequence[tuple[str, Artifact]]) -> Figure:
    """Codes in the plane, each drawn as the number of its class, in the colour of that."""
    figure, axes = panels(len(maps), 4, 2.7, 2.9)
    for ax, (label, artifact) in zip(axes, maps, strict=True):
        points, labels = artifact["map"], artifact["labels"]
        for number in np.unique(labels):
            mine, shade = points[labels == number], f"C{int(number) % 10}"
            ax.scatter(mine[:, 0], mine[:, 1], s=16, marker=f"${int(number)}$", color=shade, linewidths=0)
        # A few codes far away must not squeeze all others into a corner.
        low, high = np.quantile(points, [0.01, 0.99], 0)
        margin = 0.08 * np.maximum(high - low, 1e-9)
        ax.set(xlim=(low[0] - margin[0], high[0] + margin[0]), ylim=(low[1] - margin[1], high[1] + margin[1]))
        ax.set(xticks=[], yticks=[])
        ax.set_title(label, fontsize=9)
    return figure
