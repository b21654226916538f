"""Cells of restoration: the same observations for all, exact answers, densities where they compare."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.cells import restorations
from benchmarks.metrics import Measurement
from benchmarks.suite import Cell, MethodSpec, ProgramSpec
from zoo import datasets

METRICS = ("completion_rmse", "completion_crps", "completion_spread", "kept", "restoring_seconds", "seconds")
FEW = {"examples": 20, "completions": 3, "particles": 4, "steps": 3, "factor": 2, "density_particles": 5}


def cell(kind: str, program: str, options: Mapping[str, Any], method: str = "em", data: str = "digits") -> Cell:
    fit = {"steps": 2, "batch_size": 8, "compile": "never"} if method == "svi" else {}
    spec, way = ProgramSpec(program, options), MethodSpec("m", method, fit)
    metrics = (*METRICS, "hidden_log_likelihood") if kind == "inpaint" else METRICS
    return Cell("t", kind, spec, way, data, "test", metrics, seed=0, evaluation=FEW)


def run(folder: Path, *what: Any, **more: Any) -> dict[str, Measurement]:
    return {m.metric: m for m in restorations.measure(cell(*what, **more), folder, "cpu")}


@pytest.mark.parametrize("kind", ["inpaint", "denoise", "super_resolve"])
def test_an_exact_answer_is_nearer_than_what_was_seen(kind: str, tmp_path: Path) -> None:
    found = run(tmp_path, kind, "ppca", {"latent_dim": 16})
    assert set(found) - {"hidden_log_likelihood"} == set(METRICS)
    assert "'gaussian', exact" in found["completion_crps"].how
    x = datasets.load("digits").test.x[:20]
    seen, known = restorations.observed(cell(kind, "ppca", {}), x)
    whole = seen if kind != "super_resolve" else seen.repeat_interleave(2, -1).repeat_interleave(2, -2)
    error = float((whole - x)[~known].square().mean().sqrt())
    assert found["completion_rmse"].value < error
    assert found["kept"].value == 0
    assert torch.equal(restorations.observed(cell(kind, "ppca", {}), x)[0], seen)
    (left,) = (np.load(path) for path in tmp_path.glob("*.npz"))
    assert left["completions"].shape == (12, 5, 8, 8)


def test_the_density_of_what_was_hidden_stands_where_it_compares(tmp_path: Path) -> None:
    bits = "digits-binary"
    mixture = run(tmp_path, "inpaint", "bernoulli-mixture", {"components": 5}, data=bits)["hidden_log_likelihood"]
    assert mixture.value is not None
    assert mixture.value < 0
    assert mixture.how == "exact, 20 examples"
    gaussian = run(tmp_path, "inpaint", "ppca", {"latent_dim": 4}, data=bits)["hidden_log_likelihood"]
    assert (gaussian.value, "real numbers" in gaussian.how) == (None, True)
    nade = run(tmp_path, "inpaint", "nade", {"hidden": 3}, method="svi", data=bits)["hidden_log_likelihood"]
    assert (nade.value, "takes no missing values" in nade.how) == (None, True)


@pytest.mark.parametrize("program", ["restoring-vae", "vae"])
def test_networks_answer_by_themselves_or_by_chains(program: str, tmp_path: Path) -> None:
    found = run(tmp_path, "inpaint", program, {"latent_dim": 2, "hidden": [4]}, method="svi", data="digits-binary")
    assert ("'own', exact" if program == "restoring-vae" else "'latents', sampled") in found["completion_crps"].how
    assert found["hidden_log_likelihood"].value is not None
    assert found["kept"].value == 0
