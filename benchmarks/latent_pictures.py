"""Pictures of what a generator has learnt: paths between latents, codes turned one at a time, classes, codes of data.

Functions without `picture` in their name compute arrays, from a program; those with it draw them, and need only the
arrays, so that a report draws what cells left behind. `interpolation`: White, "Sampling generative networks", 2016
(on the sphere for Gaussian latents, where straight lines pass through improbable points). `traversal`: the figures of
Chen et al., "InfoGAN", 2016. `aggregate_codes`: figure 2 of Makhzani et al., "Adversarial autoencoders", 2016.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pyro import poutine
from torch import Tensor

from benchmarks.plots import EXACT, GUIDE, samples_picture, tile
from inference.distances import flatten_draws
from inference.fit import seeded
from inference.history import History
from inference.particles import draw
from zoo.datasets import Data
from zoo.errors import CapabilityError, OptionError, UnknownNameError
from zoo.program import Implicit, Program, Site

__all__ = [
    "HOW_GAMES_WENT",
    "aggregate_codes",
    "aggregate_picture",
    "class_grid",
    "decoded",
    "grid_picture",
    "history_arrays",
    "history_picture",
    "interpolation",
    "pictures",
    "points_picture",
    "traversal",
]  # fmt: skip

Array = np.ndarray[Any, Any]
Series = Mapping[str, Array]

PANELS: dict[str, tuple[str, ...]] = {
    "losses": ("loss", "critic_loss"),
    "critic accuracy": ("critic_accuracy",),
    "divergence": ("divergence",),
    "diversity": ("diversity",),
}
"""Panel of a history picture -> the metrics of the fit's history that it shows."""
HOW_GAMES_WENT = (
    "how each game went. What generator and critic lose, how many pairs of a real and a made example the critic orders "
    "rightly (dotted: it cannot tell), the divergence that the game estimates, and how varied the samples are (dotted: "
    "as the data; red: collapsed)."
)
"""What a history picture shows, for its caption."""


@torch.no_grad()
def decoded(program: Program, latents: Mapping[str, Tensor], context: Tensor | None = None) -> Tensor:
    """What the program makes of latents: the mean of x where x has a density, else its value.

    Args:
        program: A program whose latents belong to the examples, in eval mode.
        latents: Site -> (n, *event) for all of its sites.
        context: Contexts (n, ...), or None.

    Returns: (n, *event_shape).
    """
    n = len(next(iter(latents.values())))
    trace = poutine.trace(poutine.condition(program.model, data=dict(latents))).get_trace(None, context, n)
    site = trace.nodes["x"]
    value: Tensor = site["value"] if isinstance(site["fn"], Implicit) else site["fn"].mean
    return value


def _prior(program: Program, n: int, context: Tensor | None = None) -> dict[str, Tensor]:
    """n draws of the latents, site -> (n, *event)."""
    with torch.no_grad():
        trace = poutine.trace(program.model).get_trace(None, context, n)
    sites = program.sites()
    if not sites or any(site.is_global for site in sites.values()):
        raise CapabilityError(f"{type(program).__name__} has no latents that belong to examples; there is no path.")
    return {name: trace.nodes[name]["value"] for name in sites}


def _context(program: Program, rows: Tensor) -> Tensor | None:
    """Contexts of the kind that a program shows of itself, chosen by rows."""
    example = program.example_context(int(rows.max()) + 1)
    return None if example is None else example[rows.to(example.device)]


def interpolation(program: Program, rows: int = 6, columns: int = 10, seed: int = 0) -> Tensor:
    """Images along paths between two draws of the prior, (rows, columns, *event_shape).

    Normal latents turn on the sphere (their length interpolated), others move on a straight line; discrete ones and
    contexts stay as they are at the start.
    """
    with seeded(seed):
        context = _context(program, torch.arange(rows))
        start, end = (_prior(program, rows, context) for _ in range(2))
    t = torch.linspace(0, 1, columns)
    latents = {
        name: _between(site, start[name], end[name], t.to(start[name])).flatten(0, 1)
        for name, site in program.sites().items()
    }
    repeated = None if context is None else context.repeat_interleave(columns, 0)
    return decoded(program, latents, repeated).unflatten(0, (rows, columns))


