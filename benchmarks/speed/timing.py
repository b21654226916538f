"""Times contenders side by side: prepare, take turns, divide within the round; and how soon each reaches a loss.

Times of two runs do not compare on a shared machine, ratios inside one run do. So contenders are prepared in one
process and take turns: every round each of them runs one block of steps of at least `block_seconds`, in an order that
rotates, and ratios are taken within the round.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import torch

from benchmarks.speed.contender import PYRO, ZOO, ZOO_EAGER, Advance, Contender
from inference.training import runners

__all__ = [
    "CACHE",
    "Report",
    "Setting",
    "empty_caches",
    "measure",
    "prepared",
    "spread",
    "steps_to_target",
    "time_to_target",
    "utilisation",
]

CACHE = "TORCHINDUCTOR_CACHE_DIR"
"""Environment variable of the folder where the compiler keeps what it made."""

Report = Callable[[str], None]


@dataclass(frozen=True)
class Setting:
    """How long to measure. Records of another setting are measured anew."""

    rounds: int = 9
    block_seconds: float = 0.3
    target: float = 1.0
    """Fraction of each workload's `target_steps`; 0 leaves the time to a target out."""
    memory: bool = True
    threads: int = 1
    seed: int = 0
    device: str = "cpu"

    @classmethod
    def quick(cls, **given: Any) -> Setting:
        """A look in a few minutes: three short rounds, no memory, a fifth of the steps to the target."""
        return cls(rounds=3, block_seconds=0.1, target=0.2, memory=False, **given)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
    return {"median": float(median), "low": float(low), "high": float(high)}


# One process: prepare, take turns, divide.


