"""The best Gaussian for a posterior, by maximising its bound over draws that stay the same (sample average).

With fixed draws e_s the bound is an ordinary function of the Gaussian's parameters,

    J(q) = 1/S sum_s log p(x, z(e_s; q)) + entropy(q),

so L-BFGS finds its maximum in some tens of steps, without a learning rate, and knows when it is there: Giordano, Ingram
& Broderick, "Black box variational inference with a deterministic objective", JMLR 2024. Parameters are in units of a
Gaussian that is roughly right, Laplace's. How many draws are enough is found as Burroni, Domke & Sheldon do ("Sample
average approximation for black-box VI", 2023): four times as many, until the bound, on draws that nothing was fitted
to, gains no more. Draws are a scrambled Sobol sequence, symmetric and of unit covariance, which makes the result exact
for a Gaussian posterior.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Self

import torch
from torch import Tensor

from inference.training.target import Target

__all__ = ["FAMILIES", "Family", "Found", "climb", "normal_draws", "settle"]

ENOUGH = 0.01
"""Nats of the bound: what four times as many draws, or another step, gain at the end."""
CALM = 1e-5
"""Nats that a step gains, three times in a row, where its draws have no more to give."""
FEWEST_DRAWS, MOST_DRAWS, TESTED_ON = 1024, 4096, 4096
"""Draws that a result rests on, at least and at most; and draws that nothing is fitted to."""
BY_ITSELF = 256
"""The latter two where the program bears one vector at a time, each a run of its own."""
EXACT = 1e-4
"""Nats within which the first Gaussian was the best already."""
MEMORY = 30
WILD = 1e8
"""How far a gradient falls in a step that tells of no curvature where it ended, should nothing seem left to gain."""
NARROWER = 10


def normal_draws(n: int, size: int, seed: int) -> Tensor:
    """n draws of a standard normal (n, size), symmetric, and of unit covariance as far as n allows."""
    half = max(1, n // 2)
    uniform = torch.quasirandom.SobolEngine(size, scramble=True, seed=seed).draw(half, dtype=torch.float64)
    e = torch.special.ndtri(uniform.clamp(2**-31, 1 - 2**-31))
    if half > 2 * size:
        factor = torch.linalg.cholesky(e.T @ e / half)
        e = torch.linalg.solve_triangular(factor, e.T, upper=False).T
    else:
        e = e / e.square().mean(0).sqrt()
    return torch.cat([e, -e])


@dataclass
class Family:
    """Gaussians in units of a first one, N(place, factor factor'), D numbers.

    Args:
        place: (D,).
        factor: (D, D), lower.
        scale: (D,) where the mean-field scales start.
    """

    place: Tensor
    factor: Tensor
    scale: Tensor

    def narrower(self) -> Self:
        """The same, half as wide."""
        return type(self)(self.place, self.factor / 2, self.scale / 2)

    @property
    def size(self) -> int:
        """D."""
        return len(self.place)

    def noise(self) -> int:
        """Standard normal numbers that a draw takes."""
        return self.size

    def start(self) -> Tensor:
        """Parameters of the first Gaussian, or of the nearest one that the family holds."""
        raise NotImplementedError

    def gaussian(self, theta: Tensor) -> dict[str, Tensor]:
        """Its parameters, as the autoguide of the family names them."""
        raise NotImplementedError

    def draws(self, theta: Tensor, e: Tensor) -> Tensor:
        """(S, noise) -> (S, D), differentiable in the parameters."""
        raise NotImplementedError

    def entropy(self, theta: Tensor) -> Tensor:
        """In nats, ()."""
        raise NotImplementedError

    def _loc(self, theta: Tensor) -> Tensor:
        return self.place + self.factor @ theta[: self.size]

    def _constant(self) -> float:
        return self.size / 2 * (1 + math.log(2 * math.pi))


class Diagonal(Family):
    """Independent numbers."""

    def start(self) -> Tensor:
        return self.place.new_zeros(2 * self.size)

    def gaussian(self, theta: Tensor) -> dict[str, Tensor]:
        """Its loc (D,) and scale (D,)."""
        return {"loc": self._loc(theta), "scale": self.scale * theta[self.size :].exp()}

    def draws(self, theta: Tensor, e: Tensor) -> Tensor:
        q = self.gaussian(theta)
        return q["loc"] + q["scale"] * e

    def entropy(self, theta: Tensor) -> Tensor:
        return self.gaussian(theta)["scale"].log().sum() + self._constant()


class Full(Family):
    """Any covariance."""

    def start(self) -> Tensor:
        return self.place.new_zeros(self.size + self.size * (self.size + 1) // 2)

    def gaussian(self, theta: Tensor) -> dict[str, Tensor]:
        """Its loc (D,) and scale_tril (D, D)."""
        d = self.size
        rows, columns = torch.tril_indices(d, d, -1)
        lower = torch.zeros_like(self.factor).index_put((rows, columns), theta[2 * d :])
        return {"loc": self._loc(theta), "scale_tril": self.factor @ (lower + torch.diag(theta[d : 2 * d].exp()))}

    def draws(self, theta: Tensor, e: Tensor) -> Tensor:
        q = self.gaussian(theta)
        return q["loc"] + e @ q["scale_tril"].T

    def entropy(self, theta: Tensor) -> Tensor:
        d = self.size
        return theta[d : 2 * d].sum() + self.factor.diagonal().log().sum() + self._constant()


class LowRank(Family):
    """Covariance diag(s) (I + C C') diag(s), C of about sqrt(D) columns, as Pyro has it."""

    @property
    def rank(self) -> int:
        """Columns of C."""
        return max(1, round(self.size**0.5))

    def noise(self) -> int:
        """One for each number, one for each column."""
        return self.size + self.rank

    def start(self) -> Tensor:
        """Probabilistic PCA of the correlations (Tipping & Bishop 1999), which has a closed form."""
        covariance = self.factor @ self.factor.T
        sd = covariance.diagonal().sqrt()
        values, vectors = torch.linalg.eigh(covariance / sd[:, None] / sd)
        rest, most = values[: -self.rank], values[-self.rank :]
        noise = rest.mean() if len(rest) else 0.5 * values[0]
        columns = vectors[:, -self.rank :] * ((most - noise).clamp(min=0) / noise).sqrt()
        log_scale = (sd * noise.sqrt() / self.scale).log()
        return torch.cat([self.place.new_zeros(self.size), log_scale, columns.flatten()])

    def gaussian(self, theta: Tensor) -> dict[str, Tensor]:
        """Its loc (D,), scale (D,) and cov_factor (D, rank)."""
        d = self.size
        scale = self.scale * theta[d : 2 * d].exp()
        return {"loc": self._loc(theta), "scale": scale, "cov_factor": theta[2 * d :].reshape(d, self.rank)}

    def draws(self, theta: Tensor, e: Tensor) -> Tensor:
        q, d = self.gaussian(theta), self.size
        return q["loc"] + q["scale"] * (e[:, :d] + e[:, d:] @ q["cov_factor"].T)

    def entropy(self, theta: Tensor) -> Tensor:
        q = self.gaussian(theta)
        inner = torch.eye(self.rank).to(theta) + q["cov_factor"].T @ q["cov_factor"]
        return q["scale"].log().sum() + torch.logdet(inner) / 2 + self._constant()


FAMILIES: dict[str, type[Family]] = {"normal": Diagonal, "multivariate_normal": Full, "low_rank": LowRank}
"""Name of an autoguide -> its Gaussians."""


def climb(
    slope: Callable[[Tensor], tuple[Tensor, Tensor]],
    theta: Tensor,
    most: int,
    *,
    calm: float = CALM,
    seen: Callable[[Tensor, Tensor], None] = lambda theta, grad: None,
) -> tuple[Tensor, list[float], bool]:
    """L-BFGS with steps that are shortened until they gain (Nocedal & Wright, 2006, algorithm 7.5).

    Args:
        slope: Parameters -> (what is to be maximised (), its gradient).
        theta: Where to start.
        most: Steps.
        calm: Nats that a step gains, three times in a row, at the end.
        seen: Is shown each place on the way and the gradient there.

    Returns: the best parameters, the value after each step, and whether there was no more to gain.
    """
    value, grad = slope(theta)
    seen(theta, grad)
    pairs: deque[tuple[Tensor, Tensor]] = deque(maxlen=MEMORY)
    values, quiet = [float(value)], 0
    while len(values) <= most:
        step = _direction(grad, pairs)
        promised = float(step @ grad)
        if not promised > 0:
            pairs.clear()
            step = _direction(grad, pairs)
            promised = float(step @ grad)
        if promised < calm / 10:
            tame = [pair for pair in pairs if not float(pair[1].norm()) > WILD * float(grad.norm())]
            if len(tame) == len(pairs):
                return theta, values, True
            pairs = deque(tame, MEMORY)
            continue
        share = 1.0
        while True:
            there, there_grad = slope(theta + share * step)
            gained = float(there - value)
            if math.isfinite(gained) and bool(torch.isfinite(there_grad).all()) and gained >= 1e-4 * share * promised:
                break
            share *= 0.5 if math.isfinite(gained) else 0.1
            if share < 1e-9:  # rounding is all there is
                return theta, values, promised < ENOUGH
        move, change = share * step, grad - there_grad
        if float(move @ change) > 1e-10 * float(move.norm() * change.norm()):
            pairs.append((move, change))
        theta, value, grad = theta + move, there, there_grad
        seen(theta, grad)
        values.append(float(value))
        quiet = quiet + 1 if gained < calm else 0
        if quiet == 3:
            return theta, values, True
    return theta, values, False


def _direction(grad: Tensor, pairs: deque[tuple[Tensor, Tensor]]) -> Tensor:
    """The gradient times the inverse curvature that the pairs tell of; where there are none, no longer than 1."""
    if not pairs:
        largest = grad.abs().max().clamp(min=1e-150)  # whose square may be too large for a number
        return grad / (largest * (grad / largest).norm()).clamp(min=1.0)
    q, shares = grad, []
    for move, change in reversed(pairs):
        share = (move @ q) / (move @ change)
        shares.append(share)
        q = q - share * change
    move, change = pairs[-1]
    q = q * (move @ change) / (change @ change)
    for (move, change), share in zip(pairs, reversed(shares), strict=True):
        q = q + move * (share - (change @ q) / (move @ change))
    return q


@dataclass
class Found:
    """Where the search for the best Gaussian ended."""

    gaussian: dict[str, Tensor]
    """What the family's `gaussian` says."""
    bound: float
    """The ELBO in nats, on draws that nothing was fitted to."""
    gain: float
    """What the last four-fold number of draws gained, on those draws; or the last steps, where they were cut."""
    error: float
    """Monte Carlo standard error of the gain."""
    arrived: bool
    """Whether L-BFGS had no more to gain, or was cut."""
    losses: list[tuple[int, float]] = field(default_factory=list)
    """Steps so far, and minus the bound after so many, of each number of draws."""


def settle(target: Target, family: Family, *, seed: int, most: int) -> Found:
    """The best of a family, by fixed draws.

    Args:
        target: The posterior.
        family: Standing at a Gaussian that is roughly right.
        seed: Of the draws.
        most: Steps of L-BFGS in all.
    """
    theta, number = family.start(), 64
    while number < 4 * family.noise():
        number *= 2
    most_draws, tested_on = (BY_ITSELF, BY_ITSELF) if target.one_by_one() else (MOST_DRAWS, TESTED_ON)
    tested = normal_draws(tested_on, family.noise(), seed).to(theta)
    before, losses, steps, arrived = _each(target, family, theta, tested), [], 0, False
    for _ in range(NARROWER):
        if bool(torch.isfinite(before).all()):
            break
        family = family.narrower()  # some draws lie where nothing is possible
        before = _each(target, family, theta, tested)
    gain = error = math.inf
    while steps < most:
        seed += 1
        e = normal_draws(number, family.noise(), seed).to(theta)
        theta_new, values, arrived = climb(partial(_bound, target, family, e), theta, most - steps)
        steps += len(values) - 1
        after = _each(target, family, theta_new, tested)
        difference = after - before
        gain, error = float(difference.mean()), float(difference.std()) / math.sqrt(len(difference))
        if math.isnan(gain) or gain < 0:  # so few draws led astray
            gain, after, theta_new = abs(gain), before, theta
        theta, before = theta_new, after
        losses.append((steps, -float(before.mean())))
        enough = gain < (ENOUGH if number >= FEWEST_DRAWS else EXACT)
        if not arrived or enough or number >= most_draws:
            break
        number *= 4
    if not arrived and losses:
        gain = max(gain, abs(values[-1] - values[max(0, len(values) - 4)]))
    q = {name: value.detach() for name, value in family.gaussian(theta).items()}
    return Found(q, float(before.mean()), gain=gain, error=error, arrived=arrived, losses=losses)


@torch.no_grad()
def _each(target: Target, family: Family, theta: Tensor, e: Tensor) -> Tensor:
    """The terms of the bound, a draw each (S,)."""
    return target(family.draws(theta, e)) + family.entropy(theta)


def _bound(target: Target, family: Family, e: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
    """The bound () and its gradient in the parameters; the density's graph is not kept."""
    at = theta.detach().clone().requires_grad_()
    with torch.enable_grad():
        z, entropy = family.draws(at, e), family.entropy(at)
        values, slopes = target.slope(z)
        (grad,) = torch.autograd.grad(((z * slopes).sum() / len(e)) + entropy, at)
    return values.mean() + entropy.detach(), grad
