"""Folders whose content is whole: one rename makes a save count, checksums tell a damaged file, one process writes.

A save writes each file beside its name (NAME.new), then config.json with the sha256 of each. Renaming config.json is
the moment from which the save counts; then the files move to their names. A reader takes, of NAME and NAME.new, the one
with the right sum. So whatever was killed, and when, the folder holds the whole of one save.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor

from zoo.errors import CheckpointError, OptionError

__all__ = [
    "FORMAT", "NAMES", "Saved", "as_path", "finite", "from_json", "held", "is_held", "opened", "pack", "read",
    "read_bytes", "remove", "sha256", "sum_of", "to_json", "unpack", "write", "write_bytes",
]  # fmt: skip

FORMAT = 3
"""Of config.json and of what it lists."""
MANIFEST = "config.json"
NAMES = ("model.safetensors", "fit.json", "guide.safetensors", "train.safetensors", "samples.safetensors")
"""What a save may consist of beside config.json. All other files of a folder are the user's, and left alone."""
SIDE = ".new"
LOCK = ".lock"
TRIES = 3
"""Of a reader that may have met a save under way."""


class _OtherFormat(CheckpointError):
    """A save of another version of this package."""


@dataclass(frozen=True)
class Saved:
    """What a folder holds, every checksum compared."""

    folder: Path
    options: dict[str, Any]
    """Of the program's constructor: config.json as huggingface_hub writes it."""
    record: dict[str, Any]
    """Ours, under the key "zoo" of config.json."""
    files: dict[str, bytes]


def read(folder: str | Path) -> Saved:
    """Reads a folder that `write` wrote; executes nothing and follows no links.

    Raises: CheckpointError when it is missing, damaged, foreign or of another format; OptionError for what is no name
        of a folder.
    """
    folder = as_path(folder)
    for left in reversed(range(TRIES)):
        try:
            return _read(folder)
        except CheckpointError:
            if not left:
                raise
    raise AssertionError


def _read(folder: Path) -> Saved:
    options, record = _manifest(folder)
    files = {name: _content(folder, name, known) for name, known in record["files"].items()}
    return Saved(folder, options, record, files=files)


