"""Where chains start, and the units in which they walk.

A posterior with a mode is about the Gaussian there. Chains that start at draws of it need not find it, and where the
draws are taken in units of its curvature a diagonal mass matrix does for numbers that are correlated or of any scale.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from inference.guides.named import init_function
from inference.no_u_turn import Chain, Frame, Vector
from inference.training.modes import Mode, find_modes
from inference.training.target import MOST_EXAMPLES, MOST_NUMBERS, Target, following, why_no_vector
from zoo.errors import CapabilityError
from zoo.process import set_seed
from zoo.program import Program

__all__ = ["Starts"]

CLIMBS = 8
"""Places from which modes are looked for."""
POOL = 100
"""Draws of the Gaussians at the modes of which a chain starts at one, by importance weight."""


class Starts:
    """Proposes places to start from.

    Args:
        program: Whose posterior is sampled.
        target: That posterior.
        init: One of Pyro's init functions, or its name; None looks for modes.
        seed: Of the search for them.
    """

    def __init__(self, program: Program, target: Target, init: str | Callable[..., Any] | None, seed: int):
        self.target, self.frame = target, None
        self.init = None if init is None else init_function(init)
        self.modes: list[Mode] = []
        if init is not None:
            self.how = "where init_strategy says"
            return
        reason = self._why_not(program)
        if reason is None:
            try:
                with torch.random.fork_rng(self._devices()), following("nuts", program):
                    set_seed(seed)
                    self.modes = find_modes(target, target.starts(CLIMBS))
                reason = None if self.modes else "its density has no maximum that could be reached"
            except CapabilityError as error:
                reason = str(error)
        if reason is not None:
            self.how = f"at random: {reason}"
            return
        found = len(self.modes)
        self.how = "around its mode" if found == 1 else f"around its {found} modes, as probable as each is"
        best = self.modes[0]
        self.frame = Frame(best.place.cpu().numpy(), best.factor.cpu().numpy())
        shares = Categorical(logits=best.place.new_tensor([mode.log_evidence for mode in self.modes]))
        places, factors = (torch.stack([getattr(mode, part) for mode in self.modes]) for part in ("place", "factor"))
        self._near = MixtureSameFamily(shares, MultivariateNormal(places, scale_tril=factors, validate_args=False))

    def _why_not(self, program: Program) -> str | None:
        if (reason := why_no_vector(program)) is not None:
            return reason
        if self.target.precision != torch.float64:
            return "its code is in single precision"
        if self.target.size > MOST_NUMBERS:
            return f"there are {self.target.size:,} latent numbers, more than {MOST_NUMBERS:,}"
        if self.target.data.size > MOST_EXAMPLES:
            return f"there are more than {MOST_EXAMPLES:,} examples"
        return None

    def _devices(self) -> list[torch.device]:
        x = self.target.data.x
        return [x.device] if x.is_cuda else []

    def propose(self, chain: Chain) -> Vector:
        """A place (D,), by the chain's own random numbers."""
        if self.init is None and self.frame is None:
            return chain.proposed_start()
        with torch.random.fork_rng(self._devices()), torch.no_grad():
            set_seed(int(chain.random.integers(2**63)))
            if self.init is not None:
                return _array(self.target.located(self.init)[0])
            pool = self._near.sample((POOL,))
            weights = self.target(pool) - self._near.log_prob(pool)
            # By the largest of weights with Gumbel noise: a draw, and the first where no weight is a number.
            noise = -torch.empty_like(weights).exponential_().log()
            return _array(pool[int((weights + noise).argmax())])


def _array(place: Tensor) -> Vector:
    return np.asarray(place.double().cpu().numpy())
