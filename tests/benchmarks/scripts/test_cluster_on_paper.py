"""The simulated cluster: what a driver that costs nothing, one that is slow, and one worker must come to."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from benchmarks.scripts import cluster_on_paper
from benchmarks.scripts.cluster_on_paper import Costs, lengths, simulate

FREE = Costs(submit=0.0, result=0.0, status=0.0, running=0.0, pending=0.0, start=0.0)


def test_a_driver_that_costs_nothing_leaves_the_work_of_the_slots() -> None:
    found = simulate([3.0, 1.0, 1.0, 2.0], 2, FREE)  # 3 beside 1 + 1, then 2
    assert (found.wall, found.busy, found.late) == (4.0, 0.0, 0.0)
    assert simulate([1.0] * 12, 1, replace(FREE, start=5.0)).wall == 17.0
    assert simulate([1.0] * 12, 12, FREE).waiting == 12  # all at once


def test_a_driver_slower_than_its_cells_is_what_the_run_waits_for() -> None:
    found = simulate([1.0] * 100, 100, replace(FREE, result=0.5))
    assert found.wall == pytest.approx(51.0)
    assert found.late == pytest.approx(50.0)
    # Cells are handed out one after the other, the first at once.
    assert simulate([1.0] * 10, 10, replace(FREE, submit=2.0)).wall == pytest.approx(19.0)
    # Two wake-ups, for the starts and the ends; the one has four cells that are not done and run, the other none run.
    found = simulate([10.0] * 4, 4, replace(FREE, status=1.0, pending=0.1, running=0.01))
    assert found.wall == pytest.approx(10.0 + 1.0 + 0.4)
    assert found.busy == pytest.approx((2.84) / found.wall)


def test_lengths_are_drawn_from_a_record_or_spread_about_a_median() -> None:
    drawn = sorted(lengths(2001, None, 30.0, 1.0))
    assert lengths(2001, None, 30.0, 1.0) == lengths(2001, None, 30.0, 1.0)
    # The median's standard error is 1.25 / sqrt(2001) of its logarithm: 5 of them.
    assert 30.0 * 0.87 < drawn[1000] < 30.0 * 1.15


def test_what_is_measured_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["cluster_on_paper", "--cells", "60", "--cores", "1", "--median", "5"])
    monkeypatch.setattr(cluster_on_paper, "STARTS", 1)
    cluster_on_paper.main()
    said = capsys.readouterr().out
    assert re.search(r"One cell: [\d.]+ ms to hand it out, [\d.]+ ms for its result", said)
    assert "All 60 cells: 0 hours of work" in said
    assert re.search(r"\| 100 \| ", said)
