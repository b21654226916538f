"""What is missing: values of some sites given the others.

Missing sites are drawn given the known ones: exactly where these come first in the order of an autoregressive program,
exactly by enumeration where there are few bits, else by importance resampling.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Categorical, constraints

from inference.evaluation.estimates import CHUNK, checked, evaluating
from zoo.autoregressive.base import Autoregressive
from zoo.autoregressive.ensemble import OrderEnsemble
from zoo.datasets.data import Data
from zoo.errors import CapabilityError, OptionError, ShapeError
from zoo.guards import same_support
from zoo.program import ExactDensity, Program

__all__ = ["Completions", "completion_probabilities", "inpaint"]

MOST_BITS = 16
"""Hidden bits whose states are enumerated at most."""
WAYS = ("auto", "prefix", "enumerate", "importance")


@dataclass(frozen=True)
class Completions:
    """Draws of the hidden sites given the known ones.

    `effective` is the effective sample size of each row where the draws are resampled: far below the number of draws,
    these repeat a few states and should not be trusted. None where they are exact.
    """

    values: Tensor
    """(draws, B, *event_shape); known sites are those of x."""
    how: str
    """'prefix', 'enumerate' or 'importance'."""
    effective: Tensor | None = None
    """(B,)."""


@torch.no_grad()
def inpaint(
    program: Program,
    x: Tensor,
    known: Tensor,
    context: Tensor | None = None,
    *,
    draws: int = 1,
    how: str = "auto",
    particles: int = 256,
    seed: int = 0,
) -> Completions:
    """Draws from p(hidden sites | known sites).

    Args:
        program: A program with an exact density.
        x: (B, *event_shape); what its hidden sites hold does not matter.
        known: (*event_shape) booleans, the same for all rows.
        context: (B, ...) or None.
        draws: How many for each row.
        how: 'prefix', exact, where the known sites come first in the order of an autoregressive program; 'enumerate',
            exact, for at most 16 hidden bits; 'importance', any sites of an autoregressive program: hidden sites are
            drawn in its order given those before, weighted by the density of the known ones, and resampled. 'auto' is
            the first that is possible.
        particles: Weighted draws of 'importance' that `draws` are resampled from.
        seed: Everything random follows from it.

    Raises: OptionError, ShapeError; CapabilityError where the way is not possible.
    """
    if how not in WAYS:
        raise OptionError(f"how must be one of {', '.join(map(repr, WAYS))}, got {how!r}.")
    for name, value in (("draws", draws), ("particles", particles)):
        if value < 1:
            raise OptionError(f"{name} must be at least 1, got {value}.")
    x, hidden, context = _conditioned(program, x, known, context)
    against = {way: reason for way in WAYS[1:] if (reason := WHY_NOT[way](program, hidden)) is not None}
    possible = [way for way in WAYS[1:] if way not in against]
    if not possible:
        raise CapabilityError(f"{type(program).__name__} cannot be conditioned: {'; '.join(against.values())}.")
    if how in against:
        raise CapabilityError(f"how={how!r} is not possible here: {against[how]}. Use how={possible[0]!r}.")
    how = possible[0] if how == "auto" else how
    with evaluating(program, None, seed, x.device):
        if how == "importance":
            return _resampled(program, x, hidden, context, draws, particles)
        if how == "prefix":
            assert isinstance(program, Autoregressive)
            rows, given = _repeat(x, draws), None if context is None else _repeat(context, draws)
            drawn = program.complete(rows, int((~hidden).sum()), given)
            return Completions(drawn.reshape(draws, *x.shape), how)
        states, log_probs = _enumerated(program, x, hidden, context)
        chosen = states[Categorical(logits=log_probs).sample(torch.Size([draws]))]
        values = _repeat(x.reshape(len(x), -1), draws).reshape(draws, len(x), -1)
        values[..., hidden] = chosen
        return Completions(values.reshape(draws, *x.shape), how)


@torch.no_grad()
def completion_probabilities(
    program: Program, x: Tensor, known: Tensor, context: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """All states of the hidden bits and their exact log-probabilities given the known ones.

    Args:
        program, x, known, context: See `inpaint`; at most 16 hidden bits.

    Returns: states (2^h, h), the hidden sites in raster order; log p(state | known sites) (B, 2^h).

    Raises: ShapeError, CapabilityError.
    """
    x, hidden, context = _conditioned(program, x, known, context)
    reason = _no_enumeration(program, hidden)
    if reason is not None:
        raise CapabilityError(f"The hidden states cannot be enumerated: {reason}.")
    with evaluating(program):
        return _enumerated(program, x, hidden, context)


# Parts.


def _conditioned(
    program: Program, x: Tensor, known: Tensor, context: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """x with zeros at its hidden sites, which may hold anything, checked; which sites are hidden, (D,); the context."""
    if not isinstance(known, Tensor) or known.dtype != torch.bool or known.shape != program.event_shape:
        raise ShapeError(
            f"known must be a tensor of booleans of shape {tuple(program.event_shape)}, got "
            f"{getattr(known, 'dtype', type(known).__name__)} of {tuple(getattr(known, 'shape', ()))}."
        )
    x, context = Data.of(x if context is None else (x, context))
    if x.shape[1:] == known.shape:
        x = x.masked_fill(~known.to(x.device), 0.0)
    x, context = checked(program, x, context, complete=True)
    return x, ~known.flatten().to(x.device), context


def _repeat(rows: Tensor, times: int) -> Tensor:
    """(B, ...) -> (times * B, ...), a copy."""
    return rows.repeat(times, *[1] * (rows.ndim - 1))


def _no_prefix(program: Program, hidden: Tensor) -> str | None:
    if not isinstance(program, Autoregressive):
        return "it is not autoregressive"
    if isinstance(program, OrderEnsemble) and not program.one_order:
        return None if bool(hidden.all()) else "its members have different orders"
    in_order = hidden[program.order.to(hidden.device)].int()
    return None if bool((in_order.diff() >= 0).all()) else "the known sites do not come first in its order"


def _no_enumeration(program: Program, hidden: Tensor) -> str | None:
    if not isinstance(program, ExactDensity):
        return "it has no exact density"
    if not same_support(program.support, constraints.boolean):
        return f"its values are {program.support}, not bits"
    count = int(hidden.sum())
    return None if count <= MOST_BITS else f"{count} hidden bits are too many to enumerate (at most {MOST_BITS})"


def _no_order(program: Program, hidden: Tensor) -> str | None:
    return None if isinstance(program, Autoregressive) else "importance resampling needs an autoregressive program"


WHY_NOT = {"prefix": _no_prefix, "enumerate": _no_enumeration, "importance": _no_order}
"""Way -> a function (program, hidden) that says why it is not possible, or None."""


def _enumerated(program: Program, x: Tensor, hidden: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    assert isinstance(program, ExactDensity)
    count = int(hidden.sum())
    place = torch.arange(count - 1, -1, -1, device=x.device)
    states = (torch.arange(2**count, device=x.device).unsqueeze(-1) >> place & 1).to(x)
    found = []
    for part in states.split(max(1, CHUNK // len(x))):
        rows = _repeat(x.reshape(len(x), -1), len(part)).reshape(len(part), len(x), -1)
        rows[..., hidden] = part.unsqueeze(1)
        given = None if context is None else _repeat(context, len(part))
        found.append(program.log_prob(rows.reshape(-1, *x.shape[1:]), given).reshape(len(part), len(x)))
    return states, torch.cat(found).T.log_softmax(-1)


def _resampled(
    program: Program, x: Tensor, hidden: Tensor, context: Tensor | None, draws: int, particles: int
) -> Completions:
    """Likelihood weighting (Fung & Chang 1990) in the order of the program, then resampling."""
    values, weights = [], []
    for member, share in _members(program, particles):
        rows, given = _repeat(x, share), None if context is None else _repeat(context, share)
        flat = rows.reshape(len(rows), -1)
        flat[:, hidden] = 0.0
        for site in member.order.tolist():
            if hidden[site]:
                outputs = member.outputs(flat.reshape(rows.shape), given).reshape(*flat.shape, -1)[:, site]
                noise = torch.rand(len(flat), member.likelihood.noise, dtype=flat.dtype, device=flat.device)
                flat[:, site] = member.likelihood.draw(outputs, noise)
        rows = flat.reshape(rows.shape)
        terms = member.conditionals(rows, given).log_prob(rows).reshape(flat.shape)
        values.append(rows.reshape(share, *x.shape))
        weights.append(terms[:, ~hidden].sum(-1).reshape(share, len(x)))
    every, shares = torch.cat(values), torch.cat(weights).softmax(0)
    chosen = Categorical(probs=shares.T).sample(torch.Size([draws]))
    return Completions(every[chosen, torch.arange(len(x), device=x.device)], "importance", 1 / shares.square().sum(0))


def _members(program: Program, particles: int) -> Iterator[tuple[Autoregressive, int]]:
    """Programs with an order, and how many particles each gets: a mixture shares them out among its members."""
    assert isinstance(program, Autoregressive)
    if not isinstance(program, OrderEnsemble) or program.single is not None:
        yield program, particles
        return
    share = math.ceil(particles / program.members)
    for k in range(program.members):
        with program.member(k):
            yield program, share
