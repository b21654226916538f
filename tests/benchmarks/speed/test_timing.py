"""The arithmetic of timing, on contenders that pretend."""

from __future__ import annotations

import pytest

from benchmarks.speed.contender import (
    PYRO,
    TORCH_EAGER,
    ZOO_EAGER,
    Contender,
)
from benchmarks.speed.timing import Setting, measure, spread, steps_to_target, time_to_target
from tests.benchmarks.speed.world import World


def test_ratios_are_taken_within_rounds():
    world = World()
    three = [world.contender(ZOO_EAGER, 0.01), world.contender(PYRO, 0.04), world.contender(TORCH_EAGER, 0.02)]
    found = measure(three, Setting(rounds=5, block_seconds=0.3), clock=world.clock)["contenders"]
    assert found[ZOO_EAGER]["per_step"]["median"] == pytest.approx(0.01)
    assert found[ZOO_EAGER]["over_pyro"]["median"] == pytest.approx(4)
    assert found[ZOO_EAGER]["over_best_peer"]["median"] == pytest.approx(2)
    assert found[PYRO]["over_best_peer"]["median"] == pytest.approx(0.5)
    assert found[TORCH_EAGER]["over_best_peer"]["median"] == pytest.approx(1)


def test_a_machine_that_slows_down_moves_times_but_hardly_ratios():
    world = World(drift=1.02)
    two = [world.contender(ZOO_EAGER, 0.01), world.contender(PYRO, 0.04)]
    found = measure(two, Setting(rounds=9, block_seconds=0.1), clock=world.clock)["contenders"]
    times = found[ZOO_EAGER]["seconds"]
    assert times[-1] > 1.3 * times[0]
    assert found[ZOO_EAGER]["over_pyro"]["median"] == pytest.approx(4, rel=0.03)
    # The order rotates: in some rounds ours came first, in some Pyro, and the drift shows on both sides of 4.
    ratios = [a / b for a, b in zip(found[PYRO]["seconds"], times, strict=True)]
    assert min(ratios) < 4 < max(ratios)


def test_blocks_last_long_enough_and_take_turns():
    world = World()
    two = [world.contender("slow", 0.05), world.contender("fast", 0.0001)]
    found = measure(two, Setting(rounds=3, block_seconds=0.3), clock=world.clock)["contenders"]
    for row, seconds in ((found["slow"], 0.05), (found["fast"], 0.0001)):
        assert 0.3 <= row["block"] * seconds < 1.0
    assert [name for name, _ in world.calls[-6:]] == ["slow", "fast", "fast", "slow", "slow", "fast"]


def test_compiling_is_apart_and_who_fails_is_left_out():
    def broken():
        raise RuntimeError("no compiler here")

    world = World()
    contenders = [
        world.contender(PYRO, 0.01, compile_seconds=7.0),
        Contender("broken", broken),
        Contender("absent", broken, absent="pip install it"),
    ]
    found = measure(contenders, Setting(rounds=1), clock=world.clock)
    assert found["contenders"][PYRO]["prepare_seconds"] == pytest.approx(7.02)
    assert found["contenders"][PYRO]["per_step"]["median"] == pytest.approx(0.01)
    assert found["absent"] == {"broken": "failed: RuntimeError: no compiler here", "absent": "pip install it"}


def test_steps_to_a_target():
    advance = World().contender("a", 0.01).prepare()
    assert steps_to_target(advance, 2.5, chunk=10, most=1000) == (40, True)
    assert steps_to_target(advance, 0.0, chunk=10, most=50) == (50, False)


def test_time_to_the_target_of_our_eager_fit():
    world = World()
    two = [world.contender(ZOO_EAGER, 0.01, 3.0), world.contender(PYRO, 0.02)]
    found = measure(two, Setting(rounds=1), clock=world.clock)["contenders"]
    target = time_to_target(two, found, 100, lambda note: None)
    assert target == {"loss": 1.0, "steps": 100, "chunk": 5}
    assert found[PYRO]["target"] == pytest.approx(
        {"steps": 100, "reached": True, "seconds": 2.0, "seconds_with_prepare": 2.04}
    )
    assert found[ZOO_EAGER]["target"]["seconds_with_prepare"] == pytest.approx(4.02)


def test_spread_is_median_and_quartiles():
    assert spread([5.0, 1.0, 2.0, 4.0, 3.0]) == {"median": 3.0, "low": 2.0, "high": 4.0}
