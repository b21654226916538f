r"""log Z of energy-based models: the sum over all states of small ones; else by annealing, from both sides.

Neal, "Annealed importance sampling", Statistics and Computing 11, 2001; on RBMs Salakhutdinov & Murray, ICML 2008; from
above, Burda, Grosse & Salakhutdinov, "Accurate and conservative estimates of MRF log-likelihood using reverse
annealing", AISTATS 2015.

    log w = sum_t [ f_t(x_t-1) - f_t-1(x_t-1) ],     x_0 ~ base, x_t by a transition that leaves exp(f_t) as it is

E[w] = Z, so that the log of the mean weight is below log Z in expectation. From exact draws of the model backwards, the
weights have the mean 1/Z: above in expectation. Where draws are those of a long chain, "above" holds as far as the
chain has forgotten its start.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from inference.environment import evaluating
from inference.evaluation.estimates import Estimate, checked, log_mean_exp
from zoo.datasets.data import Data
from zoo.energy.base import EnergyProgram, SummableEnergy
from zoo.errors import CapabilityError, OptionError
from zoo.options import Count, check_value
from zoo.program import Program

__all__ = ["PartitionBracket", "bracket_log_partition", "energy_log_likelihood", "log_partition", "unnormalised"]

CHAINS, STEPS = 100, 1000
HOW = ("auto", "exact", "ais")


@dataclass(frozen=True)
class PartitionBracket:
    """log Z between two bounds that hold in expectation, (1,) each."""

    lower: Estimate
    upper: Estimate
    exact_draws: bool
    """Whether the upper one starts at exact draws; else at those of a chain."""

    @property
    def width(self) -> float:
        """Distance of the bounds, in nats."""
        return self.upper.mean - self.lower.mean


def log_partition(
    program: EnergyProgram, how: str = "auto", *, chains: int = CHAINS, steps: int = STEPS, seed: int = 0
) -> Estimate:
    """log Z, values (1,): below the truth in expectation where it is annealed (`bound`), with a Monte Carlo error.

    The error is of the chains that were run, and says nothing of modes that none of them found: `bracket_log_partition`
    comes from both sides.

    Args:
        program: An energy-based model.
        how: 'exact' (the sum over all states), 'ais', or 'auto': exact where there are not too many.
        chains: Of the annealing.
        steps: Temperatures.
        seed: Everything random follows from it.

    Raises: CapabilityError for what is no energy-based model, or how='exact' with too many states; OptionError.
    """
    _check(program, how, chains, steps)
    with torch.no_grad(), evaluating(program, None, seed, program.particles.device):
        can = isinstance(program, SummableEnergy) and program.why_not_summed() is None
        if how == "exact" and not isinstance(program, SummableEnergy):
            raise CapabilityError(f"The states of {type(program).__name__} cannot be summed; take how='ais'.")
        if how == "exact" or (how == "auto" and can):
            assert isinstance(program, SummableEnergy)
            return Estimate(program.log_partition().reshape(1), "the sum over all states", False)
        weights = _anneal(program, program.base().sample(torch.Size((chains,))), steps)
    value, error = log_mean_exp(weights[:, None])
    return Estimate(value, f"AIS-{steps}x{chains}", True, monte_carlo_error=error)


def bracket_log_partition(
    program: EnergyProgram, *, chains: int = CHAINS, steps: int = STEPS, burn_in: int = 1000, seed: int = 0
) -> PartitionBracket:
    """log Z from below, by annealing to the model, and from above, by annealing back from draws of it.

    Args:
        program: An energy-based model.
        chains: In each direction.
        steps: Temperatures.
        burn_in: Transitions of the chains, from the program's particles, where exact draws cannot be had.
        seed: Everything random follows from it.

    Raises: CapabilityError, OptionError.
    """
    lower = log_partition(program, "ais", chains=chains, steps=steps, seed=seed)
    check_value("burn_in", burn_in, Count)
    with torch.no_grad(), evaluating(program, None, seed + 1, program.particles.device):
        exact = isinstance(program, SummableEnergy) and program.why_not_summed() is None
        if exact:
            x = program.draw_exactly(chains)
        else:
            x = program.run_chains(chains)
            for _ in range(burn_in):
                x = program.sweep(x)
        weights = _anneal(program, x, steps, backwards=True)
    inverse, error = log_mean_exp(weights[:, None])
    upper = Estimate(-inverse, f"reverse AIS-{steps}x{chains}", False, monte_carlo_error=error)
    return PartitionBracket(lower, upper, exact)


def energy_log_likelihood(program: EnergyProgram, data: Data, how: str = "auto", seed: int = 0) -> Estimate:
    """log p(x) of each example: f(x) - log Z, with a lower bound of f(x) where that is too much to compute.

    Where log Z is annealed, which is below it in expectation, log p(x) is rather too high: its `how` says so. With an
    exact log Z under a bounded f(x) it is a `bound`; with both it is neither.

    Raises: CapabilityError for a density relative to something that is none itself; as `log_partition`.
    """
    if program.measure is not None:
        raise CapabilityError(
            f"{type(program).__name__} has a density relative to {program.measure}, which is no likelihood; "
            "unnormalised_log_prob compares examples."
        )
    data = checked(program, data)
    constant = log_partition(program, how, seed=seed)
    values, bounded = unnormalised(program, data, seed)
    left = "a lower bound of f(x)" if bounded else "f(x)"
    said = f"{left} - log Z, log Z = {constant.mean:.3f} by {constant.how}"
    if constant.bound:
        error = 0.0 if constant.monte_carlo_error is None else float(constant.monte_carlo_error)
        said += f" (+- {error:.3f}; from below, so that this is rather too high)"
    return Estimate(values - constant.values.to(values), said, bounded and not constant.bound)


@torch.no_grad()
def unnormalised(program: EnergyProgram, data: Data, seed: int = 0) -> tuple[Tensor, bool]:
    """f of each example, (N,), or a lower bound of it where f is too much to compute, and whether it is that."""
    bounded = program.why_bounded() is not None
    f = program.unnormalised_bound if bounded else program.unnormalised_log_prob
    with evaluating(program, None, seed, data.x.device):
        return torch.cat([f(batch.x) for batch in data.batches(1000)]), bounded


def _check(program: Program, how: str, chains: int, steps: int) -> None:
    for name, value in (("chains", chains), ("steps", steps)):
        check_value(name, value, Count)
    if how not in HOW:
        raise OptionError(f"how must be one of {', '.join(map(repr, HOW))}, got {how!r}.")
    if not isinstance(program, EnergyProgram):
        raise CapabilityError(f"{type(program).__name__} is no energy-based model: it has no constant to be found.")


def _anneal(program: EnergyProgram, x: Tensor, steps: int, backwards: bool = False) -> Tensor:
    """Log weights (chains,) from the base to the program, or from the program to the base."""
    betas = torch.linspace(0, 1, steps + 1, dtype=x.dtype, device=x.device)
    log_weights = x.new_zeros(len(x))
    for i in range(steps):
        t = steps - i if backwards else i + 1
        if backwards:
            x = program.sweep(x, betas[t])
        rise = program.tempered(x, betas[t]) - program.tempered(x, betas[t - 1])
        log_weights = log_weights + (-rise if backwards else rise)
        if not backwards:
            x = program.sweep(x, betas[t])
    return log_weights
