"""What the convolutional pixel networks share: one way to write them, evaluated on whole images or pixel by pixel.

A network is written once, as calls on a `Whole`. Sampling hands it a `Cached` instead, which keeps every layer's
feature map: after one pass over the whole image, each new pixel computes its own position alone, from the patch that
the kernel sees of the layer below; what depends on the rows above only is computed once a row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear, relu
from torch.nn.functional import pad as pad_with_zeros

from zoo.autoregressive.base import Autoregressive
from zoo.autoregressive.masked_conv import CausalConv2d, MaskedConv2d
from zoo.nets import image_shape
from zoo.specs import Spec

__all__ = ["Cached", "PixelNetwork", "Whole"]

Inner = Callable[[Tensor], Tensor]


class PixelNetwork(Autoregressive):
    """Base of the convolutional networks over pixels, rows first, the channels of a pixel one after the other.

    A subclass gives `beside`, and `above` if part of it depends on the rows above only.

    Args:
        event_shape: (height, width) or (channels, height, width).
        likelihood: What a channel of a pixel follows; see `zoo.likelihoods.LIKELIHOODS`.

    Raises: ShapeError, UnknownNameError, OptionError.
    """

    dataset = "digits-binary"
    head: CausalConv2d
    """The last layer: its bias is where independent pixels start."""
    by_channel = True
    """Whether what `beside` gives for a channel depends on the pixel's channels before."""

    def __init__(self, event_shape: Sequence[int], likelihood: Spec):
        super().__init__(event_shape, likelihood)
        self.image = image_shape(event_shape)

    def make_head(self, features: int, hidden: int) -> None:
        """The two last layers, of 1 x 1, from feature maps of the last layer to what the likelihood wants."""
        channels = self.image[0]
        self.mix = MaskedConv2d(features, hidden, 1, kind="B", groups=channels)
        self.head = MaskedConv2d(hidden, channels * self.likelihood.size, 1, kind="B", groups=channels)

    def read(self, run: Whole, h: Tensor) -> Tensor:
        """What the head puts out, (B, numbers, H, W), for features h."""
        h = run(self.mix, relu(h))
        return run(self.head, relu(h))

    def above(self, run: Whole, context: Tensor | None) -> None:
        """Computes and keeps what depends on the rows above only."""

    def beside(self, run: Whole, context: Tensor | None) -> Tensor:
        """What the head puts out, (B, numbers, H, W)."""
        raise NotImplementedError(f"{type(self).__name__} must define beside(run, context)")

    def arrange(self, raw: Tensor, x: Tensor) -> Tensor:
        """What the likelihood wants, (B, channels, H, W, size).

        Args:
            raw: What the head put out, (B, numbers, H, W).
            x: Values (B, channels, H, W), for likelihoods that couple the channels of a pixel.
        """
        return raw.unflatten(1, (self.image[0], self.likelihood.size)).movedim(2, -1)

    def see(self, x: Tensor) -> Tensor:
        """What the network sees of values (B, channels, H, W)."""
        return self.likelihood.embed(x)

    def outputs(self, x: Tensor, context: Tensor | None = None, dropout: float = 0.0) -> Tensor:
        """One pass: (B, *event_shape) -> (B, *event_shape, likelihood.size)."""
        image = x.reshape(len(x), *self.image)
        run = Whole(self.see(image), dropout)
        self.above(run, context)
        return self.arrange(self.beside(run, context), image).reshape(*x.shape, -1)

    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        """The head's bias starts at independent sites fitted to the data, averaged over the positions."""
        channels = self.image[0]
        mean = self.likelihood.initial(x).reshape(channels, -1, self.likelihood.size).mean(1)
        assert self.head.bias is not None
        self.head.bias.copy_(self.biases(mean))

    def biases(self, outputs: Tensor) -> Tensor:
        """The head's biases for outputs (channels, size) that are the same everywhere."""
        return outputs.flatten()

    def parameter_count(self) -> int:
        """Free numbers: weights that a mask makes zero are none."""
        masks = [layer.mask for layer in self.modules() if isinstance(layer, CausalConv2d) and layer.mask is not None]
        return super().parameter_count() - sum(int((~mask).sum()) for mask in masks)

    def continue_from(self, x: Tensor, known: int, context: Tensor | None, noise: Tensor) -> Tensor:
        """Pixel by pixel; a pixel costs its own position in every layer, not a pass over the image."""
        channels, height, width = self.image
        image = x.reshape(len(x), *self.image).clone()
        run = Cached(self.see(image))
        self.above(run, context)
        self.beside(run, context)
        for pixel in range(known // channels, height * width):
            row, column = divmod(pixel, width)
            if column == 0:
                run.move(row, 0, width)
                self.above(run, context)
            run.move(row, column, 1)
            here = image[:, :, row : row + 1, column : column + 1]
            raw = None
            for channel in range(max(known - pixel * channels, 0), channels):
                if raw is None or self.by_channel:
                    raw = self.beside(run, context)
                outputs = self.arrange(raw, here)[:, channel, 0, 0]
                values = self.likelihood.draw(outputs, noise[:, pixel * channels + channel])
                image[:, channel, row, column] = values
                run.write(row, column, self.see(here)[:, :, 0, 0])
        return image.reshape(x.shape)


class Whole:
    """Evaluates a network on all positions at once.

    Args:
        image: (B, channels, H, W), what the network sees of x.
        dropout: Probability with which `drop` drops a feature.
    """

    def __init__(self, image: Tensor, dropout: float = 0.0):
        self.image, self.dropout = image, dropout
        self.kept: dict[nn.Module, Tensor] = {}

    def first(self, layer: CausalConv2d) -> Tensor:
        """A layer that reads the image."""
        return layer(self.image)

    def __call__(self, layer: CausalConv2d, h: Tensor) -> Tensor:
        """A layer that reads features h."""
        return layer(h)

    def keep(self, key: nn.Module, h: Tensor) -> None:
        """Remembers features of the rows above, for `recall`."""
        self.kept[key] = h

    def recall(self, key: nn.Module) -> Tensor:
        """What was kept."""
        return self.kept[key]

    def lower(self, shrink: CausalConv2d, grow: nn.ConvTranspose2d, h: Tensor, inner: Inner) -> Tensor:
        """`inner` at half the resolution: shrink (stride 2, rounding up), inner, grow."""
        return grow(inner(shrink(h)))[:, :, : h.shape[2], : h.shape[3]]

    def drop(self, h: Tensor) -> Tensor:
        """Dropout."""
        if not self.dropout:
            return h
        return h * (torch.rand_like(h) >= self.dropout) / (1 - self.dropout)


class Cached(Whole):
    """Evaluates a network at one row or one pixel, from the features of what comes before.

    The first evaluation, before any `move`, is over the whole image and fills the memory. Features at positions still
    to be drawn are wrong by then, but each is computed again before any other looks at it.

    Args:
        image: (B, channels, H, W).
    """

    def __init__(self, image: Tensor):
        super().__init__(image)
        self.maps: dict[nn.Module, Tensor] = {}
        self.weights: dict[nn.Module, Tensor] = {}
        self.readers: list[CausalConv2d] = []
        self.at: tuple[int, int, int] | None = None

    def move(self, row: int, column: int, width: int) -> None:
        """Evaluates `width` positions from (row, column) from now on."""
        self.at = (row, column, width)

    def write(self, row: int, column: int, seen: Tensor) -> None:
        """Puts what is seen of a pixel (B, channels) into the image."""
        for layer in self.readers:
            left, _, top, _ = layer.margins
            self.maps[layer][:, :, row + top, column + left] = seen

    def first(self, layer: CausalConv2d) -> Tensor:
        """A layer that reads the image."""
        if self.at is None:
            self.readers.append(layer)
            return self._fill(layer, self.image)
        return self._step(layer)

    def __call__(self, layer: CausalConv2d, h: Tensor) -> Tensor:
        """A layer that reads features h (B, C, 1, width) of the present position."""
        if self.at is None:
            return self._fill(layer, h)
        if layer.kernel_size == (1, 1):
            return self._apply(layer, h)
        self._store(layer, h)
        return self._step(layer)

    def keep(self, key: nn.Module, h: Tensor) -> None:
        """Remembers features of a row."""
        if self.at is None:
            self.kept[key] = h.clone()
        else:
            self.kept[key][:, :, self.at[0]] = h[:, :, 0]

    def recall(self, key: nn.Module) -> Tensor:
        """What was kept of the present position."""
        if self.at is None:
            return self.kept[key]
        row, column, width = self.at
        return self.kept[key][:, :, row : row + 1, column : column + width]

    def lower(self, shrink: CausalConv2d, grow: nn.ConvTranspose2d, h: Tensor, inner: Inner) -> Tensor:
        """At every second row and column the lower resolution has a new position; at the others it has its last."""
        if self.at is None:
            low = inner(self._fill(shrink, h))
            self.kept[grow] = low.clone()
            return grow(low)[:, :, : h.shape[2], : h.shape[3]]
        row, column, width = here = self.at
        low_row, low_column, low_width = row // 2, column // 2, (width + 1) // 2
        self._store(shrink, h)
        known = self.kept[grow][:, :, low_row : low_row + 1, low_column : low_column + low_width]
        if row % 2 == column % 2 == 0:
            shrunk = self._step(shrink)
            self.at = (low_row, low_column, low_width)
            known.copy_(inner(shrunk))
            self.at = here
        return grow(known)[:, :, row % 2 : row % 2 + 1, column % 2 : column % 2 + width]

    def _fill(self, layer: CausalConv2d, h: Tensor) -> Tensor:
        weight = layer.masked_weight()
        self.weights[layer] = weight
        if layer.kernel_size != (1, 1) or any(layer.margins):
            # No margin is cut here: what lies there is read when the next row or pixel is computed.
            self.maps[layer] = pad_with_zeros(h, [max(margin, 0) for margin in layer.margins]).clone()
        return layer(h)

    def _store(self, layer: CausalConv2d, h: Tensor) -> None:
        assert self.at is not None
        row, column, width = self.at
        left, _, top, _ = layer.margins
        self.maps[layer][:, :, row + top, column + left : column + left + width] = h[:, :, 0]

    def _step(self, layer: CausalConv2d) -> Tensor:
        assert self.at is not None
        row, column, width = self.at
        height, across = layer.weight.shape[2:]
        return self._apply(layer, self.maps[layer][:, :, row : row + height, column : column + width + across - 1])

    def _apply(self, layer: CausalConv2d, patch: Tensor) -> Tensor:
        weight = self.weights[layer]
        if patch.shape[2:] == weight.shape[2:]:  # one position: a convolution's set-up would cost more than its sums
            return linear(patch.flatten(1), weight.flatten(1), layer.bias)[:, :, None, None]
        return conv2d(patch, weight, layer.bias, layer.stride)
