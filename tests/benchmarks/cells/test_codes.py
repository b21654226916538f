"""Cells of codes: yardsticks score what they must, programs are asked by the same probes, and hidden labels stay so."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.cells import codes
from benchmarks.metrics import Measurement
from benchmarks.report import page
from benchmarks.run import run_suite
from benchmarks.suite import Cell, MethodSpec, ProgramSpec
from benchmarks.suites import representation
from zoo import datasets

METRICS = (*representation.PROBES, "mig", "mig_chance", *representation.COST)


GAPS = ("mig", "mig_chance", "code_size")


def cell(program: str, data: str, options: Mapping[str, Any], method: str, evaluation: Mapping[str, Any]) -> Cell:
    fit = {"steps": 2, "batch_size": 8, "compile": "never"} if method not in ("none", "em") else {}
    spec, way = ProgramSpec(program, options), MethodSpec("m", method, {**fit, **evaluation.get("fit", {})})
    few = {"few": 5, "shown": 60, **{k: v for k, v in evaluation.items() if k != "fit"}}
    metrics = GAPS if data == "glyphs" else METRICS  # probes of many letters take long
    return Cell("t", "codes", spec, way, data, "test", metrics, seed=0, evaluation=few)


def run(
    folder: Path, program: str, data: str, options: Mapping[str, Any] | None = None, method: str = "none", **more: Any
) -> dict[str, Measurement]:
    return {m.metric: m for m in codes.measure(cell(program, data, options or {}, method, more), folder, "cpu")}


def test_programs_stand_beside_the_numbers_themselves(tmp_path: Path) -> None:
    raw = run(tmp_path, "raw-numbers", "digits")
    pca = run(tmp_path, "pca", "digits", components=10)
    ppca = run(tmp_path, "ppca", "digits", {"latent_dim": 10}, "em")
    assert raw["code_size"].value == 64
    assert 0.94 < raw["linear_probe"].value < 1
    assert 0.95 < raw["neighbour_probe"].value < 1
    assert raw["few_label_probe"].value < raw["linear_probe"].value
    assert "50 training codes" in raw["few_label_probe"].how
    assert raw["mig"].value is None
    # The same plane, where PPCA has fewer units along directions of less variance.
    assert abs(pca["linear_probe"].value - ppca["linear_probe"].value) <= 0.012
    assert ppca["parameters"].value > 0
    assert "parameters" not in pca
    left = [np.load(path) for path in tmp_path.glob("*.npz")]
    assert [each["map"].shape for each in left] == 3 * [(60, 2)]
    assert torch.equal(torch.from_numpy(left[0]["labels"]), datasets.load("digits").labels["test"][:60])


@pytest.mark.parametrize(
    ("program", "options", "data", "note"),
    [
        ("vae", {"latent_dim": 2, "hidden": [4]}, "digits-binary", "validation codes"),
        ("cvae", {"latent_dim": 2, "hidden": [4]}, "digits-binary-labelled", "its context, which is the class"),
    ],
)
def test_networks_are_asked_alike(program: str, options: Any, data: str, note: str, tmp_path: Path) -> None:
    found = run(tmp_path, program, data, options, "svi")
    assert found["code_size"].value == 2
    assert found["linear_probe"].how.endswith(note)


def test_classes_that_are_hidden_are_not_seen(tmp_path: Path) -> None:
    data, few = "digits-binary-labelled", {"labels": 20, "fit": {"elbo": "enum"}}
    given = codes._partly_labelled(cell("semi-supervised-vae", data, {}, "svi", few), datasets.load(data))
    assert float(given.train.context.sum()) == 20
    assert float(given.valid.context.sum()) == 0
    options = {"latent_dim": 2, "hidden": [4], "classifier": [4]}
    found = run(tmp_path, "semi-supervised-vae", data, options, "svi", **few)
    assert found["code_size"].value == 12
    assert "classes of 20 training examples, the code sees none" in found["linear_probe"].how


def test_factors_are_told_by_themselves_and_not_by_noise(tmp_path: Path) -> None:
    factors = run(tmp_path, "factors", "glyphs")
    noise = run(tmp_path, "noise", "glyphs")
    of = codes.factors_of(datasets.load("glyphs"), "test")
    assert {name: int(value.max()) for name, value in of.items()} == {
        "family": 2, "bold": 1, "oblique": 1, "capital": 1,
    }  # fmt: skip
    # The one face of family 'mono' is neither bold nor oblique, so that the family tells a little of both.
    assert 0.9 < factors["mig"].value < 1
    assert abs(noise["mig"].value - noise["mig_chance"].value) < 0.005
    assert codes.factors_of(datasets.load("digits"), "test") == {}


def test_the_suite_makes_a_table_and_a_map(tmp_path: Path) -> None:
    rows = ("*/PPCA of 16/EM/digits", "*/mixture of 40*")
    folder = run_suite(representation.SUITE, tmp_path, rows, seeds=1, jobs=1)
    (section, _) = page.build(folder).sections
    assert section.title == "Codes: digits"
    assert [line[0].text for line in section.tables[0].rows][-1] == "mixture of 40 Bernoullis"
    assert [picture.name for picture in section.pictures] == ["codes-digits"]