def _manifest(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    path = folder / MANIFEST
    try:
        options = from_json(read_bytes(path), path)
    except CheckpointError as error:
        raise CheckpointError(f"{folder} holds no saved program: {error}") from error
    record = options.pop("zoo", None)
    version = (record if isinstance(record, dict) else options).get("version")
    if not isinstance(version, int):
        raise CheckpointError(f"{folder} holds no saved program of the zoo: {path} was written by something else.")
    if version != FORMAT:
        what = "fit again" if version < FORMAT else "update this package"
        raise _OtherFormat(f"{folder} was written in format {version}; this version reads format {FORMAT}: {what}.")
    if not isinstance(record, dict) or record.pop("sha256", None) != sum_of(options, record):
        raise CheckpointError(f"{path} is damaged or was changed by hand: its sha256 is another. Save again.")
    files = record.get("files")
    if not isinstance(record.get("program"), str) or not isinstance(files, dict) or not set(files) <= set(NAMES):
        raise CheckpointError(f"{path} does not say which program it is of, or lists files that no save has.")
    return options, record


def sum_of(options: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    """The sum under which config.json stands: of all that it says but the sum."""
    return sha256(to_json({**options, "zoo": dict(record)}))


def _content(folder: Path, name: str, known: object) -> bytes:
    """The file under the name, or beside it where the save was killed before the file moved."""
    trouble = ""
    for path in (folder / name, folder / (name + SIDE)):
        try:
            content = read_bytes(path)
        except CheckpointError as error:
            trouble = trouble or str(error)
            continue
        got = sha256(content)
        if got == known:
            return content
        trouble = f"expected sha256 {known}, got {got}"
    raise CheckpointError(f"{folder / name} is damaged or missing ({trouble}): copy the folder again, or fit again.")


def _is_whole(path: Path, known: object) -> bool:
    try:
        return sha256(read_bytes(path)) == known
    except CheckpointError:
        return False


def write(folder: str | Path, options: Mapping[str, Any], program: str, files: Mapping[str, bytes]) -> Path:
    """Puts one save in the place of another. Until it is whole the old one can be read; nothing of that is left after.

    Args:
        folder: Made if it is not there.
        options: Of the program's constructor; JSON.
        program: Its name in the catalogue, or where its class is.
        files: Content by name, the names out of NAMES.

    Raises: CheckpointError when it cannot be written, is in use, or holds what no save wrote under these names.
    """
    folder = as_path(folder)
    record = {
        "program": program,
        "version": FORMAT,
        "files": {name: sha256(content) for name, content in files.items()},
    }
    if not set(files) <= set(NAMES):
        raise OptionError(f"A save consists of {', '.join(NAMES)}; got {', '.join(files)}.")
    if "zoo" in options:
        raise CheckpointError("A program cannot have an option 'zoo': in config.json the name is taken.")
    manifest = to_json({**options, "zoo": {**record, "sha256": sum_of(options, record)}})
    with opened(folder), _said(folder):
        for name, content in files.items():
            _put(folder / (name + SIDE), content)
        _put(folder / (MANIFEST + SIDE), manifest)
        os.replace(folder / (MANIFEST + SIDE), folder / MANIFEST)
        _sync(folder)
        _settle(folder)
    return folder


@contextmanager
def opened(folder: str | Path) -> Iterator[None]:
    """Holds a folder that is about to be written, after trying that it can be.

    Raises: CheckpointError when it is no folder, cannot be written, is in use, or holds what no save wrote.
    """
    with held(folder):
        folder = Path(folder)
        with _said(folder):
            if os.path.lexists(folder / MANIFEST):
                try:
                    _manifest(folder)
                except _OtherFormat:
                    pass  # an older save makes way
                except CheckpointError as error:
                    raise CheckpointError(f"{error} Delete it, or name another folder.") from error
            else:
                foreign = [name for name in NAMES if os.path.lexists(folder / name)]
                if foreign:
                    raise CheckpointError(
                        f"{folder} holds {', '.join(foreign)}, and no save that wrote them: name another folder."
                    )
            _settle(folder)
            probe = folder / (max(NAMES, key=len) + SIDE)
            _put(probe, b"")
            probe.unlink()
        yield


@contextmanager
def held(folder: str | Path) -> Iterator[None]:
    """Makes a folder and keeps all others, processes and threads, from holding it meanwhile; may be nested.

    Raises: CheckpointError when it is held, or cannot be made.
    """
    folder = as_path(folder)
    with _said(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.resolve() / LOCK, timeout=0, is_singleton=True)
        try:
            lock.acquire()
        except Timeout as error:
            raise CheckpointError(
                f"{folder} is in use by another process: wait for its end, or name another folder."
            ) from error
    try:
        yield
    finally:
        lock.release()


def is_held(folder: str | Path) -> bool:
    """Whether somebody holds a folder just now, this process included; leaves it as it is.

    Raises: CheckpointError when that cannot be told: the lock is another user's.
    """
    path = as_path(folder).resolve() / LOCK
    if not path.exists():
        return False
    with _said(path.parent):
        try:
            with FileLock(path, timeout=0):  # whoever wants to hold it meanwhile is refused: a moment, and no loss
                return False
        except Timeout:
            return True


def as_path(folder: str | Path) -> Path:
    """A folder as a Path.

    Raises: OptionError for what is no name of one.
    """
    try:
        return Path(folder)
    except TypeError as error:
        raise OptionError(f"A folder is a string or a Path, got {folder!r}.") from error


@contextmanager
def _said(folder: Path) -> Iterator[None]:
    """What the operating system has against a folder, as an error of ours."""
    try:
        yield
    except CheckpointError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise CheckpointError(f"Cannot write into the folder {folder} ({error}): name another.") from error


def _settle(folder: Path) -> None:
    """Ends what a killed save had begun: files that count move to their names; others that saves wrote go."""
    listed: Mapping[str, Any] = {}
    if (folder / MANIFEST).exists():
        try:
            listed = _manifest(folder)[1]["files"]
        except CheckpointError:  # of another format, and to be written over
            return
    for name in (*NAMES, MANIFEST):
        path, side = folder / name, folder / (name + SIDE)
        if os.path.lexists(side):
            if name in listed and _is_whole(side, listed[name]):
                os.replace(side, path)
            else:
                side.unlink()
        if name not in listed and name != MANIFEST:
            path.unlink(missing_ok=True)


# Single files.


def sha256(content: bytes) -> str:
    """In hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def read_bytes(path: Path) -> bytes:
    """The content of a regular file; no link is followed, and a pipe is not waited for.

    Raises: CheckpointError.
    """
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        number = os.open(path, flags)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist.") from error
    except (OSError, ValueError) as error:
        why = "it is a link; put the file itself there" if os.path.islink(path) else str(error)
        raise CheckpointError(f"{path} cannot be read ({why}).") from error
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise CheckpointError(f"{path} is not a file, but a folder, a pipe or a device.")
    with os.fdopen(number, "rb") as file:
        return file.read()


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file that is whole or, if the process is killed, as it was; readable to whom the umask says.

    Raises: CheckpointError when that fails (a full disk, say); the old file is then still there.
    """
    with _said(path.parent):
        side = path.with_name(path.name + SIDE)
        _put(side, content)
        os.replace(side, path)
        _sync(path.parent)


def remove(path: Path) -> None:
    """Drops a file if it is there, and what a killed `write_bytes` left beside it.

    Raises: CheckpointError when that fails.
    """
    with _said(path.parent):
        path.unlink(missing_ok=True)
        path.with_name(path.name + SIDE).unlink(missing_ok=True)


def _put(path: Path, content: bytes) -> None:
    """A new file, on the disk when this returns; never through a link or into a pipe that lies there."""
    path.unlink(missing_ok=True)
    number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    with os.fdopen(number, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Puts renames on the disk, where a folder can be opened for that."""
    if hasattr(os, "O_DIRECTORY"):
        number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


# What is in them.


def to_json(value: Any) -> bytes:
    """Strict JSON, keys sorted.

    Raises: CheckpointError for what JSON cannot say: NaN, infinity, an object.
    """
    try:
        return json.dumps(value, indent=2, sort_keys=True, allow_nan=False).encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(f"Cannot be saved as JSON ({error}): numbers must be finite, and no objects.") from error


def from_json(content: bytes, path: Path) -> dict[str, Any]:
    """A strict JSON object.

    Args:
        content: What was read.
        path: From where, for the error.

    Raises: CheckpointError.
    """

    def refuse(constant: str) -> float:
        raise ValueError(f"{constant} is not JSON")

    try:
        found = json.loads(content.decode(), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: it is not JSON ({error}).") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} holds a JSON {type(found).__name__}; expected an object.")
    return found


def finite(value: Any) -> Any:
    """A value as JSON can say it: what is not finite becomes null, a tensor a list, another object its text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(each) for each in value]
    return finite(value.tolist()) if hasattr(value, "tolist") else str(value)


def pack(tensors: Mapping[str, Tensor], what: str) -> bytes:
    """Tensors in the form of safetensors.

    Raises: CheckpointError for NaN, naming the tensor.
    """
    _no_nan(tensors, what)
    try:
        return safetensors.save({name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()})
    except (SafetensorError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{what} cannot be saved: {error}.") from error


def unpack(content: bytes, what: str) -> dict[str, Tensor]:
    """What `pack` packed, on the CPU.

    Raises: CheckpointError for what is no safetensors, and for NaN.
    """
    try:
        found = safetensors.load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(f"{what} is damaged: {error}.") from error
    _no_nan(found, what)
    return found


def _no_nan(tensors: Mapping[str, Tensor], what: str) -> None:
    bad = [name for name, value in tensors.items() if value.is_floating_point() and bool(torch.isnan(value).any())]
    if bad:
        raise CheckpointError(f"{what}: NaN in {', '.join(map(repr, bad))}. The fit diverged: try a smaller lr.")
