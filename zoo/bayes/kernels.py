"""Covariance functions of Gaussian processes by name: Pyro's own, with a length scale for each column.

Rasmussen & Williams, "Gaussian processes for machine learning", 2006, chapter 4.

Length scales that are not given start at 1, or at the spread of the data where `fit` sees these first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import torch
from pyro.contrib.gp import kernels
from torch import Tensor

from zoo.errors import OptionError
from zoo.options import Positive
from zoo.specs import Spec, make_part

__all__ = ["KERNELS", "make_kernel", "take_lengths"]


def _stationary(
    cls: type[kernels.Kernel], features: int, lengthscale: float | None, variance: float, **more: Any
) -> Any:
    scales = torch.full((features,), 1.0 if lengthscale is None else float(lengthscale))
    found = cls(features, torch.tensor(float(variance)), scales, **more)
    found.of_any_length = lengthscale is None
    return found


@torch.no_grad()
def take_lengths(kernel: Any, lengthscale: Tensor) -> None:
    """Starts the length scales (D,) that no option says, where these are not 1; what is there else stays as it is.

    So do those of a periodic kernel, which are in units of its period.
    """
    for part in kernel.modules():
        if getattr(part, "of_any_length", False) and not isinstance(part, kernels.Periodic):
            part.lengthscale = torch.where(lengthscale == 1, part.lengthscale, lengthscale.to(part.lengthscale))


def rbf(features: int, lengthscale: Positive | None = None, variance: Positive = 1.0) -> Any:
    """variance exp(-r^2 / 2), r the distance of two rows in units of the length scales."""
    return _stationary(kernels.RBF, features, lengthscale, variance)


def matern32(features: int, lengthscale: Positive | None = None, variance: Positive = 1.0) -> Any:
    """variance (1 + sqrt(3) r) exp(-sqrt(3) r): once differentiable functions."""
    return _stationary(kernels.Matern32, features, lengthscale, variance)


def matern52(features: int, lengthscale: Positive | None = None, variance: Positive = 1.0) -> Any:
    """variance (1 + sqrt(5) r + 5/3 r^2) exp(-sqrt(5) r): twice differentiable functions."""
    return _stationary(kernels.Matern52, features, lengthscale, variance)


def periodic(
    features: int, lengthscale: Positive | None = None, variance: Positive = 1.0, period: Positive = 1.0
) -> Any:
    """variance exp(-2 sum_d sin^2(pi (x_d - z_d) / period_d) / lengthscale_d^2)."""
    return _stationary(kernels.Periodic, features, lengthscale, variance, period=torch.full((features,), float(period)))


def _combined(join: Callable[[Any, Any], Any], features: int, of: Sequence[Spec]) -> Any:
    if len(of) < 2:
        raise OptionError(f"A sum or product of kernels has at least two, got {list(of)}.")
    return reduce(join, (make_kernel(each, features) for each in of))


def total(features: int, of: Sequence[Spec]) -> Any:
    """The sum of kernels: that of independent functions, added."""
    return _combined(kernels.Sum, features, of)


def product(features: int, of: Sequence[Spec]) -> Any:
    """The product of kernels."""
    return _combined(kernels.Product, features, of)


KERNELS: dict[str, Callable[..., Any]] = {
    "rbf": rbf, "matern32": matern32, "matern52": matern52, "periodic": periodic, "sum": total, "product": product,
}  # fmt: skip
"""Name -> what makes it; arguments but `features` are the options."""


def make_kernel(kernel: Spec, features: int) -> Any:
    """A kernel by name, or by name and options: {"name": "sum", "of": ["rbf", {"name": "periodic", "period": 2.0}]}.

    Returns: A module k(X, Z=X, diag=False), (N, D) and (M, D) to (N, M), or (N,), with positive parameters.

    Raises: UnknownNameError for a name or an option that there is not; OptionError for a bad value of one.
    """
    return make_part("kernel", kernel, KERNELS, features=features)
