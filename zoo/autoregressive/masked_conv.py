"""Convolutions that see only what comes before: masked, or cut and shifted, in the order of rows, pixels and channels.

van den Oord, Kalchbrenner & Kavukcuoglu, "Pixel recurrent neural networks", ICML 2016 (masks A and B, channel groups).
Feature maps are split into as many contiguous groups as the image has channels; at the pixel itself

    mask A:  group g sees groups < g            mask B:  group g sees groups <= g

and every group sees all groups of the pixels before: those of the rows above and those to the left in its row.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d
from torch.nn.functional import pad as pad_with_zeros

from zoo.errors import OptionError, UnknownNameError

__all__ = ["CausalConv2d", "MaskedConv2d", "channel_mask"]


def channel_mask(
    kind: str, out_channels: int, in_channels: int, groups: int = 1, kernel_size: int | tuple[int, int] = 1
) -> Tensor:
    """The mask of a convolution's weight, True where an output may look.

    Args:
        kind: 'A' (the pixel's own group excluded) or 'B' (included).
        out_channels: Feature maps put out; map i belongs to the group i * groups // out_channels.
        in_channels: Feature maps seen, grouped in the same way.
        groups: Channels of the image (3 for R, G and B).
        kernel_size: Odd; one number or (height, width).

    Returns: (out_channels, in_channels, height, width), boolean.

    Raises: UnknownNameError, OptionError.
    """
    if kind not in ("A", "B"):
        raise UnknownNameError("mask", kind, ("A", "B"))
    if groups < 1 or min(out_channels, in_channels) < groups:
        raise OptionError(
            f"Every one of the {groups} groups (channels of the image) needs a feature map; got {in_channels} in and "
            f"{out_channels} out. Use at least as many feature maps as channels."
        )
    height, width = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
    if min(height, width) < 1 or height % 2 == 0 or width % 2 == 0:
        raise OptionError(f"A masked kernel has a centre, so its size must be odd; got {height} x {width}.")
    mask = torch.zeros(out_channels, in_channels, height, width, dtype=torch.bool)
    mask[:, :, : height // 2] = True
    mask[:, :, height // 2, : width // 2] = True
    own = (torch.arange(out_channels) * groups // out_channels).unsqueeze(1)
    seen = torch.arange(in_channels) * groups // in_channels
    mask[:, :, height // 2, width // 2] = seen < own if kind == "A" else seen <= own
    return mask


class CausalConv2d(nn.Conv2d):
    """A convolution with its own zeros around each side, and perhaps a mask on its weight.

    Args:
        in_channels: Feature maps seen.
        out_channels: Feature maps put out.
        kernel_size: (height, width).
        margins: Rows or columns of zeros (left, right, top, bottom); below zero cuts some off, which shifts the result.
        stride: In both directions.
        mask: Boolean, of the weight's shape; None lets all through.

    Shapes: (B, in_channels, H, W) -> (B, out_channels, H + top + bottom - height + 1, W + left + right - width + 1)
    for a stride of one.
    """

    mask: Tensor | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, int],
        margins: tuple[int, int, int, int],
        stride: int = 1,
        mask: Tensor | None = None,
    ):
        super().__init__(in_channels, out_channels, kernel_size, stride)
        self.margins = margins
        # Follows from the options, so it is not saved.
        self.register_buffer("mask", None if mask is None or bool(mask.all()) else mask, persistent=False)

    def masked_weight(self) -> Tensor:
        """The weight, zero where the mask is False."""
        return self.weight if self.mask is None else self.weight * self.mask

    def forward(self, x: Tensor) -> Tensor:
        """All positions at once."""
        if any(self.margins):
            x = pad_with_zeros(x, self.margins)
        return conv2d(x, self.masked_weight(), self.bias, self.stride)


class MaskedConv2d(CausalConv2d):
    """A convolution of the same size that looks only at what comes before.

    The rows of the kernel below the centre, which a mask would make zero, are not there, nor are the columns right of
    it where the kernel has one row.

    Args:
        in_channels: Feature maps seen.
        out_channels: Feature maps put out, all copies together.
        kernel_size: Odd; one number or (height, width).
        kind: 'A' or 'B'; see `channel_mask`.
        groups: Channels of the image.
        copies: The outputs are so many sets of feature maps, each with its groups: 2 for the halves of a gate.

    Shapes: (B, in_channels, H, W) -> (B, out_channels, H, W).

    Raises: UnknownNameError, OptionError.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        kind: str,
        groups: int = 1,
        copies: int = 1,
    ):
        if out_channels % copies:
            raise OptionError(f"{out_channels} feature maps do not make {copies} equal sets.")
        mask = channel_mask(kind, out_channels // copies, in_channels, groups, kernel_size).repeat(copies, 1, 1, 1)
        height, width = mask.shape[2:]
        right = 0 if height == 1 else width // 2
        mask = mask[:, :, : height // 2 + 1, : width // 2 + 1 + right]
        margins = (width // 2, right, height // 2, 0)
        super().__init__(in_channels, out_channels, (mask.shape[2], mask.shape[3]), margins, mask=mask)
