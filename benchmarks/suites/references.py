"""The references suite: every kind of inference beside posteriordb's reference draws.

A row is a posterior of posteriordb (`benchmarks.targets.posteriordb`) and the methods. Nothing is known of it but draws
of Stan's long chains: errors of moments, distances between draws, k-hat, and what each cost. 'other chains' is the
truth itself: half of the chains beside the other half.
"""

from __future__ import annotations

from typing import Any

from benchmarks.suite import Grid, MethodSpec, Suite
from benchmarks.suites.posterior import FLOW, LONG, nuts, row, svi
from benchmarks.targets import REFERENCES

__all__ = ["METRICS", "SUITE"]

METRICS = (
    "elbo", "mean_error", "sd_error", "mean_worst", "sd_worst", "c2st", "sliced_wasserstein", "k_hat", "under_way",
    "seconds", "gradient_evaluations",
)  # fmt: skip

OTHER_CHAINS = MethodSpec("other chains", "exact")
SOLVED: dict[str, Any] = {"steps": 2000, "lr": 0.02, "particles": 1}  # a run of the solver costs as much as a hundred


def methods(budget: dict[str, Any], flow: dict[str, Any], chains: MethodSpec) -> tuple[MethodSpec, ...]:
    """What every posterior is given to."""
    return (
        OTHER_CHAINS, svi("SVI, mean-field", "normal", **budget), svi("SVI, low rank", "low_rank", **budget),
        svi("SVI, full rank", "multivariate_normal", **budget), svi("SVI, flow", "iaf", **flow), chains,
    )  # fmt: skip


def _row(name: str) -> Grid:
    if name.endswith("lotka_volterra"):
        ways = methods(SOLVED, {**SOLVED, "lr": 0.005}, nuts(250, 250, 4))
    else:
        ways = methods(LONG, FLOW, nuts(500, 1000, 4))
    return row(name, name, *ways, metrics=METRICS)


SUITE = Suite(
    "references",
    "Posteriors of posteriordb",
    "How far is each method from the long chains of Stan, and at how many gradients?",
    grids=tuple(map(_row, REFERENCES)),
)
