"""What the convolutional adversarial networks share: strided convolutions up and down, and the program around them.

Generators go up by transposed convolutions, critics come down by strided ones, neither with pooling, after Radford,
Metz & Chintala, "Unsupervised representation learning with deep convolutional generative adversarial networks", ICLR
2016. Each step doubles or halves the image, rounded up where a side is odd, so that any size can be made.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import constraints

from zoo.errors import OptionError, ShapeError
from zoo.nets import OverBatch, image_shape

__all__ = ["ConvCritic", "Maxout", "MaxoutCritic", "conv_generator", "downward"]

SUPPORTS: dict[str, constraints.Constraint] = {"unit": constraints.unit_interval, "real": constraints.real}

Norm = str
"""'batch', 'layer' or 'none'."""

NORMS = ("batch", "layer", "none")


def conv_generator(
    features: int,
    channels: Sequence[int],
    shape: tuple[int, int, int],
    kernel: int = 4,
    *,
    smooth: bool = False,
    apart: bool = False,
) -> nn.Module:
    """Projects and reshapes, then doubles the image with each transposed convolution, batch norm and ReLU between.

    Args:
        features: Width of the input.
        channels: Of the projected image and of what follows.
        shape: (channels, height, width) of the output, which has no nonlinearity.
        kernel: Side of the transposed convolutions, at least 3.
        smooth: A 3x3 convolution makes the output (Miyato et al. 2018) instead of the last transposed one.
        apart: Batch norm of each number of the projection apart (Chen et al. 2016), instead of each channel.

    Shapes: (..., features) -> (..., *shape).
    Raises: OptionError.
    """
    _check(channels, kernel)
    widths = [*channels] if smooth else [*channels, shape[0]]
    sizes = [list(shape[1:])]
    for _ in widths[1:]:
        sizes.append([_halved(n) for n in sizes[-1]])
    sizes.reverse()
    layers: list[nn.Module] = [
        nn.Linear(features, widths[0] * math.prod(sizes[0]), bias=False),
        nn.Unflatten(1, (widths[0], *sizes[0])),
    ]
    for i, large in enumerate(sizes[1:]):
        pad, more = _padding(kernel, large)
        last = i == len(sizes) - 2 and not smooth
        if i == 0 and apart:
            layers[1:] = [nn.BatchNorm1d(widths[0] * math.prod(sizes[0])), *layers[1:], nn.ReLU()]
        else:
            layers += [nn.BatchNorm2d(widths[i]), nn.ReLU()]
        layers.append(nn.ConvTranspose2d(widths[i], widths[i + 1], kernel, 2, pad, more, bias=last))
    if smooth:
        layers += [nn.BatchNorm2d(widths[-1]), nn.ReLU(), nn.Conv2d(widths[-1], shape[0], 3, padding=1)]
    return OverBatch(nn.Sequential(*layers).apply(_start), 1)


class ConvCritic(nn.Module):
    """Strided convolutions with leaky ReLUs, each halving the image, then one linear unit: (B, *event_shape) -> (B,).

    Args:
        event_shape: Of one image, (height, width) or (channels, height, width).
        channels: Of each strided convolution.
        kernel: Its side, at least 3.
        norm: 'batch', 'layer' (over channels and positions, a gain for each channel) or 'none'; never at the input.
        slope: Of the leaky ReLU below zero.
        smooth: A 3x3 convolution of as many channels goes before each strided one, and one of twice as many after the
            last (Miyato et al. 2018, table 3).
        centred: Sees images from [0, 1] as [-1, 1].

    Raises: OptionError, ShapeError for what are no images.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        channels: Sequence[int],
        kernel: int = 4,
        norm: Norm = "batch",
        slope: float = 0.2,
        *,
        smooth: bool = False,
        centred: bool = True,
    ):
        super().__init__()
        _check(channels, kernel)
        if norm not in NORMS:
            raise OptionError(f"norm must be one of {', '.join(NORMS)}, got {norm!r}.")
        self.shape, self.centred = image_shape(event_shape), centred
        before, *size = self.shape
        layers: list[nn.Module] = []

        def add(width: int, side: int, stride: int, padding: tuple[int, int]) -> int:
            normed = norm != "none" and bool(layers)
            layers.append(nn.Conv2d(before, width, side, stride, padding, bias=not normed))
            if normed:
                layers.append(nn.BatchNorm2d(width) if norm == "batch" else nn.GroupNorm(1, width))
            layers.append(nn.LeakyReLU(slope))
            return width

        for width in channels:
            if smooth:
                before = add(width, 3, 1, (1, 1))
            before = add(width, kernel, 2, _padding(kernel, size)[0])
            size = [_halved(n) for n in size]
        if smooth:
            before = add(2 * before, 3, 1, (1, 1))
        self.net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(before * math.prod(size), 1)).apply(_start)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = x.reshape(len(x), *self.shape)
        return self.net(2 * x - 1 if self.centred else x).squeeze(-1)


