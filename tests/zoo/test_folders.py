"""Folders: a save that is killed at any write leaves the old one or the new one; damage and foreign files are named."""

from __future__ import annotations

import json
import os
import shutil
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from zoo import folders
from zoo.errors import CheckpointError, OptionError

OLD = {"model.safetensors": b"old model", "fit.json": b"old fit", "samples.safetensors": b"old samples"}
NEW = {"model.safetensors": b"new model", "fit.json": b"new fit", "guide.safetensors": b"new guide"}


class Killed(BaseException):
    pass


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda number: None)


@contextmanager
def killed_at(call: int, half: bool) -> Iterator[list[str]]:
    """Ends whatever runs at its so-manieth call of the system; `half` after half of what a file shall hold."""
    calls: list[str] = []
    with pytest.MonkeyPatch.context() as patch:

        def counted(name: str) -> None:
            original = getattr(os, name)

            def deed(*args, **options):
                calls.append(name)
                if len(calls) == call:
                    if half and name == "fdopen" and args[1] == "wb":
                        os.write(args[0], b"half")
                    raise Killed
                return original(*args, **options)

            patch.setattr(os, name, deed)

        for name in ("open", "fdopen", "fsync", "replace", "unlink"):
            counted(name)
        yield calls


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize(("first", "second"), [(OLD, NEW), (NEW, OLD)])
def test_a_save_killed_at_any_call_leaves_the_old_one_or_the_new_one(tmp_path: Path, first, second, half) -> None:
    folders.write(tmp_path / "before", {"size": 1}, "one", first)
    (tmp_path / "before" / "history.png").write_bytes(b"the user's")
    seen, call, ended = [], 0, False
    while not ended:
        call += 1
        folder = tmp_path / str(call)
        shutil.copytree(tmp_path / "before", folder)
        with killed_at(call, half) as calls:
            try:
                folders.write(folder, {"size": 2}, "two", second)
                ended = True
            except Killed:
                pass
        found = folders.read(folder)
        seen.append(found.record["program"])
        assert found.options == {"size": 1 if seen[-1] == "one" else 2}
        assert found.files == (first if seen[-1] == "one" else second)
        # Whatever it left, a third save comes through, and leaves nothing of either.
        folders.write(folder, {}, "three", {"model.safetensors": b"third"})
        assert folders.read(folder).files == {"model.safetensors": b"third"}
        assert {path.name for path in folder.iterdir()} == {".lock", "config.json", "history.png", "model.safetensors"}
    assert len(calls) > 25
    # There is one moment from which the new one counts.
    assert seen == ["one"] * seen.count("one") + ["two"] * seen.count("two")
    assert seen.count("one") > 10
    assert seen.count("two") > 3


def test_a_save_that_moves_over_a_killed_one_is_not_harmed_by_a_second_kill(tmp_path: Path) -> None:
    folders.write(tmp_path / "before", {}, "one", OLD)
    with killed_at(10**9, half=False) as calls:
        folders.write(tmp_path / "whole", {}, "two", NEW)
    for first in range(1, len(calls) + 1, 3):
        for second in (5, 9, 14, 20):
            folder = tmp_path / f"{first}-{second}"
            shutil.copytree(tmp_path / "before", folder)
            for program, files, call in (("two", NEW, first), ("three", OLD, second)):
                with killed_at(call, half=True), pytest.raises(Killed):
                    folders.write(folder, {}, program, files)
            found = folders.read(folder)
            assert found.files == {"one": OLD, "two": NEW, "three": OLD}[found.record["program"]]


