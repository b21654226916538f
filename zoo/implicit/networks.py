"""The networks of adversarial games: convolutions up and down, maxout units, and the stacks of ALI.

Convolutional generators go up by transposed convolutions, critics come down by strided ones, neither with pooling,
after Radford, Metz & Chintala, "Unsupervised representation learning with deep convolutional generative adversarial
networks", ICLR 2016. Each step doubles or halves the image, rounded up where a side is odd, so that any size can be
made. The stacks take layers as ALI's tables list them, whose kernels cut off the border of an image instead.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import constraints

from zoo.errors import OptionError, ShapeError, UnknownNameError
from zoo.nets import BatchNorm1d, BatchNorm2d, OverBatch, doubling, halvings, image_shape, paddings
from zoo.options import Count, Counts, NonNegative, Share, check_value

__all__ = [
    "SUPPORTS", "ConvCritic", "JointCritic", "Layers", "Maxout", "MaxoutCritic", "Norm", "Shaped",
    "conv_generator", "conv_trunk", "decoder_stack", "dense_stack", "encoder_stack", "network_options",
]  # fmt: skip

SUPPORTS: dict[str, constraints.Constraint] = {"unit": constraints.unit_interval, "real": constraints.real}
"""What the option `support` of a generator may be, and what it means."""

Norm = str
"""'batch', 'layer' or 'none'."""
NORMS = ("batch", "layer", "none")

Layers = Sequence[Any]
"""Widths of dense layers, or [channels, kernel, stride] of convolutions; `Sequence[int | Sequence[int]]`."""
WIDTHS = Sequence[Count | Sequence[Count]]
KINDS: dict[type, Any] = {int: Count, float: NonNegative, bool: bool, str: str, tuple: WIDTHS, list: WIDTHS}
"""What an option may be, by its default."""
LEAK = 0.2
"""Slope below zero of the leaky ReLUs of the stacks."""


def network_options(network: str, given: Mapping[str, Any] | None, **known: Any) -> dict[str, Any]:
    """The options of one of a program's networks, which its constructor takes as one argument.

    Args:
        network: What it is called in errors.
        given: Some of the options, by name; None for none.
        known: All of them, with their defaults.

    Raises: UnknownNameError for an option that is not known, OptionError for what has no names.
    """
    if not isinstance(given, Mapping | None):
        raise OptionError(f"The options of {network} must be given by name, as {known}; got {given!r}.")
    for option, value in (given or {}).items():
        if option not in known:
            raise UnknownNameError(f"option of {network}", str(option), known)
        check_value(f"{option} of {network}", value, Share if option == "dropout" else KINDS[type(known[option])])
    return {**known, **(given or {})}


# Convolutions that double and halve.


def conv_generator(
    features: int,
    channels: Sequence[int],
    shape: tuple[int, int, int],
    *,
    kernel: int = 4,
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

    def normed(width: int) -> list[nn.Module]:
        return [BatchNorm2d(width), nn.ReLU()]

    if smooth:
        *inner, last = channels
        layers = doubling(features, inner, (last, *shape[1:]), normed, kernel, bias=False, out_bias=False)
        layers += [*normed(last), nn.Conv2d(last, shape[0], 3, padding=1)]
    else:
        layers = doubling(features, channels, shape, normed, kernel, bias=False)
    if apart:
        projection, unflatten, _, *above = layers
        assert isinstance(projection, nn.Linear)
        layers = [projection, BatchNorm1d(projection.out_features), unflatten, *above]
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
        *,
        kernel: Count = 4,
        norm: Norm = "batch",
        slope: NonNegative = 0.2,
        smooth: bool = False,
        centred: bool = True,
    ):
        super().__init__()
        _check(channels, kernel)
        if norm not in NORMS:
            raise OptionError(f"norm must be one of {', '.join(NORMS)}, got {norm!r}.")
        self.shape, self.centred = image_shape(event_shape), centred
        sizes = halvings(self.shape[1:], len(channels))
        convolutions = []  # (channels, side, stride, padding)
        for width, size in zip(channels, sizes, strict=False):
            convolutions += [(width, 3, 1, (1, 1))] if smooth else []
            convolutions.append((width, kernel, 2, paddings(kernel, size)[0]))
        if smooth:
            convolutions.append((2 * channels[-1], 3, 1, (1, 1)))
        layers: list[nn.Module] = []
        before = self.shape[0]
        for width, side, stride, padding in convolutions:
            normed = norm != "none" and bool(layers)
            layers.append(nn.Conv2d(before, width, side, stride, padding, bias=not normed))
            if normed:
                layers.append(BatchNorm2d(width) if norm == "batch" else nn.GroupNorm(1, width))
            layers.append(nn.LeakyReLU(slope))
            before = width
        self.net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(before * math.prod(sizes[-1]), 1)).apply(_start)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = x.reshape(len(x), *self.shape)
        return self.net(2 * x - 1 if self.centred else x).squeeze(-1)


def conv_trunk(shape: Sequence[int], channels: Sequence[int], hidden: int, slope: float) -> nn.Sequential:
    """Images (B, *shape) to features (B, hidden): a `ConvCritic`'s convolutions, then a dense layer, batch-normalised.

    Args:
        shape: (channels, height, width).
        channels: Of the convolutions.
        hidden: Units of the dense layer.
        slope: Of the leaky ReLUs below zero.
    """
    *down, last = ConvCritic(shape, channels, slope=slope).net
    assert isinstance(last, nn.Linear)
    dense = nn.Linear(last.in_features, hidden, bias=False)
    return nn.Sequential(*down, dense, BatchNorm1d(hidden), nn.LeakyReLU(slope))


def _check(channels: Sequence[int], kernel: int) -> None:
    if not channels:
        raise OptionError("channels must name at least one layer.")
    if kernel < 3:
        raise OptionError(f"kernel must be at least 3, got {kernel}.")


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


# Maxout.


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

    def __init__(self, event_shape: torch.Size, hidden: Sequence[int], *, pieces: Count = 5, dropout: Share = 0.5):
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


# The stacks of ALI: dense layers, or convolutions without padding, as a list says.


def encoder_stack(
    event_shape: torch.Size, layers: Layers, *, dropout: float | None = None, norm: bool = False
) -> tuple[nn.Module, int]:
    """Layers (B, *event_shape) -> (B, width) with leaky ReLUs, and that width.

    Args:
        event_shape: Shape of one example; an image for convolutions.
        layers: All dense or all convolutional, from the example on.
        dropout: Before every layer, 0.4 of it on the example; None for no dropout.
        norm: Batch normalisation after every layer.

    Raises: OptionError for mixed layers or none, ShapeError for kernels that do not fit.
    """
    if _convolutional(layers):
        shapes = _shapes(event_shape, layers)
        shape: Sequence[int] = shapes[0]
        width = math.prod(shapes[-1])
        maps: Sequence[nn.Linear | nn.Conv2d] = [
            nn.Conv2d(below, channels, kernel, stride, bias=not norm)
            for (below, *_), (channels, kernel, stride) in zip(shapes, layers, strict=False)
        ]
    else:
        sizes = [event_shape.numel(), *layers]
        shape, width = (sizes[0],), sizes[-1]
        maps = [nn.Linear(i, o, bias=not norm) for i, o in itertools.pairwise(sizes)]
    hidden = _hidden(maps, dropout, first=0.4 * (dropout or 0.0), norm=norm)
    return nn.Sequential(Shaped(shape), *hidden, nn.Flatten()), width


def dense_stack(sizes: Sequence[int], dropout: float, *, first: float = 0.0) -> nn.Sequential:
    """Dense layers (B, sizes[0]) -> (B, sizes[-1]) with leaky ReLUs; none where there is one size.

    Args:
        sizes: Widths, of the input first.
        dropout: Before every layer but the first.
        first: Dropout before the first one.
    """
    return nn.Sequential(*_hidden([nn.Linear(i, o) for i, o in itertools.pairwise(sizes)], dropout, first=first))


def decoder_stack(features: int, event_shape: torch.Size, layers: Layers, *, norm: bool) -> nn.Module:
    """The layers of an `encoder_stack` in reverse, (B, features) -> (B, *event_shape), with ReLUs between.

    The last one has neither bias nor nonlinearity, which the program adds.

    Args:
        features: Width of the input.
        event_shape: Shape of one example.
        layers: From the example on; convolutions are transposed.
        norm: Batch normalisation after every layer but the last.

    Raises: OptionError, ShapeError.
    """
    found: list[nn.Module] = []
    if not _convolutional(layers):
        for i, o in itertools.pairwise([features, *layers[::-1]]):
            found += [nn.Linear(i, o, bias=not norm), *([BatchNorm1d(o)] if norm else []), nn.ReLU()]
        return nn.Sequential(*found, nn.Linear(layers[0], event_shape.numel(), bias=False), Shaped(event_shape))
    shapes = _shapes(event_shape, layers)
    found = [nn.Linear(features, math.prod(shapes[-1]), bias=not norm), nn.Unflatten(1, shapes[-1])]
    for depth, (channels, kernel, stride) in reversed(list(enumerate(layers))):
        below, *large = shapes[depth]
        # The rows and columns that the stride left over on the way down.
        more = tuple((n - kernel) % stride for n in large)
        found += [
            *([BatchNorm2d(channels)] if norm else []),
            nn.ReLU(),
            nn.ConvTranspose2d(channels, below, kernel, stride, output_padding=more, bias=not norm and depth > 0),
        ]
    return nn.Sequential(*found, Shaped(event_shape))


class JointCritic(nn.Module):
    """A branch for x, a branch for z, and dense layers on both; leaky ReLUs and dropout, as ALI's.

    Without batch normalisation: each pair is judged alone.

    Args:
        event_shape: Shape of one example.
        latent_dim: Numbers of z.
        layers: Of the branch for x: widths, or [channels, kernel, stride].
        latent: Widths of the branch for z.
        joint: Widths of the layers on both.
        dropout: Before every hidden layer; 0.4 of it on the image.

    Shapes: x (B, *event_shape), z (B, latent_dim) -> logits (B,) of "data and guide".
    """

    def __init__(
        self,
        event_shape: torch.Size,
        latent_dim: int,
        *,
        layers: Layers,
        latent: Counts = (64,),
        joint: Counts = (128,),
        dropout: Share = 0.2,
    ):
        super().__init__()
        self.of_x, width = encoder_stack(event_shape, layers, dropout=dropout)
        self.of_z = dense_stack([latent_dim, *latent], dropout)
        sizes = [width + [latent_dim, *latent][-1], *joint]
        self.head = nn.Sequential(
            dense_stack(sizes, dropout, first=dropout), nn.Dropout(dropout), nn.Linear(sizes[-1], 1)
        )

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """Logits."""
        return self.head(torch.cat([self.of_x(x), self.of_z(z)], -1)).squeeze(-1)


class Shaped(nn.Module):
    """Every example in another shape: (B, ...) -> (B, *shape)."""

    def __init__(self, shape: Sequence[int]):
        super().__init__()
        self.shape = tuple(shape)

    def forward(self, x: Tensor) -> Tensor:
        """The same numbers."""
        return x.reshape(len(x), *self.shape)


def _convolutional(layers: Layers) -> bool:
    check_value("layers", layers, WIDTHS)
    kinds = {isinstance(layer, int) for layer in layers}
    if len(kinds) != 1 or any(not isinstance(layer, int) and len(layer) != 3 for layer in layers):
        raise OptionError(f"layers must be all widths or all [channels, kernel, stride], and not empty; got {layers}.")
    return not kinds.pop()


def _shapes(event_shape: torch.Size, layers: Layers) -> list[tuple[int, int, int]]:
    """(channels, height, width) before the first convolution and after each."""
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


def _hidden(
    maps: Sequence[nn.Linear | nn.Conv2d], dropout: float | None, *, first: float = 0.0, norm: bool = False
) -> list[nn.Module]:
    """Each linear map with dropout before it, batch normalisation and a leaky ReLU after it."""
    found: list[nn.Module] = []
    for depth, layer in enumerate(maps):
        if dropout is not None:
            found.append(nn.Dropout(dropout if depth else first))
        found.append(layer)
        if norm:
            found.append(
                BatchNorm1d(layer.out_features) if isinstance(layer, nn.Linear) else BatchNorm2d(layer.out_channels)
            )
        found.append(nn.LeakyReLU(LEAK))
    return found
