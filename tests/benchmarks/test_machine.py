"""The machine of a number: what this process may use, and not what the whole computer has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from benchmarks import machine


def test_the_hardware_is_that_of_this_process():
    found = machine.hardware.__wrapped__("cpu")
    assert set(found) == {"cpu", "cores", "threads"}
    assert found["threads"] == torch.get_num_threads()
    assert found["cpu"].strip()


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="cores cannot be asked for here")
def test_cores_are_those_that_it_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {2, 5, 7})
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert machine.cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    assert machine.cores() == 64


def test_the_name_of_the_cpu_is_read_where_it_stands(monkeypatch):
    text = "processor\t: 0\nmodel name\t: Abacus: 9 beads\nmodel name\t: another\n"
    monkeypatch.setattr(Path, "exists", lambda self: True)
    monkeypatch.setattr(Path, "read_text", lambda self: text)
    assert machine._cpu_name() == "Abacus: 9 beads"
    monkeypatch.setattr(Path, "exists", lambda self: False)
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    assert machine._cpu_name() == "riscv64"


def test_the_gpu_is_named_where_it_was_used(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"a fast one at {device}")
    assert machine.hardware.__wrapped__("cuda:1")["gpu"] == "a fast one at cuda:1"
