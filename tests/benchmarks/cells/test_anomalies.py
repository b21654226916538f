"""Cells of anomalies: problems hold what they say, and scores follow from the densities."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks.cells import anomalies as anomaly
from benchmarks.suite import Cell, MethodSpec, ProgramSpec
from benchmarks.suites.anomalies import METRICS, UP_TO_A_CONSTANT
from zoo import datasets
from zoo.errors import DatasetError


def test_no_nine_is_normal() -> None:
    problem, whole = anomaly.held_out_digit(), datasets.load("digits-binary")
    normal = problem.normal
    assert normal.test.size + len(problem.anomalous) == whole.test.size
    assert all(not bool((labels == anomaly.HELD_OUT).any()) for labels in normal.labels.values())
    nines = whole.test.x[whole.labels["test"] == anomaly.HELD_OUT]
    assert torch.equal(problem.anomalous, nines)


@pytest.mark.parametrize("name", ["faces among digits", "digits among faces"])
def test_patches_have_one_shape(name: str) -> None:
    try:
        problem = anomaly.PROBLEMS[name]()
    except DatasetError as error:
        pytest.skip(f"needs mnist10k and freyfaces: {error}")
    shapes = {x.shape[1:] for x in (problem.normal.train.x, problem.normal.valid.x, problem.anomalous)}
    assert shapes == {(20, 20)}


def test_a_cell_ranks_by_density(tmp_path) -> None:
    cell = Cell(
        "t", "anomaly", ProgramSpec("independent"), MethodSpec("EM", "em"), "nines among digits", "test", METRICS, 0
    )  # fmt: skip
    found = {m.metric: m.value for m in anomaly.measure(cell, tmp_path, "cpu")}
    assert set(found) == set(METRICS)
    problem = anomaly.held_out_digit()
    # By hand: frequencies (smoothed by an observation more, which moves the AUROC by less than 2e-3), then every pair.
    frequency = (problem.normal.train.x.sum(0) + 0.5) / (problem.normal.train.size + 1)
    scores = []
    for x in (problem.normal.test.x, problem.anomalous):
        scores.append(-(x * frequency.log() + (1 - x) * (1 - frequency).log()).sum((1, 2)))
    pairs = scores[1][:, None] - scores[0]
    by_hand = ((pairs > 0).double() + 0.5 * (pairs == 0)).mean()
    assert found["auroc"] == pytest.approx(float(by_hand), abs=2e-3)
    assert found["bits_normal"] == pytest.approx(float(scores[0].mean()) / (64 * math.log(2)), rel=0.01)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [("rbm", {"hidden": 8}, "exp f(x), without"), ("dbm", {"hidden": [20, 20]}, "exp a lower bound of f(x), without")],
)
def test_an_energy_ranks_without_its_constant(tmp_path, monkeypatch, name, options, said) -> None:
    monkeypatch.setattr("inference.evaluation.partition.log_partition", lambda *args, **kwargs: 1 / 0)
    method = MethodSpec("CD", "cd", {"steps": 3, "batch_size": 50})
    cell = Cell(
        "t", "anomaly", ProgramSpec(name, options), method, "nines among digits", "test", UP_TO_A_CONSTANT, 0
    )  # fmt: skip
    found = {m.metric: m for m in anomaly.measure(cell, tmp_path, "cpu")}
    assert set(found) == set(UP_TO_A_CONSTANT)
    assert 0.3 < found["auroc"].value < 1
    assert said in found["auroc"].how
