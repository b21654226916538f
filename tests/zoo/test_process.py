"""One computation at a time, to the numbers that it has alone; imports leave the process as it was."""

from __future__ import annotations

import platform
import random
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributions import Distribution

from zoo.process import LOCK, one_at_a_time, set_seed, trim_memory, undisturbed

ROOT = Path(__file__).parents[2]

IMPORTS = """
import logging, random, sys, warnings
import numpy, pyro, torch
from torch.distributions import Distribution

def state():
    return {
        "validation": Distribution._validate_args,
        "filters": list(warnings.filters),
        "random": random.getstate(),
        "numpy": numpy.random.get_state()[1].tolist(),
        "torch": torch.get_rng_state().tolist(),
        "dtype": torch.get_default_dtype(),
        "precision": torch.get_float32_matmul_precision(),
        "logging": (logging.root.level, list(logging.root.handlers)),
        "store": list(pyro.get_param_store()),
    }

before = state()
import importlib, pkgutil
import benchmarks, inference, zoo
for package in (zoo, inference, benchmarks):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.startswith(("benchmarks.scripts", "benchmarks.speed")):  # of other libraries
            importlib.import_module(module.name)
after = state()
sys.exit(", ".join(name for name in before if before[name] != after[name]) or 0)
"""


def test_an_import_leaves_the_process_as_it_was() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTS], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"changed: {done.stderr}"


def test_undisturbed_puts_back_what_a_guest_changes() -> None:
    filters, validate = list(warnings.filters), Distribution._validate_args
    state = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    with undisturbed():
        warnings.simplefilter("ignore")
        Distribution.set_default_validate_args(not validate)
        random.random(), np.random.rand(), torch.rand(1)
    assert warnings.filters == filters
    assert Distribution._validate_args == validate
    assert torch.equal(state[0], torch.get_rng_state())
    assert (state[1], state[2]) == (random.getstate(), np.random.get_state()[1].tolist())


def test_one_thread_at_a_time_and_the_same_thread_again() -> None:
    inside, most = 0, 0

    @one_at_a_time
    def work(depth: int = 1) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        threading.Event().wait(0.01)
        inside -= 1
        if depth:
            work(depth - 1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert LOCK.acquire(blocking=False)
    LOCK.release()


FREED = """
import torch
from benchmarks.speed.resources import resident
from zoo.process import trim_memory
held = [torch.ones(2**14) for _ in range(2000)]  # 125 MiB, in pieces that come from the heap
last = torch.ones(2**14)
del held
before = resident()
trim_memory()
print(before - resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc")
def test_what_was_freed_is_given_back():
    done = subprocess.run([sys.executable, "-c", FREED], check=True, capture_output=True, text=True)
    assert float(done.stdout) > 90


def test_without_glibc_nothing_is_given_back(monkeypatch):
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    trim_memory()


def test_a_seed_is_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(7)
    wanted = torch.rand(5)
    set_seed(7)
    assert torch.equal(torch.rand(5), wanted)
    asked: list[int] = []
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch, "manual_seed", asked.append)
    set_seed(8)  # devices that there are have generators of their own
    assert asked == [8]
