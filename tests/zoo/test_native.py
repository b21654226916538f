"""Twins in C++: allowed only inside `native`, compiled once, none where the compiler cannot make them."""

from __future__ import annotations

import ctypes
import threading

import pytest

from zoo import native

ADD = 'extern "C" double add(double a, double b) { return a + b + %d; }'


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_twins_are_allowed_inside_only():
    seen = []
    with native.native():
        assert native.allowed()
        with native.native():
            pass
        assert native.allowed()
        thread = threading.Thread(target=lambda: seen.append(native.allowed()))
        thread.start()
        thread.join()
    assert not native.allowed()
    assert seen == [False]
    with pytest.raises(RuntimeError, match="stops"), native.native():
        raise RuntimeError("it stops")
    assert not native.allowed()


def test_a_library_is_compiled_once(cache, monkeypatch):
    made = native.library(ADD % 0)
    made.add.restype, made.add.argtypes = ctypes.c_double, (ctypes.c_double, ctypes.c_double)
    assert made.add(2.0, 3.0) == 5.0
    assert native.library(ADD % 0) is made
    native.library.cache_clear()
    monkeypatch.setattr(native.subprocess, "run", lambda *_, **__: pytest.fail("compiled again"))
    assert native.library(ADD % 0) is not None
    files = sorted(path.suffix for path in cache.rglob("*") if path.is_file())
    assert files in ([".lock", ".so"], [".so"])


def test_source_that_does_not_compile_leaves_none(cache):
    assert native.library("no C++") is None
    assert not list(cache.rglob("*.so"))
