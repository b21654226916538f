"""The density suite: how well each family models held-out digits.

Binary digits (probabilities of pixels in {0, 1}) and grey ones (densities of pixels in [0, 1]) are two data sets and
two tables: their log-likelihoods cannot be compared. To add a row, add a `ProgramSpec` with the method that fits it.
"""

from __future__ import annotations

from typing import Any

from benchmarks.suite import Grid, MethodSpec, ProgramSpec, Suite

__all__ = ["BINARY", "GREY", "SUITE", "row"]

COMMON = ("log_likelihood", "bits_per_dim", "parameters", "seconds", "gradient_evaluations")
BINARY = ("log_likelihood", "grid_log_likelihood", *COMMON[1:])
GREY = ("log_likelihood", "parzen", "ais", "diversity", *COMMON[1:])


def row(
    data: str,
    name: str,
    label: str,
    method: str,
    options: dict[str, Any],
    seeds: int = 3,
    evaluation: Any = None,
    **fit: Any,
) -> Grid:
    """One program by the method that fits it."""
    metrics = BINARY if data.endswith("-binary") else GREY
    spec = MethodSpec(method, method.lower(), fit)
    return Grid(
        "density", (ProgramSpec(name, options, label),), (spec,), metrics, (data,), "test", seeds, evaluation or {}
    )


PLANE: dict[str, Any] = {"latent_dim": 2, "hidden": [128], "activation": "tanh"}
DEEP: dict[str, Any] = {"latent_dim": 8, "hidden": [128]}
SPHERICAL: dict[str, Any] = {"components": 20, "covariance": "spherical"}  # pixels that are always 0 have no variance
LONG: dict[str, Any] = {"epochs": 300, "batch_size": 64, "lr": 3e-3}

SUITE = Suite(
    "density",
    "Densities of handwritten digits",
    "How probable does each family find digits it has not seen?",
    (
        row("digits-binary", "independent", "independent pixels", "EM", {}),
        row("digits-binary", "markov-chain", "Markov chain", "EM", {}),
        row("digits-binary", "ar-chain", "AR(8)", "SVI", {"order": 8}, steps=4000),
        row("digits-binary", "ar-chain", "AR(16)", "SVI", {"order": 16}, steps=4000),
        row("digits-binary", "hmm", "HMM of rows, 16 states", "EM", {"states": 16}),
        row("digits-binary", "bernoulli-mixture", "mixture of 40 Bernoullis", "EM", {"components": 40}),
        row("digits-binary", "vae", "VAE, 2 latents", "SVI", PLANE, **LONG),
        row("digits-binary", "vae", "VAE, 8 latents", "SVI", DEEP, **LONG),
        row("digits", "gaussian-mixture", "mixture of 20 Gaussians", "EM", SPHERICAL),
        row("digits", "ppca", "PPCA, 16 components", "SVI", {"latent_dim": 16}, steps=4000),
        row("digits", "vae", "VAE, 8 latents, Gaussian", "SVI", {**DEEP, "likelihood": "normal"}, **LONG),
        row("digits", "gan", "GAN", "GAN", {"dropout": 0.3}, steps=10_000, batch_size=100, lr=5e-4),
    ),
)  # fmt: skip
