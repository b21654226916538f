"""Cells against what is known: exact rows are exact, estimators agree with closed forms, what is declared can run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import targets
from benchmarks.cells import likelihood as density
from benchmarks.cells import posterior, posterior_scores
from benchmarks.cells.guides import AmortisedCategorical, rebuilt
from benchmarks.cells.samples import REAL_DATA
from benchmarks.metrics import Measurement
from benchmarks.suite import Cell, MethodSpec, ProgramSpec
from benchmarks.suites import SUITES, get_suite
from benchmarks.suites.posterior import METRICS, avb, nuts, svi
from benchmarks.targets import trained
from inference.fit import make_method
from zoo import catalogue, datasets
from zoo.errors import CapabilityError, DatasetError


def run(
    kind: str,
    program: str,
    method: MethodSpec,
    folder: Path,
    *,
    data: str = "",
    metrics: tuple[str, ...] = METRICS,
    options: Mapping[str, Any] = MappingProxyType({}),
    evaluation: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Measurement]:
    """Metric -> measurement of one cell."""
    cell = Cell("t", kind, ProgramSpec(program, options), method, data, "test", metrics, 0, evaluation)
    measure = posterior.measure if kind == "posterior" else density.measure
    return {m.metric: m for m in measure(cell, folder, "cpu")}


SCORED = svi("scored", "categorical", elbo="score", particles=16, steps=400, lr=0.05)
QUICK: dict[str, Any] = {"evaluation": {"classifier": "quadratic"}}


@pytest.mark.parametrize(
    "name", ["coin", "eight-schools", "old-faithful", "iris-species", "casino", "ppca-digits", "banana"]
)
def test_exact_rows_are_exact(name: str, tmp_path: Path) -> None:
    metrics = tuple(m for m in METRICS if m != "c2st")
    found = run("posterior", name, MethodSpec("exact", "exact"), tmp_path, metrics=metrics)
    target = targets.load(name)
    assert found["log_evidence"].value == pytest.approx(float(target.log_evidence.mean()), rel=1e-9)
    assert found["elbo"].value == pytest.approx(found["log_evidence"].value, abs=1e-3)
    assert found["kl_reverse"].value == pytest.approx(0.0, abs=1e-3)
    # 4,000 draws: means are off by 0.016 sd, rms over coordinates; four times that is 1 in 15,000 for one coordinate.
    if "mean_error" in found:
        assert found["mean_error"].value < 4 / math.sqrt(posterior_scores.DRAWS)
    assert "seconds" not in found
    left = list(tmp_path.glob("*.npz"))
    assert len(left) == (0 if name in ("iris-species", "casino") else 1)


def test_a_better_guide_has_the_smaller_divergence(tmp_path: Path) -> None:
    budget = {"steps": 400, "lr": 0.05, "particles": 4}
    rough = run("posterior", "diabetes", svi("mean-field", "normal", **budget), tmp_path, **QUICK)
    fine = run("posterior", "diabetes", svi("full", "multivariate_normal", **budget), tmp_path, **QUICK)
    assert fine["kl_reverse"].value < rough["kl_reverse"].value
    assert fine["sd_error"].value < rough["sd_error"].value
    assert fine["c2st"].value < rough["c2st"].value
    assert rough["elbo"].value + rough["kl_reverse"].value == pytest.approx(rough["log_evidence"].value)
    assert rough["gradient_evaluations"].value == 1600


def test_methods_without_a_density_say_so(tmp_path: Path) -> None:
    chain = run("posterior", "coin", nuts(50, 100, 2), tmp_path)
    assert all(chain[m].value is None for m in ("elbo", "kl_reverse", "kl_forward", "k_hat"))
    assert all(chain[m].how.startswith("n/a") for m in ("elbo", "kl_reverse", "kl_forward", "k_hat"))
    assert chain["mean_error"].value < 0.5
    implicit = run("posterior", "banana", avb(steps=20), tmp_path)
    assert implicit["elbo"].value is None
    assert implicit["kl_reverse"].value > 0.1  # 20 steps are not enough; the estimate from draws sees it
    assert "nearest neighbours" in implicit["kl_reverse"].how
    with np.load(next(tmp_path.glob("*banana*.npz"))) as left:
        assert left["draws"].shape == left["exact"].shape == (3, 1000, 2)
        cell = np.prod([left[f"axis{i}"][0, 1] - left[f"axis{i}"][0, 0] for i in (0, 1)])
        assert left["density"][0].sum() * cell == pytest.approx(1.0, abs=0.02)


def test_nearest_neighbours_know_the_entropy_of_a_gaussian() -> None:
    z = np.random.RandomState(0).randn(4000, 2) * [1.0, 3.0]
    terms = posterior_scores._entropy_terms(z)
    exact = math.log(2 * math.pi * math.e) + math.log(3.0)
    assert (
        abs(terms.mean() - exact) < 4 * terms.std() / math.sqrt(len(z)) + 0.01
    )  # 0.01: bias of 5 neighbours at the rim


def test_a_categorical_guide_learns_the_exact_posterior_of_one_label(tmp_path: Path) -> None:
    found = run("posterior", "iris-species", SCORED, tmp_path, **QUICK)
    assert found["kl_reverse"].value < 0.05
    assert found["marginal_error"].value < 0.05
    with pytest.raises(CapabilityError, match="discrete and local"):
        AmortisedCategorical(catalogue.create("ppca"))


def test_the_trained_vae_is_trained_once_and_every_guide_gets_its_decoder(tmp_path: Path) -> None:
    options = {"epochs": 2}
    target, train = trained.load("vae-digits", 0, tmp_path, **options)
    folder = next((tmp_path / "programs").glob("vae-digits-0-*[!k]"))
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert train.size == datasets.card("digits-binary").splits["train"]
    for family in ("diagonal", "full", "iaf"):
        program = rebuilt(target.program(), {"guide_family": family}, train)
        assert program.guide_family == family
        z = torch.randn(5, 2)
        torch.testing.assert_close(program.decode(z).base_dist.logits, target.program().decode(z).base_dist.logits)
    method = svi("flow", program={"guide_family": "iaf"}, steps=3)
    found = run("posterior", "vae-digits", method, tmp_path, options=options, **QUICK)
    assert found["kl_reverse"].value > 0
    # Trained in the same dtype and by the same options: the second load read the folder.
    assert (folder / "model.safetensors").stat().st_mtime_ns == before


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
        evaluation={"ais_chains": 4, "ais_steps": 10, "ais_examples": 5, "ais_sigmas": (0.2, 0.3)},
    )  # fmt: skip
    assert found["log_likelihood"].value is None
    assert "implicit" in found["log_likelihood"].how
    assert "bandwidth" in found["parzen"].how
    assert "5 examples" in found["ais"].how
    with np.load(next(tmp_path.glob("*.npz"))) as left:
        assert left["samples"].shape == left["data"].shape == (64, 8, 8)


@pytest.mark.parametrize("suite", sorted(SUITES))
def test_declared_cells_name_what_exists(suite: str) -> None:
    for cell in get_suite(suite).cells():
        options = {k: v for k, v in cell.method.options.items() if v != "categorical"}
        if cell.program.name == REAL_DATA:
            assert datasets.card(cell.dataset).splits["valid"] > 0
            continue
        if cell.method.method != "exact":
            make_method(cell.method.method, **options)
        if cell.kind == "posterior":
            assert cell.program.name in {*targets.names(), *trained.TRAINED}
        else:
            grey = {"faces among digits": [20, 20], "digits among faces": [20, 20]}
            anomalous = {"nines among digits": [8, 8], **grey}
            shape = anomalous.get(cell.dataset) or list(datasets.card(cell.dataset).shape)
            built = catalogue.create(cell.program.name, **{"event_shape": shape, **cell.program.options})
            assert make_method(cell.method.method, **options).why_not(built) is None


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
