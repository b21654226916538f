"""`Fit`: a fitted program and what came with it; it draws from its posterior, saves and loads itself."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from inference.checkpoint import CHECKPOINT
from inference.environment import resolve_device, seeded, versions
from inference.guides.named import build_guide
from inference.history import History
from inference.particles import draw
from zoo import catalogue, datasets, folders
from zoo.adopted import Adopted
from zoo.datasets import Data
from zoo.errors import CapabilityError, CheckpointError
from zoo.options import Count, Seed, check_value
from zoo.process import one_at_a_time
from zoo.program import Program

__all__ = ["Fit", "why_not_saved"]

FIT_VERSION = 2
RECORD, GUIDE, PROTOTYPE, SAMPLES = "fit.json", "guide.safetensors", "prototype.safetensors", "samples.safetensors"
KINDS: dict[str, Any] = {
    "method": str,
    "options": dict,
    "seed": int,
    "device": str,
    "seconds": (int, float),
    "gradient_evaluations": int,
    "info": dict,
    "versions": dict,
    "history": list,
}
"""Fields of a fit that fit.json holds, and what they are there."""


@dataclass(kw_only=True)
class Fit:
    """A fitted program and what came with it. Loads and saves itself; draws from its posterior."""

    program: Program
    method: str
    data: str
    seed: int
    options: dict[str, Any] = field(default_factory=dict)
    device: str = "cpu"
    seconds: float = 0.0
    history: History = field(default_factory=History)
    gradient_evaluations: int = 0
    guide: Callable[..., Any] | None = None
    guide_spec: dict[str, Any] | None = None
    samples: dict[str, Tensor] | None = None
    info: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=versions)
    prototype: Data | None = None
    """The rows on which an autoguide is set up again when loaded."""
    modules: dict[str, nn.Module] = field(default_factory=dict)
    """Networks of the method's own (the critic of a game); for inspection, not saved."""

    def parameter_count(self) -> int:
        """How many free numbers the fit has: of the program, and of a guide that is not the program's own."""
        owned = {id(p) for p in self.program.parameters()}
        guide = self.guide.parameters() if isinstance(self.guide, nn.Module) else ()
        return self.program.parameter_count() + sum(p.numel() for p in guide if id(p) not in owned)

    @torch.no_grad()
    def draw(self, n: Count, x: Any, context: Any = None, seed: Seed | None = None) -> dict[str, Tensor]:
        """Posterior draws of every latent site: local (n, B, *event), global (n, *event).

        Samples of a Markov chain are resampled with replacement, and belong to the training data.

        Raises: CapabilityError when the program has no latents; OptionError for n below 1 or a bad seed; what
            `Program.accept` raises for data that the program cannot take.
        """
        check_value("n", n, Count)
        x, context = self.program.accept(x, context)
        sites = self.program.sites()
        if self.guide is None and self.samples is None:
            raise CapabilityError(f"This fit of {type(self.program).__name__} has no posterior to draw from.")
        with seeded(self.seed if seed is None else seed, x.device):
            if self.samples is not None:
                stored = len(next(iter(self.samples.values())))
                index = torch.arange(n) if n == stored else torch.randint(stored, (n,))
                return {name: value[index.to(value.device)] for name, value in self.samples.items()}
            assert self.guide is not None
            values = draw(self.guide, n, x, context, density=False).values
        return {
            name: value[:, 0] if name in sites and sites[name].is_global else value for name, value in values.items()
        }

    def save(self, folder: str | Path) -> Path:
        """Writes a folder that `Fit.load` reads back, offline and bit for bit.

        config.json and model.safetensors (the program, in huggingface_hub's form), fit.json, and the guide's or
        sampler's tensors if it has any.

        A fit that was saved there before stays whole until this one is; then nothing of it is left, nor a checkpoint.

        Raises: CheckpointError for a guide given as code, which cannot be saved, for NaN, and for a folder that cannot
            be written, is in use or holds what no fit wrote.
        """
        folder = folders.as_path(folder)
        custom = self.guide_spec is not None and self.guide_spec["kind"] == "custom"
        why_not = why_not_saved(self.program, self.guide if custom else None)
        if why_not is not None:
            raise CheckpointError(f"This fit cannot be saved: {why_not}")
        files = {RECORD: folders.to_json(self._record(folder))}
        if isinstance(self.guide, nn.Module):
            files[GUIDE] = folders.pack(self.guide.state_dict(), "The guide")
        if self.prototype is not None:
            files[PROTOTYPE] = folders.pack(self.prototype.named(), "The data")
        if self.samples is not None:
            files[SAMPLES] = folders.pack(self.samples, "The samples")
        with folders.held(folder):
            catalogue.save(self.program, folder, beside=files)
            folders.remove(folder / CHECKPOINT)
        return folder

    def _record(self, folder: Path) -> dict[str, Any]:
        """What fit.json says; what is not finite is null."""
        plain = (int, float, str, bool, list, tuple, type(None))
        return {
            "version": FIT_VERSION,
            "data": _address(self.data, folder),
            "options": folders.finite({k: v for k, v in self.options.items() if isinstance(v, plain)}),
            "guide": self.guide_spec,
            "history": folders.finite(self.history.rows),
            **{name: folders.finite(getattr(self, name)) for name in KINDS if name not in ("options", "history")},
        }

    @classmethod
    @one_at_a_time
    def load(
        cls,
        folder: str | Path,
        device: str = "cpu",
        *,
        program: type[Program] | None = None,
        trust_code: bool = False,
    ) -> Fit:
        """Reads what `save` wrote, and runs no code to do so.

        Args:
            folder: The folder.
            device: Where the tensors go.
            program: The class, where the catalogue has none (it is yours, from a script, a file or a notebook).
            trust_code: True imports the module or file that the folder names, *which executes it*.

        Raises: CheckpointError when it is missing, damaged, of another version, or of a class that was not given.
        """
        saved, where = folders.read(folder), resolve_device(device)
        if RECORD not in saved.files:
            raise CheckpointError(f"{folder} holds a program, and no fit of it (no {RECORD}); zoo.load reads it.")
        record = _checked(folders.from_json(saved.files[RECORD], saved.folder / RECORD), saved.folder)
        made = catalogue.restore(saved, program, trust_code).to(where)
        tensors = {
            name: folders.unpack(saved.files[name], str(saved.folder / name))
            for name in (GUIDE, PROTOTYPE, SAMPLES)
            if name in saved.files
        }
        try:
            guide, spec, prototype = None, record["guide"], None
            if PROTOTYPE in tensors:
                adopted = isinstance(made, Adopted)
                prototype = Data.from_named(tensors[PROTOTYPE], adopted, made.examples).to(where)
                if adopted:
                    made.declare(*prototype)  # its sites are those of its data
            if spec is not None:
                guide = build_guide(spec, made, prototype if prototype is not None else Data(torch.empty(0)))
                if isinstance(guide, nn.Module) and GUIDE in tensors:
                    guide.load_state_dict(tensors[GUIDE])
                    guide.eval()
        except Exception as error:  # whatever a guide has against its spec or its tensors
            raise CheckpointError(f"{folder} is not a whole fit ({type(error).__name__}: {error}).") from error
        rows = [{k: math.nan if v is None else v for k, v in row.items()} for row in record["history"]]
        return cls(
            program=made, history=History(rows), guide=guide, guide_spec=spec, samples=tensors.get(SAMPLES),
            prototype=prototype, data=_found(record["data"], saved.folder),
            **{name: record[name] for name in KINDS if name != "history"},
        )  # fmt: skip


