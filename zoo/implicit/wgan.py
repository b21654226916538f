r"""Wasserstein generative adversarial networks: the generator of a DCGAN, paired with a critic of bounded slope.

    z ~ N(0, I_k),   x = (tanh g(z) + 1) / 2

    z --> x      sites: z (k,) local; x (*event_shape), implicit

WGAN bounds the slope by clipping weights: Arjovsky, Chintala & Bottou, "Wasserstein generative adversarial networks",
ICML 2017. WGAN-GP penalises slopes other than 1: Gulrajani, Ahmed, Arjovsky, Dumoulin & Courville, "Improved training
of Wasserstein GANs", NeurIPS 2017. The game is the same, 'wasserstein'; the bound is the method's option `regulariser`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from zoo.implicit.base import ConvolutionalGAN
from zoo.program import Preset

__all__ = ["WGAN", "WGANGP"]


class WGAN(ConvolutionalGAN):
    """The networks of a DCGAN with normal noise, for a critic whose weights are clipped.

    The paper's RMSprop is Adam without momentum here (betas (0, 0.99), RMSprop's own decay).

    Args: see `ConvolutionalGAN`.
    """

    paper = "Arjovsky, Chintala & Bottou, Wasserstein generative adversarial networks, 2017"
    presets: ClassVar[Mapping[str, Preset]] = {
        "small": Preset(
            {"latent_dim": 64, "channels": [64, 16]}, "gan",
            {
                "game": "wasserstein", "regulariser": "clip", "steps": 1800, "batch_size": 32, "lr": 5e-3,
                "critic_lr": 1e-3, "betas": [0.0, 0.99], "critic_steps": 5, "ema": 0.99,
            },
        ),
        "paper": Preset(
            {"latent_dim": 100, "channels": [512, 256, 128, 64]}, "gan",
            {
                "game": "wasserstein", "regulariser": "clip", "steps": 200_000, "batch_size": 64, "lr": 5e-5,
                "betas": [0.0, 0.99], "critic_steps": 5, "decay": "constant",
            },
        ),
    }  # fmt: skip


class WGANGP(ConvolutionalGAN):
    """The networks of a DCGAN with normal noise, layer norm in the critic: the penalty is on its slope at each example.

    Args: see `ConvolutionalGAN`.
    """

    NORM = "layer"

    paper = "Gulrajani et al., Improved training of Wasserstein GANs, 2017"
    presets: ClassVar[Mapping[str, Preset]] = {
        "small": Preset(
            {"latent_dim": 64, "channels": [64, 16]}, "gan",
            {
                "game": "wasserstein", "regulariser": "gradient-penalty", "steps": 1000, "batch_size": 32, "lr": 3e-3,
                "critic_lr": 2e-3, "betas": [0.0, 0.9], "critic_steps": 5, "ema": 0.99,
            },
        ),
        "paper": Preset(
            {"latent_dim": 128, "channels": [512, 256, 128, 64], "kernel": 5}, "gan",
            {
                "game": "wasserstein", "regulariser": "gradient-penalty", "steps": 200_000, "batch_size": 64,
                "lr": 1e-4, "betas": [0.0, 0.9], "critic_steps": 5, "decay": "constant",
            },
        ),
        # On points in the plane a weight of 10 leaves too little slope between modes that lie close together.
        "ring": Preset(
            {"latent_dim": 2, "hidden": [128, 128, 128], "support": "real"}, "gan",
            {
                "game": "wasserstein", "regulariser": {"name": "gradient-penalty", "weight": 0.1}, "steps": 7000,
                "batch_size": 128, "lr": 1e-3, "critic_lr": 2e-3, "betas": [0.0, 0.9], "critic_steps": 2,
                "ema": 0.999,
            }, data="ring",
        ),
    }  # fmt: skip
