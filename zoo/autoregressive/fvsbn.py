r"""The fully visible sigmoid belief network: a logistic regression of every bit on all the bits before it.

Neal, "Connectionist learning of belief networks", Artificial Intelligence 1992; Frey, "Graphical models for machine
learning and digital communication", 1998.

    p(x_i = 1 | x_<i) = sigmoid(b_i + sum_{j < i} w_ij x_j)          < in a fixed order of the sites

    x_1, ..., x_i-1 --> x_i      sites: x (*event_shape); no latents

In the order of pixels it is `ar-chain` with k = D - 1, whose windows of k predecessors would take B D k numbers here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.autoregressive.base import FixedOrder
from zoo.options import Seed, Shape
from zoo.program import Preset

__all__ = ["FVSBN"]

SGD = {"epochs": 100, "batch_size": 100, "optimizer": "sgd", "patience": 10}


class FVSBN(FixedOrder):
    """Logistic regressions with a triangular matrix of weights; its likelihood is concave in the parameters.

    Args:
        event_shape: Shape of one example, D sites.
        order: 'raster' (the order of pixels) or 'random'.
        seed: Of the random order.

    Raises: UnknownNameError.
    """

    paper = "Neal, Connectionist learning of belief networks, 1992; Frey 1998"
    dataset = "digits-binary"

    def __init__(self, event_shape: Shape = (8, 8), order: str = "raster", seed: Seed = 0):
        super().__init__(event_shape, "bernoulli", order=order, seed=seed)
        sites = self.event_shape.numel()
        self.bias = nn.Parameter(torch.zeros(sites))
        self.weight = nn.Parameter(torch.zeros(sites, sites))

    def masked(self) -> Tensor:
        """The weights (D, D), those of a site's predecessors in its row and zeros elsewhere."""
        rank = self.permutation.argsort()
        return self.weight * (rank.unsqueeze(-1) > rank)

    def outputs(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """All logits by one product of matrices."""
        return F.linear(x.reshape(len(x), -1), self.masked(), self.bias).reshape(*x.shape, 1)

    def continue_from(self, x: Tensor, known: int, context: Tensor | None, noise: Tensor) -> Tensor:
        """Site i costs a product with its i weights."""
        order = self.permutation
        flat, weight, bias = x.reshape(len(x), -1)[:, order], self.weight[order][:, order], self.bias[order]
        for i in range(known, len(order)):
            logit = flat[:, :i] @ weight[i, :i] + bias[i]
            flat[:, i] = self.likelihood.draw(logit.unsqueeze(-1), noise[:, i])
        return flat[:, order.argsort()].reshape(x.shape)

    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        """Starts from independent sites at the data's frequencies."""
        self.bias.copy_(self.likelihood.initial(x).flatten())

    def parameter_count(self) -> int:
        """D biases and D (D - 1) / 2 weights: those of the other triangle are never used."""
        sites = len(self.bias)
        return sites + sites * (sites - 1) // 2

    presets: ClassVar[Mapping[str, Preset]] = {
        "small": Preset({}, "svi", {"epochs": 100, "batch_size": 100, "lr": 1e-2, "patience": 4}),
        # Adam moves rare weights as fast as others, and overfits these two.
        "dna": Preset({}, "svi", {**SGD, "lr": 0.3, "validate_every": 16}, data="dna"),
        "mushrooms": Preset({}, "svi", {**SGD, "lr": 10.0, "clip_norm": 1.0, "validate_every": 40}, data="mushrooms"),
    }
