r"""Gaussian mixture by maximum likelihood: spherical, diagonal or full covariances.

Dempster, Laird & Rubin, "Maximum likelihood from incomplete data via the EM algorithm", JRSS B 39(1), 1977.

    p(x) = sum_k pi_k N(x; mu_k, Sigma_k)

    z --> x      sites: z () local, discrete, summed out; x (*event)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import pyro.distributions as dist
import torch
from pyro.nn import PyroParam
from torch import Tensor, nn
from torch.distributions import constraints
from torch.distributions.transforms import ReshapeTransform

from zoo.errors import OptionError
from zoo.mixtures.mixture import Mixture
from zoo.program import Preset

__all__ = ["GaussianMixture", "Moments", "moments", "normal"]

COVARIANCES = ("spherical", "diagonal", "full")


class GaussianMixture(Mixture):
    """Mixture of Gaussians; fitted by EM in closed form, or by gradient with z enumerated.

    Args:
        event_shape: Shape of one example; flattened to D.
        components: Number K of components.
        covariance: 'spherical' (`scale` holds standard deviations (K,)), 'diagonal' ((K, D)) or 'full' (Cholesky
            factors (K, D, D)).
        covariance_floor: Smallest variance that the M-step gives in any direction; keeps a component from shrinking
            onto one point. It has the purpose of scikit-learn's reg_covar, but bounds the eigenvalues where that adds
            to all of them: the M-step remains the exact maximiser under the bound, so EM cannot go down.
    """

    paper = "Dempster, Laird & Rubin, Maximum likelihood from incomplete data via the EM algorithm, 1977"
    dataset = "blobs"
    presets: ClassVar[Mapping[str, Preset]] = {"small": Preset({"components": 3}, "em")}

    def __init__(
        self,
        event_shape: list[int] = [2],  # noqa: B006 (JSON-like, never changed)
        components: int = 3,
        covariance: str = "full",
        covariance_floor: float = 1e-6,
    ):
        super().__init__(event_shape, components)
        if covariance not in COVARIANCES:
            raise OptionError(f"covariance must be one of {', '.join(COVARIANCES)}; got {covariance!r}.")
        if covariance_floor < 0:
            raise OptionError(f"covariance_floor is a variance and cannot be negative, got {covariance_floor}.")
        self.covariance, self.covariance_floor = covariance, covariance_floor
        k, d = components, self.event_shape.numel()
        self.means = nn.Parameter(torch.randn(k, d))
        if covariance == "full":
            self.scale = PyroParam(torch.eye(d).repeat(k, 1, 1), constraints.lower_cholesky, event_dim=2)
        else:
            shape = (k,) if covariance == "spherical" else (k, d)
            self.scale = PyroParam(torch.ones(shape), constraints.positive)

    def component(self, z: Tensor) -> dist.TorchDistribution:
        """The Gaussian of each z."""
        scale = self.scale[z]
        return normal(self.means[z], scale[..., None] if self.covariance == "spherical" else scale, self.event_shape)

    def component_log_prob(self, x: Tensor) -> Tensor:
        """log N(x; mu_k, Sigma_k), (B, *event_shape) -> (B, K)."""
        if self.covariance == "full":
            return super().component_log_prob(x)
        # One component at a time: several times faster than (B, K, D) at once, which leaves the processor's caches, and
        # about differences, because the usual expansion into matrix products cancels in float32.
        rows, scale = x.reshape(len(x), -1), self.scale.reshape(self.components, -1).expand_as(self.means)
        each = zip(self.means, scale, strict=True)
        squares = torch.stack([((rows - mean) / sd).square().sum(-1) for mean, sd in each], -1)
        return -squares / 2 - scale.log().sum(-1) - self.means.shape[-1] / 2 * math.log(2 * math.pi)

    @torch.no_grad()
    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        """One M-step from hard k-means clusters."""
        self.means.copy_(x.reshape(len(x), -1).mean(0))  # `statistics` are taken about the means: keep them near
        super().initialise(x, context)

    def statistics(self, x: Tensor, responsibilities: Tensor) -> dict[str, Tensor]:
        """Sums of (x - means) and of its squares or outer products.

        They are taken about the current means, not about zero, so that nothing cancels in float32 as EM converges.
        """
        found = moments(x.reshape(len(x), -1), responsibilities, self.means, self.covariance == "full")
        return {"first": found.first, "second": found.second}

    @torch.no_grad()
    def m_step(self, statistics: Mapping[str, Tensor]) -> None:
        """Weighted means and covariances; must follow its `e_step` with nothing changed in between."""
        counts = statistics["counts"]
        self.weights = counts
        n = counts.clamp(min=torch.finfo(counts.dtype).tiny)[:, None]
        shift = statistics["first"] / n
        self.means.add_(shift)
        if self.covariance == "full":
            covariance = statistics["second"] / n[..., None] - shift[:, :, None] * shift[:, None, :]
            self.scale = self._floored_cholesky(covariance)
        else:
            variance = statistics["second"] / n - shift**2
            if self.covariance == "spherical":
                variance = variance.mean(-1)
            self.scale = variance.clamp(min=self._floor(variance)).sqrt()

    def _floor(self, like: Tensor) -> float:
        return max(self.covariance_floor, torch.finfo(like.dtype).tiny)

    def _floored_cholesky(self, covariance: Tensor) -> Tensor:
        """Cholesky factor after raising the eigenvalues to the floor; by QR, which cannot fail as a Cholesky can."""
        values, vectors = torch.linalg.eigh(covariance)
        root = vectors * values.clamp(min=self._floor(values)).sqrt().unsqueeze(-2)
        upper = torch.linalg.qr(root.mT).R
        return (upper * upper.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-1)).mT

    def parameter_count(self) -> int:
        """Free numbers; of a Cholesky factor only the lower triangle is."""
        d = self.event_shape.numel()
        unused = self.components * d * (d - 1) // 2 if self.covariance == "full" else 0
        return super().parameter_count() - unused


def normal(mean: Tensor, scale: Tensor, event_shape: torch.Size) -> dist.TorchDistribution:
    """A Gaussian over `event_shape` from flat parameters.

    Args:
        mean: (..., D).
        scale: Standard deviations (..., D) or (..., 1), or Cholesky factors (..., D, D): told apart by `ndim`.
        event_shape: Shape of one example, of D numbers.
    """
    if scale.ndim == mean.ndim:
        shape = mean.shape[:-1] + event_shape
        return dist.Normal(mean.reshape(shape), scale.expand_as(mean).reshape(shape)).to_event(len(event_shape))
    flat = dist.MultivariateNormal(mean, scale_tril=scale)
    if event_shape == mean.shape[-1:]:
        return flat
    return dist.TransformedDistribution(flat, [ReshapeTransform(mean.shape[-1:], event_shape)])


class Moments(NamedTuple):
    """Weighted sums over rows of 1, of x - centre, and of its squares or outer products."""

    counts: Tensor
    first: Tensor
    second: Tensor


def moments(x: Tensor, weights: Tensor, centre: Tensor, full: bool) -> Moments:
    """Weighted moments of rows about the centres of K components.

    Args:
        x: Rows (N, D).
        weights: (N, K).
        centre: (K, D).
        full: Whether `second` holds outer products (K, D, D) rather than squares (K, D).
    """
    first, second = [], []
    for weight, point in zip(weights.unbind(-1), centre, strict=True):  # one at a time, see `component_log_prob`
        difference = x - point
        first.append(weight @ difference)
        second.append((weight[:, None] * difference).T @ difference if full else weight @ difference.square())
    return Moments(weights.sum(0), torch.stack(first), torch.stack(second))
