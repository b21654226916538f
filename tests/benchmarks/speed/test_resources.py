"""Threads and memory: limits that are put back, a peak that sees what was held."""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib import import_module
from types import SimpleNamespace

import pytest
import torch

from benchmarks.speed import resources
from benchmarks.speed.suite import DUELS


def test_threads_are_limited_and_put_back_even_after_an_exception():
    torch.set_num_threads(2)
    with resources.limited(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    try:
        with resources.limited(1):
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)


HOLD = """
import numpy as np
from benchmarks.speed import resources
resources.forget_peak()
before, start = resources.peak(), resources.resident()
held = np.ones(12 * 2**20)  # 96 MiB
del held
print(before, start, resources.peak(), resources.resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_the_peak_sees_what_was_held_and_let_go():
    """In a process of its own: this one's peak may lie far behind it, where the kernel does not forget it."""
    done = subprocess.run([sys.executable, "-c", HOLD], check=True, capture_output=True, text=True)
    before, start, peak, end = map(float, done.stdout.split())
    assert before == pytest.approx(start, abs=30)
    # Pages that were free before may be used, so somewhat less.
    assert 60 < peak - before < 130
    assert end < peak - 50


def test_where_nothing_is_known_the_peak_stands_for_both(monkeypatch):
    monkeypatch.setattr(resources, "_status", lambda field: None)
    assert resources.resident() == resources.peak() > 10


@pytest.mark.parametrize(("system", "unit"), [("linux", "KiB"), ("darwin", "bytes")])
def test_the_kernel_counts_a_peak_in_units_of_its_own(monkeypatch, system, unit):
    monkeypatch.setattr(resources, "_status", lambda field: None)
    monkeypatch.setattr(sys, "platform", system)
    used = SimpleNamespace(ru_maxrss=96 * {"KiB": 2**10, "bytes": 2**20}[unit])
    monkeypatch.setattr(resources.resource, "getrusage", lambda who: used)
    assert resources.peak() == 96


def test_memory_is_that_of_as_many_threads_as_were_timed():
    """Each thread has buffers of its own."""
    default = inspect.signature(resources.extra_memory).parameters["threads"].default
    for duel in DUELS.values():
        module = import_module(f"benchmarks.speed.workloads.{duel.module}")
        assert inspect.signature(module.compare).parameters["threads"].default == default
