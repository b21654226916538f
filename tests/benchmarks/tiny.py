"""A suite whose cells need no model."""

from __future__ import annotations

from pathlib import Path

from benchmarks.metrics import Measurement
from benchmarks.suite import Cell, Grid, MethodSpec, ProgramSpec, Suite


def measure(cell: Cell, artifacts: Path, device: str) -> list[Measurement]:
    """A cell that needs no model: numbers that follow from the seed; method 'sad' fails for odd seeds."""
    if cell.method.method == "sad" and cell.seed % 2:
        raise ValueError("sad on purpose")
    value = float(cell.seed + len(cell.program.name))
    return [
        Measurement("elbo", value, 0.1, "made up"),
        Measurement("k_hat", float("inf")),
        Measurement("c2st", None, how="n/a"),
    ]


def tiny(methods: tuple[str, ...] = ("svi",), seeds: int = 2) -> Suite:
    specs = tuple(MethodSpec(name, name) for name in methods)
    grid = Grid("posterior", (ProgramSpec("coin"), ProgramSpec("hmm")), specs, ("elbo", "k_hat"), ("toy",), seeds=seeds)
    return Suite("tiny", "Tiny", "Does it run?", (grid,))
