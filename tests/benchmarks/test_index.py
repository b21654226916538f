"""Lists and cards made beforehand: they say what the programs say, and reading them imports nothing slow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from benchmarks import cards, index
from zoo import catalogue

ROOT = Path(__file__).parents[2]
SLOW = ("torch", "pyro", "numpy", "scipy", "sklearn", "pandas", "matplotlib", "arviz", "requests", "huggingface_hub")


def modules_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint(*sorted(sys.modules), file=sys.stderr)"],
        capture_output=True, text=True, check=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    return set(done.stderr.split())


@pytest.mark.parametrize("words", [["list"], ["list", "--datasets"], ["list", "--json"], ["show", "vae"]], ids=" ".join)
def test_looking_around_waits_for_no_library(words: list[str]) -> None:
    run = f"main({words!r})"
    code = f"from benchmarks.cli import main\ntry:\n    {run}\nexcept SystemExit as e:\n    assert not e.code"
    found = modules_after(code)
    assert "benchmarks.index" in found
    assert not found & set(SLOW)


@pytest.mark.parametrize("package", ["zoo", "inference"])
def test_packages_load_only_what_they_need_to_start(package: str) -> None:
    late = {"scipy.signal", "sklearn", "pandas", "matplotlib", "arviz", "zuko", "torch._dynamo", "torch._inductor"}
    assert not modules_after(f"import {package}") & late


def test_lists_say_what_the_programs_and_data_say() -> None:
    wanted = json.loads(index.FILE.read_text())
    assert set(wanted["cards"]) == set(
        catalogue.BUILTIN
    )  # each card is compared with the program where cards are tested
    assert [card for card in cards.program_list() if card["name"] in catalogue.BUILTIN] == wanted["programs"]
    assert json.loads(json.dumps(cards.dataset_list())) == wanted["datasets"], "run: python docs/models.py"


def test_programs_of_other_packages_are_listed_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("theirs", "zoo.bayes.coin:BetaBernoulli", catalogue.ENTRY_POINT_GROUP)
    monkeypatch.setattr(index, "entry_points", lambda group: [point])
    monkeypatch.setattr(catalogue, "plugins", lambda group: {point.name: point.value})
    assert {card["name"] for card in index.program_list()} == {*catalogue.BUILTIN, "theirs"}
    assert index.card("theirs")["family"] == "bayes"


def test_a_card_for_other_data_is_built_for_them() -> None:
    assert json.loads(json.dumps(index.card("coin", "coin"))) == index.card("coin")
    assert index.card("independent", "nltcs")["event_shape"] == [16]


def test_the_file_is_written_from_the_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "BUILTIN", {"coin": catalogue.BUILTIN["coin"]})
    found = json.loads(index.made())
    assert found["cards"] == {"coin": json.loads(json.dumps(cards.program_card("coin")))}
    assert [card["name"] for card in found["programs"]] == ["coin"]
