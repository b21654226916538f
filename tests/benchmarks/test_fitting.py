"""`zoo fit`: options of program and method, the same fit again, loggers, what is left open resolved."""

from __future__ import annotations

import json
import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.fitting import name_columns, parse_options, repeatable, resolved
from inference import Fit
from inference.checkpoint import Checkpoint
from zoo import catalogue
from zoo.errors import OptionError


def test_fit_with_options_of_program_and_method(zoo: Any, tmp_path: Path) -> None:
    out = tmp_path / "vae"
    code, printed, error = zoo(
        "fit", "vae", "--out", out, "-o", "latent_dim=3", "-o", "hidden=[16]", "-o", "steps=5", "-o", "lr=0.01"
    )
    assert code == 0, error
    assert f"zoo score {out}" in printed
    record = json.loads((out / "fit.json").read_text())
    assert record["options"]["steps"] == 5
    assert record["options"]["epochs"] is None  # the preset's epochs give way
    assert record["options"]["lr"] == 0.01
    config = json.loads((out / "config.json").read_text())
    assert (config["latent_dim"], config["hidden"]) == (3, [16])
    code, printed, error = zoo("score", out, "--how", "iwae", "--particles", 20, "--json")
    assert code == 0, error
    scored = json.loads(printed)
    assert scored["how"] == "IWAE-20"
    assert scored["bound"] is True


def test_the_same_seed_gives_the_same_fit(zoo: Any, tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        zoo("fit", "vae", "--out", tmp_path / name, "-o", "hidden=[8]", "-o", "steps=3", "--seed", seed)
    a, b, c = (catalogue.load(tmp_path / name).state_dict() for name in "abc")
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not all(torch.equal(a[key], c[key]) for key in a)


def test_what_a_killed_fit_left_is_thrown_away_on_demand(zoo: Any, tmp_path: Path) -> None:
    Checkpoint(tmp_path, {"seed": 7}).write({})
    command = ("fit", "markov-chain", "--data", "digits-binary", "--out", tmp_path, "--json")
    code, out, error = zoo(*command)
    assert (code, out) == (2, "")
    assert "seed 7 there, 0 here" in error
    assert "--restart" in error
    assert zoo(*command, "--restart")[0] == 0
    assert Fit.load(tmp_path).seed == 0
    assert not (tmp_path / "checkpoint.pt").exists()


def test_options_are_read_as_json_where_they_are() -> None:
    assert parse_options(["a=1", "b=0.5", "c=[1, 2]", "d=true", "e=null", "f=full", "g=x=y"]) == {
        "a": 1, "b": 0.5, "c": [1, 2], "d": True, "e": None, "f": "full", "g": "x=y",
    }  # fmt: skip
    with pytest.raises(OptionError, match="name=value"):
        parse_options(["=3"])


def test_what_is_left_open_is_resolved() -> None:
    cls = catalogue.get("vae")
    assert resolved("vae", None, None, None) == (cls, "digits-binary", "svi", "small")
    assert resolved("gan", None, None, "ring")[1:] == ("ring", "gan", "ring")
    assert resolved("hmm", "chorales", "em", None)[1:3] == ("chorales", "em")
    said = repeatable("coin", None, "nuts", None, None)
    assert (said["name"], said["data"], said["method"]) == ("coin", "coin", "nuts")


def test_paths_of_a_repeatable_fit_hold_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("f.csv").write_text("y,x\n" + "1,2\n" * 9)
    said = repeatable("linear-regression", "f.csv?target=y&context=x", "exact", None, "f.csv")
    assert said["data"] == os.path.join(tmp_path, "f.csv?target=y&context=x")
    assert said["context"] == os.path.join(tmp_path, "f.csv")


def test_a_logger_is_asked_for_by_name(zoo: Any, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    words = ("fit", "markov-chain", "--data", "digits-binary", "--log", "tensorboard", "--json")
    code, _, error = zoo(*words, "--out", tmp_path / "fit")
    assert code == 0, error
    assert list((tmp_path / "fit" / "tensorboard").glob("events.out.*"))
    assert Fit.load(tmp_path / "fit").method == "em"
    code, _, error = zoo("fit", "markov-chain", "--log", "tensorbord", "--out", tmp_path / "other")
    assert (code, "Did you mean 'tensorboard'" in error) == (2, True)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(("target", "context"), [("y", None), (None, "a"), ("y", "a,b"), (None, None)])
def test_columns_that_are_chosen_are_part_of_the_name(target: str | None, context: str | None) -> None:
    named = name_columns("f.csv", target, context)
    assert named is not None
    assert (f"target={target}" in named, "context=" in named) == (target is not None, context is not None)
    with nullcontext() if target is context is None else pytest.raises(OptionError, match="give it, --data"):
        assert name_columns(None, target, context) is None
