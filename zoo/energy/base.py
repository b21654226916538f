r"""What energy-based models share: a density up to a constant, chains to draw from it, and a path to where it is known.

LeCun, Chopra, Hadsell, Ranzato & Huang, "A tutorial on energy-based learning", 2006.

    p(x) = exp(f(x)) / Z,     Z = sum or integral of exp(f(x)) over all x

f, minus the energy, is `unnormalised_log_prob`. Z depends on the parameters and is what nothing here computes in
passing: whoever asks for a density is told how to get it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

from zoo.errors import UnnormalisedError
from zoo.options import Count
from zoo.program import Implicit, ImplicitProgram

__all__ = [
    "EnergyProgram", "SummableEnergy", "Unnormalised", "binary_states", "choose_states", "metropolis_langevin",
    "spread_of", "why_too_many",
]  # fmt: skip

MOST, MOST_WITH_GRADIENTS = 24, 20
"""Binary units whose states are summed over: 16 million states; with gradients, for which all terms are kept, a
million."""
CHUNK = 2**14
"""States at a time."""


class EnergyProgram(ImplicitProgram):
    """Base of programs whose density is known up to a constant. Write `base`, `tempered` and `sweep`.

    Draws come from a chain: it starts at one of the `particles`, where a fit's own chains stood at its end, and takes
    `draw_sweeps` transitions. A program that was never fitted starts at draws of `base`, maybe far from its density.

    Between `base`, whose constant is 1, and the program lies the path exp(tempered(x, b)), b from 0 to 1, along which
    `inference.evaluation.partition` anneals.

    The state of a chain is an example, unless a program has units or latents that chains must carry along: then base,
    path and transitions are of *states* instead, and it writes `shown`, `started` and `unnormalised_log_prob` too.

    Args:
        draw_sweeps: Transitions of a draw.
        particles: Where chains start, (particles, *state_shape).
        event_shape: Of an example; None is that of a state.
    """

    family = "energy"
    measure: ClassVar[str | None] = None
    """What the density is relative to, where that is nothing that likelihoods can be compared by."""
    sweep_gradients: ClassVar[int] = 0
    """Gradients of f that a transition takes."""
    looks_at_values: ClassVar[bool] = False
    """Whether what it computes depends on values, as iterating until nothing changes does: no step is traced then."""
    particles: Tensor

    def __init__(self, draw_sweeps: Count, particles: Tensor, event_shape: Sequence[int] | None = None):
        super().__init__()
        self.event_shape = particles.shape[1:] if event_shape is None else torch.Size(event_shape)
        self.draw_sweeps = draw_sweeps
        self.register_buffer("particles", particles)

    def base(self) -> dist.TorchDistribution:
        """A density over one state, easy to draw from and normalised, as near to the data as it can be."""
        raise NotImplementedError(f"{type(self).__name__} must define base()")

    def tempered(self, x: Tensor, beta: float | Tensor) -> Tensor:
        """(B, *state_shape) -> (B,): log density of `base` at beta = 0, f at beta = 1; differentiable."""
        raise NotImplementedError(f"{type(self).__name__} must define tempered(x, beta)")

    def sweep(self, x: Tensor, beta: float | Tensor = 1.0) -> Tensor:
        """(B, *state_shape) -> (B, *state_shape): a transition that leaves exp(tempered(., beta)) as it is.

        It must be reversible: annealing goes along the path in both directions.
        """
        raise NotImplementedError(f"{type(self).__name__} must define sweep(x, beta)")

    # What follows is provided.

    def shown(self, state: Tensor) -> Tensor:
        """An example under each state, (B, *state_shape) -> (B, *event_shape)."""
        return state

    def started(self, x: Tensor) -> Tensor:
        """A state that shows each example, or nearly, (B, *event_shape) -> (B, *state_shape)."""
        return x

    @property
    def hides(self) -> bool:
        """Whether states are something else than examples."""
        return type(self).shown is not EnergyProgram.shown

    def why_bounded(self) -> str | None:
        """Why f(x) is too much to compute, and only bounded from below, or None; with gradients wanted sooner."""
        return None

    def unnormalised_bound(self, x: Tensor) -> Tensor:
        """A lower bound of f(x), (B, *event_shape) -> (B,), differentiable; f itself unless a program has another.

        Its gap is another one under other parameters and at other examples.
        """
        return self.unnormalised_log_prob(x)

    def unnormalised_log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """f(x) = log p(x) + log Z of each example, (B, *event_shape) -> (B,), differentiable in the parameters.

        It compares examples under one program, never two programs.

        Raises: CapabilityError where there is a bound alone (`why_bounded`).
        """
        return self.tempered(x, 1.0)

    @torch.no_grad()
    def restart(self) -> None:
        """Sets all particles to draws of `base`."""
        self.particles.copy_(self.base().sample(torch.Size((len(self.particles),))))

    @torch.no_grad()
    def run_chains(self, n: int) -> Tensor:
        """States (n, *state_shape) at the end of as many chains, each a draw."""
        x = self.particles[torch.randint(len(self.particles), (n,)).to(self.particles.device)]
        for _ in range(self.draw_sweeps):
            x = self.sweep(x)
        return x

    def drawn(self, x: Tensor | None, context: Tensor | None, size: int | None) -> Unnormalised:
        """The distribution of the site 'x', for `model`."""
        value = self.shown(self.run_chains(size or 1)) if x is None else x
        return Unnormalised(value, self)


class Unnormalised(Implicit):
    """A draw of an energy-based model, whose density is known up to a constant only.

    Args:
        value: (B, *event_shape), or a hidden unit's (B, ...).
        of: The program.
        event_dim: Of the value; None is that of x.
    """

    def __init__(
        self,
        value: Tensor,
        of: EnergyProgram,
        event_dim: int | None = None,
        validate_args: bool | None = False,
    ):
        self.of = of
        super().__init__(value, len(of.event_shape) if event_dim is None else event_dim, validate_args)

    @property
    def support(self) -> constraints.Constraint:
        """That of the program."""
        return constraints.independent(self.of.support, len(self.event_shape))

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> Unnormalised:
        """The same value over more batch dimensions."""
        value = self.value.expand(torch.Size(batch_shape) + self.event_shape)
        return Unnormalised(value, self.of, len(self.event_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """Raises UnnormalisedError, always."""
        raise UnnormalisedError(
            f"{type(self.of).__name__} knows its density up to the constant log Z alone. "
            "inference.evaluation.partition gives it (log_partition: by enumeration of small ones, else by annealing), "
            "and log_likelihood uses it; unnormalised_log_prob compares examples without. To fit take the methods "
            "'cd', 'score-matching' or 'nce'."
        )


@runtime_checkable
class SummableEnergy(Protocol):
    """An energy-based model whose constant is a sum, of which small ones can be done."""

    def why_not_summed(self) -> str | None:
        """Why there is too much to sum, or None; with gradients wanted, which keep all terms, less can be summed."""
        ...

    def log_partition(self) -> Tensor:
        """log Z, (), exact and differentiable.

        Raises: CapabilityError where there is too much to sum.
        """
        ...

    def draw_exactly(self, n: int) -> Tensor:
        """Independent states (n, *state_shape), not by a chain.

        Raises: as `log_partition`.
        """
        ...


def why_too_many(of: EnergyProgram, units: int) -> str | None:
    """Why log Z is not summed over all states of so many binary units, or None."""
    most = MOST_WITH_GRADIENTS if torch.is_grad_enabled() else MOST
    if units <= most:
        return None
    return f"log Z of {type(of).__name__} sums 2^{units} states, beyond the {most} units that can be summed"


def binary_states(units: int, like: Tensor) -> Iterator[Tensor]:
    """All 2^units states of binary units, as rows of 0 and 1, (up to CHUNK, units) at a time."""
    for numbers in torch.arange(2**units, device=like.device).split(CHUNK):
        yield _bits(numbers, units, like)


@torch.no_grad()
def choose_states(log_weights: Tensor, n: int, units: int) -> Tensor:
    """n independent draws (n, units) of the states that `binary_states` lists, by their weights (2^units,)."""
    # Not by torch.multinomial, which takes no more than 2^24 categories.
    heights = log_weights.softmax(0).cumsum(0)
    numbers = torch.searchsorted(heights, torch.rand(n).to(heights)).clamp_max(len(heights) - 1)
    return _bits(numbers, units, log_weights)


def _bits(numbers: Tensor, units: int, like: Tensor) -> Tensor:
    return ((numbers[:, None] >> torch.arange(units, device=numbers.device)) & 1).to(like)


def spread_of(x: Tensor) -> Tensor:
    """The standard deviation of each number of examples (N, *event_shape), whatever its units, (*event_shape).

    A hundredth where a number never changes, but for rounding.
    """
    spread = x.std(0) if len(x) > 1 else torch.zeros_like(x[0])
    return torch.where(spread > 1e-6 * x.mean(0).abs(), spread, 1e-2)


def metropolis_langevin(program: EnergyProgram, x: Tensor, beta: float | Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """One Metropolis-adjusted Langevin transition of each example (Roberts & Tweedie 1996).

    Proposes x + step^2 / 2 grad + step N(0, 1) by the gradient of `tempered`, and accepts or stays.

    Args:
        program: Whose path.
        x: (B, *event_shape).
        beta: Where on the path.
        step: (*event_shape) or ().

    Returns: (B, *event_shape), and which were accepted, (B,).
    """
    value, slope = _slope(program, x, beta)
    noise = torch.randn_like(x)
    proposed = x + 0.5 * step**2 * slope + step * noise
    there, back = _slope(program, proposed, beta)
    # The noise that would lead back.
    returning = (x - proposed - 0.5 * step**2 * back) / step
    log_ratio = there - value - 0.5 * (returning**2 - noise**2).flatten(1).sum(1)
    accepted = torch.rand_like(log_ratio).log() < log_ratio
    return torch.where(accepted.reshape(-1, *[1] * (x.ndim - 1)), proposed, x), accepted


def _slope(program: EnergyProgram, x: Tensor, beta: float | Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        at = x.detach().requires_grad_()
        value = program.tempered(at, beta)
        (slope,) = torch.autograd.grad(value.sum(), at)
    return value.detach(), slope
