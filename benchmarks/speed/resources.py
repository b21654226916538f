"""Threads and memory of the comparisons: both sides on as many threads, and what a piece of work adds to a process."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

__all__ = ["extra_memory", "forget_peak", "limited", "peak", "resident"]


@contextmanager
def limited(threads: int) -> Iterator[None]:
    """Everyone on so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with threadpool_limits(threads):
            yield
    finally:
        torch.set_num_threads(before)


def _status(field: str) -> float | None:
    """MiB of a line of /proc/self/status, where there is such a file."""
    path = Path("/proc/self/status")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((float(line.split()[1]) / 1024 for line in lines if line.startswith(field + ":")), None)


def peak() -> float:
    """The most memory that this process has held so far, in MiB.

    Linux hands `ru_maxrss` down to a child, which then starts with its parent's; its own is in /proc.
    """
    found = _status("VmHWM")
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit if found is None else found


def resident() -> float:
    """The memory that this process holds, in MiB; where that cannot be known, the peak."""
    found = _status("VmRSS")
    return peak() if found is None else found


def forget_peak() -> None:
    """Lets the kernel count the peak from here on (Linux); elsewhere it is that of the whole process."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def extra_memory(module: str, problem: Any, side: str, threads: int = 2) -> float:
    """MiB that a piece of work adds at its peak to a fresh process with everything imported and the data made.

    Args:
        module: Of `benchmarks.speed.workloads`, with SIDES and warm_up: 'em' or 'hmm'.
        problem: What is done, a Problem of the module.
        side: Who does it, a key of SIDES.
        threads: How many threads it may use; each has buffers.
    """
    # Forked from a server that holds nothing but imports: as fresh as a spawned one, and sooner there.
    with ProcessPoolExecutor(1, mp_context=get_context("forkserver")) as pool:
        return pool.submit(_extra_memory, module, problem, side, threads).result()


def _extra_memory(module: str, problem: Any, side: str, threads: int) -> float:
    peer = import_module(f"benchmarks.speed.workloads.{module}")
    with limited(threads):
        peer.warm_up(problem, (side,))
        x = problem.data()
        before = peak()
        peer.SIDES[side](problem, x, score=False)
    return peak() - before
