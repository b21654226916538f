"""The comparison of the AEVB paper: SGVB, wake-sleep and Monte Carlo EM on MNIST and Frey faces.

Kingma & Welling, "Auto-encoding variational Bayes", ICLR 2014, figures 2 and 3. With two latents instead of their three
the marginal likelihood is exact (a grid) where theirs was estimated. Every method gets the same decoder, data and
number of gradient evaluations for each example: 48. An SGVB step takes 1 of them, a wake-sleep step 1 for each particle
awake and 1 asleep, a Monte Carlo EM step 16 (11 of HMC, 5 of the M-step). As Monte Carlo EM then sees each example
3 times only, it is also run for 48 epochs, at 16 times the cost. Needs the data of `ZOO_DATA` or a download.
"""

from __future__ import annotations

from typing import Any

from benchmarks.suite import Grid, MethodSpec, ProgramSpec, Suite

__all__ = ["SUITE"]

METRICS = ("grid_log_likelihood", "seconds", "gradient_evaluations")
STEP: dict[str, Any] = {"batch_size": 100, "lr": 3e-3}
METHODS = (
    MethodSpec("SGVB A (Trace_ELBO)", "svi", {"epochs": 48, "elbo": "trace", **STEP}),
    MethodSpec("SGVB B (analytic KL)", "svi", {"epochs": 48, "elbo": "mean_field", **STEP}),
    MethodSpec("wake-sleep", "wake-sleep", {"epochs": 24, **STEP}),
    MethodSpec("reweighted wake-sleep, K=5", "wake-sleep", {"epochs": 8, "reweighted": True, "particles": 5, **STEP}),
    MethodSpec("Monte Carlo EM", "mcem", {"epochs": 3, **STEP}),
    MethodSpec("Monte Carlo EM, 16 times the budget", "mcem", {"epochs": 48, **STEP}),
)
NETWORK: dict[str, Any] = {"latent_dim": 2, "hidden": [100], "activation": "tanh"}


def row(data: str, label: str, **options: Any) -> Grid:
    """One data set by all methods; the exact likelihood of 200 test examples."""
    program = ProgramSpec("vae", {**NETWORK, **options}, label)
    return Grid(
        "density",
        (program,),
        METHODS,
        metrics=METRICS,
        data=(data,),
        split="test",
        seeds=3,
        evaluation={"examples": 200},
    )


SUITE = Suite(
    "aevb",
    "SGVB, wake-sleep and Monte Carlo EM",
    "At the same number of gradient evaluations, which method fits a decoder best?",
    grids=(
        row("mnist10k-binary", "VAE, 2 latents"),
        row("freyfaces", "VAE, 2 latents, Gaussian", likelihood="normal"),
    ),
)
