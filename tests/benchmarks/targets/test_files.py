"""Targets in files that others can read: exported, read back, enough to compute the density without this project."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy import stats

from benchmarks import targets
from zoo.errors import DatasetError, UnknownNameError


@pytest.mark.parametrize("name", ["coin", "eight-schools", "casino", "ppca-digits", "old-faithful"])
def test_export_and_read(name, tmp_path):
    target = targets.load(name)
    (path,) = targets.export(tmp_path, [name], draws=100)
    assert path == tmp_path / f"{name}.json"
    stored = targets.read(tmp_path, name)
    assert stored.record["description"] == target.description
    assert stored.record["how"] == target.how
    assert stored.record["log_evidence"] == pytest.approx(target.total_log_evidence, rel=1e-12)
    np.testing.assert_array_equal(stored.x, target.data.x)
    np.testing.assert_array_equal(stored.log_evidence, target.log_evidence)
    for site, draws in target.draw(100).items():
        np.testing.assert_array_equal(stored.draws[site], draws)
        np.testing.assert_array_equal(stored.mean[site], target.mean[site])
        np.testing.assert_array_equal(stored.sd[site], target.sd[site])
    assert (stored.context is None) == (target.data.context is None)


def test_files_are_enough_to_compute_the_density_without_this_project(tmp_path):
    # The coin by hand, from what is in the files.
    targets.export(tmp_path, ["coin"], draws=50)
    record = json.loads((tmp_path / "coin.json").read_text())
    with np.load(tmp_path / "coin.npz") as file:
        alpha, beta, x = file["parameter/alpha"], file["parameter/beta"], file["x"]
        p = file["draws/p"]
    heads, n = x.sum(), len(x)
    log_joint = stats.beta(alpha, beta).logpdf(p) + heads * np.log(p) + (n - heads) * np.log1p(-p)
    log_posterior = stats.beta(alpha + heads, beta + n - heads).logpdf(p)
    np.testing.assert_allclose(log_joint - log_posterior, record["log_evidence"])
    assert set(record["sites"]) == {"p"}


def test_files_are_in_float64_whatever_the_default(tmp_path):
    torch.set_default_dtype(torch.float32)
    targets.export(tmp_path, ["eight-schools"], draws=4)
    assert torch.get_default_dtype() == torch.float32
    assert targets.read(tmp_path, "eight-schools").log_evidence.dtype == np.float64


def test_parameters_of_the_guide_are_not_exported(tmp_path):
    targets.export(tmp_path, ["ppca-digits"], draws=4)
    stored = targets.read(tmp_path, "ppca-digits")
    assert set(stored.parameters) == {"weight", "mean", "scale"}
    assert stored.parameters["scale"] > 0


def test_mistakes_get_their_error(tmp_path):
    with pytest.raises(UnknownNameError, match="eight-schools"):
        targets.load("eight_schools")
    with pytest.raises(DatasetError, match="coin"):
        targets.read(tmp_path, "coin")
    targets.export(tmp_path, ["coin"], draws=4)
    (tmp_path / "coin.npz").write_bytes(b"damaged")
    with pytest.raises(DatasetError, match="coin"):
        targets.read(tmp_path, "coin")
