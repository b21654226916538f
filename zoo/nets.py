"""Small networks that several families share: multilayer perceptrons and strided convolutions for images of any size.

All of them take any number of batch dimensions on the left, as latents with particles do.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.nn.functional import batch_norm

from zoo.errors import ShapeError, UnknownNameError

__all__ = [
    "ACTIVATIONS", "BatchNorm1d", "BatchNorm2d", "OverBatch",
    "activation", "conv_decoder", "conv_encoder", "doubling", "halvings", "image_shape", "mlp", "paddings",
]  # fmt: skip

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


class BatchNorm1d(nn.BatchNorm1d):
    """Batch normalisation that takes a batch of one: in training too it is then normalised by the running moments."""

    def forward(self, x: Tensor) -> Tensor:
        """One number a feature has no variance of its own; two or more have."""
        return super().forward(x) if _has_variance(x) or not self.training else _by_running_moments(self, x)


class BatchNorm2d(nn.BatchNorm2d):
    """The same, of channels, for images of one pixel."""

    def forward(self, x: Tensor) -> Tensor:
        """See `BatchNorm1d`."""
        return super().forward(x) if _has_variance(x) or not self.training else _by_running_moments(self, x)


def _has_variance(x: Tensor) -> bool:
    return x.numel() > x.shape[1]


def _by_running_moments(norm: nn.BatchNorm1d | nn.BatchNorm2d, x: Tensor) -> Tensor:
    return batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)


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
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise([shape[0], *channels]):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), _activation(activation)]
    features = [shape[0], *channels][-1] * math.prod(halvings(shape[1:], len(channels))[-1])
    return OverBatch(nn.Sequential(*layers, nn.Flatten(), nn.Linear(features, out)), 3)


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
    layers = doubling(features, channels, shape, lambda _: [_activation(activation)], out_bias=out_bias)
    return OverBatch(nn.Sequential(*layers), 1)


def doubling(
    features: int,
    channels: Sequence[int],
    shape: tuple[int, int, int],
    between: Callable[[int], list[nn.Module]],
    kernel: int = 3,
    *,
    bias: bool = True,
    out_bias: bool = True,
) -> list[nn.Module]:
    """Layers (B, features) -> (B, *shape): a linear one, whose output is a small image, then transposed convolutions.

    Args:
        features: Width of the input.
        channels: Of the input of each transposed convolution.
        shape: (channels, height, width) of the output.
        between: What goes before a transposed convolution whose input has so many channels.
        kernel: Side of the transposed convolutions, at least 3.
        bias: Whether layers have a bias, but for the last.
        out_bias: Whether the last one has.
    """
    widths, sizes = [*channels, shape[0]], halvings(shape[1:], len(channels))[::-1]
    smallest = (widths[0], *sizes[0])
    layers: list[nn.Module] = [
        nn.Linear(features, math.prod(smallest), bias=bias if channels else out_bias),
        nn.Unflatten(1, smallest),
    ]
    for i, large in enumerate(sizes[1:]):
        pad, more = paddings(kernel, large)
        biased = out_bias if i == len(channels) - 1 else bias
        layers += [
            *between(widths[i]),
            nn.ConvTranspose2d(
                widths[i], widths[i + 1], kernel, stride=2, padding=pad, output_padding=more, bias=biased
            ),
        ]
    return layers


def halvings(size: Sequence[int], times: int) -> list[tuple[int, int]]:
    """(height, width) of an image, then of its halves, rounded up, so many times."""
    height, width = size
    found = [(height, width)]
    for _ in range(times):
        height, width = (height + 1) // 2, (width + 1) // 2
        found.append((height, width))
    return found


def paddings(kernel: int, size: Sequence[int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """(padding, output padding) of convolutions of stride 2 between images of this size and of half that, rounded up.

    A transposed one takes n to 2 n - 2 - 2 padding + kernel + output padding, which is to be the larger size.
    """
    wanted = [kernel - 2 + n % 2 for n in size]
    pad = [(n + 1) // 2 for n in wanted]
    more = [2 * p - n for p, n in zip(pad, wanted, strict=True)]
    return (pad[0], pad[1]), (more[0], more[1])


_activation = activation  # the functions above have an option of that name
