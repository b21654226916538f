r"""Recurrent layers over images: the Row LSTM and the Diagonal BiLSTM.

van den Oord, Kalchbrenner & Kavukcuoglu, "Pixel recurrent neural networks", ICML 2016.

    [o, f, i, g] = K_is * x + K_ss * h'        x the map below at the pixel, h', c' states of earlier pixels
    c = sigma(f) . c' + sigma(i) . tanh(g),    h = sigma(o) . tanh(c),    x + K_up h goes to the next layer

Row LSTM: K_is has a row of three pixels, masked; h' are the three pixels above, c' the one above. From a pixel the
context opens upwards as a triangle, one column to each side per row.

Diagonal BiLSTM: K_is is one pixel; h' are the pixel above and the one to the left, c' the one to the left. A second
LSTM does the same from right to left; its map is shifted down by a row before it is added, so that nothing comes from
pixels that follow. Together they see the maps at all earlier pixels. Both go over the diagonals, all pixels of one at
once: each row is moved one place further to the right than the row above (skewing), so that diagonals become columns.

K_ss sees other pixels only, and all their channel groups; K_is and K_up have mask B.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from zoo.autoregressive.incremental import Cached, Whole
from zoo.autoregressive.masked_conv import MaskedConv2d

__all__ = ["DiagonalBiLSTM", "RowLSTM", "skew", "unskew"]


def skew(x: Tensor) -> Tensor:
    """Moves row r by r places to the right, zeros elsewhere: (..., H, W, C) -> (..., H, W + H - 1, C)."""
    *_, height, width, _ = x.shape
    # With H zeros after each row but one read back as a row, every row starts one place later than the row above.
    flat = pad(x, (0, 0, 0, height)).flatten(-3, -2)[..., :-height, :]
    return flat.unflatten(-2, (height, width + height - 1))


def unskew(x: Tensor) -> Tensor:
    """The inverse: (..., H, W + H - 1, C) -> (..., H, W, C)."""
    *_, height, total, _ = x.shape
    flat = pad(x.flatten(-3, -2), (0, 0, 0, height))
    return flat.unflatten(-2, (height, total + 1))[..., : total + 1 - height, :]


def _lstm(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """(hidden, cell), (..., h) each, from gates (..., 4 h) and the cell before."""
    out, forget, take, content = gates.chunk(4, -1)
    cell = forget.sigmoid() * cell + take.sigmoid() * content.tanh()
    return out.sigmoid() * cell.tanh(), cell


class _Layer(nn.Module):
    """What both layers share: gates from the map below, and the residual connection.

    Args:
        features: Feature maps of the layer below and of this, 2 h in the paper.
        hidden: h.
        kernel: (height, width) of the input-to-state convolution.
        directions: LSTMs, each with its gates.
        groups: Channels of the image.
    """

    def __init__(self, features: int, hidden: int, kernel: tuple[int, int], directions: int, groups: int):
        super().__init__()
        self.hidden = hidden
        gates = 4 * directions
        self.look = MaskedConv2d(features, gates * hidden, kernel, kind="B", groups=groups, copies=gates)
        self.widen = MaskedConv2d(hidden, features, 1, kind="B", groups=groups)

    def scan(self, run: Whole, gates: Tensor) -> Tensor:
        """All positions: gates (B, H, W, 4 h directions) -> (B, H, W, h)."""
        raise NotImplementedError

    def step(self, run: Cached, gates: Tensor, row: int, column: int) -> Tensor:
        """One position: gates (B, 4 h directions) -> (B, h)."""
        raise NotImplementedError

    def forward(self, run: Whole, x: Tensor) -> Tensor:
        """(B, features, H, W) -> the same, at all positions or at the present one."""
        gates = run(self.look, x).movedim(1, -1)
        if isinstance(run, Cached) and run.at is not None:
            row, column, _ = run.at
            hidden = self.step(run, gates[:, 0, 0], row, column)[:, None, None]
        else:
            hidden = self.scan(run, gates)
        return x + run(self.widen, hidden.movedim(-1, 1))


class RowLSTM(_Layer):
    """The Row LSTM.

    Args:
        features: Feature maps of the layer below and of this.
        hidden: Feature maps h of the LSTM.
        groups: Channels of the image.

    Shapes: (run, (B, features, H, W)) -> (B, features, H, W).
    """

    def __init__(self, features: int, hidden: int, groups: int = 1):
        super().__init__(features, hidden, (1, 3), 1, groups)
        # A convolution over the row above, as a linear map of three states side by side.
        self.state = nn.Linear(3 * hidden, 4 * hidden, bias=False)

    def scan(self, run: Whole, gates: Tensor) -> Tensor:
        """Row after row."""
        states = []
        hidden = cell = gates.new_zeros(len(gates), gates.shape[2], self.hidden)
        for row in gates.unbind(1):
            wide = pad(hidden, (0, 0, 1, 1))
            near = torch.cat([wide[:, :-2], hidden, wide[:, 2:]], -1)
            hidden, cell = _lstm(row + self.state(near), cell)
            states.append((hidden, cell))
        hidden, cell = (torch.stack(each, 1) for each in zip(*states, strict=True))
        if isinstance(run, Cached):  # a row of zeros on top, a column of zeros on each side
            run.kept[self] = pad(torch.cat([hidden, cell], -1), (0, 0, 1, 1, 1, 0))
        return hidden

    def step(self, run: Cached, gates: Tensor, row: int, column: int) -> Tensor:
        """From the states of the row above."""
        states = run.kept[self]
        near = states[:, row, column : column + 3, : self.hidden].flatten(1)
        hidden, cell = _lstm(gates + self.state(near), states[:, row, column + 1, self.hidden :])
        states[:, row + 1, column + 1] = torch.cat([hidden, cell], -1)
        return hidden


class DiagonalBiLSTM(_Layer):
    """The Diagonal BiLSTM.

    Args:
        features: Feature maps of the layer below and of this.
        hidden: Feature maps h of each of the two LSTMs.
        groups: Channels of the image.

    Shapes: (run, (B, features, H, W)) -> (B, features, H, W).
    """

    def __init__(self, features: int, hidden: int, groups: int = 1):
        super().__init__(features, hidden, (1, 1), 2, groups)
        # Of the state above and the state beside, next to each other.
        self.left = nn.Linear(2 * hidden, 4 * hidden, bias=False)
        self.right = nn.Linear(2 * hidden, 4 * hidden, bias=False)

    def scan(self, run: Whole, gates: Tensor) -> Tensor:
        """Diagonal after diagonal, both directions at once: the second looks at the mirrored image."""
        left, right = gates.chunk(2, -1)
        # Places outside the image have zero gates. Those to the left of a row then keep zero states, as if there were
        # no pixel before; those to its right are seen by no pixel.
        skewed = skew(torch.stack([left, right.flip(2)]))
        weight = torch.stack([self.left.weight.mT, self.right.weight.mT])
        states = []
        hidden = cell = skewed.new_zeros(*skewed.shape[:3], self.hidden)
        for column in skewed.unbind(3):
            near = torch.cat([pad(hidden, (0, 0, 1, -1)), hidden], -1)
            passed = torch.bmm(near.flatten(1, 2), weight).reshape(column.shape)
            hidden, cell = _lstm(column + passed, cell)
            states.append((hidden, cell))
        hidden, cell = (unskew(torch.stack(each, 3)) for each in zip(*states, strict=True))
        if isinstance(run, Cached):
            # A row of zeros on top, and a column of zeros where each direction starts.
            left, mirrored = torch.cat([hidden, cell], -1)
            run.kept[self.left] = pad(left, (0, 0, 1, 0, 1, 0))
            run.kept[self.right] = pad(mirrored.flip(2), (0, 0, 0, 1, 1, 0))
            run.kept[self] = right.clone()
        return hidden[0] + pad(hidden[1].flip(2), (0, 0, 0, 0, 1, -1))

    def step(self, run: Cached, gates: Tensor, row: int, column: int) -> Tensor:
        """The left LSTM at this pixel and the right one at the pixel above, whose gates were kept."""
        gates, run.kept[self][:, row, column] = gates.chunk(2, -1)
        states = run.kept[self.left]
        above, beside = states[:, row, column + 1], states[:, row + 1, column]
        state = self._advance(self.left, gates, above, beside)
        states[:, row + 1, column + 1] = state
        return state[:, : self.hidden] + run.kept[self.right][:, row, column, : self.hidden]

    def return_along(self, run: Cached, row: int) -> None:
        """The right LSTM over a row that is finished; the row below wants it."""
        states, gates = run.kept[self.right], run.kept[self]
        for column in reversed(range(gates.shape[2])):
            above, beside = states[:, row, column], states[:, row + 1, column + 1]
            states[:, row + 1, column] = self._advance(self.right, gates[:, row, column], above, beside)

    def _advance(self, direction: nn.Linear, gates: Tensor, above: Tensor, beside: Tensor) -> Tensor:
        """The state (hidden, cell) of a pixel, (B, 2 h), from those above and beside it."""
        near = torch.cat([above[:, : self.hidden], beside[:, : self.hidden]], -1)
        return torch.cat(_lstm(gates + direction(near), beside[:, self.hidden :]), -1)