def why_not_saved(program: Program | str, guide: object) -> str | None:
    """The reason why a fit could not be saved, or None: to be asked before it is computed.

    Args:
        program: Its options must be JSON; a name when it is not built yet.
        guide: As given to the method.
    """
    if callable(guide):
        return (
            "its guide was given as code and cannot be saved by name. Save its state_dict yourself, or make it the "
            "program's own guide."
        )
    if isinstance(program, str):
        return None
    if isinstance(program, Adopted) and program.has_own_autoguide:
        return "its guide is an autoguide that was adopted: adopt the model alone, and name it (guide='normal')."
    try:
        folders.to_json(program.config())
    except CheckpointError as error:
        return f"the options of {type(program).__name__} are no JSON. {error}"
    return None


def _address(data: str, folder: Path) -> str | dict[str, str]:
    """The name of a data set; a file by its way from the folder, so that both can be moved together."""
    base = datasets.base_name(data)
    if base in datasets.names() or not Path(base).exists():
        return data
    return {"file": os.path.relpath(base, os.path.realpath(folder)), "form": data[len(base) :]}


def _found(address: str | dict[str, str], folder: Path) -> str:
    if isinstance(address, str):
        return address
    return os.path.normpath(folder.resolve() / address["file"]) + address["form"]


def _is_row(row: object) -> bool:
    return (
        isinstance(row, dict)
        and {"step", "seconds"} <= set(row)
        and all(value is None or isinstance(value, (int, float)) for value in row.values())
    )


def _checked(record: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A record that has all that a fit needs, each of its kind.

    Raises: CheckpointError.
    """
    if record.get("version") != FIT_VERSION:
        raise CheckpointError(
            f"{folder} was written by version {record.get('version')} of the fit format; this reads {FIT_VERSION}."
        )
    kinds = {**KINDS, "data": (str, dict), "guide": (dict, type(None))}
    wrong = [name for name, kind in kinds.items() if name not in record or not isinstance(record[name], kind)]
    data = record.get("data")
    if isinstance(data, dict) and not all(isinstance(data.get(key), str) for key in ("file", "form")):
        wrong.append("data")
    if not wrong and not all(_is_row(row) for row in record["history"]):
        wrong.append("history")
    if wrong:
        raise CheckpointError(f"{folder} is not a whole fit: {RECORD} has no {', '.join(wrong)}, or of another kind.")
    return record
