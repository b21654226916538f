"""The density suite: how well each family models held-out digits and faces.

Each data set is a table of its own, for log-likelihoods of different data cannot be compared: binary digits, 8x8 and
28x28 (probabilities of pixels in {0, 1}); grey digits (densities of pixels in [0, 1]); faces (probabilities of 256
levels). To add a row, add a `ProgramSpec` with the method that fits it.
"""

from __future__ import annotations

from typing import Any

from benchmarks.suite import Grid, MethodSpec, ProgramSpec, Suite

__all__ = ["BINARY", "GREY", "SUITE", "row"]

COMMON = ("log_likelihood", "bits_per_dim", "parameters", "seconds", "sampling_seconds", "gradient_evaluations")
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
    metrics = BINARY if data.endswith("-binary") else COMMON if data in DISCRETE else GREY
    spec = MethodSpec(method, method.lower(), fit)
    return Grid(
        "density",
        (ProgramSpec(name, options, label),),
        (spec,),
        metrics=metrics,
        data=(data,),
        split="test",
        seeds=seeds,
        evaluation=evaluation or {},
    )


PLANE: dict[str, Any] = {"latent_dim": 2, "hidden": [128], "activation": "tanh"}
DEEP: dict[str, Any] = {"latent_dim": 8, "hidden": [128]}
SPHERICAL: dict[str, Any] = {"components": 20, "covariance": "spherical"}  # pixels that are always 0 have no variance
LONG: dict[str, Any] = {"epochs": 300, "batch_size": 64, "lr": 3e-3}
STOP: dict[str, Any] = {"epochs": 200, "batch_size": 100, "lr": 3e-3, "patience": 4}
MNIST: dict[str, Any] = {"epochs": 60, "batch_size": 100, "lr": 2e-3, "patience": 3}
CONV: dict[str, Any] = {"epochs": 40, "batch_size": 32, "lr": 3e-3, "patience": 4}
CONV_MNIST: dict[str, Any] = {"epochs": 10, "batch_size": 32, "lr": 3e-3}
FACES: dict[str, Any] = {"epochs": 100, "batch_size": 50, "lr": 1e-3, "patience": 4}
BIG: dict[str, Any] = {"latent_dim": 20, "hidden": [400], "activation": "tanh"}
VAMP: dict[str, Any] = {**BIG, "prior": {"name": "vamp", "components": 200}}
LAYERS: dict[str, Any] = {"latents": [32, 16], "hidden": [400, 128]}
WARM: dict[str, Any] = {"epochs": 60, "batch_size": 100, "lr": 2e-3, "kl_anneal": 0.3}
CODES: dict[str, Any] = {
    "codes": 64, "code_dim": 16, "network": {"name": "residual", "hidden": 32, "blocks": 1, "halvings": 3},
    "prior": {"name": "gated-pixelcnn", "features": 24, "layers": 3, "first_kernel": 5},
}  # fmt: skip
IMAGES: dict[str, Any] = {"latent_dim": 32, "hidden": [32, 64], "activation": "silu", "network": "conv"}
# Chosen on validation images: five particles a step beside one are worth a nat, convolutions beside an MLP ten.
IWAE: dict[str, Any] = {
    "elbo": "iwae", "particles": 5, "epochs": 20, "batch_size": 50, "lr": 2e-3, "patience": 6
}  # fmt: skip
GATED: dict[str, Any] = {"features": 24, "layers": 6}
MIXED: dict[str, Any] = {"likelihood": {"name": "logistic-mixture", "values": 256, "components": 5}}
PERSISTENT: dict[str, Any] = {"chains": "persistent", "sweeps": 5, "epochs": 150, "batch_size": 100, "lr": 1e-2}
CHAINS_MNIST: dict[str, Any] = {**PERSISTENT, "epochs": 40, "lr": 5e-3}
DISCRETE = ("freyfaces",)
"""Grey data whose programs here give probabilities of levels, not densities."""

