"""One cell: fitted and measured, wherever that happens; what it finds, or how it failed, as records."""

from __future__ import annotations

import math
import platform
import time
import warnings
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.freshness import basis
from benchmarks.machine import hardware
from benchmarks.results import Record
from benchmarks.suite import KINDS, Cell
from inference.environment import versions

__all__ = ["ARTIFACTS", "failure", "run_cell"]

ARTIFACTS = "artifacts"
"""Folder, beside the results, of draws and samples that pictures are made from."""
UNKNOWN = {"cpu": "an unknown machine", "cores": "?", "threads": 1}
"""The hardware of a cell of which nothing came back."""


def run_cell(cell: Cell, folder: Path, device: str = "cpu") -> list[Record]:
    """Runs one cell; its records, or the one record that says how it failed.

    Args:
        cell: What is fitted and measured.
        folder: Of the results; what pictures are made from goes to its `ARTIFACTS`, which is there.
        device: Of the fit.
    """
    common = _common(cell, device, hardware(device))
    module, name = KINDS[cell.kind].split(":")
    started = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they would tear the progress bar; the test suite treats them as errors
            found = getattr(import_module(module), name)(cell, folder / ARTIFACTS, device)
    except Exception as error:
        return [_failed(common, f"{type(error).__name__}: {error}", time.perf_counter() - started)]
    seconds = time.perf_counter() - started
    return [
        {
            **common,
            "metric": m.metric,
            "value": m.value if _finite(m.value) else None,
            "standard_error": m.standard_error if _finite(m.standard_error) else None,
            "how": m.how if m.value is None or _finite(m.value) else f"not finite ({m.value}). {m.how}".strip(),
            "seconds": seconds,
        }
        for m in found
    ]


def failure(cell: Cell, device: str, reason: str) -> Record:
    """The record of a cell that did not get to say itself how it failed, nor where it was."""
    return _failed(_common(cell, device, UNKNOWN), reason, 0.0)


def _failed(common: Record, reason: str, seconds: float) -> Record:
    return {**common, "metric": "failed", "value": None, "standard_error": None, "seconds": seconds, "failed": reason}


def _common(cell: Cell, device: str, where: Mapping[str, Any]) -> Record:
    """What all records of a cell say; `where` is the hardware."""
    return {
        "suite": cell.suite,
        "kind": cell.kind,
        "program": cell.program.title,
        "method": cell.method.label,
        "dataset": cell.dataset,
        "split": cell.split,
        "seed": cell.seed,
        "cell": cell.key,
        "started": time.time_ns(),
        "budget": {k: v for k, v in cell.method.options.items() if isinstance(v, (int, float, str, bool))},
        "device": device,
        "hardware": dict(where),
        "versions": versions() | {"python": platform.python_version()},
        "basis": basis(cell),
    }


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
