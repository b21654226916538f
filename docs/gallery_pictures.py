"""The pictures of docs/gallery.py: each draws what one kind of program makes of its data, from a fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from benchmarks.cells import latents
from benchmarks.cells.samples import visible
from benchmarks.report import comparison, pictures, plots
from inference import Fit, fit
from inference.environment import seeded
from inference.evaluation.queries.completion import inpaint
from inference.evaluation.samples.judge import draw_answers, draw_samples
from inference.evaluation.topics import coherence, top_words
from zoo import catalogue, notebook
from zoo.datasets import Dataset

SHOWN = 10

Draw = Callable[[Fit, Dataset], Figure]


def save_small(picture: Image.Image, path: Path, colours: int) -> None:
    """Writes a picture in few colours, a third of its bytes: the docs have hundreds."""
    few = picture.quantize(colours, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    few.save(path, optimize=True)


# Pictures of images


def samples(found: Fit, data: Dataset) -> Figure:
    """Test data beside as many samples."""
    return plots.samples_picture(_sheets(found, data))


def _sheets(found: Fit, data: Dataset) -> list[tuple[str, Any]]:
    drawn = draw_samples(found.program, data.test, 64, 1).x
    return [("test data", _seen(data.test.x[:64], data)), ("samples", _seen(drawn, data))]


def _seen(x: Tensor, data: Dataset) -> Any:
    return visible(x, data.card).clamp(0, 1).numpy()


def beside(what: str, of: Callable[[Any], Tensor]) -> Draw:
    """Data, samples, and numbers of the program that are images themselves, (n, H, W) in [0, 1]."""

    def draw(found: Fit, data: Dataset) -> Figure:
        figure, axes = _three(found, data, what)
        images = of(found.program).detach().numpy()
        sheet = plots.tile(images, round(len(images) ** 0.5))
        axes[2].imshow(sheet, cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
        return figure

    return draw


def _three(found: Fit, data: Dataset, what: str) -> tuple[Figure, list[Axes]]:
    """Data and samples drawn already, and a third panel with its title."""
    figure, axes = plots.panels(3, 3, 2.4, 2.6)
    for ax, (label, images) in zip(axes, _sheets(found, data), strict=False):
        ax.imshow(plots.tile(images, 8), cmap=plots.greys(images), vmin=0, vmax=1, interpolation="nearest")
        ax.set_title(label, fontsize=9)
    axes[2].set_title(what, fontsize=9)
    for ax in axes:
        ax.set_axis_off()
    return figure, axes


def tree(found: Fit, data: Dataset) -> Figure:
    """Samples, and the edges between pixels."""
    figure, axes = _three(found, data, "pixels that depend on each other")
    program: Any = found.program
    children = program.order[1:]
    for child, parent in zip(children.tolist(), program.parents[children].tolist(), strict=True):
        axes[2].plot([child % 8, parent % 8], [child // 8, parent // 8], color=plots.GUIDE, lw=1.2)
    axes[2].invert_yaxis()
    axes[2].set_aspect("equal")
    return figure


def lower_halves(found: Fit, data: Dataset) -> Figure:
    """The upper half is given, lower ones are drawn."""
    x = data.test.x[:SHOWN]
    known = torch.zeros(x.shape[1:], dtype=torch.bool)
    known[: x.shape[1] // 2] = True
    answer = inpaint(found.program, x, known, draws=3, particles=64, steps=30)
    shown = [("given", torch.where(known, x, 0.5)), *((f"drawn {i + 1}", v) for i, v in enumerate(answer.values))]
    return _rows([*shown, ("true", x)])


def _rows(kinds: list[tuple[str, Tensor]]) -> Figure:
    """Images that belong together in one column, a row for each kind."""
    stacked = np.stack([images.detach().clamp(0, 1).numpy() for _, images in kinds])
    return _labelled(stacked, [name for name, _ in kinds])


def _labelled(grid: Any, names: list[str], inches: float = 0.44) -> Figure:
    """Images (rows, columns, H, W), each so many inches wide, with the name of each row."""
    rows, columns = grid.shape[:2]
    tall = grid.shape[2] / grid.shape[3]
    figure = notebook.figure(inches * columns + 0.9, inches * tall * rows + 0.1)
    ax = figure.subplots()
    sheet = plots.tile(grid.reshape(-1, *grid.shape[2:]), columns)
    ax.imshow(np.clip(sheet, 0, 1), cmap=plots.greys(grid[-1]), vmin=0, vmax=1, interpolation="nearest")
    each = sheet.shape[0] / rows
    ax.set_yticks([(k + 0.5) * each for k in range(rows)], names, fontsize=7)
    ax.tick_params(length=0)
    ax.set(xticks=[])
    return figure


def reconstructions(found: Fit, data: Dataset) -> Figure:
    """Test data, what is left of them after their codes, and samples."""
    program: Any = found.program
    x = data.test.x[:SHOWN]
    with torch.no_grad(), seeded(1):
        back = program.decode(program.quantised(program.codes(x))).mean
    return _rows([("test data", x), ("decoded", back), ("samples", program.generate(SHOWN))])


def classes(found: Fit, data: Dataset) -> Figure:
    """Ten samples of each class that was asked for."""
    return _labelled(latents.class_grid(found.program, seed=1).clamp(0, 1).numpy(), [f"{c}" for c in range(10)])


# Pictures of what was given and what was made of it


def restored(found: Fit, data: Dataset) -> Figure:
    """What is given of test images, and what the program makes of it."""
    program: Any = found.program
    x = data.test.x[:SHOWN]
    context = program.puzzles(x, seed=1)
    drawn = draw_answers(program, context, 3, 1)
    told = program.told(context)
    seen = torch.where(told.known, told.values, 0.5)
    return _rows([("given", seen), *((f"drawn {i + 1}", v) for i, v in enumerate(drawn)), ("true", x)])


# Pictures of points, sounds, words, answers


def points(found: Fit, data: Dataset) -> Figure:
    """Data in the plane, and samples over them."""
    drawn = draw_samples(found.program, data.test, 500, 1).x
    return pictures.points_picture([("test data", data.test.x[:500].numpy()), ("samples", drawn.numpy())])


def clusters(found: Fit, data: Dataset) -> Figure:
    """Data in the plane, and draws of what comes next."""
    drawn = found.predict(500, size=1, seed=1)["x"][:, 0]
    return pictures.points_picture([("test data", data.test.x[:500].numpy()), ("predictions", drawn.numpy())])


def correlations(found: Fit, data: Dataset) -> Figure:
    """How numbers go together, in data and samples."""
    drawn = draw_samples(found.program, data.test, 5000, 1).x
    figure, axes = plots.panels(2, 2, 2.4, 2.6)
    for ax, (label, x) in zip(axes, (("test data", data.test.x), ("samples", drawn)), strict=True):
        ax.imshow(np.corrcoef(x.numpy(), rowvar=False), cmap="RdBu_r", vmin=-1, vmax=1)
        ax.set(title=label, xticks=[], yticks=[])
        ax.title.set_fontsize(9)
    return figure


def spectrograms(found: Fit, data: Dataset) -> Figure:
    """Sounds as what is heard when: time to the right, pitch upwards."""
    context = None if found.program.example_context(1) is None else data.test.context[:SHOWN]
    with seeded(1):
        drawn = found.program.generate(SHOWN, context)
    seen = [visible(x, data.card) for x in (data.test.x[:SHOWN], drawn)]
    wide = max(1, seen[0].shape[-2] // seen[0].shape[-1])
    return _rows(
        [(name, x.repeat_interleave(wide, -1)) for name, x in zip(("test data", "samples"), seen, strict=True)]
    )


def rolls(found: Fit, data: Dataset) -> Figure:
    """Music: time to the right, pitch upwards."""
    drawn = draw_samples(found.program, data.test, 3, 1).x
    seen = [x[:3, :128, 20:68].mT.flip(-2).numpy() for x in (data.test.x, drawn)]
    return _labelled(np.stack(seen), ["test data", "samples"], inches=1.6)


def words(found: Fit, data: Dataset) -> Figure:
    """The words of each topic."""
    program: Any = found.program
    topics = program.topic_words()
    best = np.array([" ".join(row) for row in top_words(topics, data.card.names, 6)])
    together = coherence(topics, data.train.x).numpy()
    figure = pictures.topics_picture([("coherence, words of each topic", {"words": best, "coherence": together})])
    figure.set_size_inches(3.9, 0.14 * len(best) + 0.35)
    return figure


def marginals(*chosen: tuple[str, int | None]) -> Draw:
    """Some numbers under the guide, over the exact posterior."""

    def draw(found: Fit, data: Dataset) -> Figure:
        exact = fit(catalogue.name_of(found.program), data, "exact", device="cpu").draw(4000)
        guide, columns = found.draw(4000), []
        for site, i in chosen:
            title = site if i is None else f"{site}, number {i + 1}"
            truth, drawn = (values[site] if i is None else values[site][..., i] for values in (exact, guide))
            columns.append((title, False, truth.numpy().ravel(), [(found.method, drawn.numpy().ravel())]))
        return comparison.marginals_picture(columns)

    return draw


def planes(found: Fit, data: Dataset) -> Figure:
    """The latents of one example: the exact posterior, and the guide's draws over it."""
    x = data.test.x[data.test.x.norm(dim=1).argmax()][None]
    exact = fit(found.program, data, "exact", device="cpu").draw(500, x)["z"][:, 0]
    return pictures.points_picture(
        [("exact posterior", exact.numpy()), (f"drawn by {found.method}", found.draw(500, x)["z"][:, 0].numpy())]
    )


