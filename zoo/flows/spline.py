r"""Neural spline flow: couplings, or autoregressive layers, of monotone rational-quadratic splines.

Durkan, Bekasov, Murray & Papamakarios, "Neural spline flows", NeurIPS 2019.

    z_a = g(x_a; free parameters),   z_b = g(x_b; net(x_a)),   g a monotone spline with K bins on [-B, B], the
    identity outside

    sites: x (*event_shape); no latents
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import nn

from zoo.errors import UnknownNameError
from zoo.flows.coupling import Masked, Univariate, coupling_mlp
from zoo.flows.flow import Permutation, VectorFlow, check_size
from zoo.options import Count, Counts, Positive, Shape, Values
from zoo.program import Preset

__all__ = ["SPLINE_LAYERS", "NeuralSpline"]

SPLINE_LAYERS = ("coupling", "autoregressive")


class NeuralSpline(VectorFlow):
    """A stack of spline layers with permutations between.

    Args:
        event_shape: Shape of one example; at least two numbers for couplings.
        layers: How many.
        bins: K of each spline, at least 2.
        bound: B; data are standardised first.
        hidden: Widths of the hidden layers of each network.
        activation: A key of `zoo.nets.ACTIVATIONS`.
        kind: 'coupling' (drawing is as quick as the density) or 'autoregressive' (drawing takes D passes a layer).
        permutation: Of the numbers from one layer to the next, 'reverse' or 'random' (the paper's).

    Raises: OptionError, ShapeError, UnknownNameError.
    """

    paper = "Durkan, Bekasov, Murray & Papamakarios, Neural spline flows, 2019"
    presets: ClassVar[Mapping[str, Preset]] = {
        "small": Preset({"hidden": [64, 64]}, "svi", {"steps": 4000, "batch_size": 128, "lr": 2e-3}),
        "paper": Preset(
            {"layers": 10, "hidden": [256, 256], "permutation": "random"},
            "svi",
            {"steps": 400_000, "batch_size": 512, "lr": 5e-4},
        ),
    }

    def __init__(
        self,
        event_shape: Shape = (2,),
        layers: Count = 4,
        bins: Values = 8,
        bound: Positive = 5.0,
        hidden: Counts = (32, 32),
        activation: str = "relu",
        kind: str = "coupling",
        permutation: str = "reverse",
    ):
        super().__init__(event_shape)
        if kind not in SPLINE_LAYERS:
            raise UnknownNameError("kind of spline layer", kind, SPLINE_LAYERS)
        check_size(event_shape, least=2 if kind == "coupling" else 1)
        d, univariate = self.event_shape.numel(), Univariate("spline", bins, bound)
        self.layers = nn.ModuleList([Permutation(d, "alternate")] if kind == "coupling" else [])
        for _ in range(layers):
            layer: nn.Module
            if kind == "coupling":
                layer = coupling_mlp(univariate, d, hidden, activation=activation, free=True)
            else:
                layer = Masked(univariate, d, hidden, activation=activation)
            self.layers.append(layer)
            self.layers.append(Permutation(d, permutation))
