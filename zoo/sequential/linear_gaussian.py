r"""The linear Gaussian state space: filter, smoother, evidence and forecasts are exact; and a mean-field guide.

Kalman, "A new approach to linear filtering and prediction problems", 1960; Rauch, Tung & Striebel, "Maximum likelihood
estimates of linear dynamic systems", 1965; its EM: Shumway & Stoffer, "An approach to time series smoothing and
forecasting using the EM algorithm", 1982; Ghahramani & Hinton, "Parameter estimation for linear dynamical systems",
1996.

    z_1 ~ N(m, P),   z_t ~ N(A z_t-1, Q),   x_t ~ N(C z_t + b, diag(r^2))

    z_1 --> z_2 --> ... --> z_T       sites: z (T, K) local, the whole path; x (T,) or (T, D)
     |       |               |
    x_1     x_2             x_T
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroParam
from torch import Tensor, nn
from torch.distributions import constraints

from zoo.distributions import observed
from zoo.errors import OptionError
from zoo.options import Count, Positive, Shape, check_value
from zoo.program import Preset, Program
from zoo.sequential.gaussian_path import GaussianPath
from zoo.units import units

__all__ = ["Filtered", "LinearGaussian"]


@dataclass(frozen=True)
class Filtered:
    """What the states are given the data up to each of them."""

    means: Tensor
    """(B, T, K)."""
    factors: Tensor
    """F of the covariances F F', (T, K, K), or (B, T, K, K) where values are missing."""
    log_prob: Tensor
    """Of the data, (B,)."""


