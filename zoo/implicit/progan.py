r"""Progressive growing: a generator and a critic that learn small images first, and grow a finer layer at a time.

Karras, Aila, Laine & Lehtinen, "Progressive growing of GANs for improved quality, stability, and variation", ICLR 2018;
networks of table 2, the fading of figure 2, and the code that came with it (tkarras/progressive_growing_of_gans).

    z ~ N(0, I_k),   x = (tanh g(z / |z|) + 1) / 2

    z --> x      sites: z (k,) local; x (*event_shape), implicit

The critic's slope is bounded by the gradient penalty and its outputs are kept near zero by a drift term, options of the
method: regulariser 'gradient-penalty', game {'name': 'wasserstein', 'drift': 0.001}.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn.functional import avg_pool2d, conv2d, interpolate, leaky_relu, linear

from zoo.errors import OptionError, ShapeError
from zoo.nets import OverBatch, image_shape
from zoo.options import Count, Counts, Fraction, Positive, Shape
from zoo.program import Implicit, ImplicitProgram, Preset

__all__ = [
    "EqualisedConv2d", "EqualisedLinear", "GrowingCritic", "GrowingGenerator", "MinibatchDeviation", "PixelNorm",
    "ProGAN", "level_at",
]  # fmt: skip

RECTIFIED = math.sqrt(2.0)
"""He's gain, of layers with a rectifier behind them."""
SLOPE = 0.2
"""Of the leaky ReLUs below zero."""
TINY = 1e-8


class ProGAN(ImplicitProgram):
    """A generator of images that grows, paired with a critic that grows along with it.

    Both begin with the smallest image. Then, again and again, they learn at one size and fade in a layer for twice the
    size, whose share of image and features rises from 0 to 1. The program's images have one size all the time: those of
    a generator that is not fully grown are enlarged. In a fit the game is played at the size reached (`at_size`), which
    is what makes growing fast. A program that was built or loaded is fully grown.

    The paper's images are the outputs of a linear layer; here they end in a tanh, as those of the other programs, since
    x lies in [0, 1]. It comes after the fading, so that a new layer of share 0 changes nothing.

    Args:
        event_shape: (height, width) or (channels, height, width), in [0, 1]; both sides a multiple of
            2^(len(channels) - 1).
        latent_dim: Number k of noise inputs.
        channels: Of the layers at each size, from the smallest on: as many sizes, the last is that of the event.
        growth: Share of a fit after which all layers are there. Until then equal times of learning and fading in take
            turns.

    Raises: OptionError without channels; ShapeError for sides that cannot be halved so often, or what are no images.
    """

    paper = "Karras et al., Progressive growing of GANs for improved quality, stability, and variation, 2018"
    dataset = "glyphs"
    support = constraints.unit_interval

    def __init__(
        self,
        event_shape: Shape = (8, 8),
        latent_dim: Count = 32,
        channels: Counts = (32, 16),
        growth: Fraction = 0.5,
    ):
        super().__init__()
        self.event_shape, self.shape = torch.Size(event_shape), image_shape(event_shape)
        self.latent_dim, self.channels, self.growth = latent_dim, list(channels), growth
        if not channels:
            raise OptionError("channels must name at least one size, got none; give a number for each.")
        halvings = len(channels) - 1
        if any(side % 2**halvings for side in self.shape[1:]):
            raise ShapeError(
                f"{len(channels)} sizes, each twice the one before, need sides that are multiples of {2**halvings}, "
                f"got images {tuple(event_shape)}; give another number of channels, or padded images."
            )
        self.generator = GrowingGenerator(latent_dim, self.channels, self.shape)
        self.level = float(halvings)
        """How far grown: 1.5 is the third size, half faded in."""

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        """Noise through the generator, enlarged to the size of the event; differentiable in its parameters."""
        with self.plate(x, context, size):
            zero = self.generator.dense.bias.new_zeros(self.latent_dim)
            z = pyro.sample("z", dist.Normal(zero, 1.0).to_event(1))
            value = OverBatch(_At(self.generator, self.level, self.shape[1:]), 1)(z)
            value = ((torch.tanh(value) + 1) / 2).reshape(*z.shape[:-1], *self.event_shape)
            return pyro.sample("x", Implicit(value, len(self.event_shape)), obs=x)

    def critic(self) -> GrowingCritic:
        """The generator the other way round, with the deviation within the minibatch as a feature; fully grown."""
        return GrowingCritic(self.shape, self.channels, self.growth)

    def grow(self, share: float) -> None:
        """Grows, or shrinks, to where a fit stands after this share of its steps."""
        self.level = level_at(share, len(self.channels), self.growth)

    def at_size(self, x: Tensor, *, made: bool) -> Tensor:
        """A batch (B, *event_shape) at the size reached, (B, channels, height, width), by means.

        Args:
            x: The batch.
            made: By the program, which fades in its finest layer itself. Data are blurred likewise: towards 0 the share
                of the finest details is that of the layer (as in the paper's code).
        """
        images, stage = x.reshape(len(x), *self.shape), math.ceil(self.level)
        small = _shrunk(images, len(self.channels) - 1 - stage)
        share = self.level - (stage - 1)
        if made or stage == 0 or share == 1:
            return small
        return torch.lerp(_doubled(_shrunk(small, 1)), small, share)

    @torch.no_grad()
    def stages(self, n: int = 1) -> list[Tensor]:
        """What n latents give at each size, from the smallest on: (n, channels, height, width) each.

        Each size has a layer of its own that makes images of features. It learns while its size is reached, and stays
        as it is while those of larger sizes learn.
        """
        z = torch.randn(n, self.latent_dim).to(self.generator.dense.bias)
        return [(torch.tanh(self.generator(z, stage)) + 1) / 2 for stage in range(len(self.channels))]

    presets: ClassVar[Mapping[str, Preset]] = {
        "small": Preset(
            {"latent_dim": 64, "channels": [64, 32, 16, 8]}, "gan",
            {
                "game": {"name": "wasserstein", "drift": 0.001}, "regulariser": "gradient-penalty", "steps": 3000,
                "batch_size": 16, "lr": 4e-3, "betas": [0.0, 0.99], "ema": 0.995, "compile": "never",
            },
        ),
        # The rows of table 2 up to 32x32; 12 million images, of which 4.8 million while growing.
        "paper": Preset(
            {"latent_dim": 512, "channels": [512, 512, 512, 512], "growth": 0.4}, "gan",
            {
                "game": {"name": "wasserstein", "drift": 0.001}, "regulariser": "gradient-penalty", "steps": 750_000,
                "batch_size": 16, "lr": 1e-3, "betas": [0.0, 0.99], "decay": "constant", "ema": 0.999,
                "compile": "never",
            },
        ),
    }  # fmt: skip


