"""Where a fit runs and from which seed: random state, devices, versions of what a result depends on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from zoo.errors import OptionError
from zoo.options import Seed, check_value
from zoo.process import LOCK, set_seed

__all__ = ["continued", "convolutions", "evaluating", "random_state", "seeded", "versions"]

version = cache(metadata.version)
"""Of a package; kept, as reading it takes milliseconds."""


@contextmanager
def seeded(seed: Seed, device: torch.device | str = "cpu") -> Iterator[None]:
    """Runs a block from an explicit seed and leaves the caller's random state as it was.

    The random state belongs to the process: blocks in threads run one after the other (`zoo.process.LOCK`).

    Raises: OptionError for a seed that is no whole number from 0 to 2^63 - 1.
    """
    check_value("seed", seed, Seed)
    devices = [torch.device(device)] if torch.device(device).type == "cuda" else []
    with LOCK, torch.random.fork_rng(devices=devices):
        set_seed(seed)
        yield


@contextmanager
def evaluating(
    program: nn.Module, guide: Any = None, seed: int = 0, device: torch.device | str = "cpu"
) -> Iterator[None]:
    """Runs a block from a seed, in eval mode and without Pyro's checks; everything is put back afterwards."""
    modules = [m for m in (program, guide) if isinstance(m, nn.Module) and m.training]
    for module in modules:
        module.eval()
    try:
        with seeded(seed, device), pyro.validation_enabled(False), convolutions():
            yield
    finally:
        for module in modules:
            module.train()


@contextmanager
def convolutions(rounded: bool = False) -> Iterator[None]:
    """While it lasts, a GPU's convolutions are those of a seed, to the last digit.

    Args:
        rounded: To ten bits (TF32), as torch has it unless told otherwise; no by default.
    """
    with torch.backends.cudnn.flags(
        enabled=torch.backends.cudnn.enabled, benchmark=False, deterministic=True, allow_tf32=rounded
    ):
        yield


def random_state(device: torch.device | str = "cpu") -> list[Tensor]:
    """Where the generators stand: torch's own and, on a GPU, the device's."""
    cuda = torch.device(device).type == "cuda"
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if cuda else [])]


@contextmanager
def continued(state: list[Tensor], device: torch.device | str = "cpu") -> Iterator[None]:
    """Runs a block from a state of `random_state` and leaves the caller's as it was."""
    with seeded(0, device):
        torch.set_rng_state(state[0])
        if len(state) > 1:
            torch.cuda.set_rng_state(state[1], device)
        yield


def resolve_device(device: str | torch.device) -> torch.device:
    """'auto' is CUDA when there is one, else the CPU (MPS has no float64: ask for it by name).

    Raises: OptionError for what is no device, or none of this machine.
    """
    if str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise OptionError(f"device must be 'auto', 'cpu', 'cuda', 'cuda:N' or 'mps', got {device!r}.") from error
    count = {
        "cpu": 1,
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
    }.get(found.type, 0)
    if not (found.index or 0) < count:
        raise OptionError(f"Device {str(device)!r} is not available here; use 'auto' or 'cpu'.")
    return found


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    found = {}
    for package in ("pyro-model-zoo", "torch", "pyro-ppl", "numpy", "arviz"):
        try:
            found[package] = version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found
