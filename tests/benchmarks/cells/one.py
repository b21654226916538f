"""One cell, measured here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from benchmarks.cells import likelihood as density
from benchmarks.cells import posterior
from benchmarks.metrics import Measurement
from benchmarks.suite import Cell, MethodSpec, ProgramSpec
from benchmarks.suites.posterior import METRICS


def run(
    kind: str,
    program: str,
    method: MethodSpec,
    folder: Path,
    *,
    data: str = "",
    metrics: tuple[str, ...] = METRICS,
    split: str = "test",
    options: Mapping[str, Any] = MappingProxyType({}),
    evaluation: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Measurement]:
    """Metric -> measurement of one cell."""
    cell = Cell("t", kind, ProgramSpec(program, options), method, data, split, metrics, 0, evaluation)
    measure = posterior.measure if kind == "posterior" else density.measure
    return {m.metric: m for m in measure(cell, folder, "cpu")}


QUICK: dict[str, Any] = {"evaluation": {"classifier": "quadratic"}}
