"""Autoguides that need no tuning: placed at the best mode, and where they are Gaussian at the best of their family.

Where latents are global the posterior is one density of one vector (`inference.training.target`). Its modes are found
first, from several places; the guide starts as the Gaussian at the best of them; and what is left to gain is gained by
`inference.training.fixed_draws`, or by gradient steps in units of that Gaussian.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import torch
from pyro.infer.autoguide.guides import deep_setattr
from torch import Tensor, nn
from torch.distributions import biject_to

from inference.guides.named import AUTOGUIDES
from inference.method import Run
from inference.training.convergence import ConvergenceNotice
from inference.training.fixed_draws import ENOUGH, FAMILIES, Diagonal, Found, Full, settle
from inference.training.loop import Loop
from inference.training.modes import Mode, around, find_modes
from inference.training.target import Target, why_no_target
from inference.unconstrained import Coordinates
from zoo.datasets.data import Data
from zoo.process import set_seed
from zoo.program import Program

__all__ = ["Place", "Start", "Stretch", "begin", "find_place", "put_gaussian", "settled"]

STARTS = 8
MOST_STEPS = 2000
LACKING = 0.05
"""Nats that a settled fit may lack and still be called converged."""


@dataclass
class Place:
    """Where the posterior is, as far as its modes tell."""

    target: Target
    modes: list[Mode]
    starts: int

    def put(self, name: str, guide: nn.Module) -> None:
        """Starts an autoguide of this name at the best mode, as Laplace's approximation of its family."""
        mode = self.modes[0]
        if name == "delta":
            _put_point(guide, self.target.coordinates, mode.place)
            return
        family = (FAMILIES | {"structured": Diagonal}).get(name, Full)(mode.place, mode.factor, mode.precision_scale())
        put_gaussian(guide, self.target.coordinates, family.gaussian(family.start()))

    def point(self) -> Found:
        """What a search says that ended at the mode itself, as a point's does."""
        value = self.modes[0].log_density
        return Found({}, value, gain=0.0, error=0.0, arrived=True, losses=[(1, -value)])


def find_place(
    name: str, program: Program, data: Data, *, trained: bool, seed: int, init: Callable[..., Any] | None = None
) -> Place | str:
    """The modes of a program's posterior, or why there are none to start an autoguide from.

    Args:
        name: Of the autoguide.
        program: It is left as it is.
        data: All of them.
        trained: Whether parameters of the program are to be learnt too.
        seed: Of the starts that are drawn.
        init: One of Pyro's init functions, for the start; None draws several from the prior.
    """
    reason = why_no_target(program, data)
    if reason is not None:
        return reason
    try:
        with torch.random.fork_rng([data.x.device] if data.x.is_cuda else []):
            set_seed(seed)
            target = Target(program, data, jacobian=name != "delta")
            if trained and target.depends_on_parameters():
                return "the program has parameters of its own to learn"
            target.held()
            starts = target.starts(STARTS) if init is None else target.located(init)
            modes = find_modes(target, starts)
            if init is not None and not modes:
                modes = find_modes(target, target.starts(STARTS))
    except Exception as error:  # whatever double precision, or differentiating twice, is too much for
        return f"its density cannot be followed in double precision ({type(error).__name__}: {_line(error)})"
    if name == "delta":  # a point has no volume: the highest of them is the MAP estimate
        modes.sort(key=lambda mode: -mode.log_density)
    if not modes and name not in FAMILIES:
        return "its density has no maximum that could be reached"
    return Place(target, modes, len(starts))


def settled(name: str, guide: nn.Module, place: Place, *, seed: int, most: int) -> Found | str:
    """Puts a Gaussian autoguide at the best of its family; or why that failed, the guide left as it was."""
    target = place.target
    try:
        bases = place.modes[:3] or [around(target, z) for z in target.starts(1)]
        found = [
            settle(target, FAMILIES[name](m.place, m.factor, m.precision_scale()), seed=seed, most=most) for m in bases
        ]
    except Exception as error:  # a factor that is none, an overflow
        return f"its best Gaussian could not be found ({type(error).__name__}: {_line(error)})"
    best = max(found, key=lambda each: each.bound)
    if not torch.isfinite(torch.tensor(best.bound)) or not all(
        bool(v.isfinite().all()) for v in best.gaussian.values()
    ):
        return "no Gaussian with a finite bound was found"
    put_gaussian(guide, target.coordinates, best.gaussian)
    return best


