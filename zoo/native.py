"""C++ twins of small loops of Python, for code that runs in a compiled library: a compiler is at work there anyway.

An operator with a twin asks `allowed()` and calls the twin where it is, Python elsewhere: what a fit gives must not
depend on what the process compiled before it. Twins are compiled once, in a second or so, and kept in the cache folder;
torch's own `CppCodeCache` would first try by compilations what the processor can do, twenty seconds.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

from filelock import FileLock

from zoo.datasets.sources import cache_folder

__all__ = ["allowed", "library", "native"]

_ALLOWED = ContextVar("native", default=False)

FLAGS = ("-O3", "-std=c++17", "-fPIC", "-fassociative-math", "-fno-signed-zeros", "-fno-trapping-math")
"""Sums in any order, so that they go in vectors. Not -ffast-math: linking with it changes how the process rounds."""
NATIVE = {"x86_64": ("-march=native",)}
"""By machine: the vector instructions that it has, where a compiler does not take them by itself."""


@contextmanager
def native() -> Iterator[None]:
    """Lets operators take their twins."""
    before = _ALLOWED.set(True)
    try:
        yield
    finally:
        _ALLOWED.reset(before)


def allowed() -> bool:
    """Whether within `native`."""
    return _ALLOWED.get()


@cache
def library(source: str) -> ctypes.CDLL | None:
    """A library of C++, compiled if it is not in the cache folder; None where the compiler here cannot make it.

    Raises: what torch raises without a compiler.
    """
    flags = (*FLAGS, *NATIVE.get(platform.machine(), ()))
    name = hashlib.sha256(repr((platform.node(), flags, source)).encode()).hexdigest()[:32]
    path = cache_folder() / "compiled" / f"{name}.so"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".so.lock")):
        if not path.exists():
            # Here, because inductor takes seconds to import.
            from torch._inductor.cpp_builder import get_cpp_compiler

            made = path.with_suffix(".so.part")
            command = [get_cpp_compiler(), "-x", "c++", "-", "-shared", *flags, "-o", str(made)]
            if subprocess.run(command, input=source, text=True, capture_output=True).returncode:
                return None
            os.replace(made, path)
    return ctypes.CDLL(str(path))
