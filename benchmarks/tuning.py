"""What `zoo tune` does: options chosen on the validation split, by Optuna's search; the test split is not looked at.

Each trial fits from the same seed. The search goes on from its folder when it was killed, to the same trials that it
would have made.
"""

from __future__ import annotations

import json
import math
import shutil
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.commands import has_density, judge_program, score_program
from benchmarks.config import OPTIONS, to_toml
from benchmarks.fitting import fit_program, repeatable, resolved
from benchmarks.metrics import METRICS
from zoo import folders
from zoo.adopted import Adopted
from zoo.errors import CheckpointError, DivergenceError, OptionError, UnknownNameError
from zoo.process import guest

__all__ = ["Search", "read_space", "tune"]

BEST, JOURNAL = "best.toml", "trials.log"
KEYS = {"values", "low", "high", "log"}


@dataclass(frozen=True, kw_only=True)
class Search:
    """What is searched, and what stays as it is."""

    name: str
    """Of the program."""
    data: str | None = None
    method: str | None = None
    preset: str | None = None
    options: Mapping[str, Any]
    """Those that are not searched."""
    space: Mapping[str, Mapping[str, Any]]
    """By option, `values`, or `low`, `high` and perhaps `log`."""
    metric: str | None = None
    """A score of samples; None is the log-likelihood, or for programs without a density 'frechet'."""
    binarise: str | None = None
    seed: int = 0
    device: str = "auto"
    particles: int = 200
    """Importance samples of each example, where the log-likelihood needs them."""


def read_space(path: Path) -> dict[str, dict[str, Any]]:
    """A table for each option, from TOML.

    Raises: OptionError for a file or a table that says nothing to search; UnknownNameError for another key.
    """
    try:
        found = tomllib.loads(path.read_text())
    except OSError as error:
        raise OptionError(f"Cannot read the space {path}: {error.strerror}; name a TOML file.") from error
    except ValueError as error:
        raise OptionError(f"{path} is no TOML ({error}).") from error
    if not found:
        raise OptionError(f"{path} has nothing to search: give a table for each option, [lr] with low and high.")
    for name, table in found.items():
        _check_table(f"{name} in {path}", table)
    return found


def _check_table(name: str, table: Any) -> None:
    if not isinstance(table, dict):
        raise OptionError(f"{name} must be a table with values, or with low and high; got {table!r}.")
    for key in table:
        if key not in KEYS:
            raise UnknownNameError(f"key of {name}", key, KEYS)
    if "values" in table:
        if len(table) > 1 or not isinstance(table["values"], list) or not table["values"]:
            raise OptionError(f"{name} must have a list of values and no bounds beside it, got {table!r}.")
        return
    low, high = (table.get(bound, "none") for bound in ("low", "high"))
    log = table.get("log", False)
    numbers = all(isinstance(bound, int | float) and not isinstance(bound, bool) for bound in (low, high))
    if not numbers or not low < high or not isinstance(log, bool) or (log and low <= 0):
        raise OptionError(
            f"{name} must have numbers low < high (low above 0 where log = true), or values; got {table!r}."
        )


def tune(search: Search, out: Path, trials: int, progress: bool = False) -> dict[str, Any]:
    """Makes trials until there are so many in the folder; says which was the best.

    Args:
        search: What is asked.
        out: Folder of the journal, the fit of the best trial, and best.toml, which `zoo fit --config` takes.
        trials: How many in all, those that are there already included.
        progress: Shows the bar of each fit.

    Raises: OptionError where Optuna is missing (extra `tune`), or the space has a value that no fit can have;
        CheckpointError for a folder of another search.
    """
    if trials < 1:
        raise OptionError(f"trials must be at least 1, got {trials}.")
    cls = resolved(search.name, search.data, search.method, search.preset)[0]
    if issubclass(cls, Adopted):
        raise OptionError(f"{search.name} is adopted code, whose data have no validation split to judge by.")
    if search.metric is not None and (search.metric not in METRICS or not METRICS[search.metric].better):
        raise UnknownNameError("metric to search by", search.metric, [k for k, v in METRICS.items() if v.better])
    optuna = _optuna()
    with folders.held(out):
        study = _study(optuna, search, out)
        while len(done := _finished(study)) < trials:
            study.sampler = optuna.samplers.TPESampler(seed=search.seed + len(done))  # whoever goes on draws the same
            _try(optuna, study, search, out, progress)
        return _summary(study, search, out)


def _optuna() -> Any:
    try:
        optuna = guest("optuna")
    except ImportError as error:
        raise OptionError(f"zoo tune needs Optuna ({error}): pip install 'pyro-model-zoo[tune]'.") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _study(optuna: Any, search: Search, out: Path) -> Any:
    """The study of the folder.

    Raises: CheckpointError where it is of another search.
    """
    journal = guest("optuna.storages.journal").JournalFileBackend(str(out / JOURNAL))
    storage = optuna.storages.JournalStorage(journal)
    study = optuna.create_study(storage=storage, study_name="tune", load_if_exists=True, direction="maximize")
    filled = repeatable(search.name, search.data, search.method, search.preset, None)
    asked = json.loads(json.dumps({**vars(search), **filled}))
    there = study.user_attrs.get("asked", asked)
    other = [f"{key} {there.get(key)!r} there, {here!r} here" for key, here in asked.items() if there.get(key) != here]
    if other:
        raise CheckpointError(f"{out} holds another search ({'; '.join(other)}): name another folder.")
    study.set_user_attr("asked", asked)
    for trial in study.get_trials(deepcopy=False):
        if not trial.state.is_finished():  # it was killed
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    return study


