r"""What all flows share: an invertible network between data and independent noise, and the density that follows.

Rezende & Mohamed, "Variational inference with normalizing flows", ICML 2015; Papamakarios et al., "Normalizing flows
for probabilistic modeling and inference", JMLR 2021.

    log p(x) = log p(z) + log |det dz/dx|,   z = f(x),   p(z) a product of standard normals or logistics

    sites: x (*event_shape); no latents
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions.utils import clamp_probs
from torch.nn.functional import logsigmoid

from zoo.density import DensityProgram
from zoo.errors import ShapeError, UnknownNameError

__all__ = ["PERMUTATIONS", "Flow", "Permutation", "VectorFlow", "back", "check_size", "through"]

PERMUTATIONS = ("reverse", "alternate", "random")


class Flow(DensityProgram):
    """An invertible map of standardised data to noise: give `encode` and `decode`.

    Args:
        event_shape: Shape of one example.
        prior: Of each number of the noise, 'normal' or 'logistic'.

    Raises: UnknownNameError.
    """

    family = "flows"
    dataset = "moons"

    def __init__(self, event_shape: Sequence[int], prior: str = "normal"):
        super().__init__()
        if prior not in ("normal", "logistic"):
            raise UnknownNameError("prior", prior, ("normal", "logistic"))
        self.event_shape, self.prior = torch.Size(event_shape), prior
        # Constants, set once from data: networks see numbers of about size one, and splines have knots where data are.
        self.register_buffer("loc", torch.zeros(self.event_shape))
        self.register_buffer("scale", torch.ones(self.event_shape))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Standardised data (B, *event_shape) -> noise (B, D) and log |det dz/dx| (B,)."""
        raise NotImplementedError(f"{type(self).__name__} must define encode(x)")

    def decode(self, z: Tensor) -> Tensor:
        """The inverse of `encode`, (B, D) -> (B, *event_shape)."""
        raise NotImplementedError(f"{type(self).__name__} must define decode(z)")

    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        """Takes mean and standard deviation of each number from the data."""
        self.loc.copy_(x.mean(0))
        # What never varies has no scale of its own.
        self.scale.copy_(x.std(0, correction=0).clamp(min=1e-3))

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The change of variables, one pass."""
        z, log_det = self.encode((x - self.loc) / self.scale)
        return self.log_prior(z) + log_det - self.scale.log().sum()

    def codes_of(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The noise that x is made of, (B, D)."""
        return self.encode((x - self.loc) / self.scale)[0]

    def log_prior(self, z: Tensor) -> Tensor:
        """(B, D) -> (B,)."""
        if self.prior == "logistic":
            return (logsigmoid(z) + logsigmoid(-z)).sum(-1)
        return -0.5 * (z.square() + math.log(2 * math.pi)).sum(-1)

    @torch.no_grad()
    def draw(self, n: int, context: Tensor | None = None) -> Tensor:
        """Noise, decoded."""
        shape = (n, self.event_shape.numel())
        if self.prior == "logistic":
            z = torch.logit(clamp_probs(torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device)))
        else:
            z = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        return self.decode(z) * self.scale + self.loc


class VectorFlow(Flow):
    """A flow that takes an example as one vector and goes through `self.layers`, one after the other.

    A layer has `forward(x) -> (z, log_det)` and `inverse(z) -> x` over (B, D).
    """

    layers: nn.ModuleList

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """All layers."""
        return through(self.layers, x.reshape(len(x), -1))

    def decode(self, z: Tensor) -> Tensor:
        """All layers, the last first."""
        return back(self.layers, z).reshape(len(z), *self.event_shape)


class Permutation(nn.Module):
    """Another order of features (B, D) or of channels (B, C, H, W).

    Args:
        features: D or C.
        kind: 'reverse'; 'alternate', those at even places, then the others, so that each half of an image has the
            neighbours of the other; or 'random': drawn once, and saved with the program.

    Raises: UnknownNameError.
    """

    order: Tensor
    undo: Tensor

    def __init__(self, features: int, kind: str = "reverse"):
        super().__init__()
        if kind not in PERMUTATIONS:
            raise UnknownNameError("permutation", kind, PERMUTATIONS)
        order = torch.arange(features)
        if kind == "random":
            order = torch.randperm(features)
        else:
            order = order.flip(0) if kind == "reverse" else torch.cat([order[::2], order[1::2]])
        self.register_buffer("order", order)
        self.register_buffer("undo", order.argsort())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Changes no volume."""
        return x.index_select(1, self.order), x.new_zeros(len(x))

    def inverse(self, z: Tensor) -> Tensor:
        """The order before."""
        return z.index_select(1, self.undo)


def through(layers: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """x through all layers of an nn.ModuleList, and the sum of their log determinants."""
    total = x.new_zeros(len(x))
    for layer in layers:
        x, log_det = layer(x)
        total = total + log_det
    return x, total


def back(layers: Any, z: Tensor) -> Tensor:
    """The inverse of `through`."""
    for layer in reversed(layers):
        z = layer.inverse(z)
    return z


def check_size(event_shape: Sequence[int], least: int = 2) -> None:
    """Raises ShapeError for examples of fewer than `least` numbers."""
    if torch.Size(event_shape).numel() < least:
        raise ShapeError(
            f"A coupling needs examples of at least {least} numbers, got event_shape {tuple(event_shape)}; "
            "use MAF for less."
        )
