"""How a cell of any kind gets its fit: the program built from the cell's seed, and fitted by the cell's method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.cells.guides import GUIDES
from benchmarks.suite import Cell
from inference import Fit, fit
from inference.environment import seeded
from zoo import catalogue
from zoo.datasets import Data, Dataset
from zoo.program import Program

__all__ = ["fit_cell"]


def fit_cell(
    cell: Cell, data: Data | Dataset, device: str, build: Callable[[], Program] | None = None, **changes: Any
) -> Fit:
    """Builds the program that a cell declares and fits it.

    Args:
        cell: What is declared; a guide of `benchmarks.cells.guides` is built for the program, from the same seed.
        data: What to fit to; one split alone is the training split.
        device: Where to compute.
        build: Makes the program; None builds the one of the cell's name, at the right size for the training split.
        changes: Options of the fit instead of the declared ones.
    """
    options = {**cell.method.options, **changes}
    with seeded(cell.seed):
        if build is not None:
            program = build()
        else:
            train = data.train if isinstance(data, Dataset) else data
            program = catalogue.create_for(cell.program.name, train, **{**cell.program.options, **cell.method.program})
        if options.get("guide") in GUIDES:
            options["guide"] = GUIDES[options["guide"]](program)
    return fit(program, data, cell.method.method, seed=cell.seed, device=device, **options)
