"""The references suite: every kind of inference beside posteriordb's reference draws.

A row is a posterior of posteriordb (`benchmarks.targets.posteriordb`) and the methods. Nothing is known of it but draws
of Stan's long chains: errors of moments, distances between draws, k-hat, and what each cost. 'other chains' is the
truth itself: half of the chains beside the other half. The classifier is the quadratic one, since networks on up to 26
numbers take longer than the fits; what it does not see, the shape, the sliced Wasserstein distance does.
"""

from __future__ import annotations

from typing import Any

from benchmarks.suite import Grid, MethodSpec, Suite
from benchmarks.suites.posterior import nuts, row, svi
from benchmarks.targets import REFERENCES

__all__ = ["METRICS", "SUITE"]

METRICS = (
    "elbo", "mean_error", "sd_error", "mean_worst", "sd_worst", "c2st", "sliced_wasserstein", "k_hat", "under_way",
    "seconds", "gradient_evaluations",
)  # fmt: skip

OTHER_CHAINS = MethodSpec("other chains", "exact")
FLOW: dict[str, Any] = {"steps": 5000, "particles": 8}
SOLVED: dict[str, Any] = {"steps": 2000}  # where a run of the model is the solution of a differential equation


FLAT = (
    "earnings-logearn_interaction_z", "garch-garch11", "kidiq-kidscore_interaction", "kidiq-kidscore_momhs",
    "kilpisjarvi_mod-kilpisjarvi", "mesquite-logmesquite", "mesquite-mesquite", "nes1972-nes",
)  # fmt: skip
"""Posteriors with a flat prior, from which particles cannot come."""
APPROXIMATIONS = (
    MethodSpec("Laplace", "laplace"), MethodSpec("Pathfinder", "pathfinder"), MethodSpec("SVGD", "svgd"),
)  # fmt: skip


def _row(name: str) -> Grid:
    """A posterior, given to every method; Gaussian guides are fitted as SVI does it where nothing is said."""
    solved = name.endswith("lotka_volterra")
    smc = MethodSpec("SMC", "smc", {"particles": 500} if name.endswith("diamonds") else {})  # of 130,000 numbers
    return row(
        name, name, OTHER_CHAINS, svi("SVI, mean-field", "normal"), svi("SVI, low rank", "low_rank"),
        svi("SVI, full rank", "multivariate_normal"), svi("SVI, flow", "iaf", **(SOLVED if solved else FLOW)),
        nuts(250, 250, 4) if solved else nuts(500, 1000, 4), *APPROXIMATIONS,
        *(() if name.removeprefix("posteriordb/") in FLAT else (smc,)), metrics=METRICS, classifier="quadratic",
    )  # fmt: skip


SUITE = Suite(
    "references",
    "Posteriors of posteriordb",
    "How far is each method from the long chains of Stan, and at how many gradients?",
    grids=tuple(map(_row, REFERENCES)),
)
