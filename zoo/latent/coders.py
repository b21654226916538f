"""The two networks of an autoencoder: an encoder, and a decoder that mirrors it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from zoo.errors import UnknownNameError
from zoo.nets import conv_decoder, conv_encoder, image_shape, mlp

__all__ = ["NETWORKS", "Coders"]

NETWORKS = ("mlp", "conv")


@dataclass(frozen=True)
class Coders:
    """Says how an encoder and a decoder are built.

    Args:
        network: 'mlp' or 'conv'.
        event_shape: Of an example; (height, width) or (channels, height, width) for convolutions.
        hidden: Widths of the encoder's hidden layers, reversed in the decoder; channels when convolutional.
        activation: A key of `zoo.nets.ACTIVATIONS`.

    Raises: UnknownNameError, OptionError, ShapeError (convolutions over what is no image).
    """

    network: str
    event_shape: Sequence[int]
    hidden: Sequence[int]
    activation: str

    def __post_init__(self) -> None:
        if self.network not in NETWORKS:
            raise UnknownNameError("network", self.network, NETWORKS)

    @property
    def shape(self) -> tuple[int, ...]:
        """What the encoder sees, and the decoder puts out, of one example with one number a site."""
        if self.network == "conv":
            return image_shape(self.event_shape)
        return (math.prod(self.event_shape),)

    def encoder(self, out: int) -> nn.Module:
        """(*batch, *shape) -> (*batch, out)."""
        if self.network == "conv":
            return conv_encoder(image_shape(self.event_shape), self.hidden, out, self.activation)
        return mlp(self.shape[0], self.hidden, out, self.activation)

    def decoder(self, latent_dim: int, size: int) -> nn.Module:
        """(*batch, latent_dim) -> size numbers a site, in the order (*batch, size, *event_shape); no last bias."""
        hidden = self.hidden[::-1]
        if self.network == "conv":
            channels, height, width = image_shape(self.event_shape)
            shape = (size * channels, height, width)
            return conv_decoder(latent_dim, hidden, shape, self.activation, out_bias=False)
        return mlp(latent_dim, hidden, size * self.shape[0], self.activation, out_bias=False)
