"""Cells of kinds 'inpaint', 'denoise' and 'super_resolve': held-out images are restored from what is left of them.

All programs of a table get the same observations: of 'inpaint' the quadrants of `zoo.puzzles.Quadrants`; of 'denoise'
the image under the same normal noise; of 'super_resolve' the means of blocks.

Options of the evaluation: `examples` (100) of the split; `completions` of each (10); `given` quadrants (1); `sd` of the
noise (0.5); `factor` of blocks (4); `particles` (64) and `steps` (60) of the ways that sample; `density_particles`
(200) of the density of what was hidden.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.cells.fitting import fit_cell
from benchmarks.cells.samples import of_the_fit
from benchmarks.metrics import Measurement
from benchmarks.suite import Cell, file_name
from inference import Fit
from inference.evaluation.queries.completion import hidden_log_likelihood, inpaint
from inference.evaluation.queries.questions import Answer
from inference.evaluation.queries.restoration import denoise, super_resolve
from inference.evaluation.samples.completion import completion_scores
from zoo import datasets
from zoo.errors import CapabilityError
from zoo.puzzles import LowResolution, Noisy, Quadrants

__all__ = ["measure"]

SHOWN, DRAWN = 12, 4


def measure(cell: Cell, artifacts: Path, device: str) -> list[Measurement]:
    """Fits, restores, compares with what was there; leaves observations and answers for a picture."""
    dataset = datasets.load(cell.dataset)
    found = fit_cell(cell, dataset, device)
    x = dataset.split(cell.split).to(found.device).x[: int(cell.evaluation.get("examples", 100))]
    seen, known = observed(cell, x)
    started = time.perf_counter()
    answer = restored(cell, found, x, seen, known)
    seconds = time.perf_counter() - started
    exact = "exact" if answer.exact else "sampled"
    how = f"{len(x)} {cell.split} images, {len(answer.values)} draws of each by {answer.how!r}, {exact}"
    scores = completion_scores(answer.values, x, known)
    rmse = float((answer.mean - x)[~known].square().mean().sqrt())
    measured = [
        Measurement("completion_rmse", rmse, how=f"{how}; of the mean answer"),
        Measurement("completion_crps", scores.crps, how=how),
        Measurement("completion_spread", scores.spread, how=how),
        Measurement("kept", scores.kept, how=how),
        Measurement("restoring_seconds", seconds, how=how),
        *of_the_fit(found),
    ]
    if "hidden_log_likelihood" in cell.metrics:
        measured.append(hidden(cell, found, x, known))
    _leave(artifacts / f"{file_name(cell.key)}.npz", seen, answer, x)
    return [m for m in measured if m.metric in cell.metrics]


def observed(cell: Cell, x: Tensor) -> tuple[Tensor, Tensor]:
    """What is left of images (B, *event), and which of their pixels are known for certain (B, *event)."""
    none = torch.zeros_like(x, dtype=torch.bool)
    if cell.kind == "inpaint":
        told = Quadrants(x.shape[1:], int(cell.evaluation.get("given", 1))).to(x.device)
        known = told.told(told(x)).known
        return torch.where(known, x, 0.5), known
    if cell.kind == "denoise":
        noisy = Noisy(x.shape[1:], float(cell.evaluation.get("sd", 0.5)))
        return noisy(x, seed=0).reshape(x.shape), none
    coarse = LowResolution(x.shape[1:], int(cell.evaluation.get("factor", 4)))
    return coarse(x).reshape(len(x), *x.shape[1:-2], *coarse.context_shape[1:]), none


def restored(cell: Cell, found: Fit, x: Tensor, seen: Tensor, known: Tensor) -> Answer:
    """The program's answer to the cell's question."""
    evaluation = cell.evaluation
    options: dict[str, Any] = {"draws": int(evaluation.get("completions", 10)), "seed": cell.seed + 1}
    options |= {"particles": int(evaluation.get("particles", 64)), "steps": int(evaluation.get("steps", 60))}
    if cell.kind == "inpaint":
        return inpaint(found.program, x, known, **options)
    if cell.kind == "denoise":
        return denoise(found.program, seen, float(evaluation.get("sd", 0.5)), **options)
    return super_resolve(found.program, seen, int(evaluation.get("factor", 4)), **options)


def hidden(cell: Cell, found: Fit, x: Tensor, known: Tensor) -> Measurement:
    """log p(hidden | known), where it is a probability if the data are bits."""
    name = "hidden_log_likelihood"
    if datasets.card(cell.dataset).support == "binary" and not found.program.support.is_discrete:
        return Measurement(name, None, how="n/a: a density of real numbers beside probabilities of bits")
    particles = int(cell.evaluation.get("density_particles", 200))
    try:
        estimate = hidden_log_likelihood(found, x, known, particles=particles, seed=cell.seed)
    except CapabilityError as error:
        return Measurement(name, None, how=f"n/a: {error}")
    return Measurement(name, estimate.mean, estimate.standard_error, how=f"{estimate.how}, {len(x)} examples")


def _leave(path: Path, seen: Tensor, answer: Answer, x: Tensor) -> None:
    if seen.shape != x.shape:
        factor = x.shape[-1] // seen.shape[-1]
        seen = seen.repeat_interleave(factor, -1).repeat_interleave(factor, -2)
    sheet = torch.stack([seen[:SHOWN], *answer.values[:DRAWN, :SHOWN], x[:SHOWN]], 1).cpu()
    samples, data = answer.values[0, :64].cpu().numpy(), x[:64].cpu().numpy()
    np.savez_compressed(path, completions=sheet.numpy(), samples=samples, data=data)
