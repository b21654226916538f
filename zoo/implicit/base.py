"""The program of the GANs whose players are convolutional; what tells them apart is said in a few class variables."""

from __future__ import annotations

from typing import ClassVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints

from zoo.errors import UnknownNameError
from zoo.guards import same_support
from zoo.implicit.networks import SUPPORTS, ConvCritic, Norm, conv_generator
from zoo.nets import image_shape, mlp
from zoo.options import Count, Counts, Shape
from zoo.program import Implicit, ImplicitProgram

__all__ = ["ConvolutionalGAN"]


class ConvolutionalGAN(ImplicitProgram):
    """Base of the programs whose generator is a `conv_generator`, or an MLP for data that are no images.

        z --> x      sites: z (latent_dim,) local; x (*event_shape), implicit

    Subclasses say what their papers say: the noise, whether networks are smooth, and the critic's norm and slope.

    Args:
        event_shape: Of one example: an image (height, width) or (channels, height, width), with `hidden` any shape.
        latent_dim: Number of noise inputs.
        channels: Of the generator's images, from the smallest on.
        critic_channels: Of the critic's, from the largest on; None is `channels` the other way round.
        kernel: Side of the strided convolutions, at least 3.
        hidden: Widths of the hidden layers of a generator and a critic of ReLU layers, in place of the convolutions.
        support: 'unit' ends the generator in a tanh, scaled to [0, 1]; 'real' in nothing.

    Raises: OptionError, ShapeError for what are no images, UnknownNameError for a support.
    """

    dataset = "mnist10k"

    UNIFORM: ClassVar[bool] = False
    """Noise uniform in [-1, 1] instead of standard normal."""
    SMOOTH: ClassVar[bool] = False
    """3x3 convolutions between the strided ones; see `conv_generator` and `ConvCritic`."""
    NORM: ClassVar[Norm] = "batch"
    """The critic's normalisation."""
    SLOPE: ClassVar[float] = 0.2
    """Of the critic's leaky ReLUs below zero."""

    def __init__(
        self,
        event_shape: Shape = (8, 8),
        latent_dim: Count = 32,
        channels: Counts = (32, 16),
        critic_channels: Counts | None = None,
        kernel: Count = 4,
        hidden: Counts | None = None,
        support: str = "unit",
    ):
        super().__init__()
        if support not in SUPPORTS:
            raise UnknownNameError("support", support, SUPPORTS)
        self.event_shape, self.support = torch.Size(event_shape), SUPPORTS[support]
        self.latent_dim, self.kernel, self.hidden = latent_dim, kernel, hidden
        self.critic_channels = channels[::-1] if critic_channels is None else critic_channels
        if hidden is not None:
            self.net: nn.Module = mlp(latent_dim, hidden, self.event_shape.numel())
        else:
            shape = image_shape(self.event_shape)
            self.net = conv_generator(latent_dim, channels, shape, kernel=kernel, smooth=self.SMOOTH)

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        """Noise through the generator; differentiable in its parameters."""
        with self.plate(x, context, size):
            low = next(self.net.parameters()).new_full((self.latent_dim,), -1.0)
            noise = dist.Uniform(low, -low) if self.UNIFORM else dist.Normal(0 * low, -low)
            z = pyro.sample("z", noise.to_event(1))
            value = self.net(z).reshape(*z.shape[:-1], *self.event_shape)
            if same_support(self.support, constraints.unit_interval):
                value = (torch.tanh(value) + 1) / 2
            return pyro.sample("x", Implicit(value, len(self.event_shape)), obs=x)

    def critic(self) -> nn.Module:
        """The generator the other way round, with leaky ReLUs."""
        if self.hidden is not None:
            return nn.Sequential(nn.Flatten(), mlp(self.event_shape.numel(), self.hidden, 1), nn.Flatten(0))
        return ConvCritic(
            self.event_shape, self.critic_channels, kernel=self.kernel, norm=self.NORM, slope=self.SLOPE,
            smooth=self.SMOOTH, centred=same_support(self.support, constraints.unit_interval),
        )  # fmt: skip
