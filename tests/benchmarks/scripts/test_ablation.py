"""The ablation: every way takes away what it names; the loops run uncompiled here, so that a way takes no time."""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pyro
import pytest
import torch

from benchmarks.scripts import ablation
from benchmarks.scripts.ablation import O0, Ways
from benchmarks.speed.contender import PYRO, ZOO_EAGER
from benchmarks.speed.suite import WORKLOADS
from benchmarks.speed.workloads import eight_schools
from inference.training import compiled, optimizers, runners
from zoo.errors import UnknownNameError

LIBRARY = ablation.WHOLE
SETTING = next(iter(O0)).removeprefix("aot_inductor.")


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What the last way did: its fit, the steps given to `torch.compile`, how loops were made, and what they met."""
    found = SimpleNamespace(training=None, wrapped=[], made=[], flushed=[], arrays=[], products=[], images=[])
    training, scripted_loop = Ways.training, compiled.scripted_loop

    def keep(self: Ways, compile: str) -> Any:
        found.training = training(self, compile)
        return found.training

    def make(kind: str) -> Callable[..., Any]:
        def loop(body: Any, moving: int, inputs: Any) -> Any:
            option = getattr(torch._inductor.config.aot_inductor, SETTING)
            found.made.append((kind, len(inputs), option))
            found.arrays.append(bool(runners.ON_STACK))
            found.products.append(bool(runners.PRODUCTS))
            found.images.append(bool(runners.CONVOLUTIONS))
            run = scripted_loop(body, moving, inputs)

            def watched(*arguments: Any) -> Any:
                found.flushed.append((optimizers.flushes_denormals(), runners.native is not nullcontext))
                return run(*arguments)

            return watched

        return loop

    monkeypatch.setattr(Ways, "training", keep)
    monkeypatch.setattr(compiled, "library_loop", make("library"))
    monkeypatch.setattr(compiled, "scripted_loop", make("scripted"))
    monkeypatch.setattr(torch, "compile", lambda step: found.wrapped.append(step) or (lambda *args: step(*args)))
    torch.set_default_dtype(torch.float32)
    yield found
    pyro.clear_param_store()


def test_every_way_takes_away_what_it_names(seen: SimpleNamespace) -> None:
    ways = Ways(eight_schools, eight_schools.work()).ready
    found = {}
    for name, make in ways.items():
        seen.training, seen.wrapped, seen.made, seen.arrays, seen.products, seen.images = None, [], [], [], [], []
        advance = make()
        seen.flushed.clear()
        assert torch.isfinite(torch.tensor(advance(3)))
        loop = seen.training and seen.training.loop
        found[name] = SimpleNamespace(
            made=seen.made, wrapped=seen.wrapped, flushed=set(seen.flushed), arrays=seen.arrays, products=seen.products,
            images=seen.images,
            chunk=loop.compiled.chunk if loop and loop.compiled else None,
        )  # fmt: skip
    assert not found[PYRO].made
    assert not found[ZOO_EAGER].made
    whole = found.pop(LIBRARY)
    ((kind, inputs, level),) = whole.made
    assert kind == "library"
    assert level != "O0"
    assert whole.chunk > 32
    assert whole.flushed == {(True, True)}
    # One thing is different in each, and nothing else.
    dynamo, traced = found["our loss under torch.compile, the rest in Python"], found["traced, operation by operation"]
    assert (len(dynamo.wrapped), dynamo.made) == (1, [])
    ((kind, _, _),) = traced.made
    assert kind == "scripted"
    for steps in (2, 32):
        assert found[f"compiled, {steps} steps a call"].chunk == steps
    assert found["the same, C++ wrapper at -O0"].made == [("library", inputs, "O0")]
    assert found["the same, every tensor handed on by itself"].made[0][1] > inputs
    heaped = found["the same, no small tensors on the stack"]
    assert (whole.arrays, heaped.arrays, heaped.made) == ([True], [False], whole.made)
    called = found["the same, products with vectors by their library"]
    assert (whole.products, called.products, called.made) == ([True], [False], whole.made)
    kept = found["the same, denormal numbers kept"]
    assert (kept.flushed, kept.made, kept.chunk) == ({(False, True)}, whole.made, whole.chunk)
    python = found["the same, recursions by numpy"]
    assert (python.flushed, python.made, python.chunk) == ({(True, False)}, whole.made, whole.chunk)
    unturned = found["the same, images as they lay when traced"]
    assert (whole.images, unturned.images, unturned.made) == ([True], [False], whole.made)


def test_some_ways_are_chosen_by_a_part_of_their_name() -> None:
    ways = Ways(eight_schools, eight_schools.work())
    assert len(ways.only([]).ready) > 10
    with pytest.raises(UnknownNameError, match="way 'none'"):
        ways.only(["images", "none"])
    assert list(ways.only(["images", "-O0"]).ready) == [
        PYRO, LIBRARY, "the same, C++ wrapper at -O0", "the same, images as they lay when traced",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ablation.SUITABLE)
def test_every_workload_is_one_that_a_fit_is_made_of(name: str) -> None:
    workload = WORKLOADS[name]
    module = import_module(f"benchmarks.speed.workloads.{workload.module}")
    assert {"job"} == set(inspect.signature(module.by_zoo).parameters)
    assert "tuple[" in str(inspect.signature(module.by_zoo).return_annotation)


def test_who_fails_is_named_and_the_others_go_on():
    calls = []

    def advance(n: int) -> float:
        calls.append(n)
        time.sleep(1e-4 * n)
        return 0.0

    def broken():
        raise RuntimeError("no compiler here")

    ways = SimpleNamespace(ready={"fine": lambda: advance, "broken": broken})
    fine, failed = ablation.measure(ways, rounds=3, seconds=1e-3)
    assert (fine[0], len(fine[2])) == ("fine", 3)
    assert fine[1] >= 0
    assert calls[0] == 2  # the first steps belong to getting ready
    assert len({*calls[-3:]}) == 1  # blocks of one length
    assert failed == ("broken: RuntimeError", 0.0, [])


def test_getting_ready_is_timed_with_empty_caches_that_are_put_back(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/mine")
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    seen = []

    def make():
        seen.append((os.environ["XDG_CACHE_HOME"], os.environ["TORCHINDUCTOR_CACHE_DIR"]))
        assert os.listdir(os.environ["XDG_CACHE_HOME"]) == []
        return lambda n: 0.0

    spent, _ = ablation.make_ready(make)
    assert spent >= 0
    assert seen[0][0] != "/mine"
    assert os.environ["XDG_CACHE_HOME"] == "/mine"
    assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ

    def broken():
        raise RuntimeError

    with pytest.raises(RuntimeError):
        ablation.make_ready(broken)
    assert os.environ["XDG_CACHE_HOME"] == "/mine"