def _check(channels: Sequence[int], kernel: int) -> None:
    if not channels:
        raise OptionError("channels must name at least one layer.")
    if kernel < 3:
        raise OptionError(f"kernel must be at least 3, got {kernel}.")


def _halved(n: int) -> int:
    return (n + 1) // 2


def _padding(kernel: int, size: Sequence[int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """(padding, output padding) of convolutions of stride 2 between images of this size and of half that, rounded up.

    A transposed one takes n to 2 n - 2 - 2 padding + kernel + output padding, which is to be the larger size.
    """
    wanted = [kernel - 2 + n % 2 for n in size]
    pad = [(n + 1) // 2 for n in wanted]
    more = [2 * p - n for p, n in zip(pad, wanted, strict=True)]
    return (pad[0], pad[1]), (more[0], more[1])


def _start(module: nn.Module) -> None:
    """The paper's start: weights from N(0, 0.02), gains of normalisations from N(1, 0.02)."""
    if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
        nn.init.normal_(module.weight, 1.0, 0.02)
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)


class Maxout(nn.Module):
    """Each unit is the largest of several linear pieces (Goodfellow et al. 2013); (..., inputs) -> (..., outputs)."""

    def __init__(self, inputs: int, outputs: int, pieces: int):
        super().__init__()
        self.outputs = outputs
        self.linear = nn.Linear(inputs, outputs * pieces)

    def forward(self, x: Tensor) -> Tensor:
        """The largest piece of each unit."""
        return self.linear(x).unflatten(-1, (self.outputs, -1)).amax(-1)


class MaxoutCritic(nn.Module):
    """A maxout network with dropout: (B, *event_shape) -> (B,) logits of "real".

    Args:
        event_shape: Shape of one example; flattened.
        hidden: Maxout units of each layer.
        pieces: Linear pieces of a unit.
        dropout: Probability of dropping a hidden unit; inputs are dropped with 0.4 of it.
    """

    def __init__(self, event_shape: torch.Size, hidden: list[int], pieces: int = 5, dropout: float = 0.5):
        super().__init__()
        self.event_dim = len(event_shape)
        sizes = [event_shape.numel(), *hidden]
        layers: list[nn.Module] = []
        for depth, (i, o) in enumerate(itertools.pairwise(sizes)):
            layers += [nn.Dropout(0.4 * dropout if depth == 0 else dropout), Maxout(i, o, pieces)]
        self.net = nn.Sequential(*layers, nn.Dropout(dropout), nn.Linear(sizes[-1], 1))

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        flat = x.flatten(-self.event_dim) if self.event_dim else x.unsqueeze(-1)
        return self.net(flat).squeeze(-1)


def downward(shape: Sequence[int], channels: Sequence[int], hidden: int, slope: float) -> list[nn.Module]:
    """Layers from images (B, *shape) to features (B, hidden): strided convolutions, then a dense one, batch-normalised.

    Args:
        shape: (channels, height, width).
        channels: Of the convolutions.
        hidden: Units of the dense layer.
    """
    *down, last = ConvCritic(shape, channels, slope=slope).net
    assert isinstance(last, nn.Linear)
    dense = nn.Linear(last.in_features, hidden, bias=False)
    return [*down, dense, nn.BatchNorm1d(hidden), nn.LeakyReLU(slope)]


LEAK = 0.2


Layers = list[Any]
"""Widths of dense layers, or [channels, kernel, stride] of convolutions; `list[int | list[int]]`."""


def dense_stack(sizes: Sequence[int], dropout: float, first: float = 0.0) -> nn.Sequential:
    found: list[nn.Module] = []
    for depth, (i, o) in enumerate(itertools.pairwise(sizes)):
        found += [nn.Dropout(dropout if depth else first), nn.Linear(i, o), nn.LeakyReLU(LEAK)]
    return nn.Sequential(*found)


def _geometry(event_shape: torch.Size, layers: Layers) -> list[tuple[int, int, int]]:
    """(channels, height, width) before and after each convolution."""
    shapes = [image_shape(event_shape)]
    for channels, kernel, stride in layers:
        _, *size = shapes[-1]
        if min(size) < kernel:
            raise ShapeError(
                f"The layer {[channels, kernel, stride]} does not fit what is left of an image {tuple(event_shape)}, "
                f"{tuple(size)}; take a smaller kernel or fewer layers."
            )
        height, width = ((n - kernel) // stride + 1 for n in size)
        shapes.append((channels, height, width))
    return shapes


def _convolutional(layers: Layers) -> bool:
    kinds = {isinstance(layer, int) for layer in layers}
    if len(kinds) != 1:
        raise OptionError(f"layers must be all widths or all [channels, kernel, stride], and not empty; got {layers}.")
    return not kinds.pop()


def encoder_stack(
    event_shape: torch.Size, layers: Layers, dropout: float | None = None, norm: bool = False
) -> tuple[nn.Module, int]:
    """(B, *event_shape) -> (B, width), and the width; with dropout before, or batch normalisation after, each layer."""
    found: list[nn.Module] = []
    conv = _convolutional(layers)
    if conv:
        shapes = _geometry(event_shape, layers)
        sizes, width = [shape[0] for shape in shapes], torch.Size(shapes[-1]).numel()
        found = [_Shaped(shapes[0])]
    else:
        found = [nn.Flatten()]
        sizes, width = [event_shape.numel(), *layers], layers[-1]
    for depth, (i, o) in enumerate(itertools.pairwise(sizes)):
        if dropout is not None:
            found.append(nn.Dropout(dropout if depth else 0.4 * dropout))
        if conv:
            _, kernel, stride = layers[depth]
            found.append(nn.Conv2d(i, o, kernel, stride, bias=not norm))
        else:
            found.append(nn.Linear(i, o, bias=not norm))
        if norm:
            found.append(nn.BatchNorm2d(o) if conv else nn.BatchNorm1d(o))
        found.append(nn.LeakyReLU(LEAK))
    return nn.Sequential(*found, nn.Flatten()), width


def decoder_stack(features: int, event_shape: torch.Size, layers: Layers, norm: bool) -> nn.Module:
    """(B, features) -> (B, *event_shape): the layers in reverse; the last one without bias, which the program adds."""
    if not _convolutional(layers):
        found: list[nn.Module] = []
        for i, o in itertools.pairwise([features, *layers[::-1]]):
            found += [nn.Linear(i, o, bias=not norm), *([nn.BatchNorm1d(o)] if norm else []), nn.ReLU()]
        last = nn.Linear(layers[0], event_shape.numel(), bias=False)
        return nn.Sequential(*found, last, _Shaped(event_shape))
    shapes = _geometry(event_shape, layers)
    found = [nn.Linear(features, torch.Size(shapes[-1]).numel(), bias=not norm), nn.Unflatten(1, shapes[-1])]
    for depth, (channels, kernel, stride) in reversed(list(enumerate(layers))):
        below, *large = shapes[depth]
        # The rows and columns that the stride left over on the way down.
        more = tuple((n - kernel) % stride for n in large)
        found += [
            *([nn.BatchNorm2d(channels)] if norm else []),
            nn.ReLU(),
            nn.ConvTranspose2d(channels, below, kernel, stride, output_padding=more, bias=not norm and depth > 0),
        ]
    return nn.Sequential(*found, _Shaped(event_shape))


class _Shaped(nn.Module):
    """Every example in another shape."""

    def __init__(self, shape: Sequence[int]):
        super().__init__()
        self.shape = tuple(shape)

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(len(x), *self.shape)
