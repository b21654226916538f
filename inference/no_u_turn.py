"""One chain of the no-U-turn sampler, as a coroutine: it asks for the density at a place and is told.

So many chains share each evaluation, however long their paths are, and each draws what it would draw alone. A chain may
walk in coordinates of its own (`Frame`); it leaves them during its warm-up where the axes suit the draws better.

Hoffman & Gelman, "The No-U-Turn sampler", JMLR 15, 2014, with draws from all points of a path and the U-turn of its
sums of momenta (Betancourt, "A conceptual introduction to Hamiltonian Monte Carlo", 2017, appendix A), both as in Stan.
The mass matrix is that of the smallest Fisher divergence (Seyboldt, Carlson & Carpenter, "Preconditioning Hamiltonian
Monte Carlo by minimizing Fisher divergence"): the spread of draws over that of slopes, which takes few draws to know.
"""

from __future__ import annotations

import json
import math
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Ask", "Chain", "Frame", "Vector"]

Vector = NDArray[np.float64]

Ask = Generator["Vector | None", "tuple[float, Vector]", None]
"""Yields a place, and is sent log density and slope there; yields None when a draw is made."""

MAX_ENERGY_ERROR = 1000.0
"""A path whose energy is off by more has diverged."""

# Dual averaging, as Hoffman & Gelman have it.
GAMMA, DELAY, DECAY = 0.05, 10.0, 0.75

EARLY, LAST = 0.3, 0.15
"""Shares of the warm-up: in the first, the mass matrix forgets quickly; in the last, it stays."""
EARLY_WINDOW, WINDOW = 10, 80
"""Draws after which the mass matrix forgets those before the window before."""
FEWEST = 3
"""Draws that make a mass matrix."""
SMALLEST, LARGEST = 1e-10, 1e10
LONGEST = 100.0
"""Logarithm of the longest step: a flat density sets none."""


@dataclass(frozen=True)
class Frame:
    """Coordinates u of a chain, about a Gaussian: the place is origin + factor u.

    Args:
        origin: (D,).
        factor: (D, D), lower.
    """

    origin: Vector
    factor: Vector

    def place(self, u: Vector) -> Vector:
        """(D,) -> (D,)."""
        return self.origin + self.factor @ u

    def coordinates(self, place: Vector) -> Vector:
        """And back."""
        return np.asarray(np.linalg.solve(self.factor, place - self.origin), dtype=np.float64)

    def slope(self, slope: Vector) -> Vector:
        """(D,) of a density at a place, as one of u has it."""
        return slope @ self.factor

    def slope_at_place(self, slope: Vector) -> Vector:
        """And back."""
        return np.asarray(np.linalg.solve(self.factor.T, slope), dtype=np.float64)


class Point:
    """A place with its momentum; `velocity` is the momentum times the inverse mass."""

    __slots__ = ("density", "energy", "momentum", "place", "slope", "velocity")

    def __init__(self, place: Vector, momentum: Vector, velocity: Vector, density: float, slope: Vector):
        self.place, self.momentum, self.velocity, self.density, self.slope = place, momentum, velocity, density, slope
        self.energy = 0.5 * float(momentum.dot(velocity)) - density


class Path:
    """Consecutive points of one trajectory: its ends, the sum of its momenta, and the point drawn from it."""

    __slots__ = ("chosen", "first", "last", "log_weight", "momenta", "stopped")

    def __init__(self, first: Point, last: Point, momenta: Vector, chosen: Point, log_weight: float, stopped: bool):
        self.first, self.last, self.momenta, self.chosen = first, last, momenta, chosen
        self.log_weight, self.stopped = log_weight, stopped


def _turns(a: Path, b: Path, momenta: Vector) -> bool:
    """Whether the path made of a and then b comes back: as a whole, or where the two meet."""

    if _back(a.first, b.last, momenta):
        return True
    if a.first is a.last and b.first is b.last:  # two points, which are all of it
        return False
    return _back(a.first, b.first, a.momenta + b.first.momentum) or _back(a.last, b.last, b.momenta + a.last.momentum)


