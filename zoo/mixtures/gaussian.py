r"""Gaussian mixture by maximum likelihood: spherical, diagonal or full covariances.

Dempster, Laird & Rubin, "Maximum likelihood from incomplete data via the EM algorithm", JRSS B 39(1), 1977.

    p(x) = sum_k pi_k N(x; mu_k, Sigma_k)

    z --> x      sites: z () local, discrete, summed out; x (*event)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import pyro.distributions as dist
import torch
from pyro.nn import PyroParam
from torch import Tensor, nn
from torch.distributions import constraints

from zoo.arrays import fill
from zoo.distributions import observed
from zoo.errors import OptionError
from zoo.mixtures.mixture import Mixture
from zoo.mixtures.moments import GappyNormal, expected_moments, moments, normal, normalise_, rows_at_a_time, wide
from zoo.options import Count, NonNegative, Shape
from zoo.program import Preset

__all__ = ["GaussianMixture"]

COVARIANCES = ("spherical", "diagonal", "full")

MOST_FEATURES = 4096
"""Products of coordinates beyond which full covariances are not expanded: a chunk would hold too few rows."""
LARGEST_TERM = 1e5
"""Terms of the expanded log density, per dimension, beyond which it is not used: they cancel but for that many eps."""


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
    takes_missing = True
    presets: ClassVar[Mapping[str, Preset]] = {"small": Preset({"components": 3}, "em")}

    def __init__(
        self,
        event_shape: Shape = (2,),
        components: Count = 3,
        covariance: str = "full",
        covariance_floor: NonNegative = 1e-6,
    ):
        super().__init__(event_shape, components)
        if covariance not in COVARIANCES:
            raise OptionError(f"covariance must be one of {', '.join(COVARIANCES)}; got {covariance!r}.")
        self.covariance, self.covariance_floor = covariance, covariance_floor
        k, d = components, self.event_shape.numel()
        self.means = nn.Parameter(torch.randn(k, d))
        if covariance == "full":
            self.scale = PyroParam(torch.eye(d).repeat(k, 1, 1), constraints.lower_cholesky, event_dim=2)
        else:
            shape = (k,) if covariance == "spherical" else (k, d)
            self.scale = PyroParam(torch.ones(shape), constraints.positive)

    def component(self, z: Tensor, present: Tensor | None = None) -> dist.TorchDistribution:
        """The Gaussian of each z."""
        scale = self.scale[z]
        if present is not None:
            if self.covariance == "full":
                return GappyNormal(self.means[z], scale, present=present, event_shape=self.event_shape)
            shape = z.shape + self.event_shape
            mean, sd = (part[z].reshape(shape) for part in (self.means, self._deviations()))
            return observed(dist.Normal(mean, sd), present, len(self.event_shape))
        return normal(self.means[z], scale[..., None] if self.covariance == "spherical" else scale, self.event_shape)

    def component_log_prob(self, x: Tensor) -> Tensor:
        """log N(x; mu_k, Sigma_k), (B, *event_shape) -> (B, K)."""
        x, present = self.seen(x)
        if present is not None:
            each = torch.arange(self.components, device=x.device)  # one at a time: of each row a matrix (D, D)
            return torch.stack([self.component(k, present).log_prob(x) for k in each.split(1)], -1)
        rows = x.reshape(len(x), -1)
        if self.covariance == "full":
            whitening = self._whitening().mT  # (K, D, D), by which rows are multiplied
            # About a point amid the means, so that what is far from zero does not cancel: any point gives the same sum.
            centre = (self.weights @ self.means).detach()
            origin = (self.means - centre).unsqueeze(-2) @ whitening
            white = ((rows - centre) @ whitening.transpose(0, 1).flatten(1)).unflatten(-1, self.means.shape)
            squares = (white - origin.squeeze(-2)).square().sum(-1)
        else:
            # One component at a time: several times faster than (B, K, D) at once, which leaves the processor's caches,
            # and about differences, because the usual expansion into matrix products cancels in float32.
            each_of = zip(self.means, self._deviations(), strict=True)
            squares = torch.stack([((rows - mean) / sd).square().sum(-1) for mean, sd in each_of], -1)
        return self._log_normaliser() - squares / 2

    def _numbers_per_row(self) -> int:
        full = self.covariance == "full"
        return self.means.numel() if full else super()._numbers_per_row()

    def _deviations(self) -> Tensor:
        """Standard deviations (K, D), of covariances that are not full."""
        return self.scale.reshape(self.components, -1).expand_as(self.means)

    def _whitening(self) -> Tensor:
        """Inverse Cholesky factors (K, D, D), of full covariances."""
        scale = self.scale
        return torch.linalg.solve_triangular(scale, torch.eye(scale.shape[-1]).to(scale), upper=False)

    def _log_normaliser(self) -> Tensor:
        """Log density of each component at its mean, (K,)."""
        sd = self.scale.diagonal(dim1=-2, dim2=-1) if self.covariance == "full" else self._deviations()
        return -sd.log().sum(-1) - sd.shape[-1] / 2 * math.log(2 * math.pi)

    @torch.no_grad()
    def e_step(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Summed log-likelihood () and the statistics of the rows, at the current parameters.

        log p(x, z = k) is linear in the coordinates of x and their products. Both steps are then matrix products with
        these features, which a chunk computes once: (K, F) @ (F, B), and responsibilities (K, B) @ (B, F). They are
        taken about the mean of the mixture and in double precision. Where even so too much would cancel (a component
        far narrower than it is far away), and with missing values, the slower way is taken, `component_log_prob` and
        `moments` about the means.
        """
        expansion = None if self.seen(x)[1] is not None else self._expansion()
        if expansion is None:
            return super().e_step(x, context)
        centre, natural, constant = expansion
        k, features = natural.shape
        chunk = min(len(x), rows_at_a_time(k + features, x.device))
        # Made once and filled for each chunk: fresh memory for each costs a third of the time.
        phi, joint = natural.new_empty(features, chunk), natural.new_empty(k, chunk)
        value, counts, sums = natural.new_zeros(()), natural.new_zeros(k), torch.zeros_like(natural)
        for rows in x.reshape(len(x), -1).split(chunk):
            phi, joint = phi[:, : len(rows)], joint[:, : len(rows)]
            self._features(rows, centre, phi)
            torch.addmm(constant[:, None], natural, phi, out=joint)
            value += normalise_(joint, 0)
            counts += joint.sum(1)
            sums.addmm_(joint, phi.T)
        return value, {"counts": counts} | self._about_the_means(counts, sums, centre)

    def _features(self, rows: Tensor, centre: Tensor, out: Tensor) -> None:
        """Coordinates about the centre, then their squares or all their products: (B, D) -> (F, B)."""
        d = len(centre)
        y = torch.sub(rows.T, centre[:, None], out=out[:d])
        if self.covariance == "full":
            end = d
            for i in range(d):
                start, end = end, end + d - i
                torch.mul(y[i:], y[i], out=out[start:end])
        else:
            torch.mul(y, y, out=out[d:])

    def _expansion(self) -> tuple[Tensor, Tensor, Tensor] | None:
        """Centre (D,), natural parameters (K, F) and constants (K,): log p(x, z) = natural @ features(x) + constant.

        None where it would be inexact or large.
        """
        dtype, d = wide(self.means.device), self.means.shape[-1]
        means, share = self.means.to(dtype), self.weight_logits.to(dtype).log_softmax(-1)
        centre = share.exp() @ means
        offset = means - centre
        if self.covariance == "full":
            if d * (d + 1) // 2 > MOST_FEATURES:
                return None
            factor = self.scale.to(dtype)
            precision = torch.cholesky_inverse(factor)
            size = (offset.square() + factor.square().sum(-1)).sqrt()
            terms = (size.unsqueeze(-2) @ precision.abs() @ size.unsqueeze(-1)).flatten()
            linear = (precision @ offset.unsqueeze(-1)).squeeze(-1)
            row, column = torch.triu_indices(d, d, device=means.device)
            products = -precision[:, row, column] * torch.where(row == column, 0.5, 1.0).to(precision)
        else:
            sd = self._deviations().to(dtype)
            terms = (offset / sd).square().sum(-1) + d
            linear = offset / sd.square()
            products = -0.5 / sd.square()
        if not bool((terms <= LARGEST_TERM * d).all()):
            return None
        constant = share + self._log_normaliser().to(dtype) - (linear * offset).sum(-1) / 2
        return centre, torch.cat([linear, products], -1), constant

    def _about_the_means(self, counts: Tensor, sums: Tensor, centre: Tensor) -> dict[str, Tensor]:
        """The `statistics` from summed features."""
        k, d = self.means.shape
        offset = self.means.to(sums) - centre
        first, second = sums[:, :d], sums[:, d:]
        if self.covariance == "full":
            row, column = torch.triu_indices(d, d, device=sums.device)
            square = sums.new_empty(k, d, d)
            square[:, row, column] = square[:, column, row] = second
            cross = first[:, :, None] * offset[:, None, :]
            second = square - cross - cross.mT + counts[:, None, None] * offset[:, :, None] * offset[:, None, :]
        else:
            second = second - 2 * first * offset + counts[:, None] * offset.square()
        return {"first": first - counts[:, None] * offset, "second": second}

    @torch.no_grad()
    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        """One M-step from hard k-means clusters."""
        self.means.copy_(fill(x).reshape(len(x), -1).mean(0))  # `statistics` are taken about the means: keep them near
        super().initialise(x, context)

    def statistics(self, x: Tensor, responsibilities: Tensor) -> dict[str, Tensor]:
        """Sums of (x - means) and of its squares or outer products.

        They are taken about the current means, not about zero, so that nothing cancels in float32 as EM converges.
        """
        x, present = self.seen(x)
        if present is not None:
            scale = self.scale if self.covariance == "full" else self._deviations()
            parts = (x.reshape(len(x), -1), responsibilities, self.means, scale)
            rows, weights, means, scale = (part.to(wide(x.device)) for part in parts)
            found = expected_moments(rows, present.reshape(len(x), -1), weights, means, scale)
            return {"first": found.first, "second": found.second}
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
            self.scale = self._floored_cholesky(covariance).to(self.means)
        else:
            variance = statistics["second"] / n - shift**2
            if self.covariance == "spherical":
                variance = variance.mean(-1)
            self.scale = variance.clamp(min=self._floor()).sqrt().to(self.means)

    def _floor(self) -> float:
        return max(self.covariance_floor, torch.finfo(self.means.dtype).tiny)

    def _floored_cholesky(self, covariance: Tensor) -> Tensor:
        """Cholesky factor after raising the eigenvalues to the floor; by QR, which cannot fail as a Cholesky can."""
        values, vectors = torch.linalg.eigh(covariance)
        root = vectors * values.clamp(min=self._floor()).sqrt().unsqueeze(-2)
        upper = torch.linalg.qr(root.mT).R
        return (upper * upper.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-1)).mT

    def parameter_count(self) -> int:
        """Free numbers; of a Cholesky factor only the lower triangle is."""
        d = self.event_shape.numel()
        unused = self.components * d * (d - 1) // 2 if self.covariance == "full" else 0
        return super().parameter_count() - unused
