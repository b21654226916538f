"""Pathfinder: Gaussians along the way of an optimiser to the mode, of which the best by its bound is kept.

Zhang, Carpenter, Gelman & Vehtari, "Pathfinder: parallel quasi-Newton variational inference", JMLR 23, 2022. L-BFGS
learns an inverse curvature from gradients alone; that at each of its places is the covariance of a Gaussian. Several
paths make a mixture, whose draws are resampled by Pareto smoothed importance weights.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from inference.guides.named import build_guide, guide_spec
from inference.method import Method, Outcome, Run
from inference.methods.settling import put_gaussian
from inference.training.fixed_draws import climb
from inference.training.importance import Weighed
from inference.training.loop import progress_bar
from inference.training.target import MOST_NUMBERS, Target, following, make_target, why_no_vector
from zoo.errors import DivergenceError
from zoo.options import Count, Range
from zoo.program import Program

__all__ = ["Normal", "Pathfinder", "normals"]

MOST_OF_DRAWS = 20_000
"""Latent numbers up to which draws are given; a guide has a matrix of them."""
CURVED = 1e-12
"""Curvature along a step, beside its gradients' square, from which the step tells of it (algorithm 3)."""


UNLIKE = 1000.0
"""Ratio of spreads of two numbers from which on a path walks in units of each."""
MORE = 50
"""Draws of the prior besides, which tell the units of each number."""
CALM = 1e-10
"""Nats that a step gains at the end of a path: the last ones gain nothing but tell of curvature."""


@dataclass(frozen=True)
class Normal:
    """A Gaussian of D numbers with covariance diag(scale) (I + Q (F F' - I) Q') diag(scale).

    Args:
        loc, scale: (D,).
        basis: Q (D, r), orthonormal columns.
        factor: F (r, r), lower.
    """

    loc: Tensor
    scale: Tensor
    basis: Tensor
    factor: Tensor

    def draws(self, e: Tensor) -> Tensor:
        """Of standard normals (S, D), (S, D)."""
        inside = e @ self.basis
        return self.loc + self.scale * (e + (inside @ self.factor.T - inside) @ self.basis.T)

    def log_prob(self, z: Tensor) -> Tensor:
        """(S, D) -> (S,)."""
        e = (z - self.loc) / self.scale
        inside = e @ self.basis
        whitened = torch.linalg.solve_triangular(self.factor, inside.T, upper=False)
        square = e.square().sum(-1) - inside.square().sum(-1) + whitened.square().sum(0)
        log_det = self.scale.log().sum() + self.factor.diagonal().log().sum()
        return -square / 2 - log_det - len(self.loc) / 2 * math.log(2 * math.pi)

    def covariance(self) -> Tensor:
        """(D, D)."""
        eye = torch.eye(len(self.factor)).to(self.factor)
        inside = self.basis @ (self.factor @ self.factor.T - eye) @ self.basis.T
        return self.scale[:, None] * (torch.eye(len(self.loc)).to(self.loc) + inside) * self.scale


def normals(places: Tensor, slopes: Tensor, memory: int) -> list[Normal]:
    """The Gaussian at each place of a path but the first (algorithms 3 and 4 of the paper).

    Args:
        places: (L, D).
        slopes: Gradients of the log density there, (L, D).
        memory: Steps that the inverse curvature is made of.

    Returns: at most L - 1; places without a Gaussian in double precision are left out.
    """
    found, diagonal = [], torch.ones_like(places[0])
    pairs: deque[tuple[Tensor, Tensor]] = deque(maxlen=memory)
    for i in range(1, len(places)):
        step, change = places[i] - places[i - 1], slopes[i - 1] - slopes[i]
        if float(step @ change) > CURVED * float(change.square().sum()):
            pairs.append((step, change))
            diagonal = _diagonal(diagonal, step, change)
        normal = _normal(places[i], slopes[i], diagonal, pairs) if pairs else None
        if normal is not None:
            found.append(normal)
    return found


