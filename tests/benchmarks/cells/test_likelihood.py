"""Density rows: the exact density, IWAE beside the grid, the estimates of a program without a density."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.suite import MethodSpec
from tests.benchmarks.cells.one import run
from zoo import datasets
from zoo.errors import DatasetError


def test_density_rows_score_by_the_density(tmp_path: Path) -> None:
    metrics = ("log_likelihood", "bits_per_dim", "grid_log_likelihood", "parameters", "seconds")
    common = {"data": "digits-binary", "metrics": metrics}
    chain = run("density", "independent", MethodSpec("EM", "em"), tmp_path, **common)
    test = datasets.load("digits-binary").test
    probs = (datasets.load("digits-binary").train.x.sum(0) + 0.5) / (
        1297 + 1
    )  # one pseudo-observation, half of it a one
    exact = torch.distributions.Bernoulli(probs).log_prob(test.x).sum((1, 2)).mean()
    assert chain["log_likelihood"].value == pytest.approx(float(exact), abs=1e-6)
    assert chain["bits_per_dim"].value == pytest.approx(-float(exact) / 64 / math.log(2), abs=1e-6)
    assert chain["grid_log_likelihood"].value is None
    vae = run(
        "density", "vae", MethodSpec("SVI", "svi", {"steps": 30}), tmp_path,
        options={"hidden": [16]}, evaluation={"particles": 200, "examples": 50}, **common,
    )  # fmt: skip
    # IWAE is a bound on what the grid gives; their Monte Carlo difference is small beside the spread over examples.
    assert vae["log_likelihood"].value < vae["grid_log_likelihood"].value + 0.05
    assert vae["log_likelihood"].value > vae["grid_log_likelihood"].value - 1.0
    assert vae["log_likelihood"].how == "IWAE-200, a lower bound, 50 examples"


def test_a_gan_gets_its_two_estimates_and_no_likelihood(tmp_path: Path) -> None:
    found = run(
        "density", "gan", MethodSpec("GAN", "gan", {"steps": 3, "batch_size": 50}), tmp_path,
        data="digits", options={"hidden": [16], "critic_hidden": [8]},
        metrics=("log_likelihood", "parzen", "ais", "diversity"),
        evaluation={"ais_chains": 2, "ais_steps": 3, "ais_examples": 5, "ais_sigmas": (0.2, 0.3)},
    )  # fmt: skip
    assert found["log_likelihood"].value is None
    assert "implicit" in found["log_likelihood"].how
    assert "bandwidth" in found["parzen"].how
    assert "5 examples" in found["ais"].how
    with np.load(next(tmp_path.glob("*.npz"))) as left:
        assert left["samples"].shape == left["data"].shape == (64, 8, 8)


def test_samples_are_given_the_contexts_of_what_they_stand_beside(tmp_path: Path) -> None:
    try:
        lengths = datasets.load("jsb").test.context[:64]
    except DatasetError as error:
        pytest.skip(f"needs the chorales: {error}")
    run(
        "density", "hmm", MethodSpec("EM", "em", {"iterations": 1}), tmp_path, data="jsb", metrics=("seconds",),
        options={"states": 2, "lengths": True},
    )  # fmt: skip
    with np.load(next(tmp_path.glob("*.npz"))) as left:
        after = torch.arange(160) >= lengths.reshape(-1, 1)
        samples = torch.from_numpy(left["samples"])
    assert samples.sum() > 0
    assert float(samples[after].abs().sum()) == 0
