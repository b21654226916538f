"""Anomaly cells: a program fitted to normal examples, asked which test examples are not of their kind.

A problem is what is normal and what is not; the program never sees an anomaly before it scores them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.cells.fitting import fit_cell
from benchmarks.metrics import Measurement
from benchmarks.suite import Cell
from inference.evaluation.queries.anomalies import anomaly_scores, auroc
from zoo import datasets
from zoo.datasets import Data, Dataset
from zoo.energy.base import EnergyProgram
from zoo.program import ExactDensity, Program

__all__ = ["PROBLEMS", "Problem", "measure"]

HELD_OUT = 9
SIDE = 20
"""Faces are 20 pixels wide."""


@dataclass(frozen=True)
class Problem:
    """What is normal (with its splits) and what is not.

    `anomalous` (M, *event_shape) are test examples.
    """

    normal: Dataset
    anomalous: Tensor


def held_out_digit() -> Problem:
    """Binary digits without the nines; nines are anomalies."""
    whole = datasets.load("digits-binary")
    kept = {split: whole.labels[split] != HELD_OUT for split in ("train", "valid", "test")}
    train, valid, test = (whole.split(split).rows(rows) for split, rows in kept.items())
    labels = {split: whole.labels[split][rows] for split, rows in kept.items()}
    normal = replace(whole, train=train, valid=valid, test=test, labels=labels)
    return Problem(normal, whole.test.x[~kept["test"]])


def _middle(data: Data) -> Tensor:
    """The 20 x 20 pixels in the middle of images (N, H, W)."""
    height, width = data.x.shape[-2:]
    top, left = (height - SIDE) // 2, (width - SIDE) // 2
    return data.x[:, top : top + SIDE, left : left + SIDE]


def _against(normal: str, anomalous: str) -> Problem:
    known = datasets.load(normal)
    train, valid, test = (Data(_middle(known.split(split))) for split in ("train", "valid", "test"))
    return Problem(replace(known, train=train, valid=valid, test=test), _middle(datasets.load(anomalous).test))


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "nines among digits": held_out_digit,
    "faces among digits": lambda: _against("mnist10k", "freyfaces"),
    "digits among faces": lambda: _against("freyfaces", "mnist10k"),
}
"""Name -> problem; grey ones are patches of 20 x 20 pixels, values k/255."""


def measure(cell: Cell, artifacts: Path, device: str) -> list[Measurement]:
    """Fits on what is normal, scores the test examples of both kinds."""
    problem = PROBLEMS[cell.dataset]()
    found = fit_cell(cell, problem.normal, device)
    whole = isinstance(found.program, ExactDensity | EnergyProgram)
    options = {} if whole else {"guide": found.guide, **cell.evaluation}
    normal, anomalous = (
        anomaly_scores(found.program, x.to(found.device), **options) for x in (problem.normal.test.x, problem.anomalous)
    )
    how = f"{len(normal)} normal and {len(anomalous)} anomalous test examples, score {_score(found.program)}"
    measured = [
        Measurement("auroc", auroc(normal, anomalous), how=how),
        bits("bits_normal", normal, how),
        bits("bits_anomalous", anomalous, how),
        Measurement("seconds", found.seconds, how="wall time of the fit"),
    ]
    return [m for m in measured if m.metric in cell.metrics]


def _score(program: Program) -> str:
    if not isinstance(program, EnergyProgram):
        return "-log2 p(x)"
    with torch.no_grad():
        of = "f(x)" if program.why_bounded() is None else "a lower bound of f(x)"
    return f"-log2 of exp {of}, without its constant"


def bits(metric: str, scores: Tensor, how: str) -> Measurement:
    """The mean score (N,) and its standard error."""
    error = float(scores.std()) / len(scores) ** 0.5
    return Measurement(metric, float(scores.mean()), error, how=how)
