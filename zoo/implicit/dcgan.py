r"""The deep convolutional generative adversarial network: an image drawn by transposed convolutions, and no density.

Radford, Metz & Chintala, "Unsupervised representation learning with deep convolutional generative adversarial
networks", ICLR 2016: strides instead of pooling, batch normalisation everywhere but at the generator's output and the
critic's input, ReLU in the generator and leaky ReLU in the critic, tanh at the output, weights from N(0, 0.02). The
networks are in `zoo.implicit.networks`.

    z ~ U[-1, 1]^k,   x = (tanh g(z) + 1) / 2

    z --> x      sites: z (k,) local; x (*event_shape), implicit
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from zoo.implicit.base import ConvolutionalGAN
from zoo.program import Preset

__all__ = ["DCGAN"]


class DCGAN(ConvolutionalGAN):
    """A generator of transposed convolutions and a critic of strided ones, both with batch norm.

    The `paper` preset is the generator for 64x64 images of the paper's figure 1 and the settings of its section 4; the
    size of the critic and the 25 epochs are those of the code that came with it (Newmu/dcgan_code).

    Args: see `ConvolutionalGAN`.
    """

    UNIFORM = True

    paper = "Radford, Metz & Chintala, Unsupervised representation learning with DCGANs, 2016"
    presets: ClassVar[Mapping[str, Preset]] = {
        "small": Preset(
            {"latent_dim": 64, "channels": [64, 32]}, "gan",
            {
                "steps": 3000, "batch_size": 32, "lr": 4e-3, "critic_lr": 2e-3, "betas": [0.5, 0.999], "ema": 0.995,
            },
        ),
        "paper": Preset(
            {"latent_dim": 100, "channels": [1024, 512, 256, 128], "kernel": 5}, "gan",
            {"epochs": 25, "batch_size": 128, "lr": 2e-4, "betas": [0.5, 0.999], "decay": "constant"},
        ),
    }  # fmt: skip
