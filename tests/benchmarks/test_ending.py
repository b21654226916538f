"""How commands end: one line for whatever went wrong, its exit code, and silence for a reader that has gone."""

from __future__ import annotations

import errno
import io
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from benchmarks import cli


@pytest.mark.parametrize(
    ("raised", "code", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "out/fit.json"), 1, "No space left on device: out/fit.json"),
        (PermissionError(errno.EACCES, "Permission denied", "out"), 1, "Permission denied: out"),
        (OSError("odd"), 1, "odd"),
        (MemoryError(), 1, "not enough memory"),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried"),
            1,
            "not enough memory",
        ),
        (RuntimeError("one\ntwo\n\nC++ stack trace"), 1, "RuntimeError: one two (zoo did not expect this"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_what_the_machine_refuses_is_one_line(
    zoo: Any, monkeypatch: pytest.MonkeyPatch, raised: BaseException, code: int, message: str
) -> None:
    def fail() -> None:
        raise raised

    monkeypatch.setattr("benchmarks.index.program_list", fail)
    found, out, error = zoo("list")
    assert (found, out) == (code, "")
    assert error.startswith(f"zoo: {message}") or message in error
    assert error.count("\n") == 1


def test_a_reader_that_has_read_enough_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Both ends of a pipe in this process: the reading end is closed before anything is written."""
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as stdout, open(tmp_path / "err", "w") as stderr:
        monkeypatch.setattr(sys, "stdout", stdout)
        monkeypatch.setattr(sys, "stderr", stderr)
        with pytest.raises(SystemExit):
            cli.main(["list", "--datasets", "--json"])
    assert not (tmp_path / "err").read_text()


def test_a_terminal_without_the_sign_gets_a_question_mark(monkeypatch: pytest.MonkeyPatch, fitted: Path) -> None:
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stdout)
    with pytest.raises(SystemExit, match="0"):
        cli.main(["score", str(fitted)])
    stdout.flush()
    assert b" ? 0" in stdout.buffer.getvalue()  # type: ignore[attr-defined]


def test_a_warning_is_a_line_of_its_own(zoo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def warn() -> list[Any]:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("look\n  here", UserWarning, stacklevel=2)
        return []

    monkeypatch.setattr("benchmarks.index.program_list", warn)
    assert zoo("list", "--json") == (0, "[]\n", "zoo: warning: look here\n")
