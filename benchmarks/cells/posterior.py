"""Posterior cells: a method beside a posterior that is known: a target, a trained VAE on a grid, reference draws.

The program's parameters are fixed; only a guide or a chain is fitted. Numbers are per unit: per example where each has
a posterior of its own, of everything together where a global latent ties the examples.

Options of the evaluation: `particles` (1000) behind ELBO and KL; `classifier` ('mlp', or 'quadratic') of the C2ST;
`picture`, the site that is drawn (all, the first two coordinates of which are seen); `refit` (2000), the steps in which
an amortised flow is fitted to the examples alone, for its approximation gap, after a third as many of IWAE; `simulate`,
how many examples drawn from the program itself the amortised guides learn from instead of data, so that the posterior
is what every method's objective is least at (those that match joint distributions compare p(x) with the data as well);
`truth`, for a program of the catalogue or of a file: where its truth comes from (`benchmarks.targets.asked.truth`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks import targets
from benchmarks.cells.fitting import fit_cell
from benchmarks.cells.guides import rebuilt
from benchmarks.cells.latents import history_arrays
from benchmarks.cells.posterior_scores import (
    DRAWS,
    UNITS_SHOWN,
    Answer,
    Draws,
    approximation,
    classifier,
    evidence,
    log_posterior,
    marginals,
    moments,
    transport,
)
from benchmarks.metrics import Measurement, how_the_fit_ended
from benchmarks.suite import Cell, file_name
from benchmarks.targets import Reference, Target, Truth, asked, trained
from inference import Fit, make_method
from inference.environment import seeded
from inference.guides.named import AUTOGUIDES
from zoo import datasets
from zoo.datasets import Data
from zoo.program import Program

__all__ = ["Problem", "default_dtype", "measure", "prepare", "shared"]

Array = np.ndarray[Any, Any]

TRAINERS = ("svi", "avb", "ali", "aae")
"""Methods that would also train the program unless told not to."""
SIMULATED = 1000
"""Far from the seeds of fits and draws."""


def measure(cell: Cell, artifacts: Path, device: str) -> list[Measurement]:
    """Fits the guide, then compares with the exact posterior; leaves draws for pictures."""
    with default_dtype(torch.float64):
        problem = load_problem(cell, artifacts)
        answer = ask(cell, problem.target, fit_method(cell, problem, device))
        measured = [
            *evidence(cell, answer),
            *approximation(cell, answer),
            *moments(answer),
            *marginals(answer),
        ]
        if "c2st" in cell.metrics:  # the one measurement that takes longer than some fits
            measured.append(classifier(cell, answer))
        if "sliced_wasserstein" in cell.metrics:
            measured.append(transport(cell, answer))
        if cell.method.method != "exact":
            measured.append(Measurement("seconds", answer.fit.seconds, how="wall time of the fit"))
            measured.append(Measurement("gradient_evaluations", float(answer.fit.gradient_evaluations)))
        measured += how_the_fit_ended(answer.fit.info)
        shown = {str(cell.evaluation["picture"])} if "picture" in cell.evaluation else answer.continuous
        save_artifact(artifacts / f"{file_name(cell.key)}.npz", answer, shown)
    return [m for m in measured if m.metric in cell.metrics]


def shared(cell: Cell, artifacts: Path) -> Path | None:
    """The folder in the artifacts that a cell has in common with others, a trained program; None where it has none."""
    if cell.program.name not in trained.TRAINED or "truth" in cell.evaluation:
        return None
    with default_dtype(torch.float64):
        return trained.place(cell.program.name, cell.seed, artifacts, **cell.program.options)


def prepare(cell: Cell, artifacts: Path) -> None:
    """Makes what `shared` names."""
    with default_dtype(torch.float64):
        trained.keep(cell.program.name, cell.seed, artifacts, **cell.program.options)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Targets are exact in float64, and made in the default dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


# The problem


@dataclass(frozen=True)
class Problem:
    """A target and the data that amortised guides learn from (the target's own, unless there are more like them)."""

    target: Truth
    train: Data


def load_problem(cell: Cell, artifacts: Path) -> Problem:
    """The target by its name; 'vae-*' is a VAE trained once for each seed and kept in the artifacts.

    With `truth`, any program, whose truth is looked for.
    """
    if "truth" in cell.evaluation:
        data = datasets.load(cell.dataset).split(cell.split) if cell.dataset else None
        target = asked.truth(cell.program.name, cell.program.options, data, cell.evaluation["truth"])
        return Problem(target, target.data)
    if cell.program.name in trained.TRAINED:
        target, train = trained.load(cell.program.name, cell.seed, artifacts, **cell.program.options)
        return Problem(target, train)
    target = targets.load(cell.program.name)
    if "simulate" not in cell.evaluation:
        return Problem(target, target.data)
    with seeded(cell.seed + SIMULATED):
        simulated = target.program().generate(int(cell.evaluation["simulate"]))
    return Problem(target, Data(simulated))


# The answer


def fit_method(cell: Cell, problem: Problem, device: str) -> Fit:
    """Fits a fresh guide to the target's program, whose own parameters stay as they are.

    Method 'exact' is the target's own posterior: the row that says what draws and classifiers make of the truth. Of a
    reference it is every other chain.
    """
    target = problem.target
    if cell.method.method == "exact":
        guide = target.posterior if isinstance(target, Target) else None
        return Fit(program=target.program(), method="exact", data=target.name, seed=cell.seed, guide=guide)
    # What belongs to single examples is fitted on the target's own data; an amortised guide learns from all there are.
    trains = type(make_method(cell.method.method)).moves_program
    amortised = trains and cell.method.options.get("guide") not in AUTOGUIDES
    fixed: dict[str, Any] = {"train_program": False} if cell.method.method in TRAINERS else {}

    def build() -> Program:
        fresh = target.program()
        same = isinstance(target, Reference) and not cell.method.program  # its program may have no name to be found by
        return fresh if same else rebuilt(fresh, cell.method.program, problem.train)

    found = fit_cell(cell, problem.train if amortised else target.data, device, build, initialise=False, **fixed)
    found.program.cpu()
    if isinstance(found.guide, nn.Module):
        found.guide.cpu()
    return found


def ask(cell: Cell, target: Truth, found: Fit) -> Answer:
    """Draws from the answer and from the true posterior.

    A chain is not asked for more than it holds: some draws would come twice, which a classifier learns by heart.
    """
    if isinstance(target, Reference) and cell.method.method == "exact":
        target, other = target.halves()
        draws = other.draw(DRAWS, cell.seed + 1)
        return Answer(found, target, draws=draws, exact=target.draw(DRAWS, cell.seed + 2))
    n = DRAWS if found.samples is None else min(DRAWS, len(next(iter(found.samples.values()))))
    draws = found.draw(n, *target.data, seed=cell.seed + 1)
    if isinstance(target, Reference):
        draws = target.of_answer(found.program, draws)
    return Answer(found, target, draws=draws, exact=target.draw(DRAWS, cell.seed + 2))


# What is left for pictures


def save_artifact(path: Path, answer: Answer, sites: set[str]) -> None:
    """Draws of the first one or two coordinates, the exact density on a grid if there are no others; the history."""
    target = answer.target
    names = [name for name in target.mean if name in sites]
    if not names:
        return
    local, units = target.is_local, target.units
    sizes = [target.mean[name].numel() // units for name in names]
    labels = [
        f"{name}[{i}]" if size > 1 else name for name, size in zip(names, sizes, strict=True) for i in range(size)
    ]

    def first_two(values: Draws) -> Array:
        side_by_side = torch.cat([values[name].reshape(len(values[name]), units, -1) for name in names], -1)
        return side_by_side[:1000, :UNITS_SHOWN, :2].transpose(0, 1).cpu().numpy()

    columns: dict[str, Any] = {
        "names": np.array(labels[:2]),
        "draws": first_two(answer.draws),
        "exact": first_two(answer.exact),
        **history_arrays(answer.fit.history),
    }
    if len(labels) == 2 and len(names) == 1 and local and isinstance(target, Target):
        columns |= density_grid(answer, target, names[0])
    if local and target.data.x.ndim == 3:
        columns["images"] = target.data.x[:UNITS_SHOWN].cpu().numpy()
    np.savez_compressed(path, **columns)


def density_grid(answer: Answer, target: Target, site: str, points: int = 100) -> dict[str, Array]:
    """The exact posterior density of a two-dimensional local site on a grid around its draws."""
    exact = target.draw(DRAWS)[site]
    low, high = exact.amin(0), exact.amax(0)
    pad = 0.15 * (high - low)
    ticks = torch.linspace(0, 1, points)
    axes = (low - pad) + ticks[:, None, None] * (high - low + 2 * pad)  # (G, U, 2)
    grid = torch.stack([axes[:, None, :, 0].expand(-1, points, -1), axes[None, :, :, 1].expand(points, -1, -1)], -1)
    with torch.no_grad():
        log_p = log_posterior(answer.fit.program, target, {site: grid.flatten(0, 1)}).unflatten(0, (points, points))
    density = log_p.exp().permute(2, 0, 1)[:UNITS_SHOWN].numpy()
    return {
        "axis0": axes[:, :UNITS_SHOWN, 0].T.numpy(),
        "axis1": axes[:, :UNITS_SHOWN, 1].T.numpy(),
        "density": density,
    }