class LinearGaussian(Program):
    """A state of K numbers that moves linearly and is seen linearly, both under Gaussian noise.

    The guide is what a student compares with the exact posterior: mean-field, of means linear in a window of x. It
    cannot know that neighbouring states go together.

    Args:
        event_shape: (T,) or (T, D): T steps, at least 2, of D numbers.
        latent_dim: Size K of the state.
        window: Width of the guide's window, odd.
        min_scale: The least standard deviation of what is observed, and in `m_step` of states as well, so that the
            likelihood is bounded where data are constant.

    Raises: OptionError.
    """

    family = "sequential"
    paper = "Kalman, A new approach to linear filtering and prediction problems, 1960"
    takes_missing = True
    presets: ClassVar[Mapping[str, Preset]] = {"small": Preset({"latent_dim": 16}, "em", {"iterations": 100})}

    def __init__(
        self, event_shape: Shape = (8, 8), latent_dim: Count = 4, window: Count = 5, min_scale: Positive = 1e-2
    ):
        super().__init__()
        if len(event_shape) not in (1, 2) or event_shape[0] < 2 or min(event_shape) < 1:
            raise OptionError(
                "LinearGaussian takes sequences of at least two steps, of shape (T,) or (T, D); got "
                f"event_shape={list(event_shape)}."
            )
        if window % 2 == 0:
            raise OptionError(f"window must be odd and positive, got {window}.")
        self.event_shape = torch.Size(event_shape)
        self.steps, self.dim = event_shape[0], (event_shape[1] if len(event_shape) == 2 else 1)
        self.latent_dim, self.min_scale = latent_dim, min_scale
        k, eye = latent_dim, torch.eye(latent_dim)
        self.start = nn.Parameter(torch.zeros(k))
        self.start_scale = PyroParam(eye.clone(), constraints.lower_cholesky, event_dim=2)
        self.transition = nn.Parameter(0.9 * eye + 0.1 * torch.randn(k, k) / k**0.5)
        self.transition_scale = PyroParam(eye.clone(), constraints.lower_cholesky, event_dim=2)
        self.loading = nn.Parameter(torch.randn(self.dim, k) / k**0.5)
        self.bias = nn.Parameter(torch.zeros(self.dim))
        self.scale = PyroParam(torch.ones(self.dim), constraint=constraints.positive)
        self.encoder = nn.Conv1d(self.dim, k, window, padding=window // 2)
        self.encoder_scale = PyroParam(torch.ones(self.steps, k), constraint=constraints.positive)

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        """The path, then all steps given the path."""
        with self.plate(x, context, size):
            z = pyro.sample("z", self.prior())
            loc = (z @ self.loading.T + self.bias).reshape(*z.shape[:-2], *self.event_shape)
            x, present = self.seen(x)
            numbers = dist.Normal(loc, self._noise().expand(self.steps, self.dim).reshape(self.event_shape))
            return pyro.sample("x", observed(numbers, present, len(self.event_shape)), obs=x)

    def guide(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> None:
        """Mean-field: a normal distribution for each number of each state, from a window of x."""
        assert x is not None
        rows, present = self._rows(x)
        if present is not None:
            rows = torch.where(present, rows, self.bias)
        loc = self.encoder(rows.mT).mT
        with self.plate(x, context, size):
            pyro.sample("z", dist.Normal(loc, self.encoder_scale).to_event(2))

    def prior(self) -> GaussianPath:
        """p(z), of event shape (T, K)."""
        t, k = self.steps, self.latent_dim
        offsets = torch.cat([self.start.unsqueeze(0), self.start.new_zeros(t - 1, k)])
        later = self.transition_scale.expand(t - 1, k, k)
        factors = torch.cat([self.start_scale.unsqueeze(0), later])
        return GaussianPath(offsets, self.transition.expand(t - 1, k, k), factors)

    # What is exact.

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """log p(x), all paths integrated out by the Kalman filter, (B,)."""
        return self.filtered(x).log_prob

    def posterior(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> None:
        """p(z | x): a chain again, from the last state to the first, p(z_t | z_t+1, x_1, ..., x_t)."""
        assert x is not None
        path = self.smoother(x)
        with self.plate(x, context, size):
            pyro.sample("z", path)

    def smoother(self, x: Tensor) -> GaussianPath:
        """The distribution of the path given all data (B, *event_shape); its marginals are the smoothed states."""
        return self._backward(self.filtered(x))

    def _backward(self, found: Filtered) -> GaussianPath:
        means, factors = found.means, found.factors
        # A state given the next one: the same update as that by an observation, which the next state is.
        white = torch.linalg.solve_triangular(self.transition_scale, self.transition, upper=False)
        gains, narrowed, _ = _conditioned(factors[..., :-1, :, :], white)
        matrices = torch.linalg.solve_triangular(self.transition_scale, gains, upper=False, left=False)
        now = means[..., :-1, :]
        offsets = now - (matrices @ (now @ self.transition.T).unsqueeze(-1)).squeeze(-1)
        return GaussianPath(
            torch.cat([offsets, means[..., -1:, :]], -2).flip(-2),
            matrices.flip(-3),
            torch.cat([narrowed, factors[..., -1:, :, :]], -3).flip(-3),
            backward=True,
        )

    def filtered(self, x: Tensor) -> Filtered:
        """Means and covariances of each state given the data up to it, (B, *event_shape) -> those of B paths.

        Covariances are kept as factors, and the exponent of each step is a sum of squares: differences, in which they
        are usually written, lose all digits of float32 where noises are small.
        """
        rows, present = self._rows(x)
        scale = self._noise()
        white, loading = (rows - self.bias) / scale, self.loading / scale.unsqueeze(-1)
        counted = x.new_tensor(float(self.steps * self.dim))
        log_scale = self.steps * scale.log().sum()
        if present is not None:
            white, counted = torch.where(present, white, 0.0), present.sum((-1, -2)).to(white)
            log_scale = torch.where(present, scale.log(), 0.0).sum((-1, -2))
        mean, factor, noise = self.start.expand(len(x), -1), self.start_scale, self.transition_scale
        there = [None] * self.steps if present is None else present.unbind(1)
        means, factors, exponent, log_det = list[Tensor](), list[Tensor](), x.new_zeros(()), x.new_zeros(())
        for numbers, given in zip(white.unbind(1), there, strict=True):
            if means:
                mean, moved = mean @ self.transition.T, self.transition @ factor
                factor = torch.linalg.cholesky(moved @ moved.mT + noise @ noise.mT)
            seen = loading if given is None else loading * given.unsqueeze(-1)
            gain, narrowed, half = _conditioned(factor, seen)
            rest = numbers - (seen @ mean.unsqueeze(-1)).squeeze(-1)
            shift = (gain @ rest.unsqueeze(-1)).squeeze(-1)
            left = rest - (seen @ shift.unsqueeze(-1)).squeeze(-1)
            inward = torch.linalg.solve_triangular(factor, shift.unsqueeze(-1), upper=False).squeeze(-1)
            exponent = exponent + left.square().sum(-1) + inward.square().sum(-1)
            mean, factor, log_det = mean + shift, narrowed, log_det + half
            means.append(mean)
            factors.append(factor)
        log_prob = -exponent / 2 - log_det - log_scale - counted * math.log(2 * math.pi) / 2
        return Filtered(torch.stack(means, 1), torch.stack(factors, -3), log_prob)

    @torch.no_grad()
    def smoothed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (B, T, K) and covariance (B, T, K, K) of each state given all data (B, *event_shape)."""
        means, covariances = self.smoother(x).marginals()
        return means, covariances.expand(*means.shape, self.latent_dim)

    @torch.no_grad()
    def forecast(self, x: Tensor, steps: Count = 1) -> dist.MultivariateNormal:
        """The steps after those of x (B, *event_shape), each on its own: batch shape (B, steps), event shape (D,).

        Raises: OptionError for fewer than one step.
        """
        check_value("steps", steps, Count)
        found = self.filtered(x)
        mean, factor = found.means[:, -1], found.factors[..., -1, :, :]
        covariance, moved = factor @ factor.mT, self.transition_scale
        means, covariances = [], []
        for _ in range(steps):
            mean = mean @ self.transition.T
            covariance = self.transition @ covariance @ self.transition.T + moved @ moved.mT
            means.append(mean @ self.loading.T + self.bias)
            covariances.append(self.loading @ covariance @ self.loading.T + self._noise().square().diag())
        return dist.MultivariateNormal(torch.stack(means, 1), torch.stack(covariances, -3))

    # EM. Both steps measure from the current parameters: each M-step is a regression of what these leave over, so that
    # nothing cancels as they arrive.

    @torch.no_grad()
    def e_step(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Moments under the smoother, summed over the batch; see `_statistics`."""
        found = self.filtered(x)
        path = self._backward(found)
        means, covariances = path.marginals()
        # In the order of time: z_t given z_t+1 is matrices z_t+1 + noise of covariance `narrowed`.
        gains, narrowed = path.matrices.flip(-3), path.factors[..., 1:, :, :].flip(-3)
        return found.log_prob.sum(), self._statistics(x, means, covariances, gains, narrowed @ narrowed.mT)

    @torch.no_grad()
    def m_step(self, statistics: Mapping[str, Tensor]) -> None:
        """Three regressions and their residual covariances, none of them below `min_scale`."""
        got, count = statistics, statistics["count"]
        shift = got["start_sum"] / count
        self.start.add_(shift)
        self.start_scale = self._factor_of(got["start_square"] / count - shift.outer(shift))
        slope = torch.linalg.solve(got["past"], got["jump_past"].mT).mT
        self.transition.add_(slope)
        noise = got["jump_square"] - slope @ got["jump_past"].mT
        self.transition_scale = self._factor_of(noise / (count * (self.steps - 1)))
        if got["moment"].ndim == 2:
            solution = torch.linalg.solve(got["moment"], got["cross"].mT).mT
        else:  # a number that no example has keeps its weights
            there, solution = got["seen"] > 0, torch.zeros_like(got["cross"])
            solution[there] = torch.linalg.solve(got["moment"][there], got["cross"][there])
        self.loading.add_(solution[:, :-1])
        self.bias.add_(solution[:, -1])
        error = (got["energy"] - (solution * got["cross"]).sum(-1)) / got["seen"].clamp(min=1)
        self.scale = torch.where(got["seen"] > 0, error.clamp(min=self.min_scale**2).sqrt(), self._noise())

    @torch.no_grad()
    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        """Principal components of single steps as states, and an `m_step` as if these were known.

        States beyond the components that there are start as noise.
        """
        rows, present = self._rows(x)
        if present is None:
            self.bias.copy_(rows.mean((0, 1)))
        else:
            self.bias.copy_(rows.sum((0, 1)) / present.sum((0, 1)).clamp(min=1))
        centred = rows - self.bias if present is None else torch.where(present, rows - self.bias, 0.0)
        centred = centred * units(centred.reshape(-1, self.dim))  # or the largest column would be all that varies
        flat = centred.reshape(-1, self.dim)
        values, vectors = torch.linalg.eigh(flat.T @ flat / len(flat))
        kept = min(self.dim, self.latent_dim)
        values = values[-kept:].flip(0).clamp(min=self.min_scale**2)
        states = torch.randn(*rows.shape[:2], self.latent_dim).to(rows)
        states[..., :kept] = centred @ vectors[:, -kept:].flip(1) / values.sqrt()
        states += 0.1 * torch.randn_like(states)  # components of constant data, all of them zero, are no regressors
        none = rows.new_zeros(self.steps, self.latent_dim, self.latent_dim)
        self.m_step(self._statistics(x, states, none, none[1:], none[1:]))

    def _statistics(
        self, x: Tensor, means: Tensor, covariances: Tensor, gains: Tensor, narrowed: Tensor
    ) -> dict[str, Tensor]:
        """What the M-step needs of states with these moments, summed over the B examples.

        Args:
            x: (B, *event_shape).
            means: (B, T, K).
            covariances: (..., T, K, K), with a batch dimension or one for all.
            gains: G of z_t = G z_t+1 + ..., (..., T-1, K, K).
            narrowed: Covariance of a state given the next, likewise.

        Returns: `count` (); `start_sum` (K,) and `start_square` (K, K) of z_1 - m; `past` = sum <z z'>, `jump_past` and
            `jump_square` of the jumps z_t+1 - A z_t, (K, K); `moment` of (z, 1), (K + 1, K + 1), or of each number of x
            where some are missing; `cross` (D, K + 1), `energy` (D,) and `seen` (D,) of x - C z - b.
        """
        n, k = len(x), self.latent_dim

        def total(matrices: Tensor) -> Tensor:
            return matrices.sum((0, 1)) if matrices.ndim == 4 else n * matrices.sum(0)

        start = means[:, 0] - self.start
        jumps = means[:, 1:] - means[:, :-1] @ self.transition.T
        later = covariances[..., 1:, :, :]
        turned = torch.eye(k).to(x) - self.transition @ gains
        spread = self.transition @ narrowed
        found = {
            "count": x.new_tensor(float(n)),
            "start_sum": start.sum(0),
            "start_square": start.T @ start + total(covariances[..., :1, :, :]),
            "past": torch.einsum("nti,ntj->ij", means[:, :-1], means[:, :-1]) + total(covariances[..., :-1, :, :]),
            "jump_past": torch.einsum("nti,ntj->ij", jumps, means[:, :-1]) + total(turned @ later @ gains.mT - spread),
            "jump_square": torch.einsum("nti,ntj->ij", jumps, jumps)
            + total(turned @ later @ turned.mT + spread @ self.transition.T),
        }
        rows, present = self._rows(x)
        rest = rows - means @ self.loading.T - self.bias
        augmented = nn.functional.pad(means, (0, 1), value=1.0)
        wide = nn.functional.pad(covariances, (0, 1, 0, 1))
        weights = nn.functional.pad(self.loading, (0, 1))
        if present is None:
            moment = torch.einsum("nti,ntj->ij", augmented, augmented) + total(wide)
            uncertain = total(wide).expand(self.dim, k + 1, k + 1)
            seen = x.new_full((self.dim,), float(n * self.steps))
        else:
            rest, there = torch.where(present, rest, 0.0), present.to(x)
            wide = wide.expand(n, self.steps, k + 1, k + 1)
            uncertain = torch.einsum("ntd,ntij->dij", there, wide)
            moment = torch.einsum("ntd,nti,ntj->dij", there, augmented, augmented) + uncertain
            seen = there.sum((0, 1))
        pulled = (uncertain @ weights.unsqueeze(-1)).squeeze(-1)
        return found | {
            "moment": moment,
            "cross": torch.einsum("ntd,nti->di", rest, augmented) - pulled,
            "energy": rest.square().sum((0, 1)) + (weights * pulled).sum(-1),
            "seen": seen,
        }

    # Parts.

    def _rows(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """(B, *event_shape) -> (B, T, D), zero where missing, and which are there, None where all are."""
        return self.seen(x.reshape(len(x), self.steps, self.dim))

    def _noise(self) -> Tensor:
        """Standard deviations r (D,)."""
        return self.scale.clamp(min=self.min_scale)

    def _factor_of(self, covariance: Tensor) -> Tensor:
        """The triangular factor of the most likely covariance none of whose variances is below `min_scale` squared."""
        values, vectors = torch.linalg.eigh((covariance + covariance.mT) / 2)
        return torch.linalg.cholesky(vectors * values.clamp(min=self.min_scale**2) @ vectors.mT)


def _conditioned(factor: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A Gaussian state of covariance F F' after n numbers rows z + e were seen, e standard normal.

    Args:
        factor: F (..., K, K).
        rows: (..., n, K).

    Returns: the gain (..., K, n), by which the mean moves; a factor of the new covariance; half the log determinant of
        the covariance of what is seen, (...).
    """
    seen = rows @ factor
    chol = torch.linalg.cholesky(torch.eye(factor.shape[-1]).to(factor) + seen.mT @ seen)
    narrowed = torch.linalg.solve_triangular(chol, factor.mT, upper=False).mT
    gain = narrowed @ torch.linalg.solve_triangular(chol, seen.mT, upper=False)
    return gain, narrowed, chol.diagonal(dim1=-2, dim2=-1).log().sum(-1)
