r"""NADE and RNADE: every site has a hidden layer that sees the sites before it, with weights that all sites share.

Larochelle & Murray, "The neural autoregressive distribution estimator", AISTATS 2011; Uria, Murray & Larochelle,
"RNADE: the real-valued neural autoregressive density-estimator", NIPS 2013.

    a_1 = c,   a_i+1 = a_i + W_i x_i,   h_i = g(rho_i a_i),   p(x_i | x_<i) = likelihood(b_i + V_i h_i)

with W_i the i-th column of W. In NADE all rho_i are 1 and the likelihood is Bernoulli; in RNADE rho is learned, since
the sums grow with i and would saturate the units, and the likelihood is a mixture of normals.

    x_1, ..., x_i-1 --> x_i      sites: x (*event_shape); no latents
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.autoregressive.base import FixedOrder
from zoo.nets import activation as make_activation
from zoo.options import Count, Seed, Shape
from zoo.program import Preset
from zoo.specs import Spec

__all__ = ["NADE", "RNADE"]

BLOCK = 16
"""Sites whose hidden layers are computed together: a product of matrices in place of as many small steps."""
SGD = {"batch_size": 100, "optimizer": "sgd", "patience": 10}


class NADE(FixedOrder):
    """NADE in a fixed order.

    The density is computed in blocks of sites. Without gradients it takes the memory of one block, 3 x 16 x B x H
    numbers; with them, 2 to 3 x B x D x H. A draw keeps the running sum a_i and costs about as much as one density.

    Args:
        event_shape: Shape of one example, D sites.
        hidden: Number H of hidden units.
        order: 'raster' (the order of pixels) or 'random'.
        activation: A key of `zoo.nets.ACTIVATIONS`.
        likelihood: What a site follows; see `zoo.likelihoods.LIKELIHOODS`.
        seed: Of the random order.

    Raises: OptionError, UnknownNameError.
    """

    paper = "Larochelle & Murray, The neural autoregressive distribution estimator, 2011"
    dataset = "digits-binary"

    def __init__(
        self,
        event_shape: Shape = (8, 8),
        hidden: Count = 64,
        order: str = "raster",
        activation: str = "sigmoid",
        likelihood: Spec = "bernoulli",
        seed: Seed = 0,
    ):
        super().__init__(event_shape, likelihood, order=order, seed=seed)
        self.activation = make_activation(activation)
        sites = self.event_shape.numel()
        self.first = nn.Linear(sites, hidden)  # W and c
        self.last = nn.Linear(hidden, sites * self.likelihood.size)  # V and b
        nn.init.zeros_(self.last.weight)  # so that the first outputs are the biases, those of independent sites
        nn.init.zeros_(self.first.bias)
        self.rescaling: nn.Parameter | None = None

    def outputs(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Block by block: the sum up to a block's first site, and within it products with a triangle of its inputs."""
        seen, weight, (last_weight, last_bias) = self._inputs(x), self._first(), self._last()
        sites, linear, found = len(weight), self.first.bias.expand(len(x), -1), []
        earlier = torch.ones(BLOCK, BLOCK, dtype=torch.bool, device=x.device).tril(-1)
        for start in range(0, sites, BLOCK):
            block = slice(start, min(start + BLOCK, sites))
            here, n = seen[:, block], block.stop - start
            within = here * earlier[:n, None, :n]  # (site, row, site before it)
            sums = linear + F.linear(within, weight[block].t())
            found.append(torch.baddbmm(last_bias[block], self._units(sums, block), last_weight[block]))
            if block.stop < sites:
                linear = torch.addmm(linear, here, weight[block])
        outputs = torch.cat(found)[self.permutation.argsort()]
        return outputs.transpose(0, 1).reshape(*x.shape, self.likelihood.size)

    def continue_from(self, x: Tensor, known: int, context: Tensor | None, noise: Tensor) -> Tensor:
        """Site by site; a site that has been drawn is added to the running sum."""
        seen, weight, (last_weight, last_bias) = self._inputs(x), self._first(), self._last()
        order, sites = self.permutation.tolist(), list(x.reshape(len(x), -1)[:, self.permutation].unbind(1))
        linear = torch.addmm(self.first.bias, seen[:, :known], weight[:known])
        steps = zip(weight.unbind(), last_weight.unbind(), last_bias.unbind(), noise.unbind(1), strict=True)
        for i, (row, out, bias, uniform) in enumerate(steps):
            if i >= known:
                units = self._units(linear, slice(i, i + 1)).reshape(linear.shape)
                sites[i] = self.likelihood.draw(torch.addmm(bias, units, out), uniform, order[i])
                linear = torch.addr(linear, self.likelihood.embed(sites[i], order[i]), row)
        return torch.stack(sites, 1)[:, self.permutation.argsort()].reshape(x.shape)

    def codes_of(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The hidden layer once it has seen all of x, (B, H)."""
        sums = torch.addmm(self.first.bias, self._inputs(x), self._first())
        return self._units(sums, slice(-1, None)).reshape(sums.shape)

    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        """Starts at independent sites fitted to the data."""
        self.last.bias.copy_(self.likelihood.initial(x).flatten())

    # What follows is in the order of the sites.

    def _inputs(self, x: Tensor) -> Tensor:
        """What the hidden layers see, (B, D)."""
        return self.likelihood.embed(x).reshape(len(x), -1)[:, self.permutation]

    def _first(self) -> Tensor:
        """W, (D, H)."""
        return self.first.weight.t()[self.permutation]

    def _last(self) -> tuple[Tensor, Tensor]:
        """V (D, H, size) and b (D, 1, size)."""
        sites = len(self.permutation)
        weight, bias = self.last.weight.unflatten(0, (sites, -1)), self.last.bias.reshape(sites, 1, -1)
        return weight[self.permutation].transpose(1, 2), bias[self.permutation]

    def _units(self, linear: Tensor, block: slice) -> Tensor:
        """Hidden layers of a block of sites from their sums (sites, B, H); of one site, the sums may be (B, H)."""
        if self.rescaling is not None:
            linear = self.rescaling[block].reshape(-1, 1, 1) * linear
        return self.activation(linear)

    presets: ClassVar[Mapping[str, Preset]] = {
        "small": Preset({"hidden": 100}, "svi", {"epochs": 100, "batch_size": 100, "lr": 5e-3, "patience": 4}),
        # Rates are those of a mean over 100 rows. Adam moves rare weights as fast as others, and overfits these two.
        "dna": Preset({"hidden": 100}, "svi", {**SGD, "epochs": 60, "lr": 0.6, "validate_every": 16}, data="dna"),
        "mushrooms": Preset(
            {"hidden": 100},
            "svi",
            {**SGD, "epochs": 100, "lr": 2.0, "clip_norm": 3.0, "validate_every": 40},
            data="mushrooms",
        ),
        "paper": Preset(
            {"hidden": 500, "order": "random"}, "svi", {**SGD, "epochs": 500, "lr": 0.1, "decay": "constant"}
        ),
    }


class RNADE(NADE):
    """RNADE in a fixed order: real numbers, each a mixture of normals; grey levels with 'logistic-mixture'.

    Data on a grid (images) have no density for normals to find: their scales shrink without end. Use the preset 'grey'.

    Args:
        event_shape: Shape of one example, D sites.
        hidden: Number H of hidden units.
        order: 'raster' (the order of pixels) or 'random'.
        activation: A key of `zoo.nets.ACTIVATIONS`; the paper's best is 'relu'.
        likelihood: 'gaussian-mixture' (with options: {"name": "gaussian-mixture", "components": 20}), or any other of
            `zoo.likelihoods.LIKELIHOODS`.
        seed: Of the random order.

    Raises: OptionError, UnknownNameError.
    """

    paper = "Uria, Murray & Larochelle, RNADE: the real-valued neural autoregressive density-estimator, 2013"
    dataset = "moons"

    def __init__(
        self,
        event_shape: Shape = (8, 8),
        hidden: Count = 50,
        order: str = "raster",
        activation: str = "relu",
        likelihood: Spec = "gaussian-mixture",
        seed: Seed = 0,
    ):
        super().__init__(event_shape, hidden, order, activation=activation, likelihood=likelihood, seed=seed)
        self.rescaling = nn.Parameter(torch.ones(self.event_shape.numel()))  # rho

    presets: ClassVar[Mapping[str, Preset]] = {
        "small": Preset({}, "svi", {"epochs": 100, "batch_size": 100, "lr": 2e-3, "patience": 4}),
        "grey": Preset(  # the 17 levels of the digits
            {"likelihood": {"name": "logistic-mixture", "values": 17, "components": 5}},
            "svi",
            {"epochs": 100, "batch_size": 100, "lr": 2e-3, "patience": 4},
            data="digits",
        ),
        "paper": Preset(
            {"hidden": 512, "likelihood": {"name": "gaussian-mixture", "components": 20}},
            "svi",
            {**SGD, "epochs": 500, "lr": 1e-3, "decay": "constant"},
        ),
    }
