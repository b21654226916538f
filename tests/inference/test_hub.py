"""A fit goes to the hub with all that it takes to load it, and a card that says what it is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

import zoo
from inference import Fit, fit
from inference.evaluation import log_likelihood
from inference.hub import card
from tests.zoo.test_hub import Hub
from zoo import catalogue, errors

MINE = """
from pathlib import Path
from zoo.bayes.coin import BetaBernoulli

Path(__file__).with_name("ran").touch()


class Mine(BetaBernoulli):
    '''A coin of my own.'''
"""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    return Hub(tmp_path, monkeypatch)


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda number: None)


@pytest.fixture
def mine(tmp_path: Path) -> Fit:
    """Of a class in a file, and data in a file."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "mine.py").write_text(MINE)
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "tosses.csv").write_text("1\n0\n" * 10)
    return fit(f"{tmp_path}/code/mine.py:Mine", f"{tmp_path}/secret/tosses.csv", "exact")


def test_a_fit_comes_back_from_the_hub(hub: Hub) -> None:
    found = fit("ppca", "iris", "em", seed=3)
    address = found.push_to_hub("me/flowers", licence="apache-2.0")
    assert address == "https://hub/me/flowers/commit/1"
    again = Fit.load("me/flowers")
    assert (again.method, again.seed, again.data, again.history.rows) == ("em", 3, "iris", found.history.rows)
    for program in (again.program, zoo.load("me/flowers")):
        state = program.state_dict()
        assert all(torch.equal(state[name], value) for name, value in found.program.state_dict().items())
    assert hub.files("me/flowers") == {"config.json", "model.safetensors", "fit.json", "README.md", ".gitattributes"}


def test_another_fit_takes_the_place_of_the_first_one(hub: Hub, mine: Fit) -> None:
    mine.push_to_hub("me/thing")
    assert {"train.safetensors", "source.py"} < hub.files("me/thing")
    fit("ppca", "iris", "em").push_to_hub("me/thing")
    assert hub.files("me/thing").isdisjoint({"train.safetensors", "source.py"})
    assert Fit.load("me/thing").method == "em"


def test_a_program_of_ones_own_takes_its_source_along_which_runs_only_on_trust(hub: Hub, mine: Fit) -> None:
    mine.push_to_hub("me/coin")
    with pytest.raises(
        errors.CheckpointError, match=r"class Mine of source\.py.*Give the class \(program=Mine"
    ) as said:
        Fit.load("me/coin")
    assert "if you trust source.py, trust_code=True" in str(said.value)
    given = Fit.load("me/coin", program=type(mine.program))
    cached = next(hub.cache.rglob("source.py")).parent
    assert not (cached / "ran").exists()
    trusted = Fit.load("me/coin", trust_code=True)
    assert (cached / "ran").exists()
    assert type(trusted.program).__name__ == "Mine"
    assert type(trusted.program) is not type(mine.program)
    for other in (given, trusted):
        assert torch.equal(other.draw(5, seed=1)["p"], mine.draw(5, seed=1)["p"])
    assert catalogue.name_of(trusted.program) == f"{cached}/source.py:Mine"


def test_no_path_of_this_machine_goes_to_the_hub(hub: Hub, mine: Fit, tmp_path: Path) -> None:
    mine.push_to_hub("me/coin")
    for name in hub.files("me/coin"):
        content = (hub.root / "me/coin" / name).read_bytes()
        assert b"secret" not in content, name
        assert str(tmp_path).encode() not in content, name
    assert Path(Fit.load("me/coin", program=type(mine.program)).data).name == "tosses.csv"


def test_the_card_says_what_it_is_and_how_to_load_it() -> None:
    found = fit("ppca", "iris", "em", seed=3)
    score = log_likelihood(found, zoo.datasets.load("iris").test)
    text = card(found, "me/flowers", licence="apache-2.0", scores={"log p(x), test": score, "other": 2})
    header, _, body = text.removeprefix("---\n").partition("---\n")
    assert 'license: "apache-2.0"' in header
    assert '"latent"' in header
    assert "# ppca, fitted to iris" in body
    for said in (
        "| method | `em` |",
        "| seed | 3 |",
        "| licence | apache-2.0 |",
        f"| loss, at the end of the fit | {found.history.last('loss'):.4g} |",
        f"| log p(x), test | {score.mean:.4g} ± {score.standard_error:.2g} (exact) |",
        "| other | 2 |",
        'found = Fit.load("me/flowers")',
        "Tipping",
    ):
        assert said in body, said
    assert "Licence: " in next(line for line in body.splitlines() if line.startswith("| data |"))


def test_the_card_of_a_class_of_ones_own_warns_of_its_source(mine: Fit) -> None:
    text = card(mine, "me/coin")
    assert 'Fit.load("me/coin", program=Mine)' in text
    assert "*executes* `source.py`" in text
    assert "| licence | not said |" in text
    assert "license" not in text


@pytest.mark.parametrize("name", ["flowers", "me/flowers/more", "me/flowers@main", "", "/flowers"])
def test_what_is_no_name_of_a_repository_is_refused(hub: Hub, name: str) -> None:
    with pytest.raises(errors.OptionError, match="called 'user/name'"):
        fit("coin", "coin", "exact").push_to_hub(name)
    assert not list(hub.root.iterdir())


def test_what_the_hub_refuses_is_said(hub: Hub, monkeypatch: Any) -> None:
    def refuse(*args: Any, **options: Any) -> None:
        raise OSError("401 Client Error")

    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", refuse)
    with pytest.raises(errors.CheckpointError, match=r"did not take the fit as me/coin \(OSError: 401"):
        fit("coin", "coin", "exact").push_to_hub("me/coin")
