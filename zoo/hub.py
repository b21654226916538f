"""Saves on the Hugging Face hub: 'user/repository' in the place of a folder."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import huggingface_hub

from zoo import folders
from zoo.datasets.sources import cache_folder
from zoo.errors import CheckpointError

__all__ = ["FILES", "SOURCE", "local"]

SOURCE = "source.py"
"""The file of a program that is nobody's but the user's, which its save takes along."""
FILES = (folders.MANIFEST, *folders.NAMES, SOURCE)
"""What is read of a repository."""
NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w.-]+)?")


def local(folder: str | Path) -> Path:
    """A folder as it is; of a repository of the hub, a copy of its save in the cache.

    Args:
        folder: A folder; or, where there is none of this name, 'user/repository', with '@' and a branch, tag or commit
            if it is not to be the newest.

    Raises: CheckpointError when there is neither such a folder nor such a repository, or no way to it; OptionError for
        what is no name.
    """
    path = folders.as_path(folder)
    if not isinstance(folder, str) or os.path.lexists(path) or not NAME.fullmatch(folder):
        return path
    repository, _, revision = folder.partition("@")
    found = Path(_download(folder, repository, revision or None))
    kept = cache_folder() / "hub" / repository.replace("/", "--") / found.name  # which is the commit
    if not kept.is_dir():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as scratch:
            whole = Path(scratch) / "whole"
            whole.mkdir()
            for name in FILES:  # the hub's own cache has links in their place, which `folders.read` does not follow
                if (found / name).is_file():
                    shutil.copyfile(found / name, whole / name)
            try:
                whole.rename(kept)
            except OSError:  # another process was there first
                if not kept.is_dir():
                    raise
    return kept


def _download(folder: str, repository: str, revision: str | None) -> Any:
    try:
        return huggingface_hub.snapshot_download(repository, revision=revision, allow_patterns=list(FILES))
    except Exception as error:  # of the network, of rights, of names
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"{folder} is no folder here, and the hub did not give it ({type(error).__name__}: {reason}): check the "
            "name, the network and, of a private repository, that you are logged in."
        ) from error