def _diagonal(diagonal: Tensor, step: Tensor, change: Tensor) -> Tensor:
    """The diagonal (D,) of an inverse curvature after another step (Gilbert & Lemarechal 1989)."""
    a, b = (change.square() * diagonal).sum(), change @ step
    c = (step.square() / diagonal).sum()
    return 1 / (a / (b * diagonal) + change.square() / b - a * step.square() / (b * c * diagonal.square()))


def _normal(place: Tensor, slope: Tensor, diagonal: Tensor, pairs: deque[tuple[Tensor, Tensor]]) -> Normal | None:
    """The Gaussian with the inverse curvature of L-BFGS as covariance (Byrd, Nocedal & Schnabel 1994), if it is one."""
    steps = torch.stack([step for step, _ in pairs], 1)
    changes = torch.stack([change for _, change in pairs], 1)
    products = steps.T @ changes
    upper, scale = products.triu(), diagonal.sqrt()
    inverse = torch.linalg.solve_triangular(upper, torch.eye(len(upper)).to(upper), upper=True)
    middle = torch.diag(products.diagonal()) + changes.T @ (diagonal[:, None] * changes)
    inner = torch.cat([
        torch.cat([torch.zeros_like(upper), -inverse], 1),
        torch.cat([-inverse.T, inverse.T @ middle @ inverse], 1),
    ])  # fmt: skip
    # In units of the diagonal it is the identity beside what lies in the span of the pairs.
    basis, rest = torch.linalg.qr(torch.cat([scale[:, None] * changes, steps / scale[:, None]], 1))
    square = torch.eye(len(rest)).to(rest) + rest @ inner @ rest.T
    if not bool(torch.isfinite(square).all() & torch.isfinite(scale).all()):
        return None
    factor, failed = torch.linalg.cholesky_ex((square + square.T) / 2)
    if int(failed) != 0:
        return None
    e = slope * scale
    inside = e @ basis
    newton = scale * (e + basis @ (factor @ (factor.T @ inside) - inside))
    return Normal(place + newton, scale, basis=basis, factor=factor)


