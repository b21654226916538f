"""`zoo tune`: options are searched by their score on the validation split, and a killed search goes on."""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import tuning
from benchmarks.tuning import Search, read_space, tune
from inference import Fit
from inference.evaluation import log_likelihood
from zoo import datasets, errors


def search(**changes: Any) -> Search:
    """The order of an autoregressive chain over bits that repeat those four before them."""
    given: dict[str, Any] = {
        "name": "ar-chain",
        "data": "bits.npz",
        "method": "svi",
        "options": {"steps": 30, "lr": 0.3},
    }
    return Search(**{**given, "space": {"order": {"values": [1, 4]}}, **changes})


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip("optuna")
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    bits = (rng.random((120, 4)) < 0.5).astype(float)
    bits = np.concatenate([bits, bits, bits], 1)
    np.savez("bits.npz", train=bits[:80], valid=bits[80:100], test=np.zeros((20, 12)))
    return tmp_path


@pytest.fixture
def stubbed(here: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The options of fits that cost nothing; a rate of 0.05 has the best score, large ones diverge."""
    made: list[dict[str, Any]] = []

    def fitted(name: str, data: str, folder: Path, method: str, preset: str, options: dict, *rest: Any) -> None:
        folder.mkdir(parents=True)
        made.append(options)
        if options["lr"] > 10:
            raise errors.DivergenceError("too fast")

    def judged(asked: Search, folder: Path) -> dict[str, Any]:
        return {"metric": "log_likelihood", "value": -abs(made[-1]["lr"] - 0.05), "how": "stub"}

    monkeypatch.setattr(tuning, "fit_program", fitted)
    monkeypatch.setattr(tuning, "_judged", judged)
    return made


def test_the_best_on_validation_data_is_kept_and_repeated(here: Path, zoo: Any) -> None:
    found = tune(search(options={"steps": 10, "lr": 0.3}), here / "out", 3)
    assert found["options"] == {"order": 4}
    assert (found["split"], found["metric"]) == ("valid", "log_likelihood")
    assert len(found["trials"]) == 3
    values = [trial["value"] for trial in found["trials"]]
    assert values == sorted(values, reverse=True)
    assert {trial["options"]["order"] for trial in found["trials"]} == {1, 4}
    best = Fit.load(found["best"])
    valid = datasets.load("bits.npz").valid
    assert found["value"] == pytest.approx(log_likelihood(best, valid).mean, rel=1e-5)
    assert [path.name for path in (here / "out" / "trials").iterdir()] == [Path(found["best"]).name]
    assert tomllib.loads(Path(found["config"]).read_text())["option"] == {"steps": 10, "lr": 0.3, "order": 4}
    code, _, error = zoo("fit", "--config", found["config"], "--json")
    assert code == 0, error
    again = Fit.load(here / "out" / "best")
    assert again.history.last("loss") == best.history.last("loss")


def test_a_killed_search_makes_the_trials_that_it_would_have_made(
    here: Path, stubbed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = {"lr": {"low": 0.01, "high": 1.0, "log": True}, "order": {"low": 1, "high": 5}}
    asked = search(options={"steps": 2}, space=space)
    straight = tune(asked, here / "straight", 13)
    calls, judged = [], tuning._judged

    def killed(*given: Any) -> Any:
        calls.append(given)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return judged(*given)

    monkeypatch.setattr(tuning, "_judged", killed)
    with pytest.raises(KeyboardInterrupt):
        tune(asked, here / "killed", 13)
    monkeypatch.setattr(tuning, "_judged", judged)
    tune(asked, here / "killed", 11)
    resumed = tune(asked, here / "killed", 13)

    def told(found: dict[str, Any]) -> list[tuple[float, dict[str, Any]]]:
        return [(trial["value"], trial["options"]) for trial in found["trials"]]

    assert told(resumed) == told(straight)
    assert len({json.dumps(options) for _, options in told(straight)}) == 13
    assert all(0.01 <= options["lr"] <= 1 and 1 <= options["order"] <= 5 for _, options in told(straight))


def test_a_folder_belongs_to_one_search(here: Path, stubbed: Any) -> None:
    tune(search(), here / "out", 1)
    with pytest.raises(errors.CheckpointError, match=r"another search \(seed 0 there, 1 here\)"):
        tune(search(seed=1), here / "out", 2)


def test_what_diverges_is_told_and_not_chosen(here: Path, stubbed: Any) -> None:
    asked = search(options={"steps": 20}, space={"lr": {"values": [1e30, 0.01]}})
    found = tune(asked, here / "out", 12)
    assert found["options"] == {"lr": 0.01}
    assert found["trials"][-1]["value"] is None
    assert [path.name for path in (here / "out" / "trials").iterdir()] == [Path(found["best"]).name]
    with pytest.raises(errors.DivergenceError, match="All 1 trials diverged"):
        tune(search(options={"steps": 20}, space={"lr": {"values": [1e30]}}), here / "other", 1)


def test_samples_are_judged_where_there_is_no_density(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def fitted(name: str, data: str, folder: Path, *given: Any) -> None:
        folder.mkdir(parents=True)
        seen.append(given[2]["dropout"])

    def judged(folder: Path, data: str, **given: Any) -> dict[str, Any]:
        assert given["split"] == "valid"
        return {"scores": {"frechet": {"value": seen[-1], "how": "raw"}, "recall": {"value": seen[-1], "how": "raw"}}}

    monkeypatch.setattr(tuning, "fit_program", fitted)
    monkeypatch.setattr(tuning, "judge_program", judged)
    monkeypatch.setattr(tuning, "has_density", lambda folder, trust_code: False)
    asked = {"name": "gan", "data": "digits", "options": {}, "space": {"dropout": {"values": [0.1, 0.2, 0.3]}}}
    assert tune(Search(**asked), here / "a", 9)["value"] == 0.1
    assert tune(Search(**asked, metric="recall"), here / "b", 9)["value"] == 0.3
    with pytest.raises(errors.OptionError, match="have no mmd on these data; --metric can be one of frechet, recall"):
        tune(Search(**asked, metric="mmd"), here / "c", 1)
    with pytest.raises(errors.UnknownNameError, match="Did you mean 'frechet'"):
        tune(Search(**asked, metric="frechett"), here / "d", 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "nothing to search"),
        ("lr = 3", r"lr in .* must be a table"),
        ("[lr]\nlow = 1\nhihg = 2", "Did you mean 'high'"),
        ("[lr]\nlow = 2\nhigh = 1", "low < high"),
        ("[lr]\nlow = 0\nhigh = 1\nlog = true", "low above 0"),
        ("[lr]\nlow = true\nhigh = 2", "numbers low < high"),
        ("[lr]\nlow = 1", "numbers low < high"),
        ("[lr]\nvalues = []", "list of values"),
        ("[lr]\nvalues = [1]\nlow = 2", "no bounds beside it"),
        ("[lr", "is no TOML"),
    ],
)
def test_a_space_that_makes_no_sense_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "space.toml").write_text(text)
    with pytest.raises(errors.ZooError, match=message):
        read_space(tmp_path / "space.toml")
    with pytest.raises(errors.OptionError, match="Cannot read the space"):
        read_space(tmp_path / "none.toml")


def test_options_of_the_space_must_exist(here: Path) -> None:
    with pytest.raises(errors.UnknownNameError, match="Did you mean 'order'"):
        tune(search(space={"ordre": {"values": [1]}}), here / "out", 1)
    with pytest.raises(errors.OptionError, match="trials must be at least 1"):
        tune(search(), here / "out", 0)


def test_a_missing_optuna_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(errors.OptionError, match=r"pip install 'pyro-model-zoo\[tune\]'"):
        tune(search(data="digits-binary"), tmp_path, 1)
