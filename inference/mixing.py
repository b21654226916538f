"""Whether the chains of an energy-based model forget where they started: R-hat, effective draws, how often they move.

Half of the chains start where those of a fit stood at its end, as draws do, half at draws of the program's base, which
have not seen the fit. After as many transitions as a draw takes both should be the same to any eye. What is compared is
f and the state along random directions: two modes that chains never leave differ along almost all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from inference.chains import ess, rhat
from inference.environment import seeded
from zoo.energy.base import EnergyProgram
from zoo.errors import CapabilityError
from zoo.options import Range, check_value
from zoo.program import Program

__all__ = ["Mixing", "chain_mixing"]

RHAT_LIMIT = 1.1
"""Of a few hundred transitions; the samples of a posterior, which are more, are held to 1.01."""
DIRECTIONS = 8
FEW, SOME = Annotated[int, Range(least=2)], Annotated[int, Range(least=4)]


@dataclass(frozen=True)
class Mixing:
    """What chains of a program looked like after as many transitions as a draw takes."""

    statistics: Tensor
    """(chains, sweeps, numbers): f and the state along random directions, less what never varied."""
    moved: float
    """Share of transitions that ended elsewhere than they began: of Metropolis-adjusted ones the acceptance rate."""
    draw_sweeps: int
    """Transitions before the first that was looked at."""

    @property
    def rhat(self) -> float:
        """The largest of all numbers; infinite where chains are stuck apart, NaN where nothing ever moved."""
        return float(rhat(self.statistics).max()) if self.statistics.shape[-1] else torch.nan

    @property
    def ess(self) -> float:
        """The smallest effective sample size of all numbers, of chains times sweeps draws."""
        return float(ess(self.statistics).min()) if self.statistics.shape[-1] else 0.0

    @property
    def trouble(self) -> str | None:
        """What is wrong with draws of this program, and what to do; None where nothing was found."""
        value = self.rhat
        if value <= RHAT_LIMIT:
            return None
        return (
            f"chains that start apart are not alike after {self.draw_sweeps} transitions (R-hat {value:.2f}, above "
            f"{RHAT_LIMIT}; {self.moved:.2f} of transitions moved), so that draws depend on where chains start: raise "
            "draw_sweeps, or, where few transitions move, lower step"
        )

    def __str__(self) -> str:
        return f"chains of {self.draw_sweeps} transitions, R-hat {self.rhat:.2f}, {self.moved:.2f} of them moved"


@torch.no_grad()
def chain_mixing(
    program: Program, *, chains: int = 8, sweeps: int = 400, seed: int = 0, examples: Tensor | None = None
) -> Mixing:
    """Runs chains from where draws start and from the base, and looks at what comes after a draw's transitions.

    Args:
        program: An energy-based model.
        chains: How many, at least 2.
        sweeps: Transitions that are looked at, at least 4.
        seed: Everything random follows from it.
        examples: Where the first half starts instead, (N, *event_shape): a mode of the data that chains from the base
            do not find is seen so, whatever the particles.

    Raises: CapabilityError for other programs, OptionError.
    """
    if not isinstance(program, EnergyProgram):
        raise CapabilityError(f"{type(program).__name__} is no energy-based model: it draws without chains.")
    check_value("chains", chains, FEW)
    check_value("sweeps", sweeps, SOME)
    values, states, moved = [], [], 0.0
    with _resting(program), seeded(seed, program.particles.device):
        pool = program.particles if examples is None else examples
        own = pool[torch.randint(len(pool), (chains - chains // 2,)).to(pool.device)]
        own = own if examples is None else program.started(own)
        at = torch.cat([own, program.base().sample(torch.Size((chains // 2,)))])
        for i in range(program.draw_sweeps + sweeps):
            before, at = at, program.sweep(at)
            if i >= program.draw_sweeps:
                moved += float((at != before).flatten(1).any(1).to(at).mean()) / sweeps
                values.append(program.tempered(at, 1.0))
                states.append(at.flatten(1))
        walked = torch.stack(states, 1)
        # Each number in its own units, so that none drowns the others.
        spread = walked.flatten(0, 1).std(0)
        walked = walked / torch.where(spread > 0, spread, torch.ones_like(spread))
        seen = walked @ torch.randn(walked.shape[-1], DIRECTIONS).to(walked)
    statistics = torch.cat([torch.stack(values, 1)[..., None], seen], -1)
    varied = (statistics != statistics[:1, :1]).flatten(0, 1).any(0)
    return Mixing(statistics[..., varied], moved, program.draw_sweeps)


@contextmanager
def _resting(program: Program) -> Iterator[None]:
    """Runs a block in evaluation mode."""
    training = program.training
    program.eval()
    try:
        yield
    finally:
        program.train(training)