SUITE = Suite(
    "density",
    "Densities of handwritten digits",
    "How probable does each family find digits it has not seen?",
    grids=(
        row("digits-binary", "independent", "independent pixels", "EM", {}),
        row("digits-binary", "markov-chain", "Markov chain", "EM", {}),
        row("digits-binary", "ar-chain", "AR(8)", "SVI", {"order": 8}, steps=4000),
        row("digits-binary", "ar-chain", "AR(16)", "SVI", {"order": 16}, steps=4000),
        row("digits-binary", "hmm", "HMM of rows, 16 states", "EM", {"states": 16}),
        row("digits-binary", "bernoulli-mixture", "mixture of 40 Bernoullis", "EM", {"components": 40}),
        row("digits-binary", "vae", "VAE, 2 latents", "SVI", PLANE, **LONG),
        row("digits-binary", "vae", "VAE, 8 latents", "SVI", DEEP, **LONG),
        row("digits-binary", "chow-liu", "Chow-Liu tree", "EM", {}),
        row("digits-binary", "rbm", "RBM, 16 hidden units", "CD", {"hidden": 16}, **PERSISTENT),
        row("digits-binary", "rbm", "RBM, 128 hidden units, annealed", "CD", {"hidden": 128}, **PERSISTENT),
        row("digits-binary", "dbm", "DBM, 128 and 64, annealed", "CD", {"hidden": [128, 64]}, **PERSISTENT),
        row("digits-binary", "fvsbn", "FVSBN", "SVI", {}, **STOP),
        row("digits-binary", "nade", "NADE", "SVI", {"hidden": 100}, **STOP),
        row("digits-binary", "eonade", "EoNADE, 8 orders", "SVI", {"hidden": [200], "orders": 8}, **STOP),
        row("digits-binary", "made", "MADE", "SVI", {"hidden": [200]}, **STOP),
        row("digits-binary", "made", "MADE, 16 masks", "SVI", {"hidden": [500], "masks": 16, "direct": True}, **STOP),
        row("digits-binary", "pixelrnn", "Row LSTM", "SVI", {"cell": "row"}, **CONV),
        row("digits-binary", "pixelrnn", "Diagonal BiLSTM", "SVI", {"cell": "diagonal"}, **CONV),
        row("digits-binary", "pixelcnn", "PixelCNN", "SVI", {"hidden": 32, "blocks": 4, "first_kernel": 5}, **CONV),
        row("digits-binary", "gated-pixelcnn", "gated PixelCNN", "SVI", {"features": 32, "layers": 4}, **CONV),
        row("digits-binary", "pixelcnn++", "PixelCNN++", "SVI", {"dropout": 0.2}, **CONV),
        row("mnist10k-binary", "independent", "independent pixels", "EM", {}),
        row("mnist10k-binary", "markov-chain", "Markov chain", "EM", {}),
        row("mnist10k-binary", "chow-liu", "Chow-Liu tree", "EM", {}),
        row("mnist10k-binary", "bernoulli-mixture", "mixture of 100 Bernoullis", "EM", {"components": 100}),
        row("mnist10k-binary", "nade", "NADE", "SVI", {"hidden": 200}, **MNIST),
        row("mnist10k-binary", "made", "MADE", "SVI", {"hidden": [500]}, **MNIST),
        row("mnist10k-binary", "vae", "VAE, 20 latents", "SVI", BIG, evaluation={"particles": 1000}, **MNIST),
        row("mnist10k-binary", "vae", "convolutional VAE", "SVI", IMAGES, evaluation={"particles": 1000}, **IWAE),
        row("mnist10k-binary", "vae", "VAE, VampPrior", "SVI", VAMP, evaluation={"particles": 1000}, **MNIST),
        row("mnist10k-binary", "hvae", "ladder VAE, 32 + 16", "SVI", LAYERS, evaluation={"particles": 1000}, **WARM),
        row("mnist10k-binary", "vq-vae", "VQ-VAE, 16 codes", "SVI", CODES, evaluation={"particles": 1}, **CONV_MNIST),
        row("mnist10k-binary", "pixelcnn", "PixelCNN", "SVI", {"hidden": 16, "blocks": 7}, **CONV_MNIST),
        row("mnist10k-binary", "gated-pixelcnn", "gated PixelCNN", "SVI", GATED, **CONV_MNIST),
        row("mnist10k-binary", "fvsbn", "FVSBN", "SVI", {}, **MNIST),
        row("mnist10k-binary", "made", "MADE, 16 masks", "SVI", {"hidden": [500], "masks": 16}, **MNIST),
        row("mnist10k-binary", "eonade", "EoNADE, 4 orders", "SVI", {"hidden": [500], "orders": 4}, **MNIST),
        row("mnist10k-binary", "rbm", "RBM, 200 hidden units, annealed", "CD", {"hidden": 200}, **CHAINS_MNIST),
        row("mnist10k-binary", "dbm", "DBM, 200 and 100, annealed", "CD", {"hidden": [200, 100]}, **CHAINS_MNIST),
        row("mnist10k-binary", "pixelrnn", "Row LSTM", "SVI", {"cell": "row"}, **CONV_MNIST),
        row("mnist10k-binary", "pixelrnn", "Diagonal BiLSTM", "SVI", {"cell": "diagonal"}, **CONV_MNIST),
        row("mnist10k-binary", "pixelcnn++", "PixelCNN++", "SVI", {"dropout": 0.1}, **CONV_MNIST),
        row("freyfaces", "vae", "VAE, 20 latents, logistic", "SVI", {**BIG, "likelihood": "logistic"}, **FACES),
        row("freyfaces", "rnade", "RNADE, 5 logistics", "SVI", {**MIXED, "hidden": 100}, **FACES),
        row("freyfaces", "made", "MADE, 5 logistics", "SVI", {**MIXED, "hidden": [300]}, **FACES),
        row("freyfaces", "gated-pixelcnn", "gated PixelCNN, 5 logistics", "SVI", {**MIXED, **GATED}, **CONV_MNIST),
        row("freyfaces", "pixelcnn++", "PixelCNN++, 5 logistics", "SVI", MIXED, **CONV_MNIST),
        *(
            row("freyfaces", "dequantised-flow", f"{label}, dequantised", "SVI", {"flow": flow, "values": 256}, **FACES)
            for flow, label in (
                ("nice", "NICE"), ("realnvp", "RealNVP"), ("maf", "MAF"), ("neural-spline", "neural spline")
            )
        ),
        row("digits", "gaussian-mixture", "mixture of 20 Gaussians", "EM", SPHERICAL),
        row("digits", "ppca", "PPCA, 16 components", "SVI", {"latent_dim": 16}, steps=4000),
        row("digits", "vae", "VAE, 8 latents, Gaussian", "SVI", {**DEEP, "likelihood": "normal"}, **LONG),
        row("digits", "gan", "GAN", "GAN", {"dropout": 0.3}, steps=10_000, batch_size=100, lr=5e-4),
    ),
)  # fmt: skip
