"""One transition of Hamiltonian Monte Carlo, for any number of chains at once.

Duane, Kennedy, Pendleton & Roweth 1987; Neal, "MCMC using Hamiltonian dynamics", 2011. Annealing and Monte Carlo EM
move their chains by it; step sizes, and what is done with the rate of acceptance, are theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Slope", "Transition", "transition"]

Values = Mapping[str, Tensor]
LogDensity = Callable[[Values], tuple[Tensor, Tensor]]
"""Values -> (log density of each chain, anything of the same shape that is to be known of the state)."""
Slope = Callable[[Values], tuple[Tensor, Tensor, Values]]
"""Values -> (the same two, the gradient of the first)."""


class Transition(NamedTuple):
    """Where a transition ends."""

    values: dict[str, Tensor]
    """Name -> (S, U, *event)."""
    aside: Tensor
    """What the density said of these states besides, (S, U)."""
    acceptance: Tensor
    """Probability with which each proposal was accepted, (S, U)."""


def transition(
    log_density: LogDensity, values: Values, step_size: Tensor, leapfrog: int, slope_of: Slope | None = None
) -> Transition:
    """Proposes by so many leapfrog steps and accepts or rejects, each of S x U chains on its own.

    Args:
        log_density: Differentiable in the values.
        values: Name -> (S, U, *event), unconstrained.
        step_size: () or (S, U).
        leapfrog: Leapfrog steps; each costs a gradient, and the start one more.
        slope_of: A faster way to the density and its gradient; None differentiates `log_density`.
    """
    slope_of = slope_of or partial(_slope, log_density)
    momentum = {name: torch.randn_like(value) for name, value in values.items()}
    steps = {name: _beside(step_size, value) for name, value in values.items()}
    start, aside, slope = slope_of(values)
    energy = start - _kinetic(momentum)
    new = dict(values)
    momentum = {name: p + steps[name] / 2 * slope[name] for name, p in momentum.items()}
    for i in range(leapfrog):
        new = {name: z + steps[name] * momentum[name] for name, z in new.items()}
        end, new_aside, slope = slope_of(new)
        share = 1 if i < leapfrog - 1 else 0.5
        momentum = {name: p + steps[name] * share * slope[name] for name, p in momentum.items()}
    # A trajectory that ended in an infinity or a NaN is rejected.
    log_rate = (end - _kinetic(momentum) - energy).nan_to_num(-torch.inf, -torch.inf, -torch.inf).clamp(max=0.0)
    accepted = torch.rand_like(log_rate).log() < log_rate
    return Transition(
        {name: torch.where(_beside(accepted, z), z, values[name]) for name, z in new.items()},
        torch.where(accepted, new_aside, aside),
        log_rate.exp(),
    )


def _beside(x: Tensor, value: Tensor) -> Tensor:
    """() or (S, U) -> a shape that broadcasts with (S, U, *event)."""
    return x.reshape(*x.shape, *[1] * (value.ndim - 2)) if x.ndim else x


def _kinetic(momentum: Values) -> Tensor:
    """(S, U)."""
    return torch.stack([p.reshape(*p.shape[:2], -1).square().sum(-1) / 2 for p in momentum.values()]).sum(0)


def _slope(log_density: LogDensity, values: Values) -> tuple[Tensor, Tensor, Values]:
    """Log density, what it says besides, and the gradient in the values; all detached."""
    free = {name: value.detach().requires_grad_() for name, value in values.items()}
    with torch.enable_grad():
        density, aside = log_density(free)
        gradient = torch.autograd.grad(density.sum(), list(free.values()))
    return density.detach(), aside.detach(), dict(zip(free, gradient, strict=True))
