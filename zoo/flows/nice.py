r"""NICE: additive couplings, then a scale for each number.

Dinh, Krueger & Bengio, "NICE: Non-linear independent components estimation", 2014.

    z_b = x_b + m(x_a),   then   z <- exp(s) z,   p(z) logistic;   log |det dz/dx| = sum s

    sites: x (*event_shape); no latents
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from zoo.flows.coupling import Univariate, coupling_mlp
from zoo.flows.flow import Permutation, VectorFlow, check_size
from zoo.options import Count, Counts, Shape
from zoo.program import Preset

__all__ = ["NICE", "Scaling"]


class NICE(VectorFlow):
    """Non-linear independent components.

    Args:
        event_shape: Shape of one example, at least two numbers.
        couplings: How many; the halves change places from one to the next.
        hidden: Widths of the hidden layers of each.
        activation: A key of `zoo.nets.ACTIVATIONS`.
        prior: 'logistic' or 'normal'.

    Raises: OptionError, ShapeError, UnknownNameError.
    """

    paper = "Dinh, Krueger & Bengio, NICE: Non-linear independent components estimation, 2014"
    presets: ClassVar[Mapping[str, Preset]] = {
        "small": Preset({"hidden": [64, 64]}, "svi", {"steps": 4000, "batch_size": 128, "lr": 2e-3}),
        "paper": Preset({"hidden": [1000] * 5}, "svi", {"epochs": 1500, "batch_size": 200, "lr": 1e-3}),
    }

    def __init__(
        self,
        event_shape: Shape = (2,),
        couplings: Count = 4,
        hidden: Counts = (32, 32),
        activation: str = "relu",
        prior: str = "logistic",
    ):
        super().__init__(event_shape, prior)
        check_size(event_shape)
        d = self.event_shape.numel()
        self.layers = nn.ModuleList([Permutation(d, "alternate")])  # odd and even numbers take turns, as in the paper
        for _ in range(couplings):
            self.layers.append(coupling_mlp(Univariate("additive"), d, hidden, activation=activation))
            self.layers.append(Permutation(d))
        self.layers.append(Scaling(d))


class Scaling(nn.Module):
    """z = exp(s) x: what additive couplings lack, as they keep every volume.

    Args:
        features: D.
    """

    def __init__(self, features: int):
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(features))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D) -> (B, D), and the sum of s for each."""
        return x * self.log_scale.exp(), self.log_scale.sum().expand(len(x))

    def inverse(self, z: Tensor) -> Tensor:
        """x = exp(-s) z."""
        return z * (-self.log_scale).exp()