@dataclass(frozen=True, kw_only=True)
class Pathfinder(Method):
    """Gaussians along L-BFGS paths from draws of the prior; the program's parameters are held.

    One path answers by a guide, the Gaussian with the best bound on it ('multivariate_normal'). Several answer by draws
    of the mixture of theirs, resampled with weights that are Pareto smoothed; weights are beside the mixture, so that
    two paths into one mode do not count it twice. `Fit.info` has k-hat, which says whether to trust them, each path's
    bound, and an estimate of the log evidence. It costs gradients along the paths alone: the bounds need none.

    Args:
        paths: Number of paths.
        draws: Of each Gaussian, which `k_hat` rests on; as many are resampled of all.
        memory: Steps that an inverse curvature is made of (J of the paper, there 6: more cost little).
        steps: Most steps of a path.
        elbo_draws: Draws by which each Gaussian is judged (K of the paper).
    """

    name: ClassVar[str] = "pathfinder"
    moves_program: ClassVar[bool] = False

    paths: Count = 4
    draws: Annotated[int, Range(least=4)] = 1000
    memory: Count = 20
    steps: Count = 200
    elbo_draws: Count = 25

    def why_not(self, program: Program) -> str | None:
        """Needs a density of continuous latents of which some are global."""
        return why_no_vector(program)

    def run(self, program: Program, run: Run) -> Outcome:
        """Follows the paths.

        Raises: DivergenceError where none has a Gaussian with a finite bound.
        """
        label, found = f"pathfinder {type(program).__name__}", list[tuple[Normal, float]]()
        with progress_bar(run.progress) as bar, following("pathfinder", program):
            task = bar.add_task(label, total=self.paths, note="")
            target = make_target("pathfinder", program, run.train, MOST_NUMBERS if self.paths == 1 else MOST_OF_DRAWS)
            drawn = self._starts(target)
            for start in drawn[: self.paths]:
                best = self._path(target, start, _units(drawn))
                found += [] if best is None else [best]
                bar.update(task, advance=1)
        if not found:
            raise DivergenceError(
                f"{label}: none of {self.paths} paths came by a Gaussian with a finite bound. Check the scale of the "
                "data and the priors, or take more paths."
            )
        z, weighed = self._weighed(target, [normal for normal, _ in found])
        info: dict[str, Any] = {
            "elbo": [bound for _, bound in found], "k_hat": weighed.k_hat, "log_evidence": weighed.log_evidence,
            "convergence": {"verdict": "not to be trusted" if weighed.doubt else "converged"},
        }  # fmt: skip
        if weighed.doubt:
            info["warning"] = weighed.doubt
        if self.paths == 1:
            spec = guide_spec("multivariate_normal")
            guide: Any = build_guide(spec, program, run.train.plain())
            normal = found[0][0]
            scale_tril = torch.linalg.cholesky(normal.covariance())
            put_gaussian(guide, target.coordinates, {"loc": normal.loc, "scale_tril": scale_tril})
            return Outcome(guide, spec, gradient_evaluations=target.evaluations, info=info)
        chosen = torch.multinomial(weighed.smoothed(), self.draws, replacement=True)
        samples = target.samples(z[chosen])
        return Outcome(samples=samples, gradient_evaluations=target.evaluations, info=info)

    def _starts(self, target: Target) -> Tensor:
        """Draws of the prior, where the density is finite: more than there are paths, for their spread."""
        drawn = target.starts(4 * self.paths + MORE)[1:]
        return drawn[torch.isfinite(target(drawn))]

    def _path(self, target: Target, start: Tensor, units: Tensor) -> tuple[Normal, float] | None:
        """The best Gaussian along the path from one start (D,), and its bound in nats; None where there is none.

        L-BFGS takes every direction for alike at first, so it walks in `units` (D,) of each number.
        """
        places: list[Tensor] = []
        slopes: list[Tensor] = []

        def slope(at: Tensor) -> tuple[Tensor, Tensor]:
            value, grad = target.slope((units * at)[None])
            return value[0], units * grad[0]

        def seen(at: Tensor, grad: Tensor) -> None:
            places.append(at)
            slopes.append(grad)

        climb(slope, start / units, self.steps, calm=CALM, seen=seen)
        found = [
            replace(normal, loc=units * normal.loc, scale=units * normal.scale)
            for normal in normals(torch.stack(places), torch.stack(slopes), self.memory)
        ]
        if not found:
            return None
        e = torch.randn(len(found), self.elbo_draws, target.size).to(start)
        z = torch.stack([normal.draws(noise) for normal, noise in zip(found, e, strict=True)])
        density = target(z.reshape(-1, target.size)).reshape(len(found), -1)
        own = torch.stack([normal.log_prob(each) for normal, each in zip(found, z, strict=True)])
        bounds = (density - own).mean(1)
        best = int(bounds.argmax())
        return (found[best], float(bounds[best])) if math.isfinite(float(bounds[best])) else None

    def _weighed(self, target: Target, found: list[Normal]) -> tuple[Tensor, Weighed]:
        """Draws of the mixture of Gaussians, as many of each, (S, D), and their weights."""
        e = torch.randn(len(found), max(25, self.draws), target.size).to(found[0].loc)
        z = torch.cat([normal.draws(noise) for normal, noise in zip(found, e, strict=True)])
        mixture = torch.stack([normal.log_prob(z) for normal in found]).logsumexp(0) - math.log(len(found))
        return z, Weighed(target(z) - mixture)


def _units(starts: Tensor) -> Tensor:
    """The spread of each number over draws of the prior (n, D), (D,), where spreads differ by much; else ones.

    L-BFGS ends far from the mode where units are far apart. Where they are not, the longer way tells more of curvature.
    """
    spread = starts.std(0) if len(starts) > 1 else torch.ones_like(starts[0])
    spread = torch.where(torch.isfinite(spread) & (spread > 0), spread, torch.ones_like(spread))
    return spread if float(spread.max() / spread.min()) > UNLIKE else torch.ones_like(spread)
