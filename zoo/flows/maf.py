r"""Masked autoregressive flow: each number shifted and scaled as those before it say, all in one pass.

Papamakarios, Pavlakou & Murray, "Masked autoregressive flow for density estimation", NIPS 2017; the network is MADE
(Germain et al., 2015).

    z_i = exp(a_i) x_i + b_i,   (a_i, b_i) = net(x_1, ..., x_i-1)

    sites: x (*event_shape); no latents
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import nn

from zoo.flows.coupling import Masked, Univariate
from zoo.flows.flow import Permutation, VectorFlow, check_size
from zoo.options import Count, Counts, Shape
from zoo.program import Preset

__all__ = ["MAF"]

LIMIT = 7.0
"""Of |a_i|: the paper has none, exp overflows."""


class MAF(VectorFlow):
    """A stack of masked autoregressive layers with permutations between.

    Args:
        event_shape: Shape of one example.
        layers: How many.
        hidden: Widths of the hidden layers of each masked network.
        activation: A key of `zoo.nets.ACTIVATIONS`.
        permutation: Of the numbers from one layer to the next, 'reverse' (the paper's) or 'random'.

    Raises: OptionError, ShapeError, UnknownNameError.
    """

    paper = "Papamakarios, Pavlakou & Murray, Masked autoregressive flow for density estimation, 2017"
    presets: ClassVar[Mapping[str, Preset]] = {
        "small": Preset({"hidden": [64, 64]}, "svi", {"steps": 4000, "batch_size": 128, "lr": 2e-3}),
        "paper": Preset(
            {"layers": 10, "hidden": [512, 512]}, "svi", {"epochs": 300, "batch_size": 100, "lr": 1e-4}
        ),
    }  # fmt: skip

    def __init__(
        self,
        event_shape: Shape = (2,),
        layers: Count = 4,
        hidden: Counts = (32, 32),
        activation: str = "relu",
        permutation: str = "reverse",
    ):
        super().__init__(event_shape)
        check_size(event_shape, least=1)
        d = self.event_shape.numel()
        self.layers = nn.ModuleList()
        for _ in range(layers):
            self.layers.append(Masked(Univariate("affine", limit=LIMIT), d, hidden, activation=activation))
            self.layers.append(Permutation(d, permutation))
