r"""Flows for guides: Pyro's autoregressive transforms, set up so that they start near the identity and can be compiled.

Inverse autoregressive flow: Kingma et al., "Improving variational inference with inverse autoregressive flow", 2016.
Splines: Durkan, Bekasov, Murray & Papamakarios, "Neural spline flows", 2019, in the linear rational form of Dolatabadi,
Erfani & Leckie, "Invertible generative modeling using linear rational splines", 2020.

    iaf:     z_i = s_i(e_<i) e_i + (1 - s_i(e_<i)) m_i(e_<i),   0 < s_i < 1
    spline:  z_i = g(e_i; theta_i(e_<i)),   g monotone on [-B, B] and the identity outside
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from pyro.distributions import transforms
from pyro.nn import AutoRegressiveNN, ConditionalAutoRegressiveNN
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from zoo.errors import UnknownNameError

__all__ = ["FLOWS", "BatchedAffine", "flow_layers"]

FLOWS = ("iaf", "spline")
BINS, BOUND = 8, 4.0
"""Pieces of a spline, and its box: a standard normal leaves [-4, 4] once in 16,000 draws."""


class _WholeTensors(TorchFunctionMode):
    """Makes `a[mask] = b[mask]` a choice at each element: what a mask picks has no fixed shape and is not compiled."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        if func in (Tensor.__getitem__, Tensor.__setitem__):
            target, mask, *value = args
            if isinstance(mask, Tensor) and mask.dtype == torch.bool:
                return target.copy_(torch.where(mask, value[0], target)) if value else target
        return func(*args, **(kwargs or {}))


class _SplineAutoregressive(transforms.SplineAutoregressive):
    """Pyro's, without shapes that depend on values."""

    def _call(self, x: Tensor) -> Any:
        with _WholeTensors():
            return super()._call(x)

    def _inverse(self, y: Tensor) -> Any:
        with _WholeTensors():
            return super()._inverse(y)


class _ConditionalSplineAutoregressive(transforms.ConditionalSplineAutoregressive):
    """The same given a context."""

    def condition(self, context: Tensor) -> Any:
        """The spline flow of one context."""
        return _SplineAutoregressive(self.input_dim, partial(self.nn, context=context), **self.kwargs)


class _ConditionalNet(ConditionalAutoRegressiveNN):
    """Pyro's, in the dtype of its context: inverting the flow starts from zeros of torch's default dtype."""

    def forward(self, x: Tensor, context: Tensor) -> Any:
        return super().forward(x.to(context), context)


class BatchedAffine(transforms.LowerCholeskyAffine):
    """z = loc + L e, with an L (*batch, d, d) of each example's own; Pyro's Jacobian knows only one L."""

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """log |det L|, in the batch shape of x."""
        return self.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1).expand(x.shape[:-1])


def flow_layers(
    kind: str, size: int, steps: int, hidden: int, context: int = 0, nonlinearity: nn.Module | None = None
) -> nn.ModuleList:
    """Autoregressive flows, to be applied one after the other; each has the order of the coordinates reversed.

    Args:
        kind: 'iaf' or 'spline'.
        size: Number of coordinates; with one alone, 'iaf' only shifts and scales it.
        steps: Number of flows.
        hidden: Hidden units of the network of each; at least `size`.
        context: Size of a context; with one, the flows are conditional: `condition(context)` makes each a transform.
        nonlinearity: Of the networks; None is ReLU.

    Raises: UnknownNameError.
    """
    if kind not in FLOWS:
        raise UnknownNameError("flow", kind, FLOWS)
    numbers = [1, 1] if kind == "iaf" else [BINS, BINS, BINS - 1, BINS]  # of each coordinate's piece of the network
    layers = nn.ModuleList()
    for step in range(steps):
        order = torch.arange(size).flip(0) if step % 2 else torch.arange(size)
        options: dict[str, Any] = {
            "param_dims": numbers,
            "permutation": order,
            "nonlinearity": nonlinearity or nn.ReLU(),
        }
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*input_dim = 1")  # one coordinate is fine here
            net: Any = (
                _ConditionalNet(size, context, [hidden], **options)
                if context
                else AutoRegressiveNN(size, [hidden], **options)
            )
        if kind == "iaf":
            affine = transforms.ConditionalAffineAutoregressive if context else transforms.AffineAutoregressive
            layers.append(affine(net, stable=bool(context)))
            continue
        with torch.no_grad():  # equal pieces of slope 1 are the identity
            last = net.layers[-1]
            last.weight.mul_(0.1)
            bias = last.bias.zero_().view(sum(numbers), size)
            bias[2 * BINS : 3 * BINS - 1] = math.log(math.e - 1)
        spline = _ConditionalSplineAutoregressive if context else _SplineAutoregressive
        layers.append(spline(size, net, count_bins=BINS, bound=BOUND))
    return layers
