"""Targets as files that need nothing of this project to be read: for each one NAME.json and NAME.npz.

NAME.json has name, description, how, equations (the program's), program (class and options), log_evidence (the total),
sites (site -> whether it is global, whether it is discrete, its shape), draws (their number), seed and versions.

NAME.npz has the arrays x, context (if there is one), log_evidence (() or one number for each example), and for each
latent site mean/SITE, sd/SITE and draws/SITE (draws, *shape), independent draws from the exact posterior; local sites
have the examples as the first dimension of their shape. parameter/NAME are the program's constants and parameters.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from inference.environment import versions
from inference.guides.named import guide_parameters
from zoo import catalogue
from zoo.datasets import Data
from zoo.errors import DatasetError, UnknownNameError
from zoo.program import Program

if TYPE_CHECKING:
    from benchmarks.targets.target import Target

__all__ = ["Stored", "export", "read", "write"]

Array = np.ndarray[Any, Any]
FORMAT = 1


@dataclass(frozen=True)
class Stored:
    """A target as read from its files."""

    record: Mapping[str, Any]
    """What NAME.json says."""
    x: Array
    context: Array | None
    log_evidence: Array
    mean: Mapping[str, Array]
    sd: Mapping[str, Array]
    draws: Mapping[str, Array]
    parameters: Mapping[str, Array]


def export(folder: str | Path, names: Iterable[str] | None = None, draws: int = 10_000, seed: int = 0) -> list[Path]:
    """Writes targets to a folder, in float64; returns the JSON files.

    Args:
        folder: Made if it does not exist.
        names: Which targets; None means all.
        draws: Number of draws from each exact posterior.
        seed: Seed of the draws.

    Raises: UnknownNameError, for references too, whose draws are in files as they are; DatasetError when a target's
        data cannot be read.
    """
    from benchmarks.targets import TARGETS

    chosen = list(TARGETS) if names is None else list(names)
    for name in chosen:
        if name not in TARGETS:
            raise UnknownNameError("exact target", name, TARGETS)
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        return [write(TARGETS[name](), Path(folder), draws, seed) for name in chosen]
    finally:
        torch.set_default_dtype(default)


def write(target: Target, folder: Path, draws: int, seed: int) -> Path:
    """Writes one target; returns its JSON file."""
    program = target.program()
    sites = program.sites()
    record = {
        "format": FORMAT,
        "name": target.name,
        "description": target.description,
        "how": target.how,
        "equations": inspect.getdoc(sys.modules[type(program).__module__]),
        "program": {"name": catalogue.name_of(program), "options": program.config()},
        "log_evidence": target.total_log_evidence,
        "sites": {
            site: {"global": sites[site].is_global, "discrete": sites[site].is_discrete, "shape": list(mean.shape)}
            for site, mean in target.mean.items()
        },
        "draws": draws,
        "seed": seed,
        "versions": versions(),
    }
    arrays = {"x": target.data.x, "log_evidence": target.log_evidence}
    if target.data.context is not None:
        arrays["context"] = target.data.context
    for what, values in (
        ("mean", target.mean),
        ("sd", target.sd),
        ("draws", target.draw(draws, seed)),
        ("parameter", model_parameters(program, target.data)),
    ):
        arrays |= {f"{what}/{name}": value for name, value in values.items()}
    folder.mkdir(parents=True, exist_ok=True)
    plain: dict[str, Any] = {key: value.detach().cpu().numpy() for key, value in arrays.items()}
    np.savez_compressed(folder / f"{target.name}.npz", **plain)
    path = folder / f"{target.name}.json"
    path.write_text(json.dumps(record, indent=2))
    return path


def model_parameters(program: Program, data: Data) -> dict[str, Tensor]:
    """Constants and (constrained) parameters that the model depends on; those of the guide alone are left out."""
    guided = {id(p) for p in guide_parameters(program.guide, program, data)}
    found = dict(program.named_buffers())
    for unconstrained, p in program.named_parameters():
        if id(p) not in guided:
            name = unconstrained.removesuffix("_unconstrained")
            found[name] = attrgetter(name)(program)
    return found


def read(folder: str | Path, name: str) -> Stored:
    """Reads what `export` wrote.

    Raises: DatasetError when it is missing, damaged or of another format.
    """
    folder = Path(folder)
    try:
        record = json.loads((folder / f"{name}.json").read_text())
        with np.load(folder / f"{name}.npz") as file:
            arrays = {key: file[key] for key in file.files}
        if record["format"] != FORMAT:
            raise DatasetError(f"{folder / name}.json has format {record['format']}; this version reads {FORMAT}.")

        def group(what: str) -> dict[str, Array]:
            return {key.split("/", 1)[1]: value for key, value in arrays.items() if key.startswith(what + "/")}

        return Stored(
            record, arrays["x"], arrays.get("context"), log_evidence=arrays["log_evidence"],
            mean=group("mean"), sd=group("sd"), draws=group("draws"), parameters=group("parameter"),
        )  # fmt: skip
    except DatasetError:
        raise
    except Exception as error:
        raise DatasetError(f"{folder} holds no whole target {name!r} ({type(error).__name__}: {error}).") from error