def prepared(
    contenders: Sequence[Contender], report: Report, clock: Callable[[], float] = time.perf_counter
) -> tuple[dict[str, Advance], dict[str, float], dict[str, str]]:
    """Those that are ready (after their first two steps), seconds that took, and why the others are not there."""
    ready, seconds, absent = {}, {}, {}
    for i, contender in enumerate(contenders):
        report(f"prepare {contender.name}")
        if CACHE in os.environ:  # one for each, so that nobody finds what another has compiled
            empty_caches(Path(os.environ[CACHE]).with_name(f"contender-{i}"))
        if contender.absent:
            absent[contender.name] = contender.absent
            continue
        began = clock()
        try:
            advance = contender.prepare()
            advance(2)  # ours compiles at its second step
        except Exception as error:
            absent[contender.name] = (
                f"failed: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            )
            continue
        seconds[contender.name] = clock() - began
        ready[contender.name] = advance
    return ready, seconds, absent


def empty_caches(folder: Path) -> None:
    """Lets compilers, torch's and ours, keep things in this folder and forget the rest; what is in use stays so."""
    from torch._inductor import utils

    os.environ[CACHE] = str(folder)
    runners.cache_folder = lambda: folder / "zoo"
    for name in ("clear_caches", "clear_inductor_caches"):  # newer, older
        if hasattr(utils, name):
            return getattr(utils, name)()


def measure(
    contenders: Sequence[Contender],
    setting: Setting,
    report: Report = lambda note: None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Any]:
    """Seconds a step of each contender, round by round, and their ratios within rounds.

    Returns: {'contenders': {name: {...}}, 'absent': {name: why}}. A contender has `prepare_seconds`, `block` (steps),
    `seconds` (one a round), `per_step` (median and quartiles), `over_pyro` (how many times faster than SVI.step),
    `over_best_peer` (than whoever of the others was fastest in the same round) and `loss` of its last block.
    """
    ready, prepare_seconds, absent = prepared(contenders, report, clock)
    block = {name: _calibrate(advance, setting.block_seconds, clock) for name, advance in ready.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ready}
    loss: dict[str, float] = {}
    order = list(ready)
    for turn in range(setting.rounds):
        report(f"round {turn + 1} of {setting.rounds}")
        for name in [*order[turn % len(order) :], *order[: turn % len(order)]]:
            began = clock()
            loss[name] = ready[name](block[name])
            seconds[name].append((clock() - began) / block[name])
    peers = [name for name in order if name not in ZOO]
    found: dict[str, Any] = {}
    for name in order:
        found[name] = {
            "prepare_seconds": prepare_seconds[name],
            "block": block[name],
            "seconds": seconds[name],
            "per_step": spread(seconds[name]),
            "loss": loss[name],
        }
        if PYRO in seconds:
            ratios = [theirs / ours for theirs, ours in zip(seconds[PYRO], seconds[name], strict=True)]
            found[name]["over_pyro"] = spread(ratios)
        if peers:
            best = [min(seconds[peer][turn] for peer in peers) for turn in range(setting.rounds)]
            ratios = [theirs / ours for theirs, ours in zip(best, seconds[name], strict=True)]
            found[name]["over_best_peer"] = spread(ratios)
    return {"contenders": found, "absent": absent}


def _calibrate(advance: Advance, block_seconds: float, clock: Callable[[], float]) -> int:
    """Steps that take at least `block_seconds`."""
    n = 1
    while True:
        began = clock()
        advance(n)
        took = clock() - began
        if took >= block_seconds:
            return n
        n = max(n + 1, int(n * min(10.0, 1.2 * block_seconds / max(took, 1e-9))))


def steps_to_target(advance: Advance, target: float, chunk: int, most: int) -> tuple[int, bool]:
    """Advances by chunks until the mean loss over one is at most the target; (steps taken, whether it got there)."""
    done = 0
    while done < most:
        loss = advance(chunk)
        done += chunk
        if loss <= target:
            return done, True
    return done, False


def time_to_target(
    contenders: Sequence[Contender], found: dict[str, Any], steps: int, report: Report
) -> dict[str, Any] | None:
    """Adds `target` to each contender: steps and seconds to the loss that our eager fit has after `steps`.

    A loss is the mean over a twentieth of the steps. The steps are run; `seconds` is their number times the time of one
    (so that no compiler's cache flatters it), `seconds_with_prepare` adds preparing and compiling from nothing.
    """
    reference = next((c for c in contenders if c.name == ZOO_EAGER and c.name in found), None)
    if reference is None:
        return None
    chunk = max(1, steps // 20)
    report("the target loss")
    advance = reference.prepare()
    for _ in range(max(1, steps // chunk)):
        target = advance(chunk)
    for contender in contenders:
        if contender.name not in found:
            continue
        report(f"to the target: {contender.name}")
        taken, reached = steps_to_target(contender.prepare(), target, chunk, 2 * steps)
        row = found[contender.name]
        seconds = taken * row["per_step"]["median"]
        row["target"] = {
            "steps": taken,
            "reached": reached,
            "seconds": seconds,
            "seconds_with_prepare": seconds + row["prepare_seconds"],
        }
    return {"loss": target, "steps": chunk * max(1, steps // chunk), "chunk": chunk}


def utilisation(ready: Mapping[str, Advance], found: dict[str, Any], device: str) -> None:
    """Adds `gpu_utilisation` (per cent, as nvidia-smi has it) over a second of steps, where it can be read."""
    for name, advance in ready.items():
        samples: list[float] = []
        stop = Event()

        def watch(samples: list[float] = samples, stop: Event = stop) -> None:
            while not stop.wait(0.05):
                samples.append(float(torch.cuda.utilization(device)))

        thread = Thread(target=watch, daemon=True)
        try:
            torch.cuda.utilization(device)  # raises where the driver's library cannot be loaded
        except Exception:
            return
        thread.start()
        advance(max(1, round(1.0 / found[name]["per_step"]["median"])))
        stop.set()
        thread.join()
        if samples:
            found[name]["gpu_utilisation"] = float(np.mean(samples))
