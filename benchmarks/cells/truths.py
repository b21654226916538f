"""What the methods of a comparison are held against: an exact posterior, given draws, or a long chain, and its words.

A `Target` has the evidence as well, so KL divergences and gaps exist; a `Reference` has draws, moments and marginals.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from torch import Tensor

from benchmarks.cells.posterior_scores import DRAWS
from benchmarks.targets import Reference, Target, Truth
from benchmarks.targets.asked import exact_target
from inference import Fit, fit
from inference.guides.exact import why_not_exact
from zoo.arrays import as_tensor
from zoo.datasets import Data
from zoo.errors import OptionError, ShapeError, UnknownNameError
from zoo.program import Program

__all__ = ["TRUTHS", "Yardstick", "find_truth"]

TRUTHS = ("auto", "exact", "nuts")
SEED = 1_000_003
"""Of the true draws: far from the seeds of fits, so that an exact answer is not compared with itself."""
DRAWS_ALONE = "These are draws, without the evidence: KL divergences and gaps stay open."


@dataclass(frozen=True)
class Yardstick:
    """What is taken for the posterior."""

    truth: Truth
    sentence: str
    """What it is, how it was made, and how far it can be trusted."""
    reference: Fit | None = None
    """The fit whose draws these are, if there is one."""

    @property
    def is_exact(self) -> bool:
        """Whether density and evidence are known, not draws alone."""
        return isinstance(self.truth, Target)

    @cached_property
    def draws(self) -> dict[str, Tensor]:
        """Site -> (S, *shape)."""
        return self.truth.draw(DRAWS, seed=SEED)


def find_truth(
    asked: Any,
    program: Program,
    data: Data,
    *,
    seed: int,
    progress: bool = False,
    options: Mapping[str, Any] | None = None,
) -> Yardstick:
    """The truth that was asked for.

    Args:
        asked: A `Truth`, a `Fit`, draws by site; 'exact'; 'nuts'; or 'auto': exact where there is a way, else NUTS.
        program: The program, its parameters set; it is left as it is.
        data: What the posterior is given.
        seed: Of draws and chains.
        progress: Shows the bar of the chains.
        options: Of NUTS, where it is the reference.

    Raises: UnknownNameError, OptionError, ShapeError; CapabilityError where neither way exists.
    """
    if isinstance(asked, Truth):
        exact = isinstance(asked, Target)
        words = f"The reference is the {'exact ' if exact else ''}posterior of {asked.name!r} ({asked.how})."
        return Yardstick(asked, words if exact else f"{words} {DRAWS_ALONE}")
    if isinstance(asked, Fit):
        return _of_fit(asked, program, data, seed, f"The reference is a given fit by {asked.method}")
    if isinstance(asked, Mapping):
        return _of_draws(asked, program, data, "The reference is {n:,} draws that were given.")
    if asked not in TRUTHS:
        raise UnknownNameError("truth", str(asked), TRUTHS)
    why_not = why_not_exact(program)
    if asked == "exact" or (asked == "auto" and why_not is None):
        made = copy.deepcopy(program).eval()
        target = exact_target(made, data, partial(copy.deepcopy, made))
        return Yardstick(target, f"The reference is the exact posterior ({target.how}).")
    found = fit(
        copy.deepcopy(program), data, "nuts", seed=seed + 2, device="cpu", initialise=False, progress=progress,
        **(options or {}),
    )  # fmt: skip
    because = "T" if asked == "nuts" else f"This posterior is not known exactly ({why_not}), so t"
    return _of_fit(found, program, data, seed, f"{because}he reference is NUTS")


def _of_fit(found: Fit, program: Program, data: Data, seed: int, opening: str) -> Yardstick:
    """The draws of a fit; of a chain all that there are, and what R-hat and effective sample size say of them."""
    if found.samples is None:
        draws = found.draw(DRAWS, *data, seed=seed + 2)
        return _of_draws(draws, program, data, f"{opening}, of which there are {{n:,}} draws.", found)
    info = found.info
    words = f"{opening}: {info.get('chains', 1)} chain(s), {{n:,}} draws in all"
    if "rhat" in info and "ess" in info:
        worst, least = max(info["rhat"], key=info["rhat"].get), min(info["ess"], key=info["ess"].get)
        words += (
            f"; R-hat is at most {info['rhat'][worst]:.3f} (`{worst}`), the effective sample size at least "
            f"{info['ess'][least]:.0f} (`{least}`), {info.get('divergences', 0)} draws diverged"
        )
    words += f". It is not to be trusted: {info['warning']}" if info.get("warning") else "."
    return _of_draws(found.samples, program, data, words, found)


def _of_draws(
    draws: Mapping[str, Any], program: Program, data: Data, words: str, found: Fit | None = None
) -> Yardstick:
    """Draws alone.

    Raises: UnknownNameError for a site that the program has not; OptionError for none; ShapeError.
    """
    sites, chains = program.sites(), {}
    for name, value in draws.items():
        if name not in sites:
            raise UnknownNameError(f"latent site of {type(program).__name__}", name, sites)
        value = as_tensor(value, f"The draws of {name}").detach()
        shape = (*(() if sites[name].is_global else (data.size,)), *sites[name].event_shape)
        if value.shape[1:] != shape or len(value) < 4:
            raise ShapeError(
                f"The true draws of {name!r} must have shape {('4 or more', *shape)}, got {tuple(value.shape)}."
            )
        chains[name] = value[None]
    if not chains:
        raise OptionError("The truth has no draws of any latent site; give {site: draws}.")
    n = len(next(iter(chains.values()))[0])
    truth = Reference(
        type(program).__name__, "Draws.", f"{n} draws", program=partial(copy.deepcopy, program), data=data,
        mean={name: value[0].mean(0) for name, value in chains.items()},
        sd={name: value[0].std(0) for name, value in chains.items()}, chains=chains,
    )  # fmt: skip
    return Yardstick(truth, f"{words.format(n=n)} {DRAWS_ALONE}", found)
