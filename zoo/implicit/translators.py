"""What programs that translate images share: U-Net, residual translator, critic of patches, and what they promise.

U-Net and PatchGAN: Isola, Zhu, Zhou & Efros, "Image-to-image translation with conditional adversarial networks", CVPR
2017, appendix 6.1. Residual translator: Zhu, Park, Isola & Efros, "Unpaired image-to-image translation using
cycle-consistent adversarial networks", ICCV 2017, appendix 7.2, after Johnson, Alahi & Fei-Fei 2016. Sides that the
papers' powers of two do not have are halved and rounded up, so that any size can be translated.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn.functional import pad

from zoo.errors import OptionError, ShapeError
from zoo.nets import BatchNorm2d, halvings, image_shape, paddings
from zoo.options import Count, Counts, Natural, NonNegative, Share
from zoo.program import ImplicitProgram, Program

__all__ = [
    "NORMS",
    "Augments",
    "ImageTranslation",
    "PatchCritic",
    "ResidualTranslator",
    "Translates",
    "TranslatesBack",
    "UNet",
    "shifted",
    "start",
]

NORMS = ("batch", "instance", "none")
"""Normalisations: over a batch; of each image alone; none."""


@runtime_checkable
class Translates(Protocol):
    """A program that makes of an image what the image shows, in another look."""

    def translate(self, source: Any, to: Any = None) -> Tensor:
        """(N, *context_shape) -> (N, *event_shape).

        Args:
            source: Images.
            to: Which look, for programs that know several; None is the only one.
        """
        ...


@runtime_checkable
class TranslatesBack(Translates, Protocol):
    """One that goes both ways."""

    def back(self, x: Any) -> Tensor:
        """(N, *event_shape) -> (N, *context_shape)."""
        ...


@runtime_checkable
class Augments(Protocol):
    """A program that says which changes of a training pair are pairs as good: a game makes other ones at every step."""

    def augmented(self, x: Tensor, context: Any = None) -> tuple[Tensor, Any]:
        """A minibatch, changed at random."""
        ...


class ImageTranslation(ImplicitProgram):
    """Base of programs whose context is an image and whose x is another of the same size, both in [0, 1].

    Args:
        event_shape: Of x: (height, width) or (channels, height, width).
        context_shape: Of the context likewise; height and width are those of x.
        ink: Weighs pixels in `distance` so that ink (1) and ground (0) count alike over the training data. Where there
            is little ink, an image without any is close to all others by the plain distance.

    Raises: ShapeError.
    """

    share: Tensor

    support = constraints.unit_interval
    context_support = constraints.unit_interval

    def __init__(self, event_shape: Sequence[int], context_shape: Sequence[int], ink: bool):
        super().__init__()
        self.event_shape, self.context_shape = torch.Size(event_shape), torch.Size(context_shape)
        self.shape, self.source_shape, self.ink = image_shape(event_shape), image_shape(context_shape), ink
        if self.shape[1:] != self.source_shape[1:]:
            raise ShapeError(
                f"{type(self).__name__} translates between images of one height and width, got contexts of shape "
                f"{tuple(context_shape)} for x of shape {tuple(event_shape)}; scale one of them."
            )
        self.register_buffer("share", torch.tensor(0.5))  # of ink, in the training data

    @classmethod
    def for_data(cls, x: Tensor, context: Tensor | None = None, **options: Any) -> Program:
        """As any program; contexts that are images and are not there yet are taken to be of the shape of x."""
        if context is None and len(cls._hub_mixin_init_parameters["context_shape"].default) > 1:
            options.setdefault("context_shape", list(x.shape[1:]))
        return super().for_data(x, context, **options)

    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        """Takes the share of ink from the data."""
        if self.ink:
            self.share.copy_(x.mean().clamp(1e-3, 1 - 1e-3))

    def distance(self, made: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Mean absolute difference (B,), with `ink` in a mean over pixels where ink and ground weigh the same."""
        weight = x / (2 * self.share) + (1 - x) / (2 * (1 - self.share))
        return (weight * (made - x).abs()).flatten(1).mean(1)

    def example_context(self, n: int) -> Tensor:
        """Grey noise (n, *context_shape)."""
        return torch.rand(n, *self.context_shape, dtype=self.share.dtype, device=self.share.device)

    def translate(self, source: Any, to: Any = None) -> Tensor:
        """x (N, *event_shape) of source images (N, *context_shape); another draw each time, if anything is drawn.

        Raises: OptionError for `to`; what `check_context` raises.
        """
        if to is not None:
            raise OptionError(f"{type(self).__name__} translates into one kind of image, got to={to!r}; leave it out.")
        return self.generate(context=source)


