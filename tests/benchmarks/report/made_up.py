"""Made-up records of a suite."""

from __future__ import annotations

from typing import Any


def record(metric: str, value: float | None, **changes: Any) -> dict[str, Any]:
    found = {
        "suite": "made-up", "kind": "posterior", "program": "coin", "method": "SVI", "dataset": "coin",
        "split": "train", "seed": 0, "cell": "made-up/coin/SVI/coin/0/00", "started": 1,
        "budget": {"steps": 10}, "device": "cpu",
        "hardware": {"cpu": "An <honest> CPU", "cores": 2, "threads": 1}, "versions": {"torch": "2"}, "metric": metric,
        "value": value, "standard_error": None, "how": "", "seconds": 1.0,
    }  # fmt: skip
    return {**found, **changes}
