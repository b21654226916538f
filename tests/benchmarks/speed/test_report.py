"""The report on speed, and what it says where there is nothing to report."""

from __future__ import annotations

import pytest

from benchmarks.speed import report as speed_report
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
