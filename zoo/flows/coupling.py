r"""Layers that transform x number by number, as a network of other numbers says: couplings and masked layers.

Dinh, Krueger & Bengio, "NICE", 2014 (additive); Dinh, Sohl-Dickstein & Bengio, "Density estimation using Real NVP",
ICLR 2017 (affine); Durkan et al., "Neural spline flows", NeurIPS 2019 (rational-quadratic splines); Papamakarios,
Pavlakou & Murray, "Masked autoregressive flow for density estimation", NIPS 2017 (masked).

    coupling:  z_a = x_a or g(x_a; own parameters),   z_b = g(x_b; net(x_a))       log |det| = sum log g'
    masked:    z_i = g(x_i; net(x_1, ..., x_i-1))

The functions g of one number are zuko's: pure functions of their parameters, without a cache or a branch on data, so
that a training step can be traced.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle
from torch.nn.utils.parametrizations import weight_norm

from zoo.errors import UnknownNameError
from zoo.nets import ACTIVATIONS, mlp
from zoo.process import undisturbed

with undisturbed():
    from zuko.flows.autoregressive import MaskedAutoregressiveTransform
    from zuko.transforms import AdditiveTransform, MonotonicAffineTransform, MonotonicRQSTransform

__all__ = [
    "Coupling",
    "Masked",
    "ResidualNet",
    "Univariate",
    "checkerboard",
    "coupling_mlp",
    "squeeze",
    "start_at_zero",
    "unsqueeze",
]


class Univariate:
    """A monotone function of one number with parameters; at parameters of zero, the identity.

    Args:
        kind: 'additive', 'affine' or 'spline'.
        bins: Of the spline, on [-bound, bound]; it is the identity outside.
        bound: See bins.
        limit: Of the affine function, on |log slope|, approached softly.
    """

    def __init__(self, kind: str, bins: int = 8, bound: float = 5.0, limit: float = 2.0):
        self.make: Callable[..., Any]
        self.make, self.shapes = {
            "additive": (AdditiveTransform, ((),)),
            "affine": (partial(MonotonicAffineTransform, slope=math.exp(-limit)), ((), ())),
            "spline": (partial(MonotonicRQSTransform, bound=bound), ((bins,), (bins,), (bins - 1,))),
        }[kind]
        self.sizes = [torch.Size(shape).numel() for shape in self.shapes]
        self.size = sum(self.sizes)

    def __call__(self, parameters: Tensor) -> Any:
        """The transform whose parameters (..., size) are given."""
        parts = parameters.split(self.sizes, -1)
        return self.make(*(p if shape else p.squeeze(-1) for p, shape in zip(parts, self.shapes, strict=True)))


class Coupling(nn.Module):
    """One coupling over dimension 1: features (B, D) or images (B, C, H, W).

    Args:
        univariate: What is done to each number of the second part.
        net: Maps the first part to parameters, `univariate.size` for each number of the second, that many groups of
            features or channels one after the other.
        mask: What passes, of the shape of an image (H, W), True or False; None is the first half of dimension 1.
        free: Number of features D, whose first half then does not pass as it is but goes through functions with
            parameters of their own (as in the code of the spline paper); 0 lets it pass.
    """

    mask: Tensor | None

    def __init__(self, univariate: Univariate, net: nn.Module, mask: Tensor | None = None, free: int = 0):
        super().__init__()
        self.univariate, self.net = univariate, net
        self.register_buffer("mask", mask)
        self.free = nn.Parameter(torch.zeros(free // 2, univariate.size)) if free else None

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x -> z of the same shape, and log |det dz/dx| (B,)."""
        a, b = self._split(x)
        z, log_slope = self._transform(a, context).call_and_ladj(b)
        log_det = self._counted(log_slope).flatten(1).sum(-1)
        if self.free is not None:
            a, log_slope = self.univariate(self.free).call_and_ladj(a)
            log_det = log_det + log_slope.sum(-1)
        return self._join(a, x, z), log_det

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """z -> x."""
        a, b = self._split(z)
        if self.free is not None:
            a = self.univariate(self.free).inv(a)
        return self._join(a, z, self._transform(a, context).inv(b))

    def _transform(self, a: Tensor, context: Tensor | None) -> Any:
        out = self.net(a if context is None else torch.cat([a, context], 1))
        return self.univariate(out.unflatten(1, (self.univariate.size, -1)).movedim(1, -1))

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.mask is None:
            half = x.shape[1] // 2
            return x[:, :half], x[:, half:]
        return torch.where(self.mask, x, 0.0), x

    def _join(self, a: Tensor, before: Tensor, after: Tensor) -> Tensor:
        return torch.cat([a, after], 1) if self.mask is None else torch.where(self.mask, before, after)

    def _counted(self, log_slope: Tensor) -> Tensor:
        return log_slope if self.mask is None else torch.where(self.mask, 0.0, log_slope)


