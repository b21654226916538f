"""The restoration suite: what was there, where a part is missing, noisy or coarse?

Digits in bits, where a conditional VAE made for the task stands beside programs that were made for none: a VAE by
chains in its latents, a mixture and probabilistic PCA by their exact conditionals, the last as the reference. Grey
faces likewise, with Gaussian numbers. The baseline net of the conditional VAE (no latents) is one guess.

Bits are also restored from the published tasks of Pyro's tutorial: one, two, three quadrants given.
"""

from __future__ import annotations

from typing import Any

from benchmarks.suite import Grid, MethodSpec, ProgramSpec, Suite
from zoo.latent.cvae import RestoringVAE

__all__ = ["SUITE"]

COMMON = ("completion_rmse", "completion_crps", "completion_spread", "restoring_seconds", "parameters", "seconds")
METRICS = {"inpaint": ("hidden_log_likelihood", *COMMON, "kept"), "denoise": COMMON, "super_resolve": COMMON}
DIGITS, FACES = "mnist10k-binary", "olivetti-32"
SMALL = RestoringVAE.presets["small"]
SHORT: dict[str, Any] = {"elbo": "mean_field", "epochs": 40, "batch_size": 128, "lr": 2e-3}
GREY: dict[str, Any] = {"elbo": "mean_field", "epochs": 200, "batch_size": 50, "lr": 1e-3, "patience": 4}
TASKS: dict[str, dict[str, Any]] = {
    "inpaint": {"name": "quadrants", "given": 1},
    "denoise": {"name": "noisy", "sd": 0.5},
    "super_resolve": {"name": "low-resolution", "factor": 4},
}


def row(
    kind: str, data: str, name: str, label: str, method: str, options: dict[str, Any], given: int = 1, **fit: Any
) -> Grid:
    """One program by the method that fits it."""
    spec = MethodSpec(method.upper(), method, fit)
    return Grid(
        kind, (ProgramSpec(name, options, label),), (spec,), metrics=METRICS[kind], data=(data,), split="test",
        seeds=3, evaluation={"given": given} if kind == "inpaint" else {},
    )  # fmt: skip


def made(kind: str, data: str, given: int = 1) -> list[Grid]:
    """The conditional VAE for the task, and its baseline net alone."""
    task = {**TASKS[kind], "given": given} if kind == "inpaint" else TASKS[kind]
    grey = {"likelihood": "normal"} if data == FACES else {}
    fit = GREY if data == FACES else SMALL.fit
    tail = f", {given} given" if kind == "inpaint" else ""
    return [
        row(kind, data, "restoring-vae", f"{label}{tail}", "svi", {**SMALL.program, **grey, "task": task, **more},
            given=given, **fit)
        for label, more in (("conditional VAE", {}), ("baseline net", {"latent_dim": 0}))
    ]  # fmt: skip


SUITE = Suite(
    "restoration",
    "What is missing or blurred",
    "How near are restored images to what was there, and how honest is their spread?",
    grids=(
        *(
            grid
            for kind in TASKS
            for grid in (
                *made(kind, DIGITS),
                row(kind, DIGITS, "vae", "VAE, chains", "svi", {"latent_dim": 16, "hidden": [256]}, **SHORT),
                row(kind, DIGITS, "bernoulli-mixture", "mixture of 40 Bernoullis", "em", {"components": 40}),
                *(row(kind, DIGITS, "ppca", f"PPCA of {k}, exact", "em", {"latent_dim": k}) for k in (16, 64)),
                *made(kind, FACES),
                row(kind, FACES, "vae", "VAE, chains", "svi", {"latent_dim": 32, "likelihood": "normal"}, **GREY),
                *(row(kind, FACES, "ppca", f"PPCA of {k}, exact", "em", {"latent_dim": k}) for k in (16, 64)),
            )
        ),
        *(grid for given in (2, 3) for grid in made("inpaint", DIGITS, given)),
    ),
)