def _between(site: Site, a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """(n, *event), (n, *event), (T,) -> (n, T, *event)."""
    flat_a, flat_b = a.flatten(1)[:, None], b.flatten(1)[:, None]
    if site.is_discrete:
        path = flat_a.expand(-1, len(t), -1)
    elif site.distribution != "Normal" or flat_a.shape[-1] < 2:
        path = flat_a + t[:, None] * (flat_b - flat_a)
    else:
        long_a, long_b = flat_a.norm(dim=-1, keepdim=True), flat_b.norm(dim=-1, keepdim=True)
        one_a, one_b = flat_a / long_a, flat_b / long_b
        angle = (one_a * one_b).sum(-1, keepdim=True).clamp(-1, 1).acos().clamp(min=1e-6)
        turned = (((1 - t[:, None]) * angle).sin() * one_a + (t[:, None] * angle).sin() * one_b) / angle.sin()
        path = turned * (long_a + t[:, None] * (long_b - long_a))
    return path.unflatten(-1, a.shape[1:] or (1,)).reshape(len(a), len(t), *a.shape[1:])


def traversal(program: Program, site: str, index: int = 0, rows: int = 10, columns: int = 10, seed: int = 0) -> Tensor:
    """Images while one code runs through its values, everything else fixed in a row, (rows, columns, *event_shape).

    A discrete code runs through its values (there are then as many columns), a continuous one through its prior's
    quantiles, from the first to the last percent. Rows differ in all other latents; if there is another discrete code,
    row i has its i-th value.

    Args:
        program: A program whose latents belong to the examples, in eval mode.
        site: Name of the code.
        index: Which number of a continuous code.
        rows, columns: Of the grid.
        seed: Of the other latents.

    Raises: UnknownNameError for a site that does not exist, OptionError for an index beyond it.
    """
    sites = program.sites()
    if site not in sites:
        raise UnknownNameError("latent site", site, sites)
    with seeded(seed):
        context = _context(program, torch.arange(rows))
        latents = _prior(program, rows, context)
        many = _prior(program, 2000, _context(program, torch.arange(2000) % rows))
    for name, other in sites.items():
        if name != site and other.is_discrete:
            each = _each_value(many[name], other)
            latents[name] = each[torch.arange(rows) % len(each)]
    if sites[site].is_discrete:
        each = _each_value(many[site], sites[site])
        columns = len(each)
        values = each.expand(rows, *each.shape)
    else:
        flat, numbers = many[site].flatten(1), sites[site].event_shape.numel()
        if not 0 <= index < numbers:
            raise OptionError(f"index must lie between 0 and {numbers - 1} for the site {site!r}, got {index}.")
        quantiles = flat[:, index].quantile(torch.linspace(0.01, 0.99, columns).to(flat))
        turned = latents[site].flatten(1)[:, None].repeat(1, columns, 1)
        turned[..., index] = quantiles
        values = turned.reshape(rows, columns, *latents[site].shape[1:])
    all_of = {
        name: values.flatten(0, 1) if name == site else value.repeat_interleave(columns, 0)
        for name, value in latents.items()
    }
    repeated = None if context is None else context.repeat_interleave(columns, 0)
    return decoded(program, all_of, repeated).unflatten(0, (rows, columns))


def _each_value(draws: Tensor, site: Site) -> Tensor:
    """The values of a discrete site in order, (K, *event): one-hot vectors, or the numbers up to the largest drawn."""
    if site.event_shape:
        return torch.eye(int(site.event_shape[-1])).to(draws)
    return torch.arange(int(draws.max()) + 1).to(draws)


def class_grid(program: Program, columns: int = 10, seed: int = 0) -> Tensor:
    """Samples of each class that a conditional program can be asked for, (classes, columns, *event_shape).

    The contexts are one-hot classes. A column has the same latents in every row, as far as the seed can see to it.

    Raises: CapabilityError for a program without a context.
    """
    context = program.example_context(2)
    if context is None:
        raise CapabilityError(f"{type(program).__name__} takes no context, so that no class can be asked for.")
    classes = context.flatten(1).shape[1]
    rows = []
    for c in range(classes):
        asked = torch.zeros_like(context[:1].flatten(1)).expand(columns, -1).clone()
        asked[:, c] = 1
        with seeded(seed):
            rows.append(program.generate(columns, asked.reshape(columns, *context.shape[1:])))
    return torch.stack(rows)


@torch.no_grad()
def aggregate_codes(program: Program, guide: Callable[..., Any], data: Data, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Codes of data and draws of the prior, all latent sites side by side: (n, k) each.

    A code is one draw of the guide for each example; together they are draws of the aggregate posterior
    E_data[q(z | x)], which is the prior if guide and program belong together.
    """
    with seeded(seed, data.x.device):
        codes = draw(guide, 1, *data, density=False).values
        prior = _prior(program, data.size, data.context)
    names = [name for name, site in program.sites().items() if not site.is_discrete]
    return (
        flatten_draws({name: codes[name][0] for name in names}),
        flatten_draws({name: prior[name] for name in names}),
    )


def grid_picture(title: str, images: Array, across: str, down: str) -> Figure:
    """Images (rows, columns, H, W) as one sheet, with names of its two directions."""
    rows, columns = images.shape[:2]
    figure = Figure(figsize=(0.42 * columns + 0.7, 0.42 * rows + 0.9), layout="constrained")
    ax = figure.subplots()
    sheet = tile(images.reshape(-1, *images.shape[2:]), columns)
    ax.imshow(np.clip(sheet, 0, 1), cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    ax.set_xlabel(across, fontsize=8)
    ax.set_ylabel(down, fontsize=8)
    ax.set_title(title, fontsize=9)
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
    figure = Figure(figsize=(7.2, 3.7), layout="constrained")
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


def points_picture(panels: Sequence[tuple[str, Array]], reach: float | None = None) -> Figure:
    """Samples in the plane, the data first and behind all the others; `reach` is half the width that is shown."""
    real = panels[0][1]
    reach = 1.25 * float(np.abs(real).max()) if reach is None else reach
    columns = min(len(panels), 4)
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(2.4 * columns, 2.6 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for ax in axes[len(panels) :]:
        ax.set_visible(False)
    for ax, (label, points) in zip(axes, panels, strict=False):
        ax.scatter(real[:, 0], real[:, 1], s=3, color=EXACT, alpha=0.35, linewidths=0)
        outside = float((np.abs(points) > reach).any(1).mean())
        if points is not real:
            ax.scatter(points[:, 0], points[:, 1], s=3, color=GUIDE, alpha=0.6, linewidths=0)
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
    figure = Figure(figsize=(11.5, 1.75 * len(games) + 0.4), layout="constrained")
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


def history_arrays(history: History) -> dict[str, Array]:
    """The metrics of PANELS that a history has, and the steps of each as '<metric>_step', for an artifact."""
    found: dict[str, Array] = {}
    for metric in (metric for metrics in PANELS.values() for metric in metrics):
        steps, values = history.series(metric)
        if steps:
            found |= {f"{metric}_step": np.array(steps), metric: np.array(values)}
    return found


def _panel(ax: Axes, panel: str, metrics: Sequence[str], series: Series) -> None:
    names = {"loss": "generator", "critic_loss": "critic"}
    drawn = [metric for metric in metrics if metric in series]
    for metric, colour in zip(drawn, (GUIDE, "#2e6f9e"), strict=False):
        ax.plot(series[f"{metric}_step"], series[metric], lw=1.0, color=colour, label=names.get(metric))
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
        artifacts: (label of the row, arrays of its first seed); see `benchmarks.samples.save_artifact`.
    """
    found: list[tuple[str, str, Figure]] = []
    if not artifacts:
        return found
    first = artifacts[0][1]
    if "points" in first:
        panels = [("data", first["data"]), *((name, arrays["points"]) for name, arrays in artifacts)]
        found.append(
            ("points", "Data (grey, behind all) and samples of each program (red), seed 0.", points_picture(panels))
        )
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
