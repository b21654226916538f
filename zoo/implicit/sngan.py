r"""The spectrally normalised generative adversarial network: a critic none of whose layers stretches distances.

Miyato, Kataoka, Koyama & Yoshida, "Spectral normalization for generative adversarial networks", ICLR 2018: the standard
CNN of table 3, played with the hinge loss. The normalisation is the method's option `regulariser`.

    z ~ N(0, I_k),   x = (tanh g(z) + 1) / 2

    z --> x      sites: z (k,) local; x (*event_shape), implicit
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from zoo.implicit.base import ConvolutionalGAN
from zoo.program import Preset

__all__ = ["SNGAN"]


class SNGAN(ConvolutionalGAN):
    """Transposed 4x4 convolutions and a 3x3 one for the image; a critic of 3x3 and strided 4x4 ones without batch norm.

    Args: see `ConvolutionalGAN`; every convolution of the critic of stride 2 stands between two of stride 1.
    """

    SMOOTH = True
    NORM = "none"
    SLOPE = 0.1

    paper = "Miyato et al., Spectral normalization for generative adversarial networks, 2018"
    presets: ClassVar[Mapping[str, Preset]] = {
        "small": Preset(
            {"latent_dim": 64, "channels": [64, 32, 8], "critic_channels": [8, 16]}, "gan",
            {
                "game": "hinge", "regulariser": "spectral-norm", "steps": 2200, "batch_size": 32, "lr": 4e-3,
                "critic_lr": 2e-3, "betas": [0.5, 0.999], "ema": 0.995,
            },
        ),
        "paper": Preset(
            {"latent_dim": 128, "channels": [512, 256, 128, 64], "critic_channels": [64, 128, 256]}, "gan",
            {
                "game": "hinge", "regulariser": "spectral-norm", "steps": 100_000, "batch_size": 64, "lr": 2e-4,
                "betas": [0.5, 0.999], "decay": "constant",
            },
        ),
        "ring": Preset(
            {"latent_dim": 2, "hidden": [128, 128, 128], "support": "real"}, "gan",
            {
                "game": "hinge", "regulariser": "spectral-norm", "steps": 7000, "batch_size": 128, "lr": 1e-3,
                "critic_lr": 2e-3, "betas": [0.0, 0.9], "ema": 0.999,
            }, data="ring",
        ),
    }  # fmt: skip