def intervals(site: str, called: str) -> Draw:
    """Mean and 95% of each number of a site."""

    def draw(found: Fit, data: Dataset) -> Figure:
        values = found.draw(2000)[site].flatten(1)
        low, mean, high = values.quantile(0.025, 0), values.mean(0), values.quantile(0.975, 0)
        figure = notebook.figure(4.8, 2.4)
        ax = figure.subplots()
        ax.axhline(0, color=plots.EXACT, lw=0.8)
        ax.vlines(range(len(mean)), low, high, color=plots.GUIDE, lw=2)
        ax.scatter(range(len(mean)), mean, s=14, color="black", zorder=3)
        ax.set_xlabel(called, fontsize=8)
        ax.tick_params(labelsize=7)
        return figure

    return draw


def predictions(found: Fit, data: Dataset) -> Figure:
    """Test examples in the order of what is predicted of them, with 95% of the predictions."""
    drawn = found.predict(500, context=data.test.context, seed=1)["x"]
    order = drawn.mean(0).argsort()
    low, mean, high = (drawn.quantile(q, 0)[order] for q in (0.025, 0.5, 0.975))
    figure = notebook.figure(4.8, 2.4)
    ax = figure.subplots()
    ax.fill_between(range(len(order)), low, high, color=plots.GUIDE, alpha=0.25, lw=0)
    ax.plot(mean, color=plots.GUIDE, lw=1.4)
    ax.scatter(range(len(order)), data.test.x[order], s=8, color="black", zorder=3)
    ax.set_xlabel("test examples, by their prediction", fontsize=8)
    ax.tick_params(labelsize=7)
    return figure
