"""The checkpoint of a folder: where a killed fit stood, and of which fit, so that no other one goes on from it."""

from __future__ import annotations

import ast
import hashlib
import inspect
import io
import json
import sys
import textwrap
import time
import warnings
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo import catalogue, folders
from zoo.adopted import Adopted
from zoo.datasets.data import Data
from zoo.errors import CheckpointError
from zoo.program import Program
from zoo.stored import blocks

__all__ = ["CHECKPOINT", "Checkpoint", "ResumeNotice", "differences", "fingerprint", "source_of"]

CHECKPOINT = "checkpoint.pt"
HEAD = "zoo checkpoint"
VERSION = 3

FREE = ("checkpoint_seconds",)
"""Options that say nothing of the answer."""
LENGTH = ("steps", "epochs")
"""Options whose meaning is the number of steps."""
LIBRARIES = {*sys.stdlib_module_names, "torch", "pyro", "numpy", "huggingface_hub"}
"""Packages whose source is theirs."""


class ResumeNotice(UserWarning):
    """A fit goes on from a checkpoint, but not quite as it began."""


class Checkpoint:
    """The one checkpoint of a folder.

    Args:
        folder: Where.
        of: The fingerprint of the fit; None where it is one that leaves no checkpoints.
        restart: Whether what is there is thrown away.

    Raises: CheckpointError when what is there is damaged or belongs to another fit.
    """

    def __init__(self, folder: Path, of: Mapping[str, Any] | None, restart: bool = False):
        self.path, self.of = folder / CHECKPOINT, None if of is None else json.loads(_text(of))
        self.seconds = 0.0
        """That the fit had taken when it was killed."""
        self.started = time.perf_counter()
        self.found: dict[str, Any] | None = None
        if restart:
            folders.remove(self.path)
        elif self.path.is_symlink() or self.path.exists():
            self._read()

    def write(self, state: Mapping[str, Any]) -> None:
        """Keeps a state, of tensors, numbers, strings, lists and dictionaries, and where torch's generators stand."""
        buffer = io.BytesIO()
        torch.save(
            {
                "of": self.of,
                "seconds": self.seconds + time.perf_counter() - self.started,
                "rng": torch.get_rng_state(),
                "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
                "state": dict(state),
            },
            buffer,
        )
        body = buffer.getvalue()
        head = f"{HEAD} {VERSION} {folders.sha256(body)}\n".encode()
        folders.write_bytes(self.path, head + body)

    def take(self) -> dict[str, Any] | None:
        """What a killed fit left, or None; torch's generators then stand where they stood."""
        if self.found is None:
            return None
        torch.set_rng_state(self.found["rng"])
        if self.found["cuda_rng"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(self.found["cuda_rng"])
        state, self.found = self.found["state"], None
        return dict(state)

    def _read(self) -> None:
        head, _, body = folders.read_bytes(self.path).partition(b"\n")
        words, known = head.decode(errors="replace").split(" "), HEAD.split(" ")
        if len(words) != len(known) + 2 or words[: len(known)] != known:
            raise CheckpointError(f"{self.path} is no checkpoint, or damaged; delete it to start afresh.")
        if words[-2] != str(VERSION):
            raise CheckpointError(
                f"{self.path} is of version {words[-2]}; this is version {VERSION}. Delete it to start afresh."
            )
        if words[-1] != folders.sha256(body):
            raise CheckpointError(f"Damaged checkpoint {self.path} (its sha256 is another); delete it to start afresh.")
        try:
            found = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
            there = found["of"]
            self.seconds, self.found = float(found["seconds"]), found
            _, _ = found["rng"], found["state"]
        except Exception as error:  # a file made up by somebody
            raise CheckpointError(f"Damaged checkpoint {self.path} ({error}); delete it to start afresh.") from error
        self._compare(there)

    def _compare(self, there: Mapping[str, Any]) -> None:
        if self.of is None:
            raise CheckpointError(
                f"{self.path} is of a killed fit, and this one leaves no checkpoints: choose another folder, or throw "
                "it away with restart=True (--restart)."
            )
        here, said = dict(self.of), []
        if there.get("steps") is not None and (here.get("steps") or 0) > there["steps"]:
            said.append(
                f"{here['steps']} steps instead of {there['steps']}, and what is scheduled over the run (the learning "
                "rate, say) follows the new number from here on, so this is not what one run of that length gives"
            )
            here["steps"] = there["steps"]
        if here.get("weights") != there.get("weights") and here.get("initialise") and here.get("moves_program"):
            said.append("the program was given with other weights, and gets those of the checkpoint")
            here["weights"] = there.get("weights")
        unlike = differences(there, here)
        if unlike:
            raise CheckpointError(
                f"{self.path} belongs to another fit: {'; '.join(unlike)}. Ask for the same to go on with it, start "
                "anew with restart=True (--restart), or choose another folder."
            )
        if said:
            warnings.warn(f"{self.path} goes on with {'; and '.join(said)}.", ResumeNotice, stacklevel=2)


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Where two fingerprints differ, in words."""
    found = []
    for key in dict.fromkeys([*there, *here]):
        a, b = there.get(key), here.get(key)
        if _text(a) == _text(b) or a == b:
            continue
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += [f"{key} {name}" for name in differences(a, b)]
        elif key in HASHED:
            found.append(HASHED[key])
        else:
            found.append(f"{key} {a!r} there, {b!r} here")
    return found


HASHED = {
    "source": "the source of program or method has changed",
    "data": "other training data",
    "valid": "other validation data",
    "weights": "the program's weights at the start are others",
}


def fingerprint(
    program: Program,
    method: Any,
    train: Data,
    valid: Data | None,
    *,
    seed: int,
    initialise: bool,
    steps: int | None,
    given: bool,
) -> dict[str, Any]:
    """All that the answer of a fit depends on, as JSON; hashes of what is large.

    Args:
        program: At its start.
        method: An `inference.method.Method`.
        train, valid: The data, on the device.
        seed, initialise: As `fit` was told.
        steps: How many gradient steps the method will take; None where it has no such number.
        given: Whether the program was given, rather than built from the seed.
    """
    options = {k: v for k, v in method.options().items() if k not in (*FREE, *(LENGTH if steps is not None else ()))}
    state = program.state_dict()
    parts = [*program.modules(), method]
    return {
        "program": catalogue.name_of(program).rpartition("/")[2],
        "config": program.config(),
        "dtype": sorted({str(value.dtype) for value in state.values()}),
        "method": method.name,
        "option": {name: _plain(value) for name, value in options.items()},
        "steps": steps,
        "seed": seed,
        "initialise": initialise,
        "device": train.x.device.type,
        "data": _sum(train.tensors()),
        "valid": None if valid is None else _sum(valid.tensors()),
        "weights": _sum(state.values()) if given else None,
        "moves_program": method.moves_program,
        "source": _source(parts),
    }


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=_plain)


def _plain(value: Any) -> Any:
    """An option as JSON: what is no number, string, list or dictionary is known by its name."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"


def _sum(tensors: Iterable[Tensor]) -> str:
    total = hashlib.sha256()
    for value in tensors:
        total.update(f"{value.dtype} {tuple(value.shape)}".encode())
        for part in blocks(value):
            flat = part.detach().cpu().contiguous().reshape(-1)
            total.update(flat.view(torch.uint8).numpy().data if flat.numel() else b"")
    return total.hexdigest()


def _source(parts: Iterable[Any]) -> str:
    """Of the code of a program's parts and of the method."""
    kinds = {type(part) for part in parts}
    kinds |= {type(value) for part in parts for value in vars(part).values() if not isinstance(value, nn.Module)}
    return source_of(kinds)


def source_of(kinds: Iterable[type], without: Collection[str] = ()) -> str:
    """Hash of the code of classes and their bases, comments left out; that of other packages is theirs.

    Args:
        kinds: Classes.
        without: Names of modules that do not count.
    """
    bases = {base for kind in kinds for base in kind.__mro__ if base.__module__ not in without}
    bases = {base for base in bases if base.__module__.partition(".")[0] not in LIBRARIES}
    return hashlib.sha256("".join(sorted({_code(base) for base in bases})).encode()).hexdigest()


def _code(cls: type) -> str:
    """The code of the file of a class; of the class alone where it stands in a script or a notebook."""
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    if cls.__module__ == "__main__" or file is None:
        try:
            written = [cls] if not issubclass(cls, Adopted) else [f for f in (cls.code.model, cls.code.guide) if f]
            return "".join(ast.dump(ast.parse(textwrap.dedent(inspect.getsource(part)))) for part in written)
        except (OSError, TypeError, SyntaxError):  # typed in, and no longer there
            return cls.__qualname__
    try:
        return _parsed(file, Path(file).stat().st_mtime_ns)
    except (OSError, SyntaxError, ValueError):
        return cls.__qualname__


@lru_cache(maxsize=256)
def _parsed(file: str, changed: int) -> str:
    return hashlib.sha256(ast.dump(ast.parse(Path(file).read_text())).encode()).hexdigest()