def best_of_family(guide: Any, program: Program, data: Data, seed: int) -> Found | None:
    """Puts a Gaussian autoguide at the best of its family for a program as it is; None where it is no such guide, or
    that cannot be, and then it is left as it was."""
    name = next((name for name in FAMILIES if type(guide) is AUTOGUIDES[name]), None)
    if name is None:
        return None
    place = find_place(name, program, data, trained=False, seed=seed)
    found = place if isinstance(place, str) else settled(name, guide, place, seed=seed, most=MOST_STEPS)
    return found if isinstance(found, Found) else None


def ending(found: Found, size: int) -> dict[str, Any]:
    """The verdict on a settled fit, as `Outcome.info` has it; nats per example."""
    arrived = found.arrived and found.gain < LACKING
    return {
        "verdict": "converged" if arrived else "still improving",
        "gain": 0.0 if arrived and found.gain < ENOUGH else found.gain / size,
        "standard_error": found.error / size,
        "at": 0.0,
    }


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]


def _split(coordinates: Coordinates, vector: Tensor) -> dict[str, Tensor]:
    """A vector (D,) as sites have it."""
    found, start = {}, 0
    for name in coordinates.sites:
        size = coordinates.rows[name] * coordinates.shapes[name].numel()
        found[name], start = vector[start : start + size], start + size
    return found


@torch.no_grad()
def put_gaussian(guide: Any, coordinates: Coordinates, gaussian: Mapping[str, Tensor]) -> None:
    """Sets the parameters of a Gaussian autoguide.

    Args:
        guide: Set up on the data.
        coordinates: Of the vector that is Gaussian.
        gaussian: What the guide's family of `inference.training.fixed_draws` says of it.
    """
    if hasattr(guide, "locs"):
        for part, values in (("locs", gaussian["loc"]), ("scales", gaussian["scale"])):
            for name, value in _split(coordinates, values).items():
                like = attrgetter(name)(getattr(guide, part))
                deep_setattr(getattr(guide, part), name, value.reshape(like.shape).to(like))
        return
    guide.loc.copy_(gaussian["loc"])
    if "cov_factor" in gaussian:
        guide.scale = gaussian["scale"].to(guide.loc)
        guide.cov_factor.copy_(gaussian["cov_factor"])
        return
    scale = gaussian["scale_tril"].diagonal()
    guide.scale = scale.to(guide.loc)
    guide.scale_tril = (gaussian["scale_tril"] / scale[:, None]).to(guide.loc)


@torch.no_grad()
def _put_point(guide: Any, coordinates: Coordinates, place: Tensor) -> None:
    for name, value in _split(coordinates, place).items():
        like = attrgetter(name)(guide)
        site = coordinates.sites[name]
        free = value.reshape((*like.shape[: like.ndim - len(site.event_shape)], *coordinates.shapes[name]))
        deep_setattr(guide, name, biject_to(site.support)(free).reshape(like.shape).to(like))


