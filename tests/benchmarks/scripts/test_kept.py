"""Rows in a file: measured once, kept as they are found, never mixed with those of another machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.scripts.kept import measured
from zoo.errors import CapabilityError, OptionError


def refuse() -> dict[str, float]:
    raise CapabilityError("no way.\nAnd more.")


def test_each_row_is_measured_once_and_a_killed_run_keeps_what_it_found(tmp_path: Path) -> None:
    path, calls = tmp_path / "rows.json", []

    def killed() -> dict[str, float]:
        raise KeyboardInterrupt

    cases = {"a": lambda: calls.append("a") or {"ms": 1.0}, "b": refuse, "c": killed}
    with pytest.raises(KeyboardInterrupt):
        measured(cases, path, "here", "rows")
    machine, found = measured({**cases, "c": lambda: {"ms": 3.0}}, path, "here", "rows")
    assert machine == "here"
    assert found == {"a": {"ms": 1.0}, "b": {"refused": "no way."}, "c": {"ms": 3.0}}
    assert calls == ["a"]
    assert json.loads(path.read_text()) == {"machine": "here", "rows": found}
    assert measured({"a": refuse}, path, "here", "rows")[1] == {"a": {"ms": 1.0}}


def test_rows_of_another_machine_are_shown_and_not_added_to(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps({"machine": "there", "rows": {"a": {"ms": 1.0}}}))
    assert measured({"a": refuse}, path, "here", "rows") == ("there", {"a": {"ms": 1.0}})
    with pytest.raises(OptionError, match="are of there, and 'b' would be measured on here"):
        measured({"a": refuse, "b": refuse}, path, "here", "rows")


def test_without_a_file_nothing_is_kept() -> None:
    assert measured({"b": refuse}, None, "here", "rows") == ("here", {"b": {"refused": "no way."}})
