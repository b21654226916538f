"""Where data files come from: the folder `ZOO_DATA`, the cache, or a download checked by its sha256."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pooch
import requests

from zoo.datasets.data import File
from zoo.errors import DatasetError

__all__ = ["cache_folder", "data_folder", "fetch", "local", "placed"]


def cache_folder() -> Path:
    """Where downloads are kept, following the custom of the operating system."""
    return Path(pooch.os_cache("pyro-model-zoo"))


def at_home(path: Path) -> Path:
    """A path with '~' as a shell reads it.

    Raises: DatasetError for the home of a user that there is not.
    """
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise DatasetError(f"{path}: there is no such user's home ({error}).") from error


def data_folder() -> Path | None:
    """The folder that `ZOO_DATA` names, or None when it is not set.

    Raises: DatasetError when it is set to something that is not a folder.
    """
    name = os.environ.get("ZOO_DATA")
    if not name:
        return None
    folder = at_home(Path(name))
    if not folder.is_dir():
        raise DatasetError(f"ZOO_DATA is {name!r}, which is not a folder; name the folder with the data, or unset it.")
    return folder


def placed(name: str) -> Path | None:
    """A file of the user's own under `ZOO_DATA`, by its path there with or without '.npz' ('debd/mine'); or None.

    Raises: DatasetError when `ZOO_DATA` is not a folder.
    """
    folder = data_folder()
    if folder is None or not name:
        return None
    found = (path for path in (folder / name, folder / f"{name}.npz") if os.path.isfile(path))
    return next(found, None)


def local(file: File) -> Path | None:
    """The file if it is on this machine, its content checked: under `ZOO_DATA` first, else in the cache; or None.

    Raises: DatasetError when the file under `ZOO_DATA` is damaged. A damaged file in the cache counts as absent, since
        a download replaces it.
    """
    folder = data_folder()
    if folder is not None and (path := folder / file.path).is_file():
        got = pooch.file_hash(str(path))
        if got != file.sha256:
            raise DatasetError(
                f"The file {path} is damaged: expected sha256 {file.sha256}, got {got}. "
                "Copy it again from its source, or unset ZOO_DATA to download the public original where there is one."
            )
        return path
    path = cache_folder() / file.path
    return path if path.is_file() and pooch.file_hash(str(path)) == file.sha256 else None


def fetch(files: Sequence[File], instead: File | None = None) -> list[Path]:
    """The files, downloaded into the cache where not on this machine. A broken download goes on where it stopped.

    Args:
        files: What is wanted.
        instead: One file that would serve for all of them; only named in the error.

    Raises: DatasetError, saying which file, where it was looked for, why each download failed and what to do.
    """
    other = f"or set ZOO_DATA to a folder that holds {instead.path} (sha256 {instead.sha256})" if instead else ""
    needed = f"all {len(files)} files needed: {', '.join(file.path for file in files)}" if len(files) > 1 else ""
    hint = "".join(f"; {part}" for part in (other, needed) if part)
    return [_fetch(file, hint) for file in files]


def _fetch(file: File, hint: str) -> Path:
    found = local(file)
    if found is not None:
        return found
    target = cache_folder() / file.path
    failures = []
    for url in file.urls:
        downloader = _Resuming(target.with_name(target.name + ".part"))
        try:
            return Path(pooch.retrieve(url, file.sha256, target.name, target.parent, downloader=downloader))
        except (OSError, ValueError) as error:  # ValueError: pooch's word for a wrong sha256
            failures.append(f"{url}: {error}")
    folder = data_folder()
    looked = f"under ZOO_DATA ({folder})" if folder else "under ZOO_DATA (not set)"
    raise DatasetError(
        f"No file {file.path} {looked} or in the cache ({target.parent}), and it could not be downloaded:\n  "
        + "\n  ".join(failures or ["it has no public address"])
        + f"\nConnect to the network and try again; or put the file (sha256 {file.sha256}) at {target}{hint}."
    )


class _Resuming:
    """A downloader for pooch that keeps what a broken connection left, and asks for the rest (RFC 9110, range request).

    A damaged part is found by pooch's check of the whole file, which also deletes it, so that the next try starts anew.
    """

    def __init__(self, part: Path):
        self.part = part

    def __call__(self, url: str, output_file: str, _: object) -> None:
        have = self.part.stat().st_size if self.part.exists() else 0
        headers = {"Accept-Encoding": "identity"}  # a range counts bytes of the file, not of a compressed form
        if have:
            headers["Range"] = f"bytes={have}-"
        with requests.get(url, headers=headers, stream=True, timeout=30) as reply:
            if reply.status_code != requests.codes.range_not_satisfiable:  # else nothing is missing
                reply.raise_for_status()
                # A server may ignore the range and send everything (200).
                with self.part.open("ab" if reply.status_code == requests.codes.partial_content else "wb") as out:
                    for chunk in reply.iter_content(1 << 16):
                        out.write(chunk)
        self.part.replace(output_file)