def level_at(share: float, stages: int, growth: float) -> float:
    """How far grown after a share of a fit: whole numbers while a size is learnt, in between while one fades in.

    Args:
        share: Of the steps that are done, in [0, 1].
        stages: Number of sizes.
        growth: Share after which the last one is there.
    """
    if share >= growth:
        return float(stages - 1)
    turn = share / growth * (stages - 1)
    return math.floor(turn) + max(0.0, 2 * (turn % 1) - 1)


def _share(level: float, stage: int) -> float:
    """Of a stage's layer in image and features, beside the ones below."""
    return min(max(level - (stage - 1), 0.0), 1.0)


class _At(nn.Module):
    """A generator at one level, its images enlarged to one size."""

    def __init__(self, generator: GrowingGenerator, level: float, size: Sequence[int]):
        super().__init__()
        self.generator, self.level, self.size = generator, level, size

    def forward(self, z: Tensor) -> Tensor:
        """(B, features) -> (B, channels, *size)."""
        images = self.generator(z, self.level)
        return interpolate(images, scale_factor=self.size[0] // images.shape[-2], mode="nearest")


class GrowingGenerator(nn.Module):
    """Noise to images of the size reached: (B, features) and a level -> (B, channels, height, width), any real numbers.

    Two convolutions at each size, each followed by a leaky ReLU and a `PixelNorm`; a 1x1 convolution for each size
    makes its image.

    Args:
        features: Of the noise.
        channels: At each size, from the smallest on.
        shape: (channels, height, width) of the largest images.
    """

    def __init__(self, features: int, channels: Sequence[int], shape: tuple[int, int, int]):
        super().__init__()
        depth, *sides = shape
        height, width = (side // 2 ** (len(channels) - 1) for side in sides)
        self.smallest = (channels[0], height, width)
        # The paper's is a convolution of the whole small image with one point of it filled, which sets the gain.
        self.dense = EqualisedLinear(features, math.prod(self.smallest), RECTIFIED / math.sqrt(height * width))
        self.first = EqualisedConv2d(channels[0], channels[0], 3)
        self.blocks = nn.ModuleList(
            nn.Sequential(EqualisedConv2d(before, after, 3), EqualisedConv2d(after, after, 3))
            for before, after in itertools.pairwise(channels)
        )
        self.heads = nn.ModuleList(EqualisedConv2d(width, depth, 1, gain=1.0) for width in channels)
        self.norm = PixelNorm()

    def forward(self, z: Tensor, level: float) -> Tensor:
        """Images before their nonlinearity."""
        dense = self.dense(self.norm(z)).reshape(len(z), *self.smallest)
        features = self._after(self.first(self._after(dense)))
        images = self.heads[0](features)
        for stage in range(1, math.ceil(level) + 1):
            features = _doubled(features)
            for convolution in self.blocks[stage - 1].children():
                features = self._after(convolution(features))
            images = torch.lerp(_doubled(images), self.heads[stage](features), _share(level, stage))
        return images

    def _after(self, features: Tensor) -> Tensor:
        return self.norm(leaky_relu(features, SLOPE))


class GrowingCritic(nn.Module):
    """Images of the size reached, or of the largest size, to one number each: (B, ...) -> (B,).

    For each size a 1x1 convolution makes features of images, and two convolutions and a mean over 2x2 go down to the
    next. At the smallest size: `MinibatchDeviation`, a convolution, a dense layer. The examples of a minibatch are
    judged together, as far as the deviation goes; the paper's gradient penalty ignores this, and so does ours.

    Args:
        shape: (channels, height, width) of the largest images.
        channels: At each size, from the smallest on.
        growth: As that of `ProGAN`.
    """

    def __init__(self, shape: tuple[int, int, int], channels: Sequence[int], growth: float):
        super().__init__()
        depth, *sides = shape
        self.shape, self.growth, self.level = shape, growth, len(channels) - 1.0
        self.readers = nn.ModuleList(EqualisedConv2d(depth, width, 1) for width in channels)
        self.blocks = nn.ModuleList(
            nn.Sequential(EqualisedConv2d(after, after, 3), EqualisedConv2d(after, before, 3))
            for before, after in itertools.pairwise(channels)
        )
        last, area = channels[0], math.prod(side // 2 ** (len(channels) - 1) for side in sides)
        self.deviation, self.last = MinibatchDeviation(), EqualisedConv2d(last + 1, last, 3)
        self.dense, self.out = EqualisedLinear(last * area, last), EqualisedLinear(last, 1, gain=1.0)

    def grow(self, share: float) -> None:
        """As `ProGAN.grow`."""
        self.level = level_at(share, len(self.readers), self.growth)

    def forward(self, x: Tensor) -> Tensor:
        """The higher, the more real."""
        stage = math.ceil(self.level)
        height = self.shape[1] // 2 ** (len(self.readers) - 1 - stage)
        images = x.reshape(len(x), self.shape[0], *x.shape[-2:])
        images = 2 * avg_pool2d(images, images.shape[-2] // height) - 1
        features = self._read(images, stage)
        for upper in range(stage, 0, -1):
            for convolution in self.blocks[upper - 1].children():
                features = leaky_relu(convolution(features), SLOPE)
            features = avg_pool2d(features, 2)
            share = _share(self.level, upper)
            if share < 1:
                features = torch.lerp(self._read(avg_pool2d(images, 2), upper - 1), features, share)
        features = leaky_relu(self.last(self.deviation(features)), SLOPE)
        return self.out(leaky_relu(self.dense(features.flatten(1)), SLOPE)).squeeze(-1)

    def _read(self, images: Tensor, stage: int) -> Tensor:
        return leaky_relu(self.readers[stage](images), SLOPE)


class MinibatchDeviation(nn.Module):
    """One more feature, the same everywhere: how much features vary within the minibatch (section 3).

    The standard deviation of each feature at each position, averaged over all of them: it tells the critic of samples
    that are all alike. (B, channels, height, width) -> (B, channels + 1, height, width).
    """

    def forward(self, x: Tensor) -> Tensor:
        """The features and that one."""
        deviation = (x.var(0, correction=0) + TINY).sqrt().mean()
        return torch.cat([x, deviation.expand(len(x), 1, *x.shape[2:])], 1)


class PixelNorm(nn.Module):
    """Divides the vector of all channels at a position by the root of its mean square (section 4.2)."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, ...) -> the same shape."""
        return x * (x.square().mean(1, keepdim=True) + TINY).rsqrt()


class EqualisedLinear(nn.Module):
    """A linear layer of weights from N(0, 1) that are scaled when used: gain / sqrt(inputs), He's constant.

    Adam's steps are as large for every layer; so, under the scale, each learns as fast as any other (section 4.1).

    Args:
        inputs, outputs: How many.
        gain: He's for a rectifier unless given.
    """

    def __init__(self, inputs: Count, outputs: Count, gain: Positive = RECTIFIED):
        super().__init__()
        self.scale = gain / math.sqrt(inputs)
        self.weight, self.bias = nn.Parameter(torch.randn(outputs, inputs)), nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs) -> (B, outputs)."""
        return linear(x, self.scale * self.weight, self.bias)


class EqualisedConv2d(nn.Module):
    """The same of a convolution that keeps the size; its inputs are all that one output sees.

    Args:
        inputs, outputs: Channels.
        side: Of the kernel; odd.
        gain: As above.
    """

    def __init__(self, inputs: Count, outputs: Count, side: Count, *, gain: Positive = RECTIFIED):
        super().__init__()
        self.scale, self.padding = gain / math.sqrt(inputs * side**2), side // 2
        self.weight = nn.Parameter(torch.randn(outputs, inputs, side, side))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, height, width) -> (B, outputs, height, width)."""
        return conv2d(x, self.scale * self.weight, self.bias, padding=self.padding)


def _doubled(images: Tensor) -> Tensor:
    return interpolate(images, scale_factor=2, mode="nearest")


def _shrunk(images: Tensor, times: int) -> Tensor:
    return avg_pool2d(images, 2**times) if times else images
