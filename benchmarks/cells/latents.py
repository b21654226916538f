"""What a generator has learnt, as arrays: paths between latents, codes turned one at a time, classes.

`interpolation`: White, "Sampling generative networks", 2016 (on the sphere for Gaussian latents, where straight lines
pass through improbable points). `traversal`: the figures of Chen et al., "InfoGAN", 2016. `benchmarks.report.pictures`
draws them, and the codes of data (`inference.evaluation.samples.codes.aggregate_codes`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inference.environment import seeded
from inference.evaluation.samples.codes import decoded, prior_latents
from inference.history import History
from zoo.errors import CapabilityError, OptionError, UnknownNameError
from zoo.implicit.translators import Translates
from zoo.program import Program, Site

__all__ = ["attribute_grid", "class_grid", "growth", "history_arrays", "interpolation", "traversal"]


Array = np.ndarray[Any, Any]

PANELS: dict[str, tuple[str, ...]] = {
    "losses": ("loss", "critic_loss"),
    "critic accuracy": ("critic_accuracy",),
    "divergence": ("divergence",),
    "diversity": ("diversity",),
}
"""Panel of a history picture -> the metrics of the fit's history that it shows."""


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
        start, end = (prior_latents(program, rows, context) for _ in range(2))
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
        latents = prior_latents(program, rows, context)
        many = prior_latents(program, 2000, _context(program, torch.arange(2000) % rows))
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


def growth(stages: Sequence[Tensor], shape: Sequence[int]) -> Tensor:
    """What the same latents give at each size of a generator that grew, enlarged, (n, sizes, *shape).

    Args:
        stages: Images of each size, (n, channels, height, width), sides that go into those of the shape.
        shape: Of an example.
    """
    height, width = shape[-2:]
    enlarged = [
        images.repeat_interleave(height // images.shape[-2], -2).repeat_interleave(width // images.shape[-1], -1)
        for images in stages
    ]
    return torch.stack(enlarged, 1).reshape(len(stages[0]), len(stages), *shape)


def attribute_grid(program: Translates, source: Tensor, asked: Tensor) -> Tensor:
    """Images (n, *event_shape) and what they become with each row of attributes (K, A), in a row, (n, 1 + K, ...)."""
    changed = [program.translate(source, row.expand(len(source), -1)) for row in asked]
    return torch.stack([source, *changed], 1)


def history_arrays(history: History) -> dict[str, Array]:
    """The metrics of PANELS that a history has, and the steps of each as '<metric>_step', for an artifact."""
    found: dict[str, Array] = {}
    for metric in (metric for metrics in PANELS.values() for metric in metrics):
        steps, values = history.series(metric)
        if steps:
            found |= {f"{metric}_step": np.array(steps), metric: np.array(values)}
    return found
