"""What the convolutional adversarial networks share: strided convolutions up and down, and the program around them.

Generators go up by transposed convolutions, critics come down by strided ones, neither with pooling, after Radford,
Metz & Chintala, "Unsupervised representation learning with deep convolutional generative adversarial networks", ICLR
2016. Each step doubles or halves the image, rounded up where a side is odd, so that any size can be made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints

from zoo.errors import OptionError, UnknownNameError
from zoo.nets import OverBatch, image_shape, mlp
from zoo.program import Implicit, ImplicitProgram, same_support

__all__ = ["ConvCritic", "ConvolutionalGAN", "conv_generator"]

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


class ConvolutionalGAN(ImplicitProgram):
    """Base of the programs whose generator is a `conv_generator`, or an MLP for data that are no images.

        z --> x      sites: z (latent_dim,) local; x (*event_shape), implicit

    Subclasses say what their papers say: the noise, whether networks are `smooth`, and the critic's norm and slope.

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

    UNIFORM: ClassVar[bool] = False
    """Noise uniform in [-1, 1] instead of standard normal."""
    SMOOTH: ClassVar[bool] = False
    NORM: ClassVar[Norm] = "batch"
    SLOPE: ClassVar[float] = 0.2

    dataset = "mnist10k"

    def __init__(
        self,
        event_shape: list[int] = [8, 8],  # noqa: B006 (JSON-like, never changed)
        latent_dim: int = 32,
        channels: list[int] = [32, 16],  # noqa: B006
        critic_channels: list[int] | None = None,
        kernel: int = 4,
        hidden: list[int] | None = None,
        support: str = "unit",
    ):
        super().__init__()
        if support not in SUPPORTS:
            raise UnknownNameError("support", support, SUPPORTS)
        self.event_shape, self.support = torch.Size(event_shape), SUPPORTS[support]
        self.latent_dim, self.hidden = latent_dim, None if hidden is None else list(hidden)
        self.kernel = kernel
        self.critic_channels = list(channels[::-1] if critic_channels is None else critic_channels)
        if hidden is not None:
            self.net: nn.Module = mlp(latent_dim, hidden, self.event_shape.numel())
        else:
            shape = image_shape(self.event_shape)
            self.net = conv_generator(latent_dim, channels, shape, kernel, smooth=self.SMOOTH)

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        """Noise through the generator; differentiable in its parameters."""
        with self.plate(x, context, size):
            low = next(self.net.parameters()).new_full((self.latent_dim,), -1.0)
            noise = dist.Uniform(low, -low) if self.UNIFORM else dist.Normal(0 * low, -low)
            z = pyro.sample("z", noise.to_event(1))
            value = self.net(z)
            value = value.reshape(*z.shape[:-1], *self.event_shape)
            if same_support(self.support, constraints.unit_interval):
                value = (torch.tanh(value) + 1) / 2
            return pyro.sample("x", Implicit(value, len(self.event_shape)), obs=x)

    def critic(self) -> nn.Module:
        """The generator the other way round, with leaky ReLUs."""
        if self.hidden is not None:
            return nn.Sequential(nn.Flatten(), mlp(self.event_shape.numel(), self.hidden, 1), nn.Flatten(0))
        return ConvCritic(
            self.event_shape, self.critic_channels, self.kernel, self.NORM, self.SLOPE, smooth=self.SMOOTH,
            centred=same_support(self.support, constraints.unit_interval),
        )  # fmt: skip


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