def _finished(study: Any) -> list[Any]:
    """Trials that ended by themselves, by a score or by diverging."""
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state.name in ("COMPLETE", "PRUNED")]


def _try(optuna: Any, study: Any, search: Search, out: Path, progress: bool) -> None:
    """One trial. The fit of the best one stays, those of others go."""
    trial, states = study.ask(), optuna.trial.TrialState
    options = {name: _suggested(trial, name, table) for name, table in search.space.items()}
    trial.set_user_attr("options", options)
    folder = out / "trials" / f"{trial.number:03d}"
    try:
        fit_program(
            search.name, search.data, folder, search.method, search.preset, {**search.options, **options},
            search.binarise, search.seed, search.device, progress,
        )  # fmt: skip
        score = _judged(search, folder)
    except DivergenceError as error:
        trial.set_user_attr("failed", str(error))
        study.tell(trial, state=states.PRUNED)
    except BaseException:
        study.tell(trial, state=states.FAIL)
        raise
    else:
        trial.set_user_attr("score", score)
        study.tell(trial, _sign(score["metric"]) * score["value"])
    best = _best(study)
    for path in (out / "trials").glob("*"):
        if best is None or path.name != f"{best.number:03d}":
            shutil.rmtree(path)


def _suggested(trial: Any, name: str, table: Mapping[str, Any]) -> Any:
    if "values" in table:  # Optuna chooses among strings, so that a value may be a list
        return json.loads(trial.suggest_categorical(name, [json.dumps(value) for value in table["values"]]))
    low, high, log = table["low"], table["high"], table.get("log", False)
    whole = isinstance(low, int) and isinstance(high, int)
    return trial.suggest_int(name, low, high, log=log) if whole else trial.suggest_float(name, low, high, log=log)


def _judged(search: Search, folder: Path) -> dict[str, Any]:
    """Metric, value and how it was estimated, on the validation split.

    Raises: OptionError for a metric that the program's samples do not have.
    """
    common: dict[str, Any] = {"split": "valid", "binarise": search.binarise, "seed": search.seed, "trust_code": True}
    if search.metric is None and has_density(folder, trust_code=True):
        scored = score_program(folder, search.data, particles=search.particles, **common)
        metric = scored["quantity"]
        return {"metric": metric, "value": scored[metric], "how": scored["how"]}
    metric = search.metric or "frechet"
    scores = judge_program(folder, search.data, **common)["scores"]
    if scores.get(metric, {}).get("value") is None:
        able = ", ".join(name for name, score in scores.items() if score["value"] is not None and METRICS[name].better)
        raise OptionError(f"Samples of {search.name} have no {metric} on these data; --metric can be one of {able}.")
    return {"metric": metric, "value": scores[metric]["value"], "how": scores[metric]["how"]}


def _sign(metric: str) -> int:
    return -1 if metric in METRICS and METRICS[metric].better == "lower" else 1


def _best(study: Any) -> Any:
    """The best trial, or None where none has a score."""
    return study.best_trial if any(trial.state.name == "COMPLETE" for trial in _finished(study)) else None


def _summary(study: Any, search: Search, out: Path) -> dict[str, Any]:
    """What is known of all trials, best first; writes the configuration of the best.

    Raises: DivergenceError where no trial has a score.
    """
    best, done = _best(study), _finished(study)
    if best is None:
        why = done[0].user_attrs["failed"]
        raise DivergenceError(f"All {len(done)} trials diverged, the first one so: {why}")
    folder = out / "trials" / f"{best.number:03d}"
    options = {**search.options, **best.user_attrs["options"]}
    fixed = repeatable(search.name, search.data, search.method, search.preset, None)
    config: dict[str, Any] = {name: value for name, value in fixed.items() if value is not None}
    config |= {"out": out / "best", "seed": search.seed, "device": search.device}
    config |= {} if search.binarise is None else {"binarise": search.binarise}
    words = [f"{name}={json.dumps(value)}" for name, value in options.items()]
    (out / BEST).write_text(to_toml({**config, OPTIONS: words}))
    rows = [
        {"trial": trial.number, "value": trial.user_attrs.get("score", {}).get("value"), **trial.user_attrs}
        for trial in sorted(done, key=lambda trial: -math.inf if trial.value is None else trial.value, reverse=True)
    ]
    score = best.user_attrs["score"]
    return {
        "program": search.name,
        "split": "valid",
        "metric": score["metric"],
        "how": score["how"],
        "value": score["value"],
        "options": best.user_attrs["options"],
        "best": str(folder),
        "config": str(out / BEST),
        "trials": rows,
    }
