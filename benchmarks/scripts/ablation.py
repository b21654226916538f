"""What each piece of the compiled step is worth, and what was tried instead: `python -m benchmarks.scripts.ablation`.

One workload of the suite speed (eight schools, unless `--workload` names another that is trained by SVI), one thread,
float32. All ways, or some (`--ways`), take turns in one process; the table gives medians with quartiles. Getting ready
is timed with empty caches.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

import pyro
import torch

from benchmarks.speed.contender import PYRO, ZOO_EAGER, Work
from benchmarks.speed.suite import WORKLOADS
from inference.method import Run
from inference.methods.svi import SVI
from inference.training import compiled, optimizers, runners
from inference.training.gradient import Training
from inference.training.loop import progress_bar
from zoo.errors import UnknownNameError
from zoo.process import set_seed

__all__ = ["Ways", "main"]

O0 = {"aot_inductor.compile_wrapper_opt_level": "O0"}

WHOLE = "compiled, as `fit` does it"

SUITABLE = tuple(name for name in WORKLOADS if name != "dcgan")
"""Those that SVI trains."""

Advance = Callable[[int], float]


class Ways:
    """Ways of doing a workload, by name; each value makes one ready."""

    def __init__(self, module: Any, job: Work):
        self.module, self.job = module, job
        named = {contender.name: contender.prepare for contender in module.contenders(job)}
        self.ready: dict[str, Callable[[], Advance]] = {
            PYRO: named[PYRO],
            "our loss under torch.compile, the rest in Python": self.dynamo,
            ZOO_EAGER: named[ZOO_EAGER],
            "traced, operation by operation": self.traced,
            "compiled, 2 steps a call": lambda: self.library(2),
            "compiled, 32 steps a call": lambda: self.library(32),
            WHOLE: self.library,
            "the same, C++ wrapper at -O0": lambda: self.library(options=O0),
            "the same, every tensor handed on by itself": self.unpacked,
            "the same, no small tensors on the stack": self.heaped,
            "the same, products with vectors by their library": self.multiplied,
            "the same, denormal numbers kept": self.denormal,
            "the same, recursions by numpy": self.python,
            "the same, images as they lay when traced": self.unturned,
        }

    def only(self, parts: list[str]) -> Ways:
        """Leaves those whose name has one of the parts, all for no parts; Pyro's step and the whole are always there.

        Raises: UnknownNameError where a part is in no name.
        """
        for part in parts:
            if not any(part in name for name in self.ready):
                raise UnknownNameError("way", part, self.ready)
        if parts:
            kept = (PYRO, WHOLE, *parts)
            self.ready = {name: make for name, make in self.ready.items() if any(part in name for part in kept)}
        return self

    def training(self, compile: str) -> Training:
        """Our fit after its first step."""
        set_seed(self.job.seed)
        program, options = self.module.by_zoo(self.job)
        size = self.job.batch_size
        method = SVI(**options, lr=self.job.lr, decay="constant", batch_size=size, steps=10**9, compile=compile)
        training = method.prepare(program, Run(self.job.data, seed=self.job.seed))
        training.advance(1)
        return training

    def dynamo(self) -> Advance:
        """What one gets by wrapping the loss; Pyro's handlers run under Dynamo, where it manages to."""
        training = self.training("never")
        loop = training.loop
        loop.step = torch.compile(loop.step)
        return lambda n: float(training.advance(n))

    def traced(self) -> Advance:
        """The operations of the trace without Python above them."""
        training = self.training("never")
        loop = training.loop
        loop.compiled = compiled.Compiled([loop], [compiled.reference(loop)], gear="scripted")
        return lambda n: float(training.advance(n))

    def library(self, steps: int | None = None, options: dict[str, str] | None = None) -> Advance:
        """The compiled loop: so many steps a call, under options of inductor."""
        training = self.training("always")
        with torch._inductor.config.patch(options or {}):
            training.advance(1)
        assert training.loop.compiled is not None
        if steps is not None:
            training.loop.compiled.chunk = steps
        return lambda n: float(training.advance(n))

    def unpacked(self) -> Advance:
        """Without `compiled.Packing`."""
        with mock.patch.object(compiled, "PACKED_UP_TO", -1):
            return self.library()

    def heaped(self) -> Advance:
        """Without arrays in the place of small tensors, where `runners.library_loop` has them."""
        with mock.patch.dict(runners.ON_STACK, clear=True):
            return self.library()

    def multiplied(self) -> Advance:
        """Without sums in the place of products of small matrices with vectors."""
        with mock.patch.object(runners, "PRODUCTS", ()):
            return self.library()

    def denormal(self) -> Advance:
        """With the denormal numbers that `numerics` would take for zero."""
        advance = self.library()

        def kept(n: int) -> float:
            with mock.patch.object(optimizers, "_flush_denormals"):
                return advance(n)

        return kept

    def python(self) -> Advance:
        """Without the C++ that operators have for loops of Python."""
        advance = self.library()

        def plain(n: int) -> float:
            with mock.patch.object(runners, "native", nullcontext):
                return advance(n)

        return plain

    def unturned(self) -> Advance:
        """Without images that lie as convolutions take them on the way back."""
        with mock.patch.dict(runners.CONVOLUTIONS, clear=True):
            return self.library()


