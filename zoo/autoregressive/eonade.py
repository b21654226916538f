r"""EoNADE and DeepNADE: one network for all orders of the sites, trained on random splits into known and unknown sites.

Uria, Murray & Larochelle, "A deep and tractable density estimator", ICML 2014.

    h_1 = g(c + W (m * x) + U m),   h_l = g(c_l + W_l h_l-1),   p(x_i | x_m) = likelihood(b + V h_L)_i

with m in {0, 1}^D the known sites. Training draws an order o and a number d of known sites, and takes all the others
at once: unbiased for the mean of log p(x | o) over all D! orders, a lower bound on the log of their mixture:

    D / (D - d) sum_{i unknown} log p(x_i | x_m)

Evaluation is the exact mixture (EoNADE) over K fixed orders. One hidden layer is EoNADE 1hl, more are DeepNADE.

    x_m --> x_i      sites: x (*event_shape); no latents
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.autoregressive.ensemble import OrderEnsemble, pick
from zoo.errors import OptionError
from zoo.nets import activation as make_activation
from zoo.options import Count, Counts, Seed, Shape
from zoo.program import Preset
from zoo.specs import Spec

__all__ = ["EoNADE"]


class EoNADE(OrderEnsemble):
    """Order-agnostic NADE with any number of hidden layers.

    Going through an order keeps the sum of the first layer, which each site adds to, and computes the outputs of the
    next site only; the layers above the first must be computed anew for every site.

    Args:
        event_shape: Shape of one example.
        hidden: Widths of the hidden layers, at least one.
        orders: Number K of random orders in the mixture that is evaluated and drawn from.
        input_mask: Whether the network sees which sites are known (U), and so tells a zero from what is unknown. Data
            of few ones (categories, one bit each) train faster without.
        activation: A key of `zoo.nets.ACTIVATIONS`.
        likelihood: What a site follows; see `zoo.likelihoods.LIKELIHOODS`.
        seed: Of the orders.

    Raises: OptionError, UnknownNameError.
    """

    paper = "Uria, Murray & Larochelle, A deep and tractable density estimator, 2014"
    dataset = "digits-binary"

    def __init__(
        self,
        event_shape: Shape = (8, 8),
        hidden: Counts = (64,),
        orders: Count = 4,
        input_mask: bool = True,
        activation: str = "relu",
        likelihood: Spec = "bernoulli",
        seed: Seed = 0,
    ):
        super().__init__(event_shape, likelihood)
        if not hidden or min(hidden) < 1:
            raise OptionError(f"hidden must give the width of at least one layer, each at least 1; got {hidden}.")
        self.activation = make_activation(activation)
        sites, generator = self.event_shape.numel(), torch.Generator().manual_seed(seed)
        self.register_buffer(
            "permutations", torch.stack([torch.randperm(sites, generator=generator) for _ in range(orders)])
        )
        self.first = nn.Linear(sites, hidden[0])
        self.mask_weight = nn.Parameter(torch.zeros(hidden[0], sites)) if input_mask else None
        self.deep = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(hidden))
        self.last = nn.Linear(hidden[-1], sites * self.likelihood.size)

    def given(self, x: Tensor, known: Tensor) -> Tensor:
        """Outputs (B, D, size) of all sites given the known ones: flat x (B, D), known (B, D) of zeros and ones."""
        linear = self.first(self.likelihood.embed(x) * known)
        if self.mask_weight is not None:
            linear = linear + F.linear(known, self.mask_weight)
        return self.last(self._above(linear)).unflatten(-1, (-1, self.likelihood.size))

    def training_log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The estimate at the top, with an order and a split for each row.

        The numbers of known sites are spread over the batch (a common random shift modulo D), which leaves each
        uniform and the mean over the batch less noisy.
        """
        flat = x.reshape(len(x), -1)
        sites = flat.shape[-1]
        shift = torch.rand(1, dtype=x.dtype, device=x.device)
        d = ((torch.arange(len(x), device=x.device) / len(x) + shift) % 1.0 * sites).floor().unsqueeze(-1)
        rank = torch.rand(flat.shape, dtype=x.dtype, device=x.device).argsort(-1)
        known = (rank < d).to(x.dtype)
        outputs = self.given(flat, known).reshape(*x.shape, -1)
        terms = self.likelihood.distribution(outputs).log_prob(x).reshape(flat.shape)
        return (terms * (1 - known)).sum(-1) * (sites / (sites - d.squeeze(-1)))

    def outputs_of(self, x: Tensor, k: int | Tensor, context: Tensor | None = None) -> Tensor:
        """One walk through the order k."""
        order = pick(self.permutations, k)
        _, outputs = self._walk(x.reshape(len(x), -1), order, 0, None)
        return torch.stack(outputs, 1)[:, order.argsort()].reshape(*x.shape, self.likelihood.size)

    def continue_from(self, x: Tensor, known: int, context: Tensor | None, noise: Tensor) -> Tensor:
        """The same walk, drawing on the way."""
        drawn, _ = self._walk(x.reshape(len(x), -1), self.order, known, noise)
        return drawn.reshape(x.shape)

    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        """Starts the outputs at those of independent sites fitted to the data."""
        self.last.bias.copy_(self.likelihood.initial(x).reshape(-1))

    def _above(self, linear: Tensor) -> Tensor:
        """The last hidden layer from the linear part of the first."""
        h = self.activation(linear)
        for layer in self.deep:
            h = self.activation(layer(h))
        return h

    def _walk(self, x: Tensor, order: Tensor, known: int, noise: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """Through an order from site `known` on: (x, outputs of these sites), where x is drawn if there is noise."""
        seen, weight = self.likelihood.embed(x)[:, order].unbind(1), self.first.weight.t()[order]
        shifts = None if self.mask_weight is None else self.mask_weight.t()[order]
        last_weight = self.last.weight.unflatten(0, (len(order), -1))[order]
        last_bias = self.last.bias.unflatten(0, (len(order), -1))[order]
        linear = self.first.bias.expand(len(x), -1)
        values, outputs = list(x[:, order].unbind(1)), []
        for i in range(len(order)):
            value = seen[i]
            if i >= known:
                outputs.append(F.linear(self._above(linear), last_weight[i], last_bias[i]))
                if noise is not None:
                    values[i] = self.likelihood.draw(outputs[-1], noise[:, i], order[i])
                    value = self.likelihood.embed(values[i], order[i])
            linear = torch.addr(linear, value, weight[i])
            if shifts is not None:
                linear = linear + shifts[i]
        return (x if noise is None else torch.stack(values, 1)[:, order.argsort()]), outputs

    presets: ClassVar[Mapping[str, Preset]] = {
        "small": Preset({"hidden": [500], "activation": "tanh"}, "svi", {"lr": 3e-3, "epochs": 150, "batch_size": 100}),
        "paper": Preset(
            {"hidden": [500, 500], "orders": 128},
            "svi",
            {"epochs": 1000, "batch_size": 100, "lr": 1e-3, "validate_every": 25_000},
        ),
    }