def _back(first: Point, last: Point, momenta: Vector) -> bool:
    """Whether an end moves against the sum of the momenta."""
    return bool(first.velocity.dot(momenta) <= 0 or last.velocity.dot(momenta) <= 0)


class Spread:
    """Running means and squares of draws and slopes (Welford)."""

    def __init__(self, size: int):
        self.count, self.mean, self.squares = 0, np.zeros((2, size)), np.zeros((2, size))

    def add(self, place: Vector, slope: Vector) -> None:
        """One draw."""
        self.count += 1
        value = np.stack([place, slope])
        delta = value - self.mean
        self.mean += delta / self.count
        self.squares += delta * (value - self.mean)

    def inverse_mass(self, before: Vector) -> Vector:
        """sqrt(var(draws) / var(slopes)); where one of them does not vary, what was before."""
        draws, slopes = self.squares
        known = (draws > 0) & (slopes > 0) & np.isfinite(draws) & np.isfinite(slopes)
        ratio = np.sqrt(np.where(known, draws, 1.0) / np.where(known, slopes, 1.0))
        return np.where(known, ratio.clip(SMALLEST, LARGEST), before)

    def correlation(self) -> float:
        """Sum over coordinates of log(var(draws) var(slopes)): 0 for a Gaussian along its axes, more for any other."""
        return float(np.log(self.squares.prod(0) / self.count**2).sum())


