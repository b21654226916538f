"""Small networks that several families share: multilayer perceptrons and strided convolutions for images of any size.

All of them take any number of batch dimensions on the left, as latents with particles do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from zoo.errors import ShapeError, UnknownNameError

__all__ = ["ACTIVATIONS", "OverBatch", "activation", "conv_decoder", "conv_encoder", "image_shape", "mlp"]

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "leaky_relu": nn.LeakyReLU,
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
}
"""Names of the nonlinearities that networks take as an option."""


def activation(name: str) -> nn.Module:
    """A nonlinearity by name.

    Raises: UnknownNameError.
    """
    if name not in ACTIVATIONS:
        raise UnknownNameError("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]()


def mlp(
    features: int, hidden: Sequence[int], out: int, activation: str = "relu", *, out_bias: bool = True
) -> nn.Sequential:
    """A multilayer perceptron (..., features) -> (..., out); linear when `hidden` is empty.

    Args:
        features: Width of the input.
        hidden: Widths of the hidden layers.
        out: Width of the output.
        activation: Nonlinearity after each hidden layer, a key of ACTIVATIONS.
        out_bias: Whether the last layer has a bias.
    """
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(features, width), _activation(activation)]
        features = width
    return nn.Sequential(*layers, nn.Linear(features, out, bias=out_bias))


class OverBatch(nn.Module):
    """Lets a network that wants exactly one batch dimension take any number of them.

    Args:
        net: Maps (B, *event) to (B, *out).
        event_dim: Number of dimensions of one input.
    """

    def __init__(self, net: nn.Module, event_dim: int):
        super().__init__()
        self.net, self.event_dim = net, event_dim

    def forward(self, x: Tensor) -> Tensor:
        """(*batch, *event) -> (*batch, *out)."""
        cut = x.ndim - self.event_dim
        out = self.net(x.reshape(x.shape[:cut].numel(), *x.shape[cut:]))
        return out.reshape(*x.shape[:cut], *out.shape[1:])


def image_shape(event_shape: Sequence[int]) -> tuple[int, int, int]:
    """(channels, height, width) of an image of shape (height, width) or (channels, height, width).

    Raises: ShapeError.
    """
    if len(event_shape) not in (2, 3):
        raise ShapeError(
            f"A convolutional network needs images (height, width) or (channels, height, width), got examples of shape "
            f"{tuple(event_shape)}; use an MLP or reshape the data."
        )
    channels, height, width = [1, *event_shape][-3:]
    return channels, height, width


def conv_encoder(shape: tuple[int, int, int], channels: Sequence[int], out: int, activation: str = "relu") -> nn.Module:
    """Strided 3x3 convolutions, each halving the image (rounding up), then a linear layer.

    Args:
        shape: (channels, height, width) of the input.
        channels: Of each convolution.
        out: Width of the output.
        activation: Nonlinearity after each convolution, a key of ACTIVATIONS.

    Shapes: (..., *shape) -> (..., out).
    """
    before, *size = shape
    layers: list[nn.Module] = []
    for after in channels:
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), _activation(activation)]
        before, size = after, _halved(size)
    return OverBatch(nn.Sequential(*layers, nn.Flatten(), nn.Linear(before * math.prod(size), out)), 3)


def conv_decoder(
    features: int,
    channels: Sequence[int],
    shape: tuple[int, int, int],
    activation: str = "relu",
    *,
    out_bias: bool = True,
) -> nn.Module:
    """The mirror of `conv_encoder`: a linear layer, then transposed convolutions, each doubling the image.

    Args:
        features: Width of the input.
        channels: Of the input of each transposed convolution.
        shape: (channels, height, width) of the output.
        activation: Nonlinearity before each transposed convolution, a key of ACTIVATIONS.
        out_bias: Whether the last layer has a bias (one for each channel).

    Shapes: (..., features) -> (..., *shape).
    """
    sizes = [list(shape[1:])]
    for _ in channels:
        sizes.append(_halved(sizes[-1]))
    widths = [*channels, shape[0]]
    layers: list[nn.Module] = [
        nn.Linear(features, widths[0] * math.prod(sizes[-1]), bias=out_bias or bool(channels)),
        nn.Unflatten(1, (widths[0], *sizes[-1])),
    ]
    for i, large in enumerate(reversed(sizes[:-1])):
        # A stride of two takes n to 2n - 1, and to 2n with one row or column more.
        more = (1 - large[0] % 2, 1 - large[1] % 2)
        last = i == len(channels) - 1
        layers += [
            _activation(activation),
            nn.ConvTranspose2d(
                widths[i], widths[i + 1], 3, stride=2, padding=1, output_padding=more, bias=out_bias or not last
            ),
        ]
    return OverBatch(nn.Sequential(*layers), 1)


def _halved(size: Sequence[int]) -> list[int]:
    return [(n + 1) // 2 for n in size]


_activation = activation  # the functions above have an option of that name
