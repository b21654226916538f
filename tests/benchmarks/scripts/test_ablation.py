"""The ablation: what fails is named, what is timed is timed after it is ready, caches are put back."""

from __future__ import annotations

import os
import time
from types import SimpleNamespace

import pytest

from benchmarks.scripts import ablation


def test_who_fails_is_named_and_the_others_go_on():
    calls = []

    def advance(n: int) -> float:
        calls.append(n)
        time.sleep(1e-4 * n)
        return 0.0

    def broken():
        raise RuntimeError("no compiler here")

    ways = SimpleNamespace(ready={"fine": lambda: advance, "broken": broken})
    fine, failed = ablation.measure(ways, rounds=3, seconds=1e-3)
    assert (fine[0], len(fine[2])) == ("fine", 3)
    assert fine[1] >= 0
    assert calls[0] == 2  # the first steps belong to getting ready
    assert len({*calls[-3:]}) == 1  # blocks of one length
    assert failed == ("broken: RuntimeError", 0.0, [])


def test_getting_ready_is_timed_with_empty_caches_that_are_put_back(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/mine")
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    seen = []

    def make():
        seen.append((os.environ["XDG_CACHE_HOME"], os.environ["TORCHINDUCTOR_CACHE_DIR"]))
        assert os.listdir(os.environ["XDG_CACHE_HOME"]) == []
        return lambda n: 0.0

    spent, _ = ablation.make_ready(make)
    assert spent >= 0
    assert seen[0][0] != "/mine"
    assert os.environ["XDG_CACHE_HOME"] == "/mine"
    assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ

    def broken():
        raise RuntimeError

    with pytest.raises(RuntimeError):
        ablation.make_ready(broken)
    assert os.environ["XDG_CACHE_HOME"] == "/mine"
