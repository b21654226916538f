"""The report on speed, and what it says where there is nothing to report."""

from __future__ import annotations

import pytest

from benchmarks.speed import report as speed_report
from benchmarks.speed.report import COLOURS
from zoo.errors import CheckpointError


def test_no_records_no_report(tmp_path):
    (tmp_path / "speed").mkdir()
    with pytest.raises(CheckpointError, match="no results of the suite speed"):
        speed_report.build(tmp_path)
    (tmp_path / "speed" / "eight-schools-cpu.json").write_text("{")
    with pytest.raises(CheckpointError, match="damaged"):
        speed_report.build(tmp_path)
    for content, says in (("[]", "JSON list.*Delete it"), ("{}", "no workload, device, setting")):
        (tmp_path / "speed" / "eight-schools-cpu.json").write_text(content)
        with pytest.raises(CheckpointError, match=says):
            speed_report.build(tmp_path)


def test_a_side_without_a_colour_of_its_own_has_a_dotted_line() -> None:
    known = next(iter(COLOURS))
    points = [{"value": n, "per_step": {name: {"median": 1e-3} for name in (known, "another")}} for n in (8, 16)]
    (axis,) = speed_report._curves([{"points": points, "title": "a sweep", "over": "examples"}]).axes
    assert {line.get_label(): line.get_linestyle() for line in axis.lines} == {known: "-", "another": ":"}