class Stretch(nn.Module):
    """Gradient steps of an autoguide in units of where it stands: a step of 0.01 is a hundredth of a posterior sd.

    Args:
        guide: An autoguide that has just been put somewhere.
    """

    def __init__(self, guide: Any):
        super().__init__()
        self.stretched: list[nn.Parameter] = []
        units = []
        for name, p in guide.named_parameters():
            known = name.removesuffix("_unconstrained")
            if known == "loc" or known.startswith("locs."):
                unit = attrgetter(known.replace("loc", "scale", 1))(guide)
            elif known == "scale" or known.startswith("scales."):
                unit = attrgetter(known)(guide) / p.sigmoid()  # of softplus: relative, however large
            else:
                continue
            self.stretched.append(p)
            units.append(nn.Parameter(unit.detach().clone().reshape(p.shape), requires_grad=False))
        self.units = nn.ParameterList(units)

    def kept(self) -> list[Tensor]:
        """Copies of the parameters before a step."""
        return [p.detach().clone() for p in self.stretched]

    @torch.no_grad()
    def __call__(self, before: list[Tensor]) -> None:
        """Stretches the step that was just taken."""
        for p, old, unit in zip(self.stretched, before, self.units, strict=True):
            p.copy_(old + unit * (p - old))


@dataclass
class Start:
    """How a fit begins: an autoguide that was put somewhere, or was settled for good, or anything as it was."""

    info: dict[str, Any] = field(default_factory=dict)
    stretch: Stretch | None = None
    found: Found | None = None
    evaluations: int = 0
    seconds: float = 0.0

    def step(self, move: Callable[[], None]) -> None:
        """A step of an optimizer, in units of the posterior where these are known."""
        before = None if self.stretch is None else self.stretch.kept()
        move()
        if before is not None:
            assert self.stretch is not None
            self.stretch(before)

    def shorten(self, loop: Loop) -> None:
        """Leaves nothing to do to a loop whose guide is settled, and tells its history."""
        if self.found is None:
            return
        loop.total = 0
        for i, (step, loss) in enumerate(self.found.losses, 1):
            seconds = self.seconds * i / len(self.found.losses)
            loop.history.add(step, seconds, loss=loss / loop.data.size)

    def ending(self, program: Program, size: int) -> dict[str, Any] | None:
        """The verdict on a settled guide.

        Warns: ConvergenceNotice.
        """
        if self.found is None:
            return None
        result = ending(self.found, size)
        if result["verdict"] != "converged":
            steps = self.found.losses[-1][0] if self.found.losses else 0
            remedy = (
                "Take guide='multivariate_normal' or a flow ('iaf', 'spline'), or NUTS: this Gaussian fits badly."
                if self.found.arrived
                else f"Take more steps (steps={max(100, 4 * steps)})."
            )
            warnings.warn(
                f"SVI of {type(program).__name__} was still under way when it ended: its bound has just risen by "
                f"{self.found.gain:.3g} nats. {remedy} Fit.info['convergence'] has the numbers.",
                ConvergenceNotice,
                stacklevel=2,
            )
        return result


def begin(
    name: str,
    guide: Any,
    program: Program,
    run: Run,
    *,
    trained: bool,
    init: Callable[..., Any] | None,
    most: int | None,
) -> Start:
    """Puts an autoguide where the posterior is.

    Args:
        name: Of the guide.
        guide: Set up on the data.
        program, run: What is fitted, and to what.
        trained: Whether the program's parameters are learnt too.
        init: Where the search for a mode starts.
        most: Steps in which a Gaussian may settle; None leaves it to gradient steps.
    """
    started = time.perf_counter()
    place = find_place(name, program, run.train, trained=trained, seed=run.seed, init=init)
    if isinstance(place, str):
        return Start(info={"start": place})
    info: dict[str, Any] = {"start": "at the best mode", "modes": len(place.modes), "starts": place.starts}
    result: Found | str = "gradient steps were asked for"
    if most is not None and name in FAMILIES:
        result = settled(name, guide, place, seed=run.seed, most=most)
        if isinstance(result, Found):
            return Start(
                info, found=result, evaluations=place.target.evaluations, seconds=time.perf_counter() - started
            )
        info["start"] = f"at the best mode: {result}"
    if not place.modes:
        return Start(info | {"start": f"as Pyro has it: no mode was reached, and {result}"})
    place.put(name, guide)
    done = place.target.evaluations
    if name == "delta" and most is not None:
        return Start(info, found=place.point(), evaluations=done, seconds=time.perf_counter() - started)
    return Start(info, None if name == "delta" else Stretch(guide), evaluations=done)