def shifted(images: Tensor, down: Tensor, right: Tensor, most: int) -> Tensor:
    """Images (B, channels, height, width), each moved by whole pixels; what comes in repeats the border.

    Args:
        images: What is moved.
        down: Pixels from -most to most, (B,).
        right: Likewise.
        most: Of these.
    """
    height, width = images.shape[2:]
    padded = pad(images, (most, most, most, most), mode="replicate")
    rows = most - down[:, None] + torch.arange(height, device=images.device)
    columns = most - right[:, None] + torch.arange(width, device=images.device)
    each = torch.arange(len(images), device=images.device)[:, None, None]
    return padded[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def start(module: nn.Module) -> None:
    """The papers' start: weights from N(0, 0.02), gains of normalisations from N(1, 0.02), biases zero."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)


def _normed(norm: str, channels: int, size: Sequence[int]) -> list[nn.Module]:
    """A normalisation, or nothing: a single pixel has no variance of its own, and would be set to zero."""
    if norm == "none" or (norm == "instance" and math.prod(size) == 1):
        return []
    return [BatchNorm2d(channels) if norm == "batch" else nn.InstanceNorm2d(channels)]


def _check(channels: Sequence[int], norm: str, least: int = 1) -> None:
    if len(channels) < least:
        raise OptionError(f"channels must name at least {least} of them, got {list(channels)}.")
    if norm not in NORMS:
        raise OptionError(f"norm must be one of {', '.join(NORMS)}, got {norm!r}.")


class UNet(nn.Module):
    """Convolutions that halve an image, their mirror that doubles it, and skips across from each size to the same.

    After the first three layers of the way up units are dropped, in use as in training: that is all the noise there is.
    Which ones are kept is given from outside, as a latent, and not drawn here.

    Args:
        shape: (channels, height, width) of the input.
        out: Channels of the output.
        channels: Of the strided convolutions, from the image on.
        norm: Normalisation of all layers but the first, the innermost and the last. The paper's is 'batch', with
            batches of one, which is 'instance'; its innermost layer was normalised too, which sets single pixels to
            zero, and its authors took that back.
        dropout: Probability of dropping a unit.

    Shapes: x (..., *shape) in [0, 1], kept (..., kept) of 0 and 1 -> (..., out, height, width) in [0, 1].
    Raises: OptionError.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        out: int,
        channels: Sequence[int],
        *,
        norm: str = "instance",
        dropout: Share = 0.5,
    ):
        super().__init__()
        _check(channels, norm, least=2)
        self.shape, self.out, self.dropout = shape, out, dropout
        widths, sizes = [shape[0], *channels], halvings(shape[1:], len(channels))
        down, up = [], []
        for i, (before, after) in enumerate(itertools.pairwise(widths)):
            pad, more = paddings(4, sizes[i])
            inner = [] if i in (0, len(channels) - 1) else _normed(norm, after, sizes[i + 1])
            down.append(
                nn.Sequential(
                    *([nn.LeakyReLU(0.2)] if i else []), nn.Conv2d(before, after, 4, 2, pad, bias=not inner), *inner
                )
            )
            above = [] if i == 0 else _normed(norm, before, sizes[i])
            below = after if i == len(channels) - 1 else 2 * after  # beside the skip
            convolution = nn.ConvTranspose2d(
                below, before if i else out, 4, 2, pad, output_padding=more, bias=not above
            )
            up.append(nn.Sequential(nn.ReLU(), convolution, *above))
        self.down, self.up = nn.ModuleList(down), nn.ModuleList(up[::-1])
        dropped = list(zip(widths[1:], sizes[1:], strict=True))[:-1][-3:][::-1]
        self.masks = [(width, *size) for width, size in dropped]
        """Shapes of what is dropped from, in the order of the way up."""
        self.kept = sum(math.prod(mask) for mask in self.masks)
        """How many units may be dropped."""
        self.apply(start)

    def forward(self, x: Tensor, kept: Tensor) -> Tensor:
        """The output image."""
        batch = torch.broadcast_shapes(x.shape[:-3], kept.shape[:-1])
        h = 2 * x.expand(*batch, *self.shape).reshape(-1, *self.shape) - 1
        scale = kept.expand(*batch, -1).reshape(-1, self.kept) / (1 - self.dropout)
        masks = [
            part.reshape(-1, *mask)
            for part, mask in zip(scale.split([math.prod(mask) for mask in self.masks], 1), self.masks, strict=True)
        ]
        skips = []
        for layer in self.down:
            h = layer(h)
            skips.append(h)
        h = skips.pop()
        for depth, layer in enumerate(self.up):
            h = layer(h)
            if depth < len(masks):
                h = h * masks[depth]
            if skips:
                h = torch.cat([h, skips.pop()], 1)
        return ((torch.tanh(h) + 1) / 2).reshape(*batch, *h.shape[1:])


