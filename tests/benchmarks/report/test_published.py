"""The suite of published numbers: arithmetic of the comparison, statuses, and that what is declared exists and runs."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from benchmarks.report import document
from benchmarks.report.page import build
from benchmarks.report.published import PUBLISHED, Comparison, compare, others, steps_per_example
from benchmarks.report.summary import summarise
from benchmarks.results import append_cell, read_results
from benchmarks.run import run_suite
from benchmarks.suite import Suite
from benchmarks.suites.published import FAMILIES, SUITE, TUNED, UNTUNED, further, row
from tests.benchmarks.report.made_up import record
from zoo import datasets


def write(
    folder: Path, program: str, dataset: str, *values: float, suite: str = "published", how: str = "exact"
) -> None:
    """A row of results, one log-likelihood a seed."""
    method = FAMILIES[program][1]
    for seed, value in enumerate(values):
        key = f"{suite}/{program}/{method}/{dataset}/{seed}/00"
        common: dict[str, Any] = {
            "suite": suite, "kind": "density", "program": program, "method": method, "dataset": dataset,
            "split": "test", "seed": seed, "cell": key, "how": how,
        }  # fmt: skip
        append_cell(folder, [record("log_likelihood", value, **common)])


def found_in(folder: Path) -> list[Comparison]:
    records = read_results(folder)
    return compare(records, summarise(records))


def test_a_row_stands_beside_the_number_of_its_paper(tmp_path):
    write(tmp_path, "NADE", "dna", -85.0, -84.0, -90.0)
    (each,) = found_in(tmp_path)
    assert (each.nats, each.row.seeds) == ((85.0, 84.0, 90.0), [0, 1, 2])
    assert each.published is not None
    assert each.published.value == 84.81
    assert each.difference == pytest.approx(85.0 / 84.81 - 1)
    assert each.verdict == "yes"
    assert each.command == 'zoo bench published --select "published/NADE/SVI/dna" --out runs/published'
    # The command makes this row and no other.
    assert {cell.name for cell in SUITE.cells(("published/NADE/SVI/dna",))} == {"published/NADE/SVI/dna"}


@pytest.mark.parametrize(
    ("value", "verdict"), [(-9.81, "yes"), (-9.90, "yes"), (-9.72, "yes"), (-9.92, "no"), (-9.70, "better")]
)
def test_within_one_percent(tmp_path, value, verdict):
    write(tmp_path, "NADE", "mushrooms", value)
    assert [each.verdict for each in found_in(tmp_path)] == [verdict]


def test_rows_are_sorted_by_data_and_rows_without_a_number_stay(tmp_path):
    write(tmp_path, "independent", "nltcs", -9.23)
    write(tmp_path, "Markov chain", "nltcs", -7.0)
    write(tmp_path, "Chow-Liu", "dna", -87.68)
    found = found_in(tmp_path)
    assert [(e.row.dataset, e.row.program) for e in found] == [
        ("nltcs", "Markov chain"), ("nltcs", "independent"), ("dna", "Chow-Liu"), ("dna", "Chow-Liu"),
    ]  # fmt: skip
    assert found[0].published is None
    assert (found[0].difference, found[0].verdict) == (None, "")
    assert [e.published.value for e in found[2:]] == [87.70, 87.66]


def test_other_suites_are_not_compared(tmp_path):
    write(tmp_path, "NADE", "dna", -85.0, suite="density")
    assert found_in(tmp_path) == []


def test_chorales_count_by_the_time_step(tmp_path, zoo_data):
    chorales, frames = datasets.load("jsb"), datasets.load("jsb-frames")
    assert steps_per_example("jsb") == pytest.approx(chorales.test.context.mean().item())
    assert steps_per_example("jsb", "train") * chorales.train.size == pytest.approx(frames.train.size)
    assert steps_per_example("jsb-frames") == 1
    write(tmp_path, "HMM", "jsb", -steps_per_example("jsb") * 8.5)
    (each,) = found_in(tmp_path)
    assert each.nats[0] == pytest.approx(8.5)


def test_the_report_says_status_source_split_and_command(tmp_path):
    write(tmp_path, "EoNADE", "dna", -82.0, -82.5, -83.0)
    write(tmp_path, "VAE", "nltcs", -6.2, how="IWAE-1000, a lower bound, 3236 examples")
    page = document.write(build(tmp_path), tmp_path)
    text = (tmp_path / "report.md").read_text()
    line = next(line for line in text.splitlines() if line.startswith("| EoNADE | 82.50 (82.00 to 83.00) |"))
    assert "| 82.31 | +0.23 % | yes | verified in the benchmark list" in line
    assert "Uria, Murray and Larochelle" in line
    assert "| VAE | at most 6.20 | - | - | - | - | - |" in text
    assert "1,400 rows" in text
    assert '`zoo bench published --select "published/EoNADE/SVI/dna" --out runs/published`' in text
    assert "RBM 96.74" in text
    assert "Beside published numbers" in page.read_text()
    out = io.StringIO()
    document.print_report(build(tmp_path), Console(width=100, file=out))
    assert "+0.23 %" in out.getvalue()


def test_every_number_has_a_status_and_a_row_that_exists():
    for each in PUBLISHED:
        assert each.status == "from memory" or each.status.startswith(("reproduced here", "verified in ")), each
        assert each.value > 0
        assert each.paper
        assert each.dataset in datasets.names()
        assert not each.row or each.row in TUNED[each.dataset], each
    keys = [(each.model, each.dataset, each.paper) for each in PUBLISHED]
    assert len(set(keys)) == len(keys)
    assert {each.model for each in others("dna")} >= {"RBM", "DARN"}


def test_numbers_said_to_be_reproduced_from_the_files_are(zoo_data, tmp_path):
    cells = tuple(
        row(each.dataset, each.row, *TUNED[each.dataset][each.row], seeds=1)
        for each in PUBLISHED
        if each.status.startswith("reproduced here") and each.row == "independent"
    )
    assert len(cells) == 5
    run_suite(Suite("published", "", "", cells), tmp_path, jobs=1)
    found = found_in(tmp_path)
    assert len(found) == 5
    for each in found:
        assert each.nats[0] == pytest.approx(each.published.value, abs=0.0051), each


def test_a_further_file_of_the_folder_gets_rows(tmp_path, monkeypatch):
    (tmp_path / "debd").mkdir()
    bits = np.random.default_rng(0).integers(0, 2, (60, 6), dtype=np.uint8)
    for name in ("mine", "dna"):
        np.savez(tmp_path / "debd" / f"{name}.npz", train=bits, valid=bits[:9], test=bits[:20])
    monkeypatch.setenv("ZOO_DATA", str(tmp_path))
    assert further() == ["debd/mine"]
    grids = tuple(row("debd/mine", label, *UNTUNED[label], seeds=1) for label in ("independent", "Chow-Liu"))
    run_suite(Suite("published", "", "", grids), tmp_path / "out", jobs=1)
    found = found_in(tmp_path / "out")
    assert [each.published for each in found] == [None, None]
    assert found[0].nats[0] <= 6 * np.log(2) * 1.2
    monkeypatch.delenv("ZOO_DATA")
    assert further() == []
