"""Rows of a report: medians and ranges over seeds, failures, numbers as they are printed."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.report.summary import cell_text, summarise
from benchmarks.results import append_cell, read_results
from tests.benchmarks.report.made_up import record


def test_medians_ranges_and_failures_over_seeds(folder: Path) -> None:
    row = next(r for r in summarise(read_results(folder)) if r.program == "banana")
    value = row.values["kl_reverse"]
    assert (value.median, value.low, value.high, value.seeds) == (0.3, 0.1, 0.9, 3)
    assert cell_text("kl_reverse", value) == "0.300 (0.100 to 0.900)"
    assert row.failures == ["seed 3: DivergenceError: gone"]
    assert row.seeds == [0, 1, 2, 3]
    assert cell_text("c2st", row.values["c2st"]) == "n/a"
    assert cell_text("elbo", row.values.get("elbo")) == ""
    single = next(r for r in summarise(read_results(folder)) if r.dataset == "digits").values["log_likelihood"]
    assert cell_text("log_likelihood", single) == "22.50 ± 0.25"


def test_only_the_last_attempt_of_a_cell_counts(tmp_path: Path) -> None:
    append_cell(tmp_path, [record("failed", None, failed="OSError: no data", started=1)])
    append_cell(tmp_path, [record("elbo", -1.5, started=2)])
    (row,) = summarise(read_results(tmp_path))
    assert not row.failures
    assert row.values["elbo"].median == -1.5


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0.000"), (2e-16, "0.000"), (-2e-16, "0.000"), (4e-4, "<0.001"), (-0.25, "-0.250")]
)
def test_small_numbers_are_not_said_to_be_zero(tmp_path: Path, value: float, text: str) -> None:
    append_cell(tmp_path, [record("kl_reverse", value)])
    (row,) = summarise(read_results(tmp_path))
    assert cell_text("kl_reverse", row.values["kl_reverse"], spread=False) == text
