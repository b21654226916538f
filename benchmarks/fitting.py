"""What `zoo fit` does, and how words of the command line become options and columns."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inference.fit import fit, make_method
from inference.loggers import make_logger
from inference.processes import leads
from zoo import catalogue, datasets
from zoo.adopted import Adopted
from zoo.datasets.arrow import has_columns
from zoo.errors import OptionError
from zoo.program import Program

__all__ = ["fit_program", "name_columns", "parse_options", "repeatable", "resolved"]


INSIDE = {"program", "progress", "callbacks"}
OF_THE_COMMAND = {"data", "method", "preset", "seed", "device", "out", "restart", *INSIDE}
"""What `inference.fit.fit` takes beside options of programs and methods, and `zoo fit` by names of its own."""


def parse_options(given: Sequence[str]) -> dict[str, Any]:
    """'k=v' strings as a dictionary; v is read as JSON (numbers, lists, true, null) where it is, else as a string.

    Raises: OptionError for a string without '='.
    """
    found = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise OptionError(f"Cannot read option {text!r}; write it as name=value, for instance lr=0.01.")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def name_columns(data: str | None, target: str | None, context: str | None) -> str | None:
    """The name of data whose columns are chosen: 'y' and 'x1,x2' of 'f.csv'; names with commas are quoted.

    Raises: OptionError for columns of no file.
    """
    if target is None and context is None:
        return data
    if data is None:
        raise OptionError("--target and --context choose columns of a file: give it, --data f.csv.")

    def columns(text: str | None) -> list[str] | None:
        return None if text is None else [name.strip() for name in next(csv.reader([text]))]

    of_target, of_context = columns(target), columns(context)
    return datasets.named(
        data,
        target=of_target[0] if of_target and len(of_target) == 1 else of_target,
        context=context if not has_columns(Path(data)) or context == "*" else of_context,
    )


def resolved(
    name: str, data: str | None, method: str | None, preset: str | None
) -> tuple[type[Program], str | None, str, str | None]:
    """What `zoo fit` takes where nothing is said: class, data, method and preset; adopted code has data of its own.

    Raises: UnknownNameError.
    """
    cls = catalogue.get(name)
    if issubclass(cls, Adopted):
        return cls, data, method or "svi", None
    if preset is None and "small" in cls.presets:
        preset = "small"
    chosen = cls.preset(preset)
    return cls, chosen.data or cls.dataset if data is None else data, method or chosen.method, preset


def repeatable(
    name: str, data: str | None, method: str | None, preset: str | None, context: str | None
) -> dict[str, str | None]:
    """The same, with nothing left open, and with paths that hold anywhere: what a configuration file says."""
    _, data, method, preset = resolved(name, data, method, preset)
    where, _, what = name.rpartition(":")
    named = f"{os.path.abspath(where)}:{what}" if where.endswith(".py") else name
    base = None if data is None else datasets.base_name(data)
    if data is not None and base is not None and base not in datasets.names() and os.path.exists(base):
        data = os.path.abspath(base) + data[len(base) :]
    if context is not None and os.path.isfile(context):
        context = os.path.abspath(context)
    return {"name": named, "data": data, "method": method, "preset": preset, "context": context}


def _check_names(options: Mapping[str, Any]) -> None:
    """Raises OptionError for options of the command among those of program and method."""
    for option in OF_THE_COMMAND & options.keys():
        own = "the command sets itself" if option in INSIDE else f"is an option of the command itself: --{option}"
        raise OptionError(
            f"-o {option}= {own}. An option of the program or the method that is called so: -o program.{option}= or "
            f"-o method.{option}=."
        )


def fit_program(
    name: str,
    data: str | None,
    out: Path,
    method: str | None = None,
    preset: str | None = None,
    options: Mapping[str, Any] | None = None,
    binarise: str | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: bool = False,
    restart: bool = False,
    *,
    log: Sequence[str] = (),
) -> dict[str, Any]:
    """Builds a program for the data, fits it, saves the fit and a picture of its history in `out`.

    Args:
        name: A name of the catalogue or 'file.py:Class'.
        data: A name or a file; None is the program's default set.
        out: The folder; a fit that was killed continues from it.
        method: None is the preset's method.
        preset: None is 'small', if the program has one.
        options: Of the program or of the method; see `zoo show` and the methods' documentation.
        binarise: 'threshold' or 'stochastic', for data in [0, 1].
        seed, device, progress, restart: See `inference.fit.fit`.
        log: Names of loggers (`inference.loggers`).
    """
    _check_names(options or {})
    cls, data, method, preset = resolved(name, data, method, preset)
    callbacks = [make_logger(each, out) for each in log] if leads() else []
    dataset: Any = data if issubclass(cls, Adopted) else datasets.load(str(data), binarise=binarise)
    found = fit(
        name, dataset, method, preset=preset, seed=seed, device=device, progress=progress, out=out, restart=restart,
        callbacks=callbacks, **(options or {}),
    )  # fmt: skip
    if found.history.metrics and leads():
        found.history.plot(out / "history.png")
    last = {metric: found.history.last(metric) for metric in found.history.metrics}
    unit = "nats of all data" if issubclass(cls, Adopted) else "nats per example"  # your own code is one whole
    return {
        "program": catalogue.name_of(found.program),
        "data": found.data,
        "method": found.method,
        "parameters": found.parameter_count(),
        "seed": seed,
        "device": found.device,
        "seconds": found.seconds,
        "gradient_evaluations": found.gradient_evaluations,
        "last": last,
        "units": {metric: unit for metric in last if metric in type(make_method(found.method)).NATS},
        "convergence": found.info.get("convergence"),
        "warning": found.info.get("warning"),
        "splits": not issubclass(cls, Adopted),
        "out": str(out),
    }
