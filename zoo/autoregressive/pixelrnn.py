r"""PixelRNN: LSTMs over the rows or the diagonals of an image, residual connections.

van den Oord, Kalchbrenner & Kavukcuoglu, "Pixel recurrent neural networks", ICML 2016.

    p(x) = prod_i p(x_i,R | x_<i) p(x_i,G | x_<i, x_i,R) p(x_i,B | x_<i, x_i,R, x_i,G)          i the pixels, row by row

    x --> 7x7 mask A --> [+ LSTM, 1x1 mask B] ... --> 1x1 --> 1x1 --> logits         sites: x (*event_shape); no latents

With `DiagonalBiLSTM` layers every pixel is given all pixels before it; with `RowLSTM` layers, which take fewer steps,
a triangle of them. See `zoo.autoregressive.image_lstm`.

All pixels, as the paper promises, takes one thing that it does not say. Mask A hides a pixel from the map at its own
position, and the pixel at the end of a row has no position to its right that could see it; so the row below, but for
its last pixels, would never be told of it. For diagonals we put a column of zeros at the right of the image: the map
there has seen the whole row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn
from torch.nn.functional import pad

from zoo.autoregressive.image_lstm import DiagonalBiLSTM, RowLSTM
from zoo.autoregressive.incremental import Cached, PixelNetwork, Whole
from zoo.autoregressive.masked_conv import MaskedConv2d
from zoo.errors import OptionError, UnknownNameError
from zoo.options import Count, Shape
from zoo.program import Preset
from zoo.specs import Spec

__all__ = ["CELLS", "PixelRNN"]

CELLS: dict[str, type[RowLSTM | DiagonalBiLSTM]] = {"diagonal": DiagonalBiLSTM, "row": RowLSTM}
"""Names of the recurrent layers."""
ADAM = {"batch_size": 32, "lr": 3e-3}
PAPER = {"epochs": 100, "batch_size": 16, "optimizer": "rmsprop", "lr": 1e-3}


class PixelRNN(PixelNetwork):
    """PixelRNN with Row LSTMs or Diagonal BiLSTMs.

    Sampling keeps the states of the pixels that are drawn, so that a pixel costs its own position in every layer.

    Args:
        event_shape: (height, width) or (channels, height, width).
        cell: A key of CELLS: 'diagonal' or 'row'.
        hidden: Feature maps h of each LSTM; 2 h between layers. At least one for each channel.
        layers: Number of recurrent layers.
        head_hidden: Feature maps of the layer before the last.
        first_kernel: Size of the first kernel, odd, at least 3.
        likelihood: What a channel of a pixel follows, one of `zoo.likelihoods.LIKELIHOODS`; the paper's is 'levels'.

    Raises: ShapeError, OptionError, UnknownNameError.
    """

    paper = "van den Oord, Kalchbrenner & Kavukcuoglu, Pixel recurrent neural networks, 2016"

    def __init__(
        self,
        event_shape: Shape = (8, 8),
        cell: str = "diagonal",
        hidden: Count = 8,
        layers: Count = 1,
        head_hidden: Count = 32,
        first_kernel: Count = 7,
        likelihood: Spec = "bernoulli",
    ):
        super().__init__(event_shape, likelihood)
        if cell not in CELLS:
            raise UnknownNameError("cell", cell, CELLS)
        if first_kernel < 3:
            raise OptionError(f"The first kernel must be odd and at least 3 to see another pixel, got {first_kernel}.")
        channels, _, self.width = self.image
        self.margin = int(cell == "diagonal")
        self.start = MaskedConv2d(channels, 2 * hidden, first_kernel, kind="A", groups=channels)
        self.layers = nn.ModuleList(CELLS[cell](2 * hidden, hidden, channels) for _ in range(layers))
        self.make_head(2 * hidden, head_hidden)

    def beside(self, run: Whole, context: Tensor | None) -> Tensor:
        """The whole network."""
        return self.read(run, self.features(run)[..., : self.width])

    def see(self, x: Tensor) -> Tensor:
        """What the network sees of values, and for diagonals the column of zeros."""
        return pad(super().see(x), (0, self.margin))

    def above(self, run: Whole, context: Tensor | None) -> None:
        """When a row begins, what the row above leaves to it: the end of that row, then the way back along it."""
        if not isinstance(run, Cached) or run.at is None or not self.margin or run.at[0] == 0:
            return
        here = run.at
        run.move(here[0] - 1, self.width, 1)
        self.features(run)
        run.move(*here)
        for layer in self.layers:
            if isinstance(layer, DiagonalBiLSTM):
                layer.return_along(run, here[0] - 1)

    def features(self, run: Whole) -> Tensor:
        """What the recurrent layers make of the image."""
        h = run.first(self.start)
        for layer in self.layers:
            h = layer(run, h)
        return h

    presets: ClassVar[Mapping[str, Preset]] = {
        "small": Preset({"hidden": 24, "layers": 2, "first_kernel": 5}, "svi", {**ADAM, "epochs": 30}),
        "row": Preset({"cell": "row", "hidden": 24, "layers": 3, "first_kernel": 5}, "svi", {**ADAM, "epochs": 30}),
        "rgb": Preset(  # for the data set photo-patches
            {"hidden": 24, "layers": 2, "head_hidden": 48, "likelihood": "levels"},
            "svi",
            {**ADAM, "epochs": 4},
            data="photo-patches",
        ),
        "mnist": Preset({"hidden": 16, "layers": 7}, "svi", PAPER, data="mnist10k-binary"),
        "paper": Preset({"hidden": 128, "layers": 12, "head_hidden": 1024, "likelihood": "levels"}, "svi", PAPER),
    }
