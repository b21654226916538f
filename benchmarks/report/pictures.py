"""Pictures of what a generator has learnt: paths between latents, codes turned one at a time, classes, codes of data.

Functions without `picture` in their name compute arrays, from a program; those with it draw them, and need only the
arrays, so that a report draws what cells left behind. `interpolation`: White, "Sampling generative networks", 2016
(on the sphere for Gaussian latents, where straight lines pass through improbable points). `traversal`: the figures of
Chen et al., "InfoGAN", 2016. `aggregate_codes`: figure 2 of Makhzani et al., "Adversarial autoencoders", 2016.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.cells.latents import PANELS, history_arrays
from benchmarks.report.plots import EXACT, GUIDE, greys, panels, samples_picture, tile
from inference.history import History
from zoo import notebook
from zoo.errors import OptionError

__all__ = [
    "HOW_GAMES_WENT", "aggregate_picture", "beside_picture", "captions_picture", "grid_picture",
    "history_picture", "pictures", "points_picture", "topics_picture",
]  # fmt: skip

Array = np.ndarray[Any, Any]
Series = Mapping[str, Array]

HOW_GAMES_WENT = (
    "how each game went. What generator and critic lose, how many pairs of a real and a made example the critic orders "
    "rightly (dotted: it cannot tell), the divergence that the game estimates, and how varied the samples are (dotted: "
    "as the data; red: collapsed)."
)
"""What a history picture shows, for its caption."""


def grid_picture(title: str, images: Array, across: str, down: str) -> Figure:
    """Images (rows, columns, H, W) as one sheet, with names of its two directions."""
    rows, columns = images.shape[:2]
    figure = notebook.figure(0.42 * columns + 0.7, 0.42 * rows + 0.9)
    ax = figure.subplots()
    sheet = tile(images.reshape(-1, *images.shape[2:]), columns)
    ax.imshow(np.clip(sheet, 0, 1), cmap=greys(images), vmin=0, vmax=1, interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    ax.set_xlabel(across, fontsize=8)
    ax.set_ylabel(down, fontsize=8)
    ax.set_title(title, fontsize=9)
    return figure


def beside_picture(columns: Sequence[tuple[str, Array]], rows: int = 12, across: int = 2) -> Figure:
    """What belongs together in one row, a column for each kind: input, output, truth, say.

    Args:
        columns: (what it is, images (N, H, W) or (N, C, H, W)), in one order.
        rows: Of the sheet, at most.
        across: Sheets beside each other, for the next images.
    """
    n, width = len(columns[0][1]), len(columns)
    across = max(1, min(across, -(-n // rows)))
    rows = min(rows, n)
    figure = notebook.figure(0.62 * width * across + 0.4, 0.46 * rows + 1.1)
    for i, ax in enumerate(figure.subplots(1, across, squeeze=False)[0]):
        shown = [images[i * rows : (i + 1) * rows] for _, images in columns]
        sheet = tile(np.stack(shown, 1).reshape(-1, *shown[0].shape[1:]), width)
        ax.imshow(np.clip(sheet, 0, 1), cmap=greys(columns[-1][1]), vmin=0, vmax=1, interpolation="nearest")
        each = sheet.shape[1] / width
        names = [name for name, _ in columns]
        ax.set_xticks([(k + 0.5) * each for k in range(width)], names, fontsize=7, rotation=60, ha="left")
        ax.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
        ax.set(yticks=[])
    return figure


def captions_picture(captions: Array, images: Array, shown: int = 24) -> Figure:
    """Images (N, H, W) with the caption that each was drawn for, (N,) of strings."""
    count = min(shown, len(images))
    figure, axes = panels(count, 6, 1.5, 1.75)
    for ax, caption, image in zip(axes, captions, images, strict=False):
        ax.imshow(np.clip(tile(image[None], 1), 0, 1), cmap=greys(images), vmin=0, vmax=1, interpolation="nearest")
        ax.set(xticks=[], yticks=[])
        ax.set_xlabel(textwrap.fill(str(caption), 22), fontsize=6)
    return figure


def topics_picture(artifacts: Sequence[tuple[str, Mapping[str, Array]]], shown: int = 20) -> Figure:
    """Words of topics, a panel for each model.

    Args:
        artifacts: (name, arrays `words` (K,) of strings and `coherence` (K,)).
        shown: Topics of a panel at most, those whose words go together best.
    """
    rows = min(shown, max(len(arrays["words"]) for _, arrays in artifacts))
    figure, axes = panels(len(artifacts), 2, 5.6, 0.19 * rows + 0.5)
    for ax, (name, arrays) in zip(axes, artifacts, strict=False):
        order = np.argsort(-arrays["coherence"], kind="stable")[:shown]
        lines = [f"{arrays['coherence'][k]:5.2f}  {arrays['words'][k]}" for k in order]
        ax.text(0.0, 1.0, "\n".join(lines), fontsize=6.5, family="monospace", va="top", transform=ax.transAxes)
        ax.set_title(name, fontsize=8, loc="left")
        ax.axis("off")
    return figure


def aggregate_picture(title: str, codes: Array, prior: Array, labels: Array | None = None) -> Figure:
    """Codes of data, coloured by class if labels are given, beside as many draws of the prior.

    More than two dimensions are turned to the codes' first two principal components, for both alike.
    """
    names = [f"code {i}" for i in range(codes.shape[1])][:2]
    if codes.shape[1] > 2:
        centre = codes.mean(0)
        axes = np.linalg.svd(codes - centre, full_matrices=False)[2][:2].T
        codes, prior = (codes - centre) @ axes, (prior - centre) @ axes
        names = ["first principal component", "second principal component"]
    elif codes.shape[1] == 1:  # spread over a line, so that points do not hide each other
        rng = np.random.RandomState(0)
        codes, prior = (np.column_stack([v, rng.rand(len(v))]) for v in (codes, prior))
        names = [*names, "(at random)"]
    figure = notebook.figure(7.2, 3.7)
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    if labels is None:
        left.scatter(codes[:, 0], codes[:, 1], s=4, color=GUIDE, alpha=0.6, linewidths=0)
    else:
        dots = left.scatter(codes[:, 0], codes[:, 1], s=5, c=labels, cmap="tab10", vmin=-0.5, vmax=9.5, linewidths=0)
        bar = figure.colorbar(dots, ax=[left, right], ticks=range(10), shrink=0.85)
        bar.set_label("class", fontsize=8)
        bar.ax.tick_params(labelsize=7)
    right.scatter(prior[:, 0], prior[:, 1], s=4, color=EXACT, alpha=0.7, linewidths=0)
    for ax, name in ((left, "codes of test data"), (right, "draws of the prior")):
        ax.set_title(name, fontsize=9)
        ax.set_xlabel(names[0], fontsize=8)
        ax.tick_params(labelsize=7)
        ax.set_aspect("equal")
    left.set_ylabel(names[1], fontsize=8)
    figure.suptitle(title, fontsize=10)
    return figure


def points_picture(clouds: Sequence[tuple[str, Array]], reach: float | None = None) -> Figure:
    """Samples in the plane, the data first and behind all the others; `reach` is half the width that is shown."""
    real = clouds[0][1]
    reach = 1.25 * float(np.abs(real).max()) if reach is None else reach
    figure, axes = panels(len(clouds), 4, 2.4, 2.6)
    for ax, (label, points) in zip(axes, clouds, strict=True):
        ax.scatter(real[:, 0], real[:, 1], s=3, color=EXACT, alpha=0.35, linewidths=0)
        outside = float((np.abs(points) > reach).any(1).mean())
        if points is not real:
            ax.scatter(points[:, 0], points[:, 1], s=10, marker="+", color=GUIDE, alpha=0.6, linewidths=0.5)
        ax.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
        ax.tick_params(labelsize=7)
        ax.set_title(label + (f"\n{100 * outside:.0f}% outside" if outside >= 0.005 else ""), fontsize=9)
    return figure


def history_picture(games: Sequence[tuple[str, History | Series]]) -> Figure:
    """How games went: a row for each, with losses, critic accuracy, divergence and diversity over the steps.

    Lines that mean something are drawn: a critic that cannot tell (accuracy 0.5), samples as varied as data (diversity
    1), and the diversity below which a game counts as collapsed (0.5). A value of a reported step averages all steps
    since the one before.

    Args:
        games: (label, history); a history, or arrays named as its metrics with '_step' behind the steps of each.

    Raises: OptionError when there is none.
    """
    if not games:
        raise OptionError("There is no game to draw; give at least one (label, history).")
    figure = notebook.figure(11.5, 1.75 * len(games) + 0.4)
    axes = figure.subplots(len(games), len(PANELS), squeeze=False, sharex="row")
    for line, (label, history) in enumerate(games):
        row = axes[line]
        series = history_arrays(history) if isinstance(history, History) else history
        for ax, (panel, metrics) in zip(row, PANELS.items(), strict=True):
            _panel(ax, panel, metrics, series)
            if line == 0:
                ax.set_title(panel, fontsize=9)
            if line == len(games) - 1:
                ax.set_xlabel("step", fontsize=8)
        row[0].set_ylabel(label, fontsize=8)
    return figure


def _panel(ax: Axes, panel: str, metrics: Sequence[str], series: Series) -> None:
    names = {"loss": "generator", "critic_loss": "critic"}
    drawn = [metric for metric in metrics if metric in series]
    for metric, (colour, line) in zip(drawn, ((GUIDE, "-"), ("#2e6f9e", "--")), strict=False):
        ax.plot(series[f"{metric}_step"], series[metric], lw=1.0, color=colour, ls=line, label=names.get(metric))
    if panel == "losses" and drawn:
        ax.legend(fontsize=7, frameon=False, loc="best")
    if panel == "critic accuracy":
        ax.axhline(0.5, color=EXACT, lw=0.8, ls=":")
        ax.set_ylim(-0.03, 1.03)
    elif panel == "diversity":
        ax.axhline(1.0, color=EXACT, lw=0.8, ls=":")
        ax.axhspan(0.0, 0.5, color=GUIDE, alpha=0.12, lw=0)
        ax.set_ylim(bottom=0.0)
    if not drawn:
        ax.text(0.5, 0.5, "not measured", ha="center", va="center", fontsize=8, transform=ax.transAxes)
    ax.tick_params(labelsize=7)
    ax.grid(alpha=0.3)


def pictures(artifacts: Sequence[tuple[str, Mapping[str, Array]]]) -> list[tuple[str, str, Figure]]:
    """What cells of kind 'samples' left behind, drawn: (name, caption, figure).

    Args:
        artifacts: (label of the row, arrays of its first seed); see `benchmarks.cells.samples.save_artifact`.
    """
    found: list[tuple[str, str, Figure]] = []
    if not artifacts:
        return found
    first = artifacts[0][1]
    if "points" in first:
        clouds = [("data", first["data"]), *((name, arrays["points"]) for name, arrays in artifacts)]
        found.append(
            (
                "points",
                "Data (grey dots, behind all) and samples of each program (red crosses), seed 0.",
                points_picture(clouds),
            )
        )
    elif "given" in first:
        caption = "Test images that were given (left), what each program makes of them, and the true answers, seed 0."
        columns = [(name, arrays["samples"]) for name, arrays in artifacts]
        columns = [("given", first["given"]), *columns, ("true", first["data"])]
        found.append(("translations", caption, beside_picture(columns)))
    else:
        sheets = [("test data", first["data"]), *((name, arrays["samples"]) for name, arrays in artifacts)]
        found.append(("samples", "Test data and samples of each program, seed 0.", samples_picture(sheets)))
    games = [(name, arrays) for name, arrays in artifacts if "critic_accuracy" in arrays]
    if games:
        caption = f"Seed 0: {HOW_GAMES_WENT}"
        found.append(("games", caption, history_picture(games)))
    for name, arrays in artifacts:
        found += _of_latents(name, arrays)
    return found


def _of_latents(label: str, arrays: Mapping[str, Array]) -> list[tuple[str, str, Figure]]:
    found = []
    if "interpolation" in arrays:
        title, slug = f"{label}: between two latents", f"interpolation-{label}"
        caption = f"{label}, seed 0: each row goes from one draw of the prior to another."
        found.append(
            (slug, caption, grid_picture(title, arrays["interpolation"], "from one latent to another", "pairs"))
        )
    if "class_grid" in arrays:
        figure = grid_picture(f"{label}: the class asked for", arrays["class_grid"], "other latents", "class, from 0")
        found.append((f"classes-{label}", f"{label}, seed 0: samples of each class, a row each.", figure))
    if "growth" in arrays:
        title, caption = f"{label}: growing", f"{label}, seed 0: the same latents at each size, a row each."
        found.append((f"growth-{label}", caption, grid_picture(title, arrays["growth"], "size, growing", "latents")))
    if "completions" in arrays:
        drawn = arrays["completions"].shape[1] - 2
        names = ["given", *(f"drawn {i + 1}" for i in range(drawn)), "true"]
        caption = f"{label}, seed 0: what was given of test images, completions, and the whole images."
        columns = [(name, arrays["completions"][:, i]) for i, name in enumerate(names)]
        found.append((f"completions-{label}", caption, beside_picture(columns)))
    if "attribute_grid" in arrays:
        names = ["given", *map(str, arrays["attributes"])]
        caption = f"{label}, seed 0: test images, and what they become when attributes are asked for."
        columns = [(name, arrays["attribute_grid"][:, i]) for i, name in enumerate(names)]
        found.append((f"attributes-{label}", caption, beside_picture(columns)))
    if "captions" in arrays:
        caption = f"{label}, seed 0: captions of test images, and what is drawn for them."
        found.append((f"captions-{label}", caption, captions_picture(arrays["captions"], arrays["samples"])))
    for key in sorted(arrays):
        if key.startswith("traversal_"):
            code = key.removeprefix("traversal_")
            caption = f"{label}, seed 0: the code {code} runs through its values along each row, all else fixed."
            figure = grid_picture(f"{label}: code {code}", arrays[key], f"values of {code}", "other latents")
            found.append((f"traversal-{code}-{label}", caption, figure))
    if "codes" in arrays:
        caption = f"{label}, seed 0: codes of test data by class, and as many draws of the prior."
        figure = aggregate_picture(
            f"{label}: aggregate posterior", arrays["codes"], arrays["prior"], arrays.get("labels")
        )
        found.append((f"codes-{label}", caption, figure))
    return found
