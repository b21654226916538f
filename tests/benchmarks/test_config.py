"""Options from a file: it stands in for defaults, the command line wins, and the file beside a fit repeats it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.config import to_toml
from benchmarks.fitting import parse_options
from inference import Fit


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What `zoo fit` would have fitted."""
    calls: list[tuple[Any, ...]] = []

    def note(*given: Any, log: Any) -> None:
        calls.append((*given[:9], *given[10:], tuple(log)))
        raise SystemExit(0)

    monkeypatch.setattr("benchmarks.fitting.fit_program", note)
    return calls


def test_a_file_stands_in_for_the_command_line_which_wins(zoo: Any, asked: Any, tmp_path: Path) -> None:
    file = tmp_path / "vae.toml"
    file.write_text(
        'name = "vae"\nout = "there"\ndata = "digits-binary"\nseed = 7\n'
        + 'log = ["trackio"]\n[option]\nlatent_dim = 3\nhidden = [16, 8]\nlr = 0.5\n"program.guide" = "full"\n'
    )
    zoo("fit", "--config", file)
    zoo("fit", "aae", "--config", file, "--seed", 1, "-o", "lr=0.1", "--out", tmp_path / "here")
    options = {"latent_dim": 3, "hidden": [16, 8], "lr": 0.5, "program.guide": "full"}
    common = (None, None)
    first = ("vae", "digits-binary", Path("there"), *common, options, None, 7, "auto", False, ("trackio",))
    assert asked[0] == first
    second = ("aae", "digits-binary", tmp_path / "here", *common, {**options, "lr": 0.1}, None, 1, "auto", False)
    assert asked[1] == (*second, ("trackio",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("laten_dim = 3", "Unknown key of FILE 'laten_dim'"),
        ("optoin = 3", "Did you mean 'option'"),
        ("json = true", "Unknown key of FILE 'json'"),
        ('config = "a.toml"', "Unknown key of FILE 'config'"),
        ("seed = true", "seed in FILE must be a string or a number, got True"),
        ("log = 'wandb'", "log in FILE must be a list of strings, got 'wandb'"),
        ("option = 3", "option in FILE must be a list of strings, or a table, got 3"),
        ("seed =", "FILE is no TOML"),
        ("[seed]\na = 1", "seed in FILE must be a string or a number"),
    ],
)
def test_mistakes_in_a_file_are_named(zoo: Any, asked: Any, tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "f.toml"
    file.write_text(text)
    code, out, error = zoo("fit", "coin", "--out", tmp_path / "out", "--config", file)
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert message.replace("FILE", str(file)) in error
    assert not asked


def test_numbers_of_a_file_are_not_rounded(zoo: Any, asked: Any, tmp_path: Path) -> None:
    file = tmp_path / "f.toml"
    file.write_text("seed = 1.5")
    code, _, error = zoo("fit", "coin", "--out", tmp_path / "out", "--config", file)
    assert code == 2
    assert "seed" in error
    code, _, error = zoo("fit", "coin", "--out", tmp_path / "out", "--config", tmp_path / "no.toml")
    assert (code, "Cannot read the configuration" in error) == (2, True)
    assert not asked


def test_the_file_beside_a_fit_repeats_it(zoo: Any, tmp_path: Path) -> None:
    first, again = tmp_path / "first", tmp_path / "again"
    words = ("-o", "hidden=[8]", "-o", "steps=3", "-o", "clip_norm=null", "--seed", 4, "--json")
    assert zoo("fit", "vae", "--out", first, *words)[0] == 0
    said = tomllib.loads((first / "config.toml").read_text())
    assert said == {
        "name": "vae", "out": str(first), "data": "digits-binary", "method": "svi", "preset": "small", "seed": 4,
        "device": "auto", "option": ["hidden=[8]", "steps=3", "clip_norm=null"],
    }  # fmt: skip
    code, _, error = zoo("fit", "--config", first / "config.toml", "--out", again, "--json")
    assert code == 0, error
    one, other = Fit.load(first), Fit.load(again)
    assert (one.options, one.data, one.seed) == (other.options, other.data, other.seed)
    states = one.program.state_dict(), other.program.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    changed = tomllib.loads((again / "config.toml").read_text())
    assert changed == {**said, "out": str(again)}


def test_a_benchmark_is_configured_and_repeated_too(zoo: Any, stub: None, tmp_path: Path) -> None:
    file, out = tmp_path / "bench.toml", tmp_path / "out"
    file.write_text('suite = "posterior"\nselect = ["*/coin/exact/*"]\nseeds = 2\njobs = 1\n')
    code, _, error = zoo("bench", "--config", file, "--seeds", 1, "--out", out, "--json")
    assert code == 0, error
    said = tomllib.loads((out / "config.toml").read_text())
    assert said == {
        "suite": "posterior", "out": str(out), "select": ["*/coin/exact/*"], "seeds": 1, "jobs": 1, "device": "cpu",
        "executor": "local",
    }  # fmt: skip
    file.write_text('suite = "speed"\nquick = "yes"\n')
    code, _, error = zoo("bench", "--config", file, "--out", out)
    assert (code, "quick in" in error, "must be true or false" in error) == (2, True, True)


@pytest.mark.parametrize(
    "options",
    [
        ["a=1", "b=0.5", 'c=[1, "x"]', "d=true", 'f={"name": "g h", "n": [1, 2]}', "program.x=a", "odd name=y"],
        ['quotes="\\"\\\\ \\n ü \U0001f600 \x7f"'],
        [],
    ],
)
def test_options_come_back_from_a_table_as_they_were(options: list[str]) -> None:
    found = tomllib.loads(to_toml({"seed": 3, "option": options}))
    assert found.get("option", {}) == parse_options(options)
    assert found["seed"] == 3