def test_every_bit_of_every_file_is_under_a_sum(tmp_path: Path) -> None:
    folders.write(tmp_path, {"size": 1.5, "names": ["a", "b"]}, "coin", OLD)
    for name in [*OLD, "config.json"]:
        whole, meant = (tmp_path / name).read_bytes(), json.loads((tmp_path / "config.json").read_text())
        for bit in range(0, 8 * len(whole), 1 if name != "config.json" else 11):
            damaged = bytearray(whole)
            damaged[bit // 8] ^= 1 << bit % 8
            (tmp_path / name).write_bytes(damaged)
            try:
                folders.read(tmp_path)
            except CheckpointError:
                continue
            assert json.loads(damaged) == meant, f"{name}: bit {bit} went unseen"  # a blank for another
        (tmp_path / name).write_bytes(whole)
    assert folders.read(tmp_path).files == OLD


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "link", "link to itself", "device"])
def test_what_is_no_file_is_named_and_not_waited_for(tmp_path: Path, name: str, kind: str) -> None:
    folders.write(tmp_path / "f", {}, "coin", OLD)
    path, elsewhere = tmp_path / "f" / name, tmp_path / "elsewhere"
    path.rename(elsewhere)
    makers = {
        "missing": lambda: None,
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
        "link": lambda: path.symlink_to(elsewhere),
        "link to itself": lambda: path.symlink_to(path),
        "device": lambda: path.symlink_to("/dev/zero"),
    }
    makers[kind]()
    with pytest.raises(CheckpointError, match=str(path)):
        folders.read(tmp_path / "f")
    if name == "config.json" and kind != "missing":
        with pytest.raises(CheckpointError, match="Delete it, or name another folder"):
            folders.write(tmp_path / "f", {}, "coin", NEW)
    assert elsewhere.exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[]", "list"),
        (b"3", "int"),
        (b'"a"', "str"),
        (b"null", "NoneType"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": Infinity}', "Infinity"),
        (b"\xff\xfe{}", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"9" * 10_000, "not JSON"),
        (b"{}", "something else"),
        (b'{"zoo": []}', "something else"),
        (b'{"zoo": {"version": "3"}}', "something else"),
        (b'{"zoo": {"version": 3}}', "sha256"),
        (b'{"zoo": {"version": 99}}', "format 99; this version reads format 3: update"),
        (b'{"program": "coin", "version": 2}', "format 2; this version reads format 3: fit again"),
    ],
)
def test_foreign_and_damaged_records_are_refused(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=says):
        folders.read(tmp_path)


@pytest.mark.parametrize("files", [None, [], {"../x": "0"}, {"/etc/passwd": "0"}, {"checkpoint.pt": "0"}])
def test_only_files_of_a_save_are_listed(tmp_path: Path, files) -> None:
    record = {"program": "coin", "version": folders.FORMAT, "files": files}
    record["sha256"] = folders.sum_of({}, record)
    (tmp_path / "config.json").write_bytes(folders.to_json({"zoo": record}))
    with pytest.raises(CheckpointError, match="lists files that no save has"):
        folders.read(tmp_path)


def test_files_of_others_are_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"mine": 1}')
    with pytest.raises(CheckpointError, match=r"written by something else.*another folder"):
        folders.write(tmp_path, {}, "coin", OLD)
    (tmp_path / "config.json").unlink()
    (tmp_path / "samples.safetensors").write_text("mine")
    with pytest.raises(CheckpointError, match=r"samples\.safetensors, and no save that wrote"):
        folders.write(tmp_path, {}, "coin", OLD)
    assert (tmp_path / "samples.safetensors").read_text() == "mine"
    # A save of an older format makes way.
    (tmp_path / "config.json").write_text('{"program": "coin", "version": 2}')
    assert folders.read(folders.write(tmp_path, {}, "coin", NEW)).files == NEW


@pytest.mark.parametrize("case", ["a file", "below a file", "too long", "a null byte", "its lock a folder"])
def test_a_folder_that_cannot_be_written_is_refused_when_it_is_opened(tmp_path: Path, case: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "locked" / folders.LOCK).mkdir(parents=True)
    folder = {
        "a file": tmp_path / "file",
        "below a file": tmp_path / "file" / "sub",
        "too long": tmp_path / ("n" * 256),
        "a null byte": f"{tmp_path}/a\0b",
        "its lock a folder": tmp_path / "locked",
    }[case]
    with pytest.raises(CheckpointError, match="Cannot write into the folder"), folders.opened(folder):
        pytest.fail("it was opened")


def test_a_folder_in_which_only_the_longest_name_does_not_fit_is_refused(tmp_path: Path, monkeypatch) -> None:
    put = folders._put

    def full(path, content):
        if len(path.name) >= len(max(folders.NAMES, key=len)) + len(".new"):
            raise OSError(36, "File name too long")
        put(path, content)

    monkeypatch.setattr(folders, "_put", full)
    with pytest.raises(CheckpointError, match="too long"), folders.opened(tmp_path):
        pytest.fail("it was opened")


