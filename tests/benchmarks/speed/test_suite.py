"""What the suite declares: workloads, sweeps, names."""

from __future__ import annotations

from importlib import import_module

from benchmarks.speed.suite import SWEEPS


def test_every_workload_of_a_sweep_exists():
    for sweep in SWEEPS.values():
        assert callable(import_module(f"benchmarks.speed.workloads.{sweep.module}").work)
        assert [sweep.workload(v).options[sweep.over] for v in sweep.values] == list(sweep.values)
