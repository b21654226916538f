"""What tests of the benchmarks share: the command line in this process, a fit, cells that need no model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import cli
from benchmarks import suite as suite_module


@pytest.fixture
def zoo(capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a command: (exit code, standard output, standard error)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code = 0
        try:
            cli.main([str(a) for a in arguments])
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Markov chain on binary digits; EM takes milliseconds."""
    folder = tmp_path_factory.mktemp("fits") / "chain"
    with pytest.raises(SystemExit, match="0"):
        cli.main(["fit", "markov-chain", "--data", "digits-binary", "--out", str(folder), "--json"])
    return folder


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(suite_module.KINDS, "posterior", "tests.benchmarks.tiny:measure")
