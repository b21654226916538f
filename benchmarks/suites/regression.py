"""The regression suite: priors over weights, functions, networks and groups, by rows that were held out.

Each data set is a table: a number, a label and a count, given covariates. The score is the log predictive density, in
which what is not known of weights is averaged over; linear models with exact or nearly exact answers are the yardstick.
To add a row, name the program and its method.
"""

from __future__ import annotations

from typing import Any

from benchmarks.suite import Grid, MethodSpec, ProgramSpec, Suite
from zoo import catalogue

__all__ = ["SUITE", "row"]

METRICS = ("log_likelihood", "parameters", "seconds", "gradient_evaluations")


def row(
    data: str, name: str, label: str, options: dict[str, Any] | None = None, method: str | None = None, **fit: Any
) -> Grid:
    """A program by its preset 'small', or by another method with options of its own."""
    preset = catalogue.get(name).presets["small"].merged(options, method, fit)
    spec = MethodSpec(preset.method, preset.method, dict(preset.fit))
    program = ProgramSpec(name, dict(preset.program), label)
    return Grid("density", (program,), (spec,), metrics=METRICS, data=(data,), split="test", seeds=3)


LABELS: dict[str, Any] = {"likelihood": "bernoulli"}
CHAINS: dict[str, Any] = {"method": "nuts", "warmup": 500, "draws": 500}

SUITE = Suite(
    "regression",
    "Regressions",
    "How well are held-out numbers, labels and counts predicted, given covariates?",
    grids=(
        row("diabetes", "linear-regression", "linear", method="exact"),
        row("diabetes", "gp", "Gaussian process, RBF"),
        row("diabetes", "gp", "Gaussian process, Matern 5/2", {"kernel": "matern52"}),
        row("diabetes", "sparse-gp", "sparse Gaussian process, 32 inputs"),
        row("diabetes", "bnn", "Bayesian network of 16 units"),
        row("breast-cancer", "logistic-regression", "logistic", **CHAINS),
        row("breast-cancer", "sparse-gp", "sparse Gaussian process, 32 inputs", LABELS),
        row("breast-cancer", "bnn", "Bayesian network of 16 units", LABELS),
        row("horse_kicks", "hierarchical-regression", "Poisson, corps vary", **CHAINS),
        row("horse_kicks", "hierarchical-regression", "Poisson, corps vary"),
        row("horse_kicks", "hierarchical-regression", "Poisson, corps and trends vary, correlated",
            {"varying": "all", "correlated": True}, **CHAINS),
        row("horse_kicks", "hierarchical-regression", "negative binomial, corps vary",
            {"likelihood": "negative-binomial"}, **CHAINS),
    ),
)  # fmt: skip
