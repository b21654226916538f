r"""Probabilistic PCA: the linear variational autoencoder, whose posterior and evidence are exact.

Tipping & Bishop, "Probabilistic principal component analysis", JRSS B 61(3), 1999.

    z ~ N(0, I_k),   x | z ~ N(W z + mu, sigma^2 I_d)   =>   x ~ N(mu, W W' + sigma^2 I)

    z --> x      sites: z (k,) local; x (d,)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroParam
from torch import Tensor, nn
from torch.distributions import constraints

from zoo.distributions import observed
from zoo.errors import DivergenceError, NonFiniteError, ShapeError
from zoo.options import Count, Shape
from zoo.program import Preset, Program
from zoo.units import Standard

__all__ = ["PPCA"]


class PPCA(Program):
    """Probabilistic PCA with an amortised linear-Gaussian guide.

    The guide's covariance is diagonal: it contains the exact posterior up to the rotation that makes W'W diagonal,
    which the model's density leaves free.

    Args:
        event_shape: Shape of one example; flattened to d.
        latent_dim: Number k of components.

    Raises: OptionError for fewer than one component.
    """

    family = "latent"
    takes_missing = True
    paper = "Tipping & Bishop, Probabilistic principal component analysis, 1999"

    def __init__(self, event_shape: Shape = (8, 8), latent_dim: Count = 2):
        super().__init__()
        self.event_shape = torch.Size(event_shape)
        self.latent_dim = latent_dim
        d = self.event_shape.numel()
        self.weight = nn.Parameter(torch.randn(d, latent_dim) / d**0.5)
        self.mean = nn.Parameter(torch.zeros(d))
        self.scale = PyroParam(torch.tensor(1.0), constraint=constraints.positive)
        self.encoder = nn.Linear(d, latent_dim)
        self.encoder_scale = PyroParam(torch.ones(latent_dim), constraint=constraints.positive)

    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        """Starts from the data's mean, and in their units, where these are far from one.

        The weights stay random, since zero is a saddle point of the likelihood.
        """
        flat = x.reshape(len(x), -1)
        if bool(flat.isnan().any()):
            self.mean.copy_(flat.nanmean(0).nan_to_num())  # 0 where no example has the number
            flat = torch.where(flat.isnan(), self.mean, flat)
        else:
            self.mean.copy_(flat.mean(0))
        size = Standard(flat.shape[1:]).to(flat).take(flat).size
        self.weight.mul_(size[:, None])
        self.encoder.weight.div_(size)
        # Of columns the smallest, as more noise would hide it, and EM would end at a saddle; pixels share their units.
        self.scale = self.scale * (size.min() if x.ndim == 2 else size.square().mean().sqrt())

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        """The linear-Gaussian generative program."""
        with self.plate(x, context, size):
            z = pyro.sample("z", dist.Normal(self.mean.new_zeros(self.latent_dim), 1.0).to_event(1))
            loc = (z @ self.weight.T + self.mean).reshape(*z.shape[:-1], *self.event_shape)
            x, present = self.seen(x)
            return pyro.sample("x", observed(dist.Normal(loc, self.scale), present, len(self.event_shape)), obs=x)

    def guide(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> None:
        """q(z | x) = N(A x + b, diag(s^2)), where missing numbers are taken for their mean."""
        assert x is not None
        x, present = self.seen(x)
        flat = x.reshape(len(x), -1)
        if present is not None:
            flat = torch.where(present.reshape(len(x), -1), flat, self.mean)
        with self.plate(x, context, size):
            pyro.sample("z", dist.Normal(self.encoder(flat), self.encoder_scale).to_event(1))

    def posterior(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> None:
        """p(z | x) = N(M^-1 W'(x - mu), sigma^2 M^-1), M = W'W + sigma^2 I, of the rows of W that x has."""
        assert x is not None
        residual, present = self._residual(x)
        precision = (self._m(present) / self.scale**2).to(self.weight)
        loc = self._posterior_mean(residual, present).to(self.weight)
        with self.plate(x, context, size):
            pyro.sample("z", dist.MultivariateNormal(loc, precision_matrix=precision))

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """log N(x; mu, W W' + sigma^2 I), in O(d k^2).

        The exponent is min_z |x - mu - W z|^2 / sigma^2 + |z|^2: a sum of squares, where the usual difference of
        squares loses all digits of float32 as sigma becomes small beside W. Of rows with missing values it is the
        marginal of what is there, in O(d k^2) for each.
        """
        residual, present = self._residual(x)
        d: Any = len(self.mean) if present is None else present.sum(-1)
        z = self._posterior_mean(residual, present)
        rest = residual - z @ _precise(self.weight).T
        if present is not None:
            rest = torch.where(present, rest, 0.0)
        exponent = rest.square().sum(-1) / self.scale**2 + z.square().sum(-1)
        log_det = 2 * (d - self.latent_dim) * self.scale.log() + torch.linalg.slogdet(self._m(present)).logabsdet
        return (-(exponent + log_det + d * math.log(2 * math.pi)) / 2).to(x)

    @torch.no_grad()
    def maximum_likelihood(self, x: Tensor, context: Tensor | None = None) -> None:
        """Sets mu, W and sigma to a global maximiser of the likelihood (Tipping & Bishop, eqs. 7 and 8, R = I).

        sigma^2 is the mean of the d - k smallest eigenvalues of the data's covariance, and W = U (L - sigma^2 I)^1/2
        holds the others. W'W is then diagonal.

        Args:
            x: Data of shape (N, *event_shape).
            context: None.

        Raises: ShapeError, DivergenceError when the likelihood has no maximum: no variance is left over for the noise;
            NonFiniteError for missing values, with which there is no closed form.
        """
        if bool(x.isnan().any()):
            raise NonFiniteError(
                "With missing values the maximum has no closed form; fit PPCA by method 'em' or 'svi'."
            )
        flat = _precise(x.reshape(len(x), -1))
        n, d = flat.shape
        if min(d, n - 1) <= self.latent_dim:
            raise ShapeError(
                f"PPCA with latent_dim={self.latent_dim} fits {n} examples of {d} numbers without noise, so its "
                "likelihood has no maximum; it needs more dimensions than components, and at least "
                f"{self.latent_dim + 2} examples."
            )
        centred = flat - flat.mean(0)
        values, vectors = torch.linalg.eigh(centred.T @ centred / n)  # in ascending order
        noise = values[: d - self.latent_dim].mean()
        rounding = (2 * torch.finfo(x.dtype).eps * float(flat.abs().max())) ** 2
        self._refuse_no_noise(noise, values.clamp(min=0.0).sum(), rounding)
        kept = (values[d - self.latent_dim :] - noise).clamp(min=0.0)
        self.mean.copy_(flat.mean(0))
        self.weight.copy_((vectors[:, d - self.latent_dim :] * kept.sqrt()).flip(1))
        self.scale = noise.sqrt().to(self.mean)

    # The EM of Tipping & Bishop, except that mu is a column of the regression of x on (z, 1), so that it need not be
    # the data's mean already (everything is measured from the current mu), and with expanded parameters (Liu, Rubin &
    # Wu, "Parameter expansion to accelerate EM", Biometrika 85(4), 1998): an M-step may give z any mean and covariance,
    # which W and mu then take over. Without that, columns of great variance would wait for W longer than anyone does.

    @torch.no_grad()
    def e_step(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Moments of (z, 1) under p(z | x), summed over the batch in double precision.

        Returns: The log-likelihood () and the statistics `energy` () = sum |r|^2, `cross` (d, k + 1) = sum r <(z, 1)>',
            `latent` and `moment` (k + 1, k + 1) = sum <(z, 1)(z, 1)'>, with r = x - mu. With missing values sums are
            over what is there, so that `moment` is (d, k + 1, k + 1), of the rows that have each number.
        """
        residual, present = self._residual(x)
        augmented = nn.functional.pad(self._posterior_mean(residual, present), (0, 1), value=1.0)
        covariance = nn.functional.pad(self.scale**2 * torch.linalg.inv(self._m(present)), (0, 1, 0, 1))
        latent = augmented.T @ augmented + (len(x) * covariance if present is None else covariance.sum(0))
        moment = latent
        if present is not None:
            squares = augmented[:, :, None] * augmented[:, None, :] + covariance
            moment = torch.einsum("nd,nij->dij", present.to(residual), squares)
        energy, cross = residual.square().sum(), residual.T @ augmented
        return self.log_prob(x).sum(), {"energy": energy, "cross": cross, "latent": latent, "moment": moment}

    @torch.no_grad()
    def m_step(self, statistics: Mapping[str, Tensor]) -> None:
        """The regression of x on (z, 1), its residual variance, and the moments of z, which W and mu take over.

        Raises: DivergenceError when nothing is left over for the noise.
        """
        energy, cross, latent, moment = (statistics[name] for name in ("energy", "cross", "latent", "moment"))
        moment = moment.expand(len(cross), *latent.shape)
        there = moment[:, -1, -1] > 0  # numbers that no example has keep their weights
        solution = torch.linalg.solve(moment[there], cross[there])
        # At the solution the two last terms of the expected squared error cancel to one.
        error, count = energy - (solution * cross[there]).sum(), moment[:, -1, -1].sum()
        rounding = (2 * torch.finfo(self.mean.dtype).eps) ** 2  # of the numbers in x and W, squared
        self._refuse_no_noise(error, energy, rounding * float(energy + count * self.mean.abs().max() ** 2))
        loc = latent[:-1, -1] / latent[-1, -1]
        covariance = latent[:-1, :-1] / latent[-1, -1] - loc[:, None] * loc
        self.weight[there] = (solution[:, :-1] @ torch.linalg.cholesky(covariance)).to(self.weight)
        self.mean[there] += (solution[:, -1] + solution[:, :-1] @ loc).to(self.mean)
        self.scale = (error / count).sqrt().to(self.mean)

    def _refuse_no_noise(self, noise: Tensor, total: Tensor, rounding: float = 0.0) -> None:
        if not float(noise) > max(10 * torch.finfo(noise.dtype).eps * float(total), rounding):
            raise DivergenceError(
                f"PPCA with latent_dim={self.latent_dim} leaves no noise that could be told from rounding "
                f"(variance {float(noise):.3g} of {float(total):.3g}): the data lie in a plane of that dimension, "
                "where the likelihood grows without end. Use fewer components, or float64 if there is noise."
            )

    # In double precision, as W W' has the squares of what W has digits of: of columns in units far apart (years and
    # incomes) nothing would be left of the smaller ones.

    def _residual(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """x - mu, (B, d), zero where x is missing; and where it is there, None for everywhere."""
        x, present = self.seen(x.reshape(len(x), -1))
        rest = _precise(x) - _precise(self.mean)
        return (rest if present is None else torch.where(present, rest, 0.0)), present

    def _m(self, present: Tensor | None = None) -> Tensor:
        """M (k, k); of rows with missing values (B, k, k)."""
        weight = _precise(self.weight)
        if present is None:
            square = weight.T @ weight
        else:
            square = torch.einsum("nd,di,dj->nij", present.to(weight), weight, weight)
        return square + _precise(self.scale) ** 2 * torch.eye(self.latent_dim).to(weight)

    def _posterior_mean(self, residual: Tensor, present: Tensor | None = None) -> Tensor:
        weight = _precise(self.weight)
        if present is None:
            return torch.linalg.solve(self._m(), weight.T @ residual.T).T
        return torch.linalg.solve(self._m(present), residual @ weight)

    presets: ClassVar[Mapping[str, Preset]] = {"small": Preset({"latent_dim": 16}, "svi", {"steps": 2000})}


def _precise(x: Tensor) -> Tensor:
    return x if x.device.type == "mps" else x.double()  # which has no double precision
