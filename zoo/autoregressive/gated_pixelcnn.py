r"""Gated PixelCNN: two stacks of convolutions that leave no blind spot, gated, and conditional on a class.

van den Oord, Kalchbrenner, Vinyals, Espeholt, Graves & Kavukcuoglu, "Conditional image generation with PixelCNN
decoders", NIPS 2016.

    y = tanh(W_f * x + V_f h) . sigmoid(W_g * x + V_g h)          h the label, one-hot

    vertical:    rows above --> k x k --> gate --> next layer          (no residual: the paper found no use for it)
    horizontal:  own row --> 1 x k masked + 1x1 of the vertical --> gate --> 1x1 + residual --> next layer
                                                                         \-> 1x1, summed over layers --> head

    sites: x (*event_shape); context: labels (classes,) one-hot; no latents
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from zoo.autoregressive.base import ClassConditional
from zoo.autoregressive.incremental import PixelNetwork, Whole
from zoo.autoregressive.masked_conv import CausalConv2d, MaskedConv2d
from zoo.errors import OptionError
from zoo.likelihoods import Categorical
from zoo.options import Count, Natural, Shape
from zoo.program import Preset
from zoo.specs import Spec

__all__ = ["GatedPixelCNN"]


class GatedPixelCNN(ClassConditional, PixelNetwork):
    """The gated PixelCNN, on its own or conditional on a class.

    Args:
        event_shape: (height, width) or (channels, height, width).
        features: Feature maps p of each stack.
        layers: Number of layers, the first included.
        head_hidden: Feature maps of the layer before the last.
        first_kernel: Size of the first kernel, odd, at least 3.
        kernel: Size of the others, odd.
        classes: Number of classes that the context says, one-hot; 0 for an unconditional program.
        likelihood: What a channel of a pixel follows, one of `zoo.likelihoods.LIKELIHOODS`; the paper's is 'levels'.
            Values without an order ('categorical') are seen as a plane each.

    Raises: ShapeError, OptionError, UnknownNameError.
    """

    paper = "van den Oord et al., Conditional image generation with PixelCNN decoders, 2016"

    def __init__(
        self,
        event_shape: Shape = (8, 8),
        features: Count = 16,
        layers: Count = 2,
        head_hidden: Count = 32,
        first_kernel: Count = 7,
        kernel: Count = 3,
        classes: Natural = 0,
        likelihood: Spec = "bernoulli",
    ):
        super().__init__(event_shape, likelihood, classes)
        channels = self.image[0]
        reads = channels * (self.likelihood.size if self._unordered else 1)
        self.layers = nn.ModuleList(
            _Layer(
                features, first_kernel if i == 0 else kernel, channels, classes=classes,
                reads=reads if i == 0 else None, last=i == layers - 1,
            )
            for i in range(layers)
        )  # fmt: skip
        self.make_head(features, head_hidden)

    @property
    def _unordered(self) -> bool:
        return type(self.likelihood) is Categorical

    def see(self, x: Tensor) -> Tensor:
        """What the network sees of values (B, channels, H, W): of categories a plane each, channel by channel."""
        if not self._unordered:
            return super().see(x)
        values = torch.arange(self.likelihood.size, device=x.device)
        return (x.round().unsqueeze(2) == values[:, None, None]).to(x.dtype).flatten(1, 2)

    def above(self, run: Whole, context: Tensor | None) -> None:
        """The vertical stack."""
        v: Tensor | None = None
        layers: Any = self.layers
        for layer in layers:
            v = layer.above(run, v, context)

    def beside(self, run: Whole, context: Tensor | None) -> Tensor:
        """The horizontal stack and the head."""
        h: Tensor | None = None
        total: Tensor | None = None
        layers: Any = self.layers
        for layer in layers:
            h, skip = layer.beside(run, h)
            total = skip if total is None else total + skip
        assert total is not None
        return self.read(run, total)

    presets: ClassVar[Mapping[str, Preset]] = {
        "small": Preset(
            {"features": 32, "layers": 4, "head_hidden": 64, "first_kernel": 5},
            "svi",
            {"epochs": 22, "batch_size": 32, "lr": 3e-3},
        ),
        "mnist": Preset(
            {"features": 24, "layers": 6}, "svi", {"epochs": 10, "batch_size": 32, "lr": 3e-3}, data="mnist10k-binary"
        ),
        "paper": Preset(
            {"features": 384, "layers": 20, "head_hidden": 1024, "kernel": 5, "likelihood": "levels"},
            "svi",
            {"epochs": 100, "batch_size": 128, "optimizer": "rmsprop", "lr": 1e-4},
        ),
    }


def _gate(h: Tensor) -> Tensor:
    """tanh of one half of the feature maps times the sigmoid of the other."""
    value, gate = h.chunk(2, 1)
    return value.tanh() * gate.sigmoid()


class _Layer(nn.Module):
    """A layer of both stacks.

    Args:
        features: Feature maps p of each stack.
        kernel_size: k, odd.
        groups: Channels of the image.
        classes: Size of the one-hot label; 0 for none.
        reads: Planes of the image that the layer reads, and so must not see its own pixel; None for features.
        last: Whether the head alone uses what it says.
    """

    def __init__(self, features: int, kernel_size: int, groups: int, classes: int, reads: int | None, last: bool):
        super().__init__()
        first, before, half = reads is not None, features if reads is None else reads, kernel_size // 2
        # Vertical features at a row know the rows above it alone. From the image, the kernel therefore ends a row
        # higher; from features it includes their own row.
        rows, bottom = (half, -1) if first else (half + 1, 0)
        if rows == 0:
            raise OptionError(f"The first kernel must be odd and at least 3, got {kernel_size}.")
        self.vertical = CausalConv2d(before, 2 * features, (rows, kernel_size), margins=(half, half, half, bottom))
        self.down = CausalConv2d(2 * features, 2 * features, (1, 1), margins=(0, 0, 0, 0))
        self.horizontal = MaskedConv2d(
            before, 2 * features, (1, kernel_size), kind="A" if first else "B", groups=groups, copies=2
        )
        self.skip = MaskedConv2d(features, features, 1, kind="B", groups=groups)
        # The last layer's own horizontal output would go nowhere; only what it skips to the head is used.
        self.across = None if last else MaskedConv2d(features, features, 1, kind="B", groups=groups)
        self.label_vertical = nn.Linear(classes, 2 * features, bias=False) if classes and not last else None
        self.label_horizontal = nn.Linear(classes, 2 * features, bias=False) if classes else None

    def above(self, run: Whole, v: Tensor | None, context: Tensor | None) -> Tensor:
        """The vertical stack: features of the layer below to this layer's; keeps what the horizontal stack adds."""
        v = run.first(self.vertical) if v is None else run(self.vertical, v)
        down = run(self.down, v)
        if self.label_horizontal is not None:
            down = down + self.label_horizontal(context)[:, :, None, None]
        run.keep(self, down)
        if self.label_vertical is not None:
            v = v + self.label_vertical(context)[:, :, None, None]
        return _gate(v)

    def beside(self, run: Whole, h: Tensor | None) -> tuple[Tensor | None, Tensor]:
        """The horizontal stack: (features of this layer, what it adds before the head)."""
        before = h
        h = run.first(self.horizontal) if h is None else run(self.horizontal, h)
        h = _gate(h + run.recall(self))
        skip = run(self.skip, h)
        if self.across is None:
            return None, skip
        h = run(self.across, h)
        return (h if before is None else before + h), skip
