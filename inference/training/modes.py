"""Modes of a posterior, and the Gaussian at each: where variational inference starts (Laplace's approximation).

Newton's method from several places at once. It does not know the units of the latents: steps, tests and distances are
in units of the curvature, so that columns of data may differ by any factor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from inference.densities import where_it_can
from inference.training.target import Target

__all__ = ["Mode", "around", "find_modes"]

MOST_STEPS = 100
ARRIVED = 1e-8
"""Nats that another step would gain."""
FLATTEST = 1e-9
"""Smallest curvature, beside the largest in units of the diagonal, at which a mode counts as one."""
APART = 0.5
"""Posterior standard deviations between two modes that are not the same."""
TRIES = tuple(4.0 ** (1 - k) for k in range(14))
"""Shares of a Newton step that are tried where the whole of it does not do."""


@dataclass(frozen=True)
class Mode:
    """A maximum of a density of D numbers."""

    place: Tensor
    """(D,)."""
    factor: Tensor
    """(D, D), lower: its square is the inverse of minus the Hessian."""
    log_density: float

    @property
    def log_evidence(self) -> float:
        """Laplace's estimate of what the density integrates to, from this mode."""
        log_det = float(self.factor.diagonal().log().sum())
        return self.log_density + log_det + len(self.place) / 2 * math.log(2 * math.pi)

    def precision_scale(self) -> Tensor:
        """(D,) what is left of each number's spread where all others are known: the best mean-field scale."""
        inverse = torch.linalg.solve_triangular(self.factor, torch.eye(len(self.place)).to(self.factor), upper=False)
        return inverse.square().sum(0).rsqrt()


def _scaled(curvature: Tensor, slope: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Units (K, D) of the numbers, and eigenvalues (K, D) and vectors (K, D, D) of the curvature in these, or NaN."""
    diagonal = curvature.diagonal(dim1=-2, dim2=-1).abs()
    units = 1 / (diagonal.sqrt().hypot(1e-4 * slope) + 1e-150)  # whose squares may be too large for a number
    scaled, d = curvature * units[:, :, None] * units[:, None, :], slope.shape[1:]
    values, vectors = where_it_can(torch.linalg.eigh, scaled, d, d + d)
    return units, values, vectors


def find_modes(target: Target, starts: Tensor) -> list[Mode]:
    """Climbs from each start (K, D); the modes that were reached, each once, best first by Laplace's evidence.

    None is found where the density has no maximum (it grows without end as a scale shrinks), or is flat around it.
    """
    at = starts[torch.isfinite(target(starts))]
    found: list[Mode] = []
    for _ in range(MOST_STEPS):
        if len(at) == 0:
            break
        value, slope, curvature = target.curvature(at)
        sound = torch.isfinite(slope).all(-1) & torch.isfinite(curvature).all(-1).all(-1)
        at, value, slope, curvature = at[sound], value[sound], slope[sound], curvature[sound]
        if len(at) == 0:
            break
        units, values, vectors = _scaled(curvature, slope)
        along = (vectors.mT @ (slope * units)[..., None])[..., 0]
        # A curvature that is the wrong way round is followed the right way (saddle-free Newton, Dauphin et al. 2014).
        size = values.abs().clamp(min=1e-10 * values.abs().amax(-1, keepdim=True) + 1e-300)
        step = units * (vectors @ (along / size)[..., None])[..., 0]
        gains = (along.square() / size).sum(-1) / 2
        flat = values[:, 0] < FLATTEST * values[:, -1]
        here = (gains < ARRIVED) & ~flat
        for k in here.nonzero()[:, 0].tolist():
            _keep(found, at[k] + step[k], curvature[k], float(value[k]))
        going = ~here
        at, moved = _search(target, at[going], value[going], step=step[going], gains=gains[going])
        at = at[moved]
    return sorted(found, key=lambda mode: -mode.log_evidence)


def _search(target: Target, at: Tensor, value: Tensor, *, step: Tensor, gains: Tensor) -> tuple[Tensor, Tensor]:
    """The best place along each step, the whole step where that does about what it promised; and whether it is any
    better."""
    if len(at) == 0:
        return at, at.new_zeros(0, dtype=torch.bool)
    shares = at.new_tensor(TRIES)
    whole = target(at + step)
    result, best = at + step, whole
    poor = ~(whole - value > gains / 4)
    if bool(poor.any()):
        tried = at[poor][:, None] + shares[:, None] * step[poor][:, None]
        density = target(tried.reshape(-1, at.shape[1])).reshape(tried.shape[:2])
        highest, index = density.max(1)
        result[poor] = tried[torch.arange(len(tried)).to(index), index]
        best[poor] = highest
    rounding = 1e-13 * value.abs()
    return result, best > value - rounding


def around(target: Target, place: Tensor) -> Mode:
    """A Gaussian about a place (D,) that is no mode, in the units of the curvature there, whatever its sign."""
    value, slope, curvature = target.curvature(place[None])
    units, values, vectors = _scaled(curvature, slope)
    size = values[0].abs().clamp(min=1e-3 * values[0].abs().max())
    root = (vectors[0] / size.sqrt()) * units[0][:, None]
    return Mode(place, torch.linalg.cholesky(root @ root.T), float(value[0]))


def _keep(found: list[Mode], place: Tensor, curvature: Tensor, log_density: float) -> None:
    """Adds a mode, if it is not there yet."""
    for other in found:
        apart = place - other.place
        if float(apart @ curvature @ apart) < APART**2:
            return
    units = curvature.diagonal().rsqrt()
    # Of the inverse, by the factor of the matrix in reversed order: lower triangular, with no inverse in between.
    scaled = (curvature * units[:, None] * units).flip(0, 1)
    upper = torch.linalg.cholesky(scaled).flip(0, 1)
    inverse = torch.linalg.solve_triangular(upper, torch.diag(units), upper=True).mT
    found.append(Mode(place, inverse.tril(), log_density))
