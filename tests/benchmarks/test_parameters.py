"""Options that commands share: what the shell completes, and the version."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

import zoo as package


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("zoo sho", {"show"}),
        ("zoo show eight", {"eight-schools"}),
        ("zoo fit pixel", {"pixelcnn", "pixelcnn++", "pixelrnn"}),
        ("zoo fit vae --data iri", {"iris"}),
        ("zoo fit vae --steps 3 --data iri", {"iris"}),
    ],
)
def test_a_shell_completes_commands_and_names(zoo: Any, monkeypatch: Any, words: str, expected: set[str]) -> None:
    for name, value in {
        "_ZOO_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
    }.items():
        monkeypatch.setenv(name, value)
    code, out, _ = zoo()
    assert code == 0
    assert set(out.split()) == expected


def test_the_version_is_that_of_the_project_file(zoo: Any) -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert zoo("--version")[:2] == (0, f"pyro-model-zoo {project['version']}\n")
    assert package.__version__ == project["version"]
    assert "version" not in (Path(__file__).parents[2] / "CITATION.cff").read_text().replace("cff-version", "")


@pytest.mark.parametrize(
    ("words", "option"),
    [
        ("compare coin -m nuts -m svi --out x", "--methods"),
        ("fit coin --seed 1 --out x --seed=2", "--seed"),
        ("show coin --data coin -d iris", "--data"),
        ("fit coin --out x -o steps=5 -o lr=0.1 -o steps=7", "--option steps"),
    ],
)
def test_what_is_given_twice_is_refused(zoo: Any, words: str, option: str) -> None:
    """The last would win without a word."""
    code, out, err = zoo(*words.split())
    assert (code, out) == (2, "")
    assert f"{option} was given 2 times, and takes one value" in err


def test_lists_and_flags_may_be_repeated(zoo: Any) -> None:
    assert zoo("list", "--json", "--json")[0] == 0
    assert "No such option" in zoo("list", "--nonsense", "--nonsense")[2]
