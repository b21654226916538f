"""The suite of anomalies: do densities tell what they have not been trained on?

Nines among digits are the everyday question; faces among digits and digits among faces show that little density and
"of another kind" are not the same (Nalisnick et al., "Do deep generative models know what they don't know?", 2019).
"""

from __future__ import annotations

from typing import Any

from benchmarks.suite import Grid, MethodSpec, ProgramSpec, Suite

__all__ = ["SUITE"]

METRICS = ("auroc", "bits_normal", "bits_anomalous", "seconds")
UP_TO_A_CONSTANT = ("auroc", "seconds")
STOP: dict[str, Any] = {"epochs": 100, "batch_size": 100, "lr": 3e-3, "patience": 4}
GREY: dict[str, Any] = {"likelihood": {"name": "logistic-mixture", "values": 256, "components": 3}}
SHORT: dict[str, Any] = {**STOP, "epochs": 20}
PERSISTENT: dict[str, Any] = {"chains": "persistent", "sweeps": 5, "epochs": 150, "batch_size": 100, "lr": 1e-2}
ENERGY: dict[str, Any] = {"network": "conv", "hidden": [16, 32, 64], "step": 0.05, "particles": 1000}
REPLAY: dict[str, Any] = {
    "chains": "replay", "sweeps": 20, "steps": 1000, "batch_size": 64, "lr": 5e-4, "regularise": 0.1
}  # fmt: skip


def row(problem: str, name: str, label: str, method: str, options: dict[str, Any], **fit: Any) -> Grid:
    """One program by the method that fits it; latents by 200 particles of IWAE, energies without their constants."""
    spec = MethodSpec(method, method.lower(), fit)
    return Grid(
        "anomaly", (ProgramSpec(name, options, label),), (spec,),
        metrics=UP_TO_A_CONSTANT if method == "CD" else METRICS, data=(problem,),
        split="test", seeds=3, evaluation={"particles": 200} if name == "vae" else {},
    )  # fmt: skip


NINES, FACES, DIGITS = "nines among digits", "faces among digits", "digits among faces"
SUITE = Suite(
    "anomalies",
    "Anomalies by density",
    "Does a program that was fitted to normal examples give others less density?",
    grids=(
        row(NINES, "independent", "independent pixels", "EM", {}),
        row(NINES, "chow-liu", "Chow-Liu tree", "EM", {}),
        row(NINES, "bernoulli-mixture", "mixture of 40 Bernoullis", "EM", {"components": 40}),
        row(NINES, "vae", "VAE, 8 latents", "SVI", {"latent_dim": 8}, **STOP),
        row(NINES, "nade", "NADE", "SVI", {"hidden": 100}, **STOP),
        row(NINES, "gated-pixelcnn", "gated PixelCNN", "SVI", {"features": 32, "layers": 4}, **STOP),
        row(NINES, "rbm", "RBM, 128 hidden units", "CD", {"hidden": 128}, **PERSISTENT),
        row(NINES, "dbm", "DBM, 128 and 64 hidden units", "CD", {"hidden": [128, 64]}, **PERSISTENT),
        *(
            each
            for problem in (FACES, DIGITS)
            for each in (
                row(problem, "made", "MADE, 3 logistics", "SVI", {**GREY, "hidden": [100]}, **SHORT),
                row(problem, "vae", "VAE, 20 latents", "SVI", {"latent_dim": 20, "likelihood": "logistic"}, **SHORT),
                row(problem, "deep-energy", "convolutional energy", "CD", ENERGY, **REPLAY),
            )
        ),
    ),
)
