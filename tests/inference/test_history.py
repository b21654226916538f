"""The history of a fit: rows, series of what was reported, plots."""

from __future__ import annotations

from inference import fit
from tests.inference.factors import data, ppca


def test_history_plots_itself(tmp_path):
    found = fit(ppca(), data(20), "svi", steps=20)
    found.history.plot(tmp_path / "history.png")
    assert (tmp_path / "history.png").stat().st_size > 1000