def make_ready(make: Callable[[], Advance]) -> tuple[float, Advance]:
    """(seconds it took with empty caches, the way); the first steps are part of it."""
    with tempfile.TemporaryDirectory() as folder:
        caches = {"XDG_CACHE_HOME": folder, "TORCHINDUCTOR_CACHE_DIR": str(Path(folder) / "inductor")}
        before = {key: os.environ.get(key) for key in caches}
        os.environ.update(caches)
        try:
            started = time.perf_counter()
            advance = make()
            advance(2)
            return time.perf_counter() - started, advance
        finally:
            for key, value in before.items():
                os.environ.pop(key) if value is None else os.environ.update({key: value})


def timed(advance: Advance, n: int) -> float:
    """Seconds for n steps."""
    started = time.perf_counter()
    advance(n)
    return time.perf_counter() - started


def measure(ways: Ways, rounds: int, seconds: float) -> list[tuple[str, float, list[float]]]:
    """(way, seconds to get ready, seconds a step in each round); no rounds, but the error's name, where one fails."""
    ready: dict[str, tuple[float, Advance, int]] = {}
    failed: dict[str, str] = {}
    times: dict[str, list[float]] = {name: [] for name in ways.ready}
    with progress_bar(True) as bar, pyro.validation_enabled(False), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        task = bar.add_task("ablation", total=len(ways.ready) * (1 + rounds), note="")
        for name, make in ways.ready.items():
            bar.advance(task)
            try:
                spent, advance = make_ready(make)
            except Exception as error:
                failed[name] = type(error).__name__
                continue
            n = 1
            while (taken := timed(advance, n)) < seconds / 4:
                n *= 4
            ready[name] = (spent, advance, max(1, round(n * seconds / taken)))
        for _ in range(rounds):
            for name, (_, advance, n) in ready.items():
                times[name].append(timed(advance, n) / n)
                bar.advance(task)
    return [
        (name, ready[name][0], times[name]) if name in ready else (f"{name}: {failed[name]}", 0.0, [])
        for name in ways.ready
    ]


def main() -> None:
    """Measures and prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workload", default="eight-schools", choices=SUITABLE)
    parser.add_argument("--ways", action="append", default=[], help="only those with this in their name, and the whole")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.3, help="length of a block")
    options = parser.parse_args()
    torch.set_num_threads(1)
    chosen = WORKLOADS[options.workload]
    module = import_module(f"benchmarks.speed.workloads.{chosen.module}")
    ways = Ways(module, module.work(**chosen.options)).only(options.ways)
    found = measure(ways, options.rounds, options.seconds)
    reference = next(times for name, _, times in found if name == PYRO)
    print("| way | ready after, s | a step, us | quartiles | against SVI.step |\n|---|---|---|---|---|")
    for name, spent, times in found:
        if not times:
            print(f"| {name} | | | | |")
            continue
        low, middle, high = (1e6 * value for value in statistics.quantiles(times, n=4))
        ratio = statistics.median(a / b for a, b in zip(reference, times, strict=True))
        print(f"| {name} | {spent:.1f} | {middle:.1f} | {low:.1f} to {high:.1f} | {ratio:.2f}x |")


if __name__ == "__main__":
    main()
