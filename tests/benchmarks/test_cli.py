"""The command line: every command does what it says, prints JSON when asked, and names mistakes in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from benchmarks import cli
from benchmarks.suites import SUITES
from zoo import catalogue
from zoo.errors import ZooError

ROOT = Path(__file__).parents[2]
COMMANDS = ("list", "show", "fit", "tune", "compare", "sample", "encode", "score", "features", "bench", "report")


def test_help_of_every_command_has_an_example(zoo: Any) -> None:
    code, out, _ = zoo("--help")
    assert code == 0
    assert all(command in out for command in COMMANDS)
    for command in COMMANDS:
        code, out, _ = zoo(command, "--help")
        assert code == 0
        assert f"zoo {command}" in out.split("Usage", 1)[1].split("\n", 1)[1], command


def test_help_does_not_wait_for_torch() -> None:
    code = "import sys, benchmarks.cli; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("show", "mixtur"), "Unknown program 'mixtur'"),
        (("fit", "vae", "--data", "digitz", "--out", "OUT"), "Did you mean 'digits"),
        (("fit", "vae", "--data", "digits", "--out", "OUT"), "Binarise the data first"),
        (("fit", "hmm", "--data", "digits", "--out", "OUT"), "real numbers: emission='normal' (-o emission=normal)"),
        (("fit", "vae", "--method", "svy", "--out", "OUT"), "Did you mean 'svi'"),
        (("fit", "independent", "--method", "nuts", "--out", "OUT"), "Methods that can: svi, em"),
        (("fit", "vae", "--preset", "smal", "--out", "OUT"), "Did you mean 'small'"),
        (("fit", "vae", "-o", "latent_dims=2", "--out", "OUT"), "Did you mean 'latent_dim'"),
        (("fit", "vae", "-o", "latent_dim", "--out", "OUT"), "write it as name=value"),
        (("fit", "vae", "--latent-dim", "2", "--out", "OUT"), "no option --latent-dim. If it is one of the program"),
        (("fit", "vae", "--out", "OUT", "--lr=0.1"), "or of the method: -o lr=0.1."),
        (("fit", "vae", "--sead", "2", "--out", "OUT"), "--sead (did you mean --seed?)"),
        (("fit", "vae", "-o", "lr=-1", "--out", "OUT"), "lr must be positive"),
        (("fit", "vae", "-o", "latent_dim=abc", "--out", "OUT"), "latent_dim must be a whole number, got 'abc'"),
        (("fit", "vae", "-o", "hidden=5", "--out", "OUT"), "hidden must be a list of whole numbers"),
        (("fit", "vae", "-o", "steps=NaN", "--out", "OUT"), "steps must be a whole number"),
        (("fit", "vae", "--seed", "-1", "--out", "OUT"), "seed must be in [0, 9223372036854775807], got -1"),
        (("fit", "vae", "--device", "nonsense", "--out", "OUT"), "device must be 'auto', 'cpu', 'cuda'"),
        (("fit", "vae", "--device", "cpu:7", "--out", "OUT"), "Device 'cpu:7' is not available here"),
        (("show", "OUT/raises.py:A"), "ZeroDivisionError: division by zero"),
        (("show", "OUT/exits.py:A"), "SystemExit: 3"),
        (("show", "OUT/unparsable.py:A"), "(line 2)"),
        (("show", "OUT/missing.py:A"), "no file"),
        (("score", "OUT"), "holds no saved program"),
        (("score", "FIT", "--split", "tset"), "expected 'train', 'valid' or 'test'"),
        (("score", "FIT", "--how", "magic"), "how must be"),
        (("score", "FIT", "--data", "digits"), "needs values in"),
        (("sample", "FIT", "--out", "x.jpeg"), "give a .png"),
        (("sample", "FIT", "--out", "x.png", "-n", "0"), "n must be at least 1"),
        (("bench", "posteriors", "--out", "OUT"), "Did you mean 'posterior'"),
        (("bench", "main", "--select", "no-such-cell", "--out", "OUT"), "No cell of suite 'main' matches no-such-cell"),
        (("report", "OUT"), "does not exist"),
    ],
)
def test_mistakes_get_one_line_and_exit_code_2(
    zoo: Any, fitted: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    for name, code in (("raises", "1 / 0"), ("exits", "import sys\nsys.exit(3)"), ("unparsable", "\nx = (")):
        (tmp_path / f"{name}.py").write_text(code)
    places = {"OUT": str(tmp_path / "out"), "FIT": str(fitted)}
    code, out, error = zoo(*(places.get(a, a.replace("OUT/", f"{tmp_path}/")) for a in arguments))
    assert code == 2
    assert not out
    assert message in error
    assert error.startswith("zoo: ")
    assert error.count("\n") == 1
    assert "Traceback" not in error


def test_a_plug_in_that_cannot_be_imported_hides_nothing_else(zoo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("broken", "no_such_package.models:Model", catalogue.ENTRY_POINT_GROUP)
    monkeypatch.setattr("benchmarks.index.entry_points", lambda group: [point])
    monkeypatch.setattr("zoo.catalogue.plugins", lambda group: {point.name: point.value})
    code, out, _ = zoo("list", "--json")
    cards = {card["name"]: card for card in json.loads(out)}
    assert code == 0
    assert "no_such_package" in cards["broken"]["what"]
    assert cards["vae"]["family"] == "latent"
    code, _, error = zoo("show", "broken")
    assert (code, error.count("\n")) == (2, 1)
    assert "cannot be imported" in error


def test_debug_shows_where_it_was_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_DEBUG", "1")
    with pytest.raises(ZooError):
        cli.main(["show", "no-such-program"])


def test_the_module_runs_as_a_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.cli", "show", "no-such-program"],
        capture_output=True, text=True, check=False, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("zoo: Unknown program 'no-such-program'")
    assert not done.stdout


def test_help_names_every_suite() -> None:
    (suite,) = (each for each in get_command(cli.app).commands["bench"].params if each.name == "suite")  # type: ignore[attr-defined]
    assert [name for name in SUITES if f"'{name}'" not in suite.help] == []
