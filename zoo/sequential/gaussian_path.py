r"""The path of a linear Gaussian Markov chain as one distribution: hidden states, and their exact posterior.

v_1 ~ N(b_1, F_1 F_1'),   v_t ~ N(A_t-1 v_t-1 + b_t, F_t F_t')
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

__all__ = ["GaussianPath"]


class GaussianPath(TorchDistribution):
    """T states of K numbers, each a linear function of the one before it plus Gaussian noise.

    Args:
        offsets: b (..., T, K).
        matrices: A (..., T-1, K, K).
        factors: F (..., T, K, K), invertible; triangular or not.
        backward: Whether the chain runs from the last state of a path to its first. Then t counts from the end.

    Shapes: a value is (*batch_shape, T, K). What is common to a batch need not be expanded.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.independent(constraints.real, 2)
    has_rsample = True

    def __init__(self, offsets: Tensor, matrices: Tensor, factors: Tensor, *, backward: bool = False):
        self.offsets, self.matrices, self.factors, self.backward = offsets, matrices, factors, backward
        batch = torch.broadcast_shapes(offsets.shape[:-2], matrices.shape[:-3], factors.shape[:-3])
        super().__init__(batch, offsets.shape[-2:], validate_args=False)

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> GaussianPath:
        """The same over more batch dimensions."""
        offsets = self.offsets.expand(*batch_shape, *self.event_shape)
        return GaussianPath(offsets, self.matrices, self.factors, backward=self.backward)

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        """State by state, from noise that is drawn at once."""
        shape = self._extended_shape(torch.Size(sample_shape))
        noise = torch.randn(shape, dtype=self.offsets.dtype, device=self.offsets.device)
        first, *later = (self.offsets + _apply(self.factors, noise)).unbind(-2)
        path = [first]
        for matrix, jump in zip(self.matrices.unbind(-3), later, strict=True):
            path.append(_apply(matrix, path[-1]) + jump)
        return self._turned(torch.stack(path, -2), -2)

    def log_prob(self, value: Tensor) -> Tensor:
        """(..., T, K) -> (...), all steps at once."""
        value = self._turned(value, -2)
        jumps = value - self.offsets
        following = jumps[..., 1:, :] - _apply(self.matrices, value[..., :-1, :])
        jumps = torch.cat([jumps[..., :1, :], following], -2)
        # Inverses are as many as the factors; solving would factorise these again for every path.
        white = _apply(torch.linalg.inv(self.factors), jumps)
        log_det = torch.linalg.slogdet(self.factors).logabsdet.sum(-1)
        return -white.square().sum((-1, -2)) / 2 - log_det - self.event_shape.numel() * math.log(2 * math.pi) / 2

    def marginals(self) -> tuple[Tensor, Tensor]:
        """Mean (..., T, K) and covariance (..., T, K, K) of each state.

        Covariances have only the batch dimensions that matrices and factors have.
        """
        (mean, *offsets), (noise, *noises) = (
            self.offsets.unbind(-2), (self.factors @ self.factors.mT).unbind(-3)
        )  # fmt: skip
        means, covariances = [mean], [noise]
        for matrix, offset, noise in zip(self.matrices.unbind(-3), offsets, noises, strict=True):
            means.append(_apply(matrix, means[-1]) + offset)
            covariances.append(matrix @ covariances[-1] @ matrix.mT + noise)
        return self._turned(torch.stack(means, -2), -2), self._turned(torch.stack(covariances, -3), -3)

    @property
    def mean(self) -> Tensor:
        """Of each state, (..., T, K)."""
        return self.marginals()[0]

    def _turned(self, values: Tensor, dim: int) -> Tensor:
        """From the order of the chain to that of the path, or back."""
        return values.flip(dim) if self.backward else values


def _apply(matrix: Tensor, vector: Tensor) -> Tensor:
    """(..., n, k) times (..., k), batch dimensions broadcast."""
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)
