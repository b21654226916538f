"""Cells of kind 'caption': yardsticks stand in place of samples, and images are left with what they were drawn for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cells import captions
from benchmarks.metrics import Measurement
from benchmarks.suite import Cell, MethodSpec, ProgramSpec

METRICS = ("retrieval", "diversity", "parameters")
TINY = {"latent_dim": 2, "projection": 4, "channels": [4, 4], "encoder": {"code": 4, "width": 4, "steps": 2}}


def run(folder: Path, program: str, options: Mapping[str, Any], fit: Mapping[str, Any]) -> dict[str, Measurement]:
    """Metric -> measurement of one cell on letters."""
    method = MethodSpec("m", "gan-cls" if fit else "none", fit)
    few = {"scorer_steps": 40, "candidates": 20}
    spec = ProgramSpec(program, options)
    cell = Cell("t", "caption", spec, method, "glyphs-captions", "valid", METRICS, seed=0, evaluation=few)
    return {m.metric: m for m in captions.measure(cell, folder, "cpu")}


def test_captions_are_looked_up_and_drawn(tmp_path: Path) -> None:
    found = run(tmp_path, "text2image", TINY, {"steps": 1, "batch_size": 8, "compile": "never"})
    assert set(found) == set(METRICS)
    assert 0 <= found["retrieval"].value < 0.5  # nothing was learned
    (left,) = (np.load(path) for path in tmp_path.glob("*.npz"))
    assert left["samples"].shape == (64, 32, 32)
    assert all(
        caption.startswith(("latin", "greek", "cyrillic", "modifier", "armenian")) for caption in left["captions"][:5]
    )


def test_real_images_are_told_better_than_by_chance_and_than_similar_ones(tmp_path: Path) -> None:
    real, similar = (run(tmp_path, name, {}, {})["retrieval"] for name in ("real-images", "nearest-caption"))
    assert "among 20; chance 0.050" in real.how
    assert real.value > 0.05 + 4 * real.standard_error
    assert real.value > similar.value