def coupling_mlp(
    univariate: Univariate,
    features: int,
    hidden: Sequence[int],
    *,
    activation: str = "relu",
    context: int = 0,
    free: bool = False,
    identity: bool = False,
) -> Coupling:
    """A coupling of the halves of a vector by a multilayer perceptron.

    Args:
        univariate: Of each number of the second half.
        features: D, at least 2.
        hidden: Widths of the hidden layers.
        activation: A key of `zoo.nets.ACTIVATIONS`.
        context: Width of what the network is also given.
        free: Whether the first half goes through functions of its own.
        identity: Whether it starts as the identity. Flows of few numbers are the slower to learn for it.
    """
    half = features // 2
    net = mlp(half + context, hidden, (features - half) * univariate.size, activation)
    if identity:
        start_at_zero(net[-1])
    return Coupling(univariate, net, free=features if free else 0)


class Masked(nn.Module):
    """One autoregressive layer, zuko's, over (B, D): a masked network sees all numbers, and each gives those after it.

    z takes one pass, its inverse D.

    Args:
        univariate: What is done to each number.
        features: D.
        hidden: Widths of the hidden layers of the masked network.
        activation: A key of `zoo.nets.ACTIVATIONS`.

    Raises: UnknownNameError.
    """

    def __init__(self, univariate: Univariate, features: int, hidden: Sequence[int], *, activation: str = "relu"):
        super().__init__()
        if activation not in ACTIVATIONS:
            raise UnknownNameError("activation", activation, ACTIVATIONS)
        options: dict[str, Any] = {"hidden_features": hidden, "activation": ACTIVATIONS[activation]}
        self.transform = MaskedAutoregressiveTransform(
            features, univariate=univariate.make, shapes=univariate.shapes, **(options if features > 1 else {})
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D) -> (B, D), and log |det dz/dx| (B,)."""
        z, log_det = self.transform(None).call_and_ladj(x)
        return z, log_det

    def inverse(self, z: Tensor) -> Tensor:
        """Number by number."""
        return self.transform(None).inv(z)


class ResidualNet(nn.Module):
    """Residual blocks of 3x3 convolutions with weight normalisation, all of which the output sees (skip connections).

    Args:
        channels_in: Of the image.
        channels_out: Of the output, zero at first.
        width: Channels of the hidden layers.
        blocks: Number of residual blocks.

    Shapes: (B, channels_in, H, W) -> (B, channels_out, H, W).
    """

    def __init__(self, channels_in: int, channels_out: int, *, width: int, blocks: int):
        super().__init__()
        self.first = weight_norm(nn.Conv2d(channels_in, width, 3, padding=1))
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.ReLU(),
                weight_norm(nn.Conv2d(width, width, 3, padding=1)),
                nn.ReLU(),
                weight_norm(nn.Conv2d(width, width, 3, padding=1)),
            )
            for _ in range(blocks)
        )
        self.skips = nn.ModuleList(weight_norm(nn.Conv2d(width, width, 1)) for _ in range(blocks + 1))
        self.last = nn.Conv2d(width, channels_out, 1)
        start_at_zero(self.last)

    def forward(self, x: Tensor) -> Tensor:
        """Adds up what the blocks say."""
        h = self.first(x)
        seen = self.skips[0](h)
        for block, skip in zip(self.blocks, self.skips[1:], strict=True):
            h = h + block(h)
            seen = seen + skip(h)
        return self.last(torch.relu(seen))


def checkerboard(height: int, width: int, parity: int) -> Tensor:
    """(H, W) booleans, True where row + column + parity is even."""
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    return (rows + columns + parity) % 2 == 0


def squeeze(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, 4 C, H/2, W/2), the four corners of each square one after the other."""
    return pixel_unshuffle(x, 2).unflatten(1, (-1, 4)).transpose(1, 2).flatten(1, 2)


def unsqueeze(x: Tensor) -> Tensor:
    """The inverse of `squeeze`."""
    return pixel_shuffle(x.unflatten(1, (4, -1)).transpose(1, 2).flatten(1, 2), 2)


def start_at_zero(layer: nn.Module) -> None:
    """Then what the layer gives parameters to starts as the identity."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
