"""A folder of results that were made up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.results import append_cell
from benchmarks.suite import file_name
from tests.benchmarks.report.made_up import record


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three seeds of one posterior row, one of them failed, and densities of two data sets."""
    for seed, value in enumerate((0.3, 0.1, 0.9)):
        key = f"made-up/banana/SVI & co/banana/{seed}/00"
        common = {"seed": seed, "cell": key, "program": "banana", "method": "SVI & co", "started": seed}
        append_cell(
            tmp_path,
            [record("kl_reverse", value, **common), record("c2st", None, how="n/a: no <draws>", **common)],
        )
    failed = {"seed": 3, "cell": "made-up/banana/SVI & co/banana/3/00", "program": "banana", "method": "SVI & co"}
    append_cell(tmp_path, [record("failed", None, failed="DivergenceError: gone", started=9, **failed)])
    for dataset, value in (("digits", 22.5), ("digits-binary", -17.9)):
        key = f"made-up/VAE/SVI/{dataset}/0/00"
        common = {"kind": "density", "program": "VAE", "dataset": dataset, "split": "test", "cell": key, "started": 20}
        append_cell(tmp_path, [record("log_likelihood", value, standard_error=0.25, how="IWAE-5000", **common)])
        (tmp_path / "artifacts").mkdir(exist_ok=True)
        rng = np.random.RandomState(0)
        images = rng.rand(64, 8, 8)
        np.savez(tmp_path / "artifacts" / f"{file_name(key)}.npz", samples=images, data=images)
    axis = np.linspace(-3, 3, 30)
    density = np.exp(-(axis[:, None] ** 2 + axis[None] ** 2) / 2)
    draws = rng.randn(1, 200, 2)
    np.savez(
        tmp_path / "artifacts" / f"{file_name('made-up/banana/SVI & co/banana/0/00')}.npz",
        names=np.array(["z[0]", "z[1]"]), draws=draws, exact=draws, axis0=axis[None], axis1=axis[None],
        density=density[None],
    )  # fmt: skip
    return tmp_path