def test_no_folder_at_all_is_refused() -> None:
    with pytest.raises(OptionError, match="a string or a Path, got None"):
        folders.read(None)
    with pytest.raises(OptionError, match="a string or a Path, got 3"), folders.opened(3):
        pytest.fail("it was opened")


def test_a_folder_is_held_by_one_at_a_time_and_may_be_by_the_same_twice(tmp_path: Path) -> None:
    said: list[str] = []

    def other() -> None:
        try:
            folders.write(tmp_path, {}, "two", NEW)
            said.append("written")
        except CheckpointError as error:
            said.append(str(error))

    with folders.opened(tmp_path):
        folders.write(tmp_path, {}, "one", OLD)
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert "in use by another process" in said[0]
    assert folders.read(tmp_path).files == OLD
    folders.write(tmp_path, {}, "two", NEW)


def test_whether_a_folder_is_held_is_seen_by_all_and_changes_nothing(tmp_path: Path) -> None:
    assert not folders.is_held(tmp_path)
    assert not folders.is_held(tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []
    with folders.held(tmp_path):
        assert folders.is_held(tmp_path)
        assert folders.is_held(tmp_path)  # still
    assert not folders.is_held(tmp_path)


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o002])
def test_files_are_readable_to_whom_the_umask_says(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        folders.write(tmp_path, {}, "coin", OLD)
        folders.write_bytes(tmp_path / "single", b"")
    finally:
        os.umask(before)
    for name in [*OLD, "config.json", "single"]:
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o666 & ~mask, name


def test_a_file_goes_with_what_a_killed_write_left_beside_it(tmp_path: Path) -> None:
    for name in ("a", "a.new", "b"):
        (tmp_path / name).write_text("")
    folders.remove(tmp_path / "a")
    folders.remove(tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    (tmp_path / "a").mkdir()
    with pytest.raises(CheckpointError, match="Cannot write"):
        folders.remove(tmp_path / "a")


def test_nothing_is_written_through_a_link_that_lies_there(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("mine")
    folder = folders.write(tmp_path / "f", {}, "coin", OLD)
    for name in ("model.safetensors.new", "config.json.new"):
        (folder / name).symlink_to(tmp_path / "elsewhere")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(tmp_path / "elsewhere")
    folders.write(folder, {}, "coin", NEW)
    assert folders.read(folder).files == NEW
    assert (tmp_path / "elsewhere").read_text() == "mine"


def test_json_is_strict() -> None:
    for value in (float("nan"), float("inf"), object(), {"a": torch.zeros(1)}):
        with pytest.raises(CheckpointError, match="JSON"):
            folders.to_json(value)
    found = folders.finite({"a": (1, float("nan")), "b": torch.tensor([1.0, float("-inf")]), "c": True, "d": object})
    assert json.loads(folders.to_json(found)) == {"a": [1, None], "b": [1.0, None], "c": True, "d": str(object)}


def test_an_option_cannot_take_the_name_of_the_record(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="'zoo'"):
        folders.write(tmp_path, {"zoo": 1}, "coin", OLD)


def test_a_save_has_only_its_names(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"got \.\./x"):
        folders.write(tmp_path / "f", {}, "coin", {"../x": b""})
    assert not list(tmp_path.iterdir())


def test_tensors_come_back_bit_for_bit_and_nan_does_not() -> None:
    tensors = {"a": torch.randn(3, 4).T, "b": torch.arange(3), "c": torch.tensor([float("-inf"), -0.0])}
    again = folders.unpack(folders.pack(tensors, "it"), "it")
    assert all(torch.equal(tensors[name], again[name]) for name in tensors)
    bad = {**tensors, "w": torch.tensor([1.0, float("nan")])}
    with pytest.raises(CheckpointError, match="it: NaN in 'w'"):
        folders.pack(bad, "it")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folders, "_no_nan", lambda *given: None)
        content = folders.pack(bad, "it")
    with pytest.raises(CheckpointError, match="it: NaN in 'w'"):
        folders.unpack(content, "it")
    with pytest.raises(CheckpointError, match="it is damaged"):
        folders.unpack(content[:50], "it")
