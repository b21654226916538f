"""Measurements empty the caches of their process; a test's process keeps its own."""

from __future__ import annotations

import pytest

from benchmarks.speed.timing import CACHE
from inference.training import runners


@pytest.fixture(autouse=True)
def _caches_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inductor sets the variable by which a measurement knows that it may."""
    monkeypatch.delenv(CACHE, raising=False)
    monkeypatch.setattr(runners, "cache_folder", runners.cache_folder)
