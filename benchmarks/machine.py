"""The machine that a number was measured on."""

from __future__ import annotations

import functools
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

__all__ = ["cores", "hardware", "in_words"]


@functools.cache
def hardware(device: str) -> dict[str, Any]:
    """Processor, cores, threads, and the GPU if the device is one."""
    found: dict[str, Any] = {"cpu": _cpu_name(), "cores": cores(), "threads": torch.get_num_threads()}
    if torch.device(device).type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
    return found


def in_words(hardware: Mapping[str, Any]) -> str:
    """The machine as a report names it."""
    return f"{hardware.get('gpu') or hardware['cpu']}, {hardware['cores']} cores, {hardware['threads']} thread(s)"


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
