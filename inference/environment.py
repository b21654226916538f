"""Where a fit runs and from which seed: random state, devices, versions of what a result depends on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version

import torch
from torch import Tensor

from zoo.errors import OptionError

__all__ = ["continued", "random_state", "seeded", "versions"]


@contextmanager
def seeded(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Runs a block from an explicit seed and leaves the caller's random state as it was."""
    devices = [torch.device(device)] if torch.device(device).type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
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
    """'auto' is CUDA when there is one, else the CPU (MPS has no float64: ask for it by name)."""
    if str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = torch.device(device)
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(found.type, True):
        raise OptionError(f"Device {device!r} is not available here; use 'auto' or 'cpu'.")
    return found


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    found = {}
    for package in ("pyro-model-zoo", "torch", "pyro-ppl", "numpy", "arviz"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