class Chain:
    """A chain and where it stands; `run` goes on from there.

    Args:
        size: Numbers D of a place.
        seed: Of its draws, and of nothing else.
        warmup: Draws that adapt step size and mass matrix.
        draws: Draws that are kept.
        target_accept: Acceptance probability that the step size is adapted to.
        max_tree_depth: A path has at most 2^depth points.
    """

    NUMBERS = ("done", "divergences", "gradients", "log_step", "log_average", "origin", "error", "tuned", "density")
    SPREADS = ("spreads", "aside")
    ARRAYS = ("place", "slope", "inverse_mass", "kept")

    def __init__(
        self,
        size: int,
        seed: np.random.SeedSequence,
        *,
        warmup: int,
        draws: int,
        target_accept: float,
        max_tree_depth: int,
    ):
        self.warmup, self.draws, self.target_accept, self.max_depth = warmup, draws, target_accept, max_tree_depth
        self.random = np.random.Generator(np.random.PCG64(seed))
        self.done, self.divergences, self.gradients = 0, 0, 0
        """Draws made, warm-up included; draws kept whose path diverged; densities asked for."""
        self.place, self.slope, self.density = np.zeros(size), np.zeros(size), -math.inf
        self.inverse_mass, self.kept = np.ones(size), np.zeros((draws, size))
        self.log_step, self.log_average, self.origin, self.error, self.tuned = 0.0, 0.0, 0.0, 0.0, 0
        self.spreads = [Spread(size), Spread(size)]
        """Of this window and the one before, and of this one."""
        self.frame: Frame | None = None
        self.aside: list[Spread] = []
        """The same of places, until it is known whether the frame is left."""
        # Of the draw that is being made.
        self.step, self.start_energy, self.accepted, self.points, self.diverged = 1.0, 0.0, 0.0, 0, False

    @property
    def finished(self) -> bool:
        """Whether all draws are made."""
        return self.done == self.warmup + self.draws

    def proposed_start(self) -> Vector:
        """Uniform within 2 of the origin, as Stan and Pyro begin."""
        return self.random.uniform(-2.0, 2.0, len(self.place))

    def begin(self, place: Vector, density: float, slope: Vector, frame: Frame | None = None) -> None:
        """Starts at a place where log density and slope are finite.

        Args:
            place, density, slope: (D,), () and (D,).
            frame: Coordinates to walk in; without, along the axes, whose masses are guessed from the slope.
        """
        self.density, self.frame = density, frame
        if frame is None:
            self.place, self.slope, self.inverse_mass = place, slope, 1.0 / np.abs(slope).clip(1e-3, 1e3)
            return
        self.place, self.slope = frame.coordinates(place), frame.slope(slope)
        self.inverse_mass, self.aside = np.ones_like(place), [Spread(len(place)), Spread(len(place))]

    @property
    def where(self) -> Vector:
        """The place (D,), whatever the coordinates."""
        return self.place if self.frame is None else self.frame.place(self.place)

    def state(self) -> dict[str, Any]:
        """What `restore` needs, between two draws: numbers, arrays and text."""
        found: dict[str, Any] = {name: getattr(self, name) for name in (*self.NUMBERS, *self.ARRAYS)}
        for name in self.SPREADS:
            found[name] = [[each.count, each.mean, each.squares] for each in getattr(self, name)]
        found["frame"] = None if self.frame is None else [self.frame.origin, self.frame.factor]
        return {**found, "random": json.dumps(self.random.bit_generator.state)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes back to a state."""
        for name in (*self.NUMBERS, *self.ARRAYS):
            setattr(self, name, state[name])
        for name in self.SPREADS:
            setattr(self, name, [Spread(len(self.place)) for _ in state[name]])
            for each, (count, mean, squares) in zip(getattr(self, name), state[name], strict=True):
                each.count, each.mean, each.squares = count, mean, squares
        self.frame = None if state["frame"] is None else Frame(*state["frame"])
        self.random.bit_generator.state = json.loads(state["random"])

    def run(self) -> Ask:
        """All draws that are left."""
        if self.gradients == 0:
            yield from self._first_step()
        while not self.finished:
            warm = self.done < self.warmup
            self.step = math.exp(self.log_step if warm else self.log_average)
            yield from self._draw()
            if warm:
                if self._adapt():
                    yield from self._first_step()
            else:
                self.divergences += self.diverged
                self.kept[self.done - self.warmup] = self.where
            self.done += 1
            yield None

    def _first_step(self) -> Ask:
        """Doubles or halves the step until the acceptance of one crosses the target (algorithm 4)."""
        direction, self.tuned, self.error = 0, 0, 0.0
        for _ in range(100):
            self.step = math.exp(self.log_step)
            start = self._pushed()
            point = yield from self._leap(start, 1)
            now = 1 if start.energy - point.energy > math.log(self.target_accept) else -1
            if direction == -now:
                break
            direction = now
            self.log_step += direction * math.log(2.0)
        self.log_average = self.log_step
        self.origin = self.log_step + math.log(10.0)

    def _pushed(self) -> Point:
        """Where the chain stands, with a fresh momentum."""
        momentum = self.random.standard_normal(len(self.place)) / np.sqrt(self.inverse_mass)
        return Point(self.place, momentum, momentum * self.inverse_mass, density=self.density, slope=self.slope)

    def _leap(self, start: Point, direction: int) -> Generator[Vector | None, tuple[float, Vector], Point]:
        """One leapfrog step."""
        step = direction * self.step
        momentum = start.momentum + (0.5 * step) * start.slope
        place = start.place + step * (self.inverse_mass * momentum)
        self.gradients += 1
        if self.frame is None:
            density, slope = yield place
        else:
            density, slope = yield self.frame.place(place)
            slope = self.frame.slope(slope)
        momentum = momentum + (0.5 * step) * slope
        return Point(place, momentum, self.inverse_mass * momentum, density=density, slope=slope)

    def _draw(self) -> Ask:
        """Doubles a path until it turns, and moves to a point of it."""
        start = self._pushed()
        path = Path(start, start, start.momentum, chosen=start, log_weight=0.0, stopped=False)
        self.start_energy, self.accepted, self.points, self.diverged = start.energy, 0.0, 0, False
        for depth in range(self.max_depth):
            forward = self.random.random() < 0.5
            more = yield from self._grown(path.last if forward else path.first, 1 if forward else -1, depth)
            if more.stopped:
                break
            # Biased to the new half: away from where the path began.
            if self.random.random() < math.exp(min(0.0, more.log_weight - path.log_weight)):
                path.chosen = more.chosen
            path = self._joined(path, more, path.chosen) if forward else self._joined(more, path, path.chosen)
            if path.stopped:
                break
        chosen = path.chosen
        self.place, self.density, self.slope = chosen.place, chosen.density, chosen.slope

    def _grown(self, edge: Point, direction: int, depth: int) -> Generator[Vector | None, tuple[float, Vector], Path]:
        """2^depth further points from an end of the path; fewer where they stop."""
        if depth == 0:
            return (yield from self._point(edge, direction))
        inner = yield from self._grown(edge, direction, depth - 1)
        if inner.stopped:
            return inner
        outer = yield from self._grown(inner.last if direction > 0 else inner.first, direction, depth - 1)
        if outer.stopped:
            return outer
        log_odds = outer.log_weight - inner.log_weight
        other = self.random.random() < 1.0 / (1.0 + math.exp(min(-log_odds, 700.0)))
        chosen = outer.chosen if other else inner.chosen
        return self._joined(inner, outer, chosen) if direction > 0 else self._joined(outer, inner, chosen)

    def _point(self, edge: Point, direction: int) -> Generator[Vector | None, tuple[float, Vector], Path]:
        """One further point, as a path."""
        point = yield from self._leap(edge, direction)
        error = point.energy - self.start_energy
        self.points += 1
        stopped = not error < MAX_ENERGY_ERROR  # NaN as well
        if stopped:
            self.diverged = True
        else:
            self.accepted += math.exp(min(0.0, -error))
        return Path(point, point, point.momentum, chosen=point, log_weight=-error, stopped=stopped)

    @staticmethod
    def _joined(a: Path, b: Path, chosen: Point) -> Path:
        """a and then b."""
        momenta = a.momenta + b.momenta
        high, low = max(a.log_weight, b.log_weight), min(a.log_weight, b.log_weight)
        log_weight = high + math.log1p(math.exp(low - high))
        turns = _turns(a, b, momenta)
        return Path(a.first, b.last, momenta, chosen=chosen, log_weight=log_weight, stopped=turns)

    def _adapt(self) -> bool:
        """Step size by dual averaging, mass matrix by the draws of a window that moves on; whether it is a new one."""
        self.tuned += 1
        rate = 1.0 / (self.tuned + DELAY)
        self.error += rate * (self.target_accept - self.accepted / max(self.points, 1) - self.error)
        self.log_step = min(self.origin - math.sqrt(self.tuned) / GAMMA * self.error, LONGEST)
        share = self.tuned**-DECAY
        self.log_average += share * (self.log_step - self.log_average)
        until = round((1 - LAST) * self.warmup)
        if self.done >= until or self.diverged:
            return False
        for each in self.spreads:
            each.add(self.place, self.slope)
        if self.frame is not None and self.aside:
            place, slope = self.frame.place(self.place), self.frame.slope_at_place(self.slope)
            for each in self.aside:
                each.add(place, slope)
        new = self.spreads[0].count == FEWEST and self.spreads[1].count == FEWEST
        early = self.done < EARLY * self.warmup
        window = EARLY_WINDOW if early else WINDOW
        if self.spreads[1].count >= window and self.done + window < until:
            if self.aside and not early:
                new = self._judge()
            for pair in filter(None, (self.spreads, self.aside)):
                pair[:] = [pair[1], Spread(len(self.place))]
        if self.spreads[0].count >= FEWEST:
            self.inverse_mass = self.spreads[0].inverse_mass(self.inverse_mass)
        return new

    def _judge(self) -> bool:
        """Leaves the frame if draws and slopes are nearer to each other's inverse along the axes; whether it did.

        A frame that fits a mode need not fit what lies around it, as where the spread of some numbers is another.
        """
        assert self.frame is not None
        # Where a slope along an axis does not vary at all, nothing can be said.
        better = -math.inf < self.aside[0].correlation() < self.spreads[0].correlation()
        if better:
            self.place, self.slope = self.frame.place(self.place), self.frame.slope_at_place(self.slope)
            self.spreads, self.frame = self.aside, None
        self.aside = []
        return better
