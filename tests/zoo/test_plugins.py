"""Entry points are read once, and again when a package comes or goes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from zoo import plugins as module
from zoo.plugins import plugins


def install(folder: Path, name: str, version: str = "1.0") -> Path:
    place = folder / f"{name}-{version}.dist-info"
    place.mkdir()
    (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (place / "entry_points.txt").write_text(f"[zoo.programs]\n{name} = {name}.models:Model\n[other]\nno = a:b\n")
    return place


def test_packages_are_seen_when_they_come_and_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = plugins("zoo.programs")
    monkeypatch.syspath_prepend(tmp_path)
    install(tmp_path, "first")
    assert plugins("zoo.programs") == {**before, "first": "first.models:Model"}
    second = install(tmp_path, "second")
    assert set(plugins("zoo.programs")) - set(before) == {"first", "second"}
    assert "no" in plugins("other")
    shutil.rmtree(second)
    assert set(plugins("zoo.programs")) - set(before) == {"first"}


def test_nothing_is_read_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    plugins("zoo.programs").clear()  # a copy: the caller may change it
    found = plugins("zoo.programs")
    monkeypatch.setattr(module, "entry_points", lambda group: pytest.fail("read again"))
    assert plugins("zoo.programs") == found


def test_what_is_no_folder_is_no_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend("/no/such/folder")
    assert isinstance(plugins("zoo.programs"), dict)
