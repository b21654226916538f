r"""PixelCNN: masked convolutions, residual blocks.

van den Oord, Kalchbrenner & Kavukcuoglu, "Pixel recurrent neural networks", ICML 2016.

    p(x) = prod_i p(x_i,R | x_<i) p(x_i,G | x_<i, x_i,R) p(x_i,B | x_<i, x_i,R, x_i,G)          i the pixels, row by row

    x --> 7x7 mask A --> [+ 1x1, 3x3, 1x1 mask B] ... --> 1x1 --> 1x1 --> logits     sites: x (*event_shape); no latents

Its receptive field has the blind spot of masks that are stacked: at the rows above, what lies far to the right is never
seen. `GatedPixelCNN` sees all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn
from torch.nn.functional import relu

from zoo.autoregressive.incremental import PixelNetwork, Whole
from zoo.autoregressive.masked_conv import MaskedConv2d
from zoo.options import Count, Shape
from zoo.program import Preset
from zoo.specs import Spec

__all__ = ["PixelCNN"]


class PixelCNN(PixelNetwork):
    """The PixelCNN of 2016.

    Args:
        event_shape: (height, width) or (channels, height, width).
        hidden: Feature maps h inside a residual block; 2 h between blocks.
        blocks: Number of residual blocks.
        head_hidden: Feature maps of the layer before the last.
        first_kernel: Size of the first kernel, odd.
        kernel: Size of the kernels of the blocks, odd.
        likelihood: What a channel of a pixel follows, one of `zoo.likelihoods.LIKELIHOODS`; the paper's is 'levels'.

    Raises: ShapeError, OptionError, UnknownNameError.
    """

    paper = "van den Oord, Kalchbrenner & Kavukcuoglu, Pixel recurrent neural networks, 2016"

    def __init__(
        self,
        event_shape: Shape = (8, 8),
        hidden: Count = 16,
        blocks: Count = 2,
        head_hidden: Count = 32,
        first_kernel: Count = 7,
        kernel: Count = 3,
        likelihood: Spec = "bernoulli",
    ):
        super().__init__(event_shape, likelihood)
        channels = self.image[0]
        self.start = MaskedConv2d(channels, 2 * hidden, first_kernel, kind="A", groups=channels)
        self.blocks = nn.ModuleList(_Block(2 * hidden, kernel, channels) for _ in range(blocks))
        self.make_head(2 * hidden, head_hidden)

    def beside(self, run: Whole, context: Tensor | None) -> Tensor:
        """The whole network: every layer looks at rows above and pixels to the left alike."""
        h = run.first(self.start)
        for block in self.blocks:
            h = block(run, h)
        return self.read(run, h)

    presets: ClassVar[Mapping[str, Preset]] = {
        "small": Preset(
            {"hidden": 32, "blocks": 4, "head_hidden": 64, "first_kernel": 5},
            "svi",
            {"epochs": 30, "batch_size": 32, "lr": 3e-3},
        ),
        "mnist": Preset(
            {"hidden": 16, "blocks": 7}, "svi", {"epochs": 24, "batch_size": 32, "lr": 3e-3}, data="mnist10k-binary"
        ),
        "paper": Preset(
            {"hidden": 128, "blocks": 15, "head_hidden": 1024, "likelihood": "levels"},
            "svi",
            {"epochs": 100, "batch_size": 16, "optimizer": "rmsprop", "lr": 1e-3},
        ),
    }


class _Block(nn.Module):
    """The residual block of the paper's Figure 5: half the features inside."""

    def __init__(self, features: int, kernel_size: int, groups: int):
        super().__init__()
        half = features // 2
        self.narrow = MaskedConv2d(features, half, 1, kind="B", groups=groups)
        self.look = MaskedConv2d(half, half, kernel_size, kind="B", groups=groups)
        self.widen = MaskedConv2d(half, features, 1, kind="B", groups=groups)

    def forward(self, run: Whole, h: Tensor) -> Tensor:
        """Adds to h what its neighbourhood says."""
        inside = run(self.narrow, relu(h))
        inside = run(self.look, relu(inside))
        return h + run(self.widen, relu(inside))
