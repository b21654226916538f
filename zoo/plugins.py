"""Names that other installed packages declare by entry points: programs and suites."""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from importlib.metadata import entry_points

__all__ = ["plugins"]


def plugins(group: str) -> dict[str, str]:
    """Name -> 'package.module:object' of an entry point group, as the packages that are installed now declare it.

    A fit asks several times, and reading what all of them declare takes milliseconds: it is read again only where a
    folder on the path has changed.
    """
    return dict(_declared(group, tuple(map(_state, sys.path))))


@lru_cache(maxsize=8)
def _declared(group: str, places: tuple[object, ...]) -> dict[str, str]:
    return {point.name: point.value for point in entry_points(group=group)}


def _state(place: str) -> tuple[str, int, int]:
    """Which folder (or archive) it is, and when something in it was last added or removed."""
    try:
        found = os.stat(place or ".")
    except OSError:
        return place, 0, 0
    return place, found.st_ino, found.st_mtime_ns
