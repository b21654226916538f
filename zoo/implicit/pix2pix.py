r"""pix2pix: an image in another look, from pairs: a U-Net against a critic of patches that sees the source image too.

Isola, Zhu, Zhou & Efros, "Image-to-image translation with conditional adversarial networks", CVPR 2017; networks from
its appendix 6.1.

    k ~ Bernoulli(1 - dropout)^D,   x = g(s, k)

    k --> x <-- s      sites: kept (D,) local; x (*event_shape), implicit; the context is s (*context_shape), an image

The paper feeds no noise to the generator, which learns to ignore it, but drops units, in use as in training. Which ones
are kept is then the latent: each draw of it is another answer to the same source image. The method is `gan` with a
weight for `reconstruction`, the distance to the answer that the pair has.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from zoo.implicit.networks import network_options
from zoo.implicit.translators import ImageTranslation, PatchCritic, UNet, shifted
from zoo.options import Counts, Natural, Shape, Share
from zoo.program import Implicit, Preset

__all__ = ["Pix2Pix"]


class Pix2Pix(ImageTranslation):
    """A U-Net from image to image whose dropped units are its noise.

    Args:
        event_shape: Of x, the target: (height, width) or (channels, height, width), in [0, 1].
        context_shape: Of the source image, likewise.
        channels: Of the strided convolutions, from the image on; see `UNet`.
        norm: 'instance', 'batch' or 'none'.
        dropout: Probability of dropping a unit of the first three layers of the way up.
        jitter: Pixels by which pairs are moved in training, at random, both images alike: the paper's augmentation,
            there by cropping images that were enlarged a little.
        ink: Whether ink (1) and ground (0) count alike in the distance.
        critic: Options of the critic, those of `PatchCritic`: `channels` ([16, 32]), `kernel` (4), `norm` ('instance').

    Raises: OptionError, ShapeError; UnknownNameError for another option of the critic.
    """

    paper = "Isola et al., Image-to-image translation with conditional adversarial networks, 2017"
    dataset = "glyphs-sans-to-serif"

    def __init__(
        self,
        event_shape: Shape = (32, 32),
        context_shape: Shape = (32, 32),
        channels: Counts = (16, 32, 64, 64, 64),
        norm: str = "instance",
        dropout: Share = 0.5,
        jitter: Natural = 0,
        ink: bool = False,
        critic: Mapping[str, Any] | None = None,
    ):
        super().__init__(event_shape, context_shape, ink)
        self.critic_options = network_options(
            "the critic of pix2pix", critic, channels=(16, 32), kernel=4, norm="instance"
        )
        self.jitter = jitter
        self.net = UNet(self.source_shape, self.shape[0], channels, norm=norm, dropout=dropout)

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        """The source image through the U-Net, with the units that are kept; differentiable in its parameters."""
        assert context is not None
        with self.plate(x, context, size):
            share = self.share.new_full((self.net.kept,), 1 - self.net.dropout)
            kept = pyro.sample("kept", dist.Bernoulli(share).to_event(1))
            value = self.net(context.reshape(-1, *self.source_shape), kept)
            value = value.reshape(*kept.shape[:-1], *self.event_shape)
            return pyro.sample("x", Implicit(value, len(self.event_shape)), obs=x)

    def augmented(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Pairs (B, *event_shape), (B, *context_shape), each moved as a whole by up to `jitter` pixels."""
        if self.jitter == 0:
            return x, context
        down, right = (torch.randint(-self.jitter, self.jitter + 1, (len(x),)).to(x.device) for _ in range(2))
        moved = (
            shifted(images.reshape(len(images), *shape), down, right, self.jitter).reshape(images.shape)
            for images, shape in ((x, self.shape), (context, self.source_shape))
        )
        return next(moved), next(moved)

    def critic(self) -> nn.Module:
        """Of patches, which sees source and target."""
        return PatchCritic(self.event_shape, self.context_shape, **self.critic_options)

    presets: ClassVar[Mapping[str, Preset]] = {
        "small": Preset(
            # The paper's dropout of a half is for long training; in minutes its noise costs more than it teaches.
            {"channels": [16, 32, 64, 128, 128], "norm": "batch", "dropout": 0.1}, "gan",
            {
                "steps": 3000, "batch_size": 16, "lr": 2e-3, "critic_lr": 5e-4, "ema": 0.99, "reconstruction": 100.0,
            },
        ),
        "paper": Preset(
            {
                "channels": [64, 128, 256, 512, 512, 512, 512, 512],
                "critic": {"channels": [64, 128, 256, 512], "norm": "batch"},
            }, "gan",
            # The paper's 100 is for images from -1 to 1, where a difference is twice as large.
            {"epochs": 200, "batch_size": 1, "lr": 2e-4, "reconstruction": 200.0},
        ),
    }  # fmt: skip