class ResidualTranslator(nn.Module):
    """Down by strided convolutions, through residual blocks, up again; instance norm, borders by reflection.

    The paper's is c7s1-64, d128, d256, R256 six or nine times, u128, u64, c7s1-3.

    Args:
        shape: (channels, height, width) of the input.
        out: Channels of the output.
        channels: At full size, and after each convolution that halves.
        blocks: Number of residual blocks.
        plain_first: No instance norm after the first convolution. It would take away what is the same all over the
            image, such as planes that say what is asked for.

    Shapes: (..., *shape) in [0, 1] -> (..., out, height, width) in [0, 1].
    Raises: OptionError; ShapeError for an image too small to be reflected at its borders.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        out: int,
        channels: Sequence[int],
        *,
        blocks: Natural = 9,
        plain_first: bool = False,
    ):
        super().__init__()
        _check(channels, "instance")
        self.shape = shape
        sizes = halvings(shape[1:], len(channels) - 1)
        if min(sizes[0]) < 4 or (blocks and min(sizes[-1]) < 2):
            raise ShapeError(
                f"An image {shape[1]} x {shape[2]} is too small for {len(channels)} layers with borders by reflection; "
                "take larger images or fewer channels."
            )
        net: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(shape[0], channels[0], 7, bias=plain_first)]
        for (before, after), size in zip(itertools.pairwise(channels), sizes, strict=False):
            net += [*_active(before), nn.Conv2d(before, after, 3, 2, paddings(3, size)[0], bias=False)]
        net += [*_active(channels[-1]), *(_Residual(channels[-1]) for _ in range(blocks))]
        for (after, before), size in reversed(list(zip(itertools.pairwise(channels), sizes, strict=False))):
            pad, more = paddings(3, size)
            net += [nn.ConvTranspose2d(before, after, 3, 2, pad, more, bias=False), *_active(after)]
        net += [nn.ReflectionPad2d(3), nn.Conv2d(channels[0], out, 7), nn.Tanh()]
        if plain_first:
            del net[2]
        self.net = nn.Sequential(*net).apply(start)

    def forward(self, x: Tensor) -> Tensor:
        """The output image."""
        made = self.net(2 * x.reshape(-1, *self.shape) - 1)
        return ((made + 1) / 2).reshape(*x.shape[:-3], *made.shape[1:])


def _active(channels: int) -> list[nn.Module]:
    return [nn.InstanceNorm2d(channels), nn.ReLU()]


class _Residual(nn.Module):
    def __init__(self, channels: int):
        super().__init__()

        def convolution() -> list[nn.Module]:
            return [nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3, bias=False)]

        self.net = nn.Sequential(*convolution(), *_active(channels), *convolution(), nn.InstanceNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.net(x)


class PatchCritic(nn.Module):
    """Judges every patch of an image by itself (PatchGAN): (B, *event_shape) -> (B, patches) logits of "real".

    Convolutions of stride 2, the last of stride 1, then one of stride 1 to the logits. Of four rows and columns, the
    channels of the papers give patches of 70 pixels, [64, 128, 256, 512], of 16, [64, 128], or of 286. Of one, each
    pixel is judged alone (PixelGAN), and no stride leaves any out.

    Args:
        event_shape: Of x, (height, width) or (channels, height, width).
        context_shape: Of an image that is seen beside it; None for none.
        channels: Of the convolutions but the last.
        kernel: Side of the convolutions: 4, or 1.
        norm: Normalisation of all but the first and the last, of which 'instance' and 'batch' let a patch know the
            mean and variance of all.
        slope: Of the leaky ReLUs below zero.

    Raises: OptionError; ShapeError for an image smaller than a patch can be cut to.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        context_shape: Sequence[int] | None,
        channels: Counts,
        *,
        kernel: Count = 4,
        norm: str = "instance",
        slope: NonNegative = 0.2,
    ):
        super().__init__()
        _check(channels, norm)
        if kernel not in (1, 4):
            raise OptionError(f"kernel must be 4, or 1 to judge single pixels, got {kernel}.")
        self.shape = image_shape(event_shape)
        self.source = None if context_shape is None else image_shape(context_shape)
        before = self.shape[0] + (0 if self.source is None else self.source[0])
        height, width = self.shape[1:]
        self.field = 1
        """Side of a patch, in pixels."""
        jump, net = 1, []
        for depth, after in enumerate([*channels, 1]):
            stride = 2 if kernel > 1 and depth < len(channels) - 1 else 1
            pad = (kernel - 1) // 2
            height, width = ((n + 2 * pad - kernel) // stride + 1 for n in (height, width))
            if min(height, width) < 1:
                raise ShapeError(
                    f"{len(channels)} convolutions leave nothing of an image {self.shape[1]} x {self.shape[2]}; "
                    "take fewer channels for the critic."
                )
            self.field, jump = self.field + (kernel - 1) * jump, jump * stride
            last = depth == len(channels)
            normed = [] if last or depth == 0 else _normed(norm, after, (height, width))
            net += [nn.Conv2d(before, after, kernel, stride, pad, bias=not normed), *normed]
            net += [] if last else [nn.LeakyReLU(slope)]
            before = after
        self.net = nn.Sequential(*net).apply(start)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Logits, row by row of patches."""
        seen = x.reshape(-1, *self.shape)
        if self.source is not None:
            assert context is not None
            seen = torch.cat([seen, context.reshape(-1, *self.source)], 1)
        return self.net(2 * seen - 1).flatten(1)
