"""Cells of kind 'completion': patches of held-out images are given, and the rest is drawn.

All rows answer the same puzzles, those that `PuzzleGAN` makes of the images with seed 0. Programs that are none are
yardsticks: 'mean-image', 'nearest-image' (the training image that fits best), 'ppca-mean' and 'ppca-draws', the exact
conditional of a Gaussian, whose number of components is chosen on validation images.

Options of the evaluation: `completions` of each puzzle (10); `components` to choose from (16, 32, 64, 128, 256).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.cells import latents
from benchmarks.cells.fitting import fit_cell
from benchmarks.cells.samples import of_the_fit
from benchmarks.metrics import Measurement
from benchmarks.suite import Cell, file_name
from inference import Fit
from inference.evaluation.samples.completion import (
    completion_scores,
    frechet_in_components,
    gaussian_completion,
    nearest_completion,
)
from inference.evaluation.samples.judge import draw_answers
from zoo import datasets
from zoo.datasets import Dataset
from zoo.implicit.puzzle import PuzzleGAN
from zoo.latent.ppca import PPCA

__all__ = ["YARDSTICKS", "compared", "measure", "puzzles"]

SHOWN, DRAWN = 12, 4
COMPONENTS = (16, 32, 64, 128, 256)


def measure(cell: Cell, artifacts: Path, device: str) -> list[Measurement]:
    """Fits, completes, compares with what was missing; leaves puzzles and completions for a picture."""
    dataset = datasets.load(cell.dataset)
    x, context, known = puzzles(dataset, cell.split)
    found = None if cell.program.name in YARDSTICKS else fit_cell(cell, dataset, device)
    count = int(cell.evaluation.get("completions", 10))
    if found is None:
        completions, how = YARDSTICKS[cell.program.name](cell, dataset, count)
    else:
        completions, how = draw_answers(found.program, context, count, cell.seed + 1), f"{count} draws of each"
    how = f"{len(x)} {cell.split} images, the same puzzles for all; {how}"
    measured = compared(completions, x, known, dataset.train.x, how=how)
    if found is not None:
        measured += of_the_fit(found)
    _leave(artifacts / f"{file_name(cell.key)}.npz", x, known, completions, found=found)
    return [m for m in measured if m.metric in cell.metrics]


def compared(completions: Tensor, x: Tensor, known: Tensor, train: Tensor, *, how: str) -> list[Measurement]:
    """Completions (S, B, *event) beside the true images (B, *event) of which `known` pixels were given."""
    scores = completion_scores(completions, x, known)
    apart = frechet_in_components(completions[0], x, train, min(24, len(x) - 1))
    return [
        Measurement("completion_rmse", scores.rmse, how=f"{how}; their mean, over missing pixels"),
        Measurement("completion_crps", scores.crps, how=how),
        Measurement("completion_spread", scores.spread, how=how),
        Measurement("completion_frechet", apart, how=f"{how}; of one completion each"),
        Measurement("kept", scores.kept, how=how),
    ]


def puzzles(dataset: Dataset, split: str) -> tuple[Tensor, Tensor, Tensor]:
    """Images (B, *event), their puzzles as contexts, and which pixels are given, booleans (B, *event)."""
    x, context = PuzzleGAN(list(dataset.card.shape)).take(dataset.split(split).x)
    return x, context, (context[:, -1:] > 0.5).expand(-1, context.shape[1] - 1, -1, -1).reshape(x.shape)


def _mean(cell: Cell, dataset: Dataset, count: int) -> tuple[Tensor, str]:
    x, _, known = puzzles(dataset, cell.split)
    return torch.where(known, x, dataset.train.x.mean(0))[None], "one answer"


def _nearest(cell: Cell, dataset: Dataset, count: int) -> tuple[Tensor, str]:
    x, _, known = puzzles(dataset, cell.split)
    return nearest_completion(x, known, dataset.train.x)[None], "one answer"


def _gaussian(cell: Cell, dataset: Dataset, count: int) -> tuple[Tensor, Tensor, str]:
    """The exact mean and draws under the PPCA that is best on validation images."""
    of = cell.evaluation.get("components", COMPONENTS)
    most = min(dataset.train.size, dataset.card.shape[-1] * dataset.card.shape[-2]) - 1
    fitted = {k: _ppca(dataset, k) for k in of if k <= most}
    x, _, known = puzzles(dataset, "valid")
    error = {k: completion_scores(gaussian_completion(p, x, known)[0][None], x, known).rmse for k, p in fitted.items()}
    best = min(error, key=lambda k: error[k])
    x, _, known = puzzles(dataset, cell.split)
    mean, draws = gaussian_completion(fitted[best], x, known, draws=count, seed=cell.seed)
    return mean, draws, f"PPCA of {best} components, chosen of {list(fitted)} on validation images"


def _ppca(dataset: Dataset, components: int) -> PPCA:
    program = PPCA(list(dataset.card.shape), components)
    program.maximum_likelihood(dataset.train.x)
    return program


def _gaussian_mean(cell: Cell, dataset: Dataset, count: int) -> tuple[Tensor, str]:
    mean, _, how = _gaussian(cell, dataset, 1)
    return mean[None], f"exact mean, {how}"


def _gaussian_draws(cell: Cell, dataset: Dataset, count: int) -> tuple[Tensor, str]:
    _, draws, how = _gaussian(cell, dataset, count)
    return draws, f"{count} exact draws, {how}"


YARDSTICKS: dict[str, Callable[[Cell, Dataset, int], tuple[Tensor, str]]] = {
    "mean-image": _mean, "nearest-image": _nearest, "ppca-mean": _gaussian_mean, "ppca-draws": _gaussian_draws,
}  # fmt: skip
"""Names of programs that are none -> completions (S, B, *event), and how they came about."""


def _leave(path: Path, x: Tensor, known: Tensor, completions: Tensor, found: Fit | None) -> None:
    shown = torch.where(known, x, torch.tensor(0.5).to(x))[:SHOWN]
    sheet: Any = torch.stack([shown, *completions[:DRAWN, :SHOWN], x[:SHOWN]], 1)
    columns = {"completions": sheet.numpy(), "samples": completions[0, :64].numpy(), "data": x[:64].numpy()}
    if found is not None:
        columns |= latents.history_arrays(found.history)
    np.savez_compressed(path, **columns)
