"""Cells of kind 'completion': the same puzzles for all, what is given stays, exact answers beat the mean."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.cells import completions
from benchmarks.metrics import Measurement
from benchmarks.suite import Cell, MethodSpec, ProgramSpec

METRICS = ("completion_rmse", "completion_crps", "completion_spread", "completion_frechet", "kept", "seconds")
TINY = {"latent_dim": 2, "hidden": 8, "channels": [4, 4]}
FIT = {"steps": 2, "batch_size": 8, "compile": "never", "reconstruction": 1.0}
FEW = {"completions": 3, "components": (2, 16)}


def run(folder: Path, program: str, options: Mapping[str, Any], fit: Mapping[str, Any]) -> dict[str, Measurement]:
    """Metric -> measurement of one cell on digits."""
    method = MethodSpec("m", "gan" if fit else "none", fit)
    spec = ProgramSpec(program, options)
    cell = Cell("t", "completion", spec, method, "digits", "test", METRICS, seed=0, evaluation=FEW)
    return {m.metric: m for m in completions.measure(cell, folder, "cpu")}


def test_a_puzzle_is_completed_and_what_was_given_stays(tmp_path: Path) -> None:
    found = run(tmp_path, "puzzle-gan", TINY, FIT)
    assert set(found) == set(METRICS)
    assert found["kept"].value == 0
    assert "3 draws" in found["completion_rmse"].how
    (left,) = (np.load(path) for path in tmp_path.glob("*.npz"))
    assert left["completions"].shape == (12, 5, 8, 8)  # given, three drawn, true
    known = left["completions"][:, 0] != 0.5
    for drawn in range(1, 4):
        assert np.array_equal(left["completions"][:, drawn][known], left["completions"][:, -1][known])


def test_yardsticks_rank_as_they_must(tmp_path: Path) -> None:
    found = {name: run(tmp_path, name, {}, {}) for name in completions.YARDSTICKS}
    rmse = {name: each["completion_rmse"].value for name, each in found.items()}
    # Of sixteen components or two the validation images choose sixteen.
    assert "PPCA of 16 components" in found["ppca-mean"]["completion_rmse"].how
    assert rmse["ppca-mean"] < rmse["mean-image"]
    assert rmse["ppca-mean"] < rmse["nearest-image"]
    assert found["ppca-draws"]["completion_crps"].value < found["ppca-mean"]["completion_crps"].value
    # A Gaussian's draws are about as far apart as its mean is off.
    assert found["ppca-draws"]["completion_spread"].value == pytest.approx(rmse["ppca-mean"], rel=0.2)
    assert found["mean-image"]["completion_spread"].value == 0
    assert {each["kept"].value for each in found.values()} == {0}
