"""What is missing: values of some sites given the others.

Exactly where the program has such a conditional: Gaussians, mixtures, exact posteriors under gaps, programs made to
restore images; where the known sites come first in the order of an autoregressive program; by enumeration where there
are few bits. Else by annealed chains, or by importance resampling in the order of an autoregressive program.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Categorical, constraints

from inference.environment import evaluating
from inference.evaluation.estimates import CHUNK, Estimate, checked
from inference.evaluation.likelihood import log_likelihood
from inference.evaluation.queries.annealed import LATENTS, VALUES
from inference.evaluation.queries.conditionals import GAUSSIAN, MIXTURE, OWN, POSTERIOR
from inference.evaluation.queries.questions import Answer, Question, Sampling, Way, answered
from inference.fitted import Fit
from zoo.autoregressive.base import Autoregressive
from zoo.autoregressive.ensemble import OrderEnsemble
from zoo.datasets.data import Data
from zoo.errors import CapabilityError, ShapeError
from zoo.guards import same_support
from zoo.nets import image_shape
from zoo.program import ExactDensity, Program
from zoo.puzzles import Parts, Solves, parts_of

__all__ = ["WAYS", "completion_probabilities", "hidden_log_likelihood", "inpaint"]

MOST_BITS = 16
"""Hidden bits whose states are enumerated at most."""


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
    steps: int = 100,
    seed: int = 0,
) -> Answer:
    """Draws from p(hidden sites | known sites).

    Args:
        program: See `how`.
        x: (B, *event_shape); what its hidden sites hold does not matter.
        known: Booleans (*event_shape), the same for all rows, or (B, *event_shape).
        context: (B, ...) or None.
        draws: How many for each row.
        how: 'own', a program that was made to complete images; 'gaussian', PPCA and Gaussian mixtures; 'mixture', other
            mixtures; 'posterior', programs with an exact posterior under gaps (HMM); 'prefix', where the known sites
            come first in the order of an autoregressive program; 'enumerate', at most 16 hidden bits of any exact
            density: all these are exact. 'latents', annealed chains in the latents of a decoder (VAE); 'values',
            annealed chains in the hidden numbers of an exact density of real numbers (flows); 'importance', any sites
            of an autoregressive program: hidden sites are drawn in its order given those before, weighted by the
            density of the known ones, and resampled. 'auto' is the first that is possible.
        particles: Chains, or weighted draws of 'importance', that `draws` are resampled from.
        steps: Temperatures of annealed chains.
        seed: Everything random follows from it.

    Raises: OptionError, ShapeError; CapabilityError where the way is not possible; DivergenceError where no chain
        explains what is known.
    """
    sampling = Sampling(draws, particles, steps)
    x, known, context = _conditioned(program, x, known, context)
    y = x.masked_fill(~known, torch.nan).reshape(len(x), -1)
    sites = torch.arange(y.shape[1], device=y.device).unsqueeze(1)
    with evaluating(program, None, seed, x.device):
        return answered(program, Question("inpaint", y, sites, sd=0.0, context=context), WAYS, how, sampling)


@torch.no_grad()
def hidden_log_likelihood(
    program: Program | Fit, x: Tensor, known: Tensor, context: Tensor | None = None, **options: Any
) -> Estimate:
    """log p(hidden sites | known sites) of each example, (B,): how well it is known what was there.

    Args:
        program: One that was made to complete images, whose density it is; or one that takes missing values, where it
            is log p(x) - log p(known sites), no bound unless both are exact. Or a fit of one.
        x: (B, *event_shape), whole.
        known: Booleans (*event_shape) or (B, *event_shape).
        context: (B, ...) or None.
        options: Of `inference.evaluation.likelihood.log_likelihood`, such as `particles`.

    Raises: ShapeError; CapabilityError for other programs; what `log_likelihood` raises.
    """
    made = program.program if isinstance(program, Fit) else program
    whole = Data.of(x if context is None else (x, context))
    _, known, _ = _conditioned(made, x, known, context)
    if isinstance(made, Solves) and isinstance(made.task, Parts):
        images = known.reshape(len(known), *image_shape(made.event_shape))
        if bool((images != images[:, :1]).any()):
            raise CapabilityError(f"{type(made).__name__} is told pixels with all their colours, not some of them.")
        given = parts_of(whole.x.reshape(images.shape), images[:, :1])
        return log_likelihood(program, Data(whole.x, given), **options)
    if not made.takes_missing:
        raise CapabilityError(
            f"{type(made).__name__} takes no missing values, so the density of the known sites is not known; ask "
            "programs that do, or one that was made to complete images."
        )
    both = log_likelihood(program, whole, **options)
    if not bool(known.any()):
        return both
    some = log_likelihood(program, Data(whole.x.masked_fill(~known, torch.nan), whole.context), **options)
    errors = [each.monte_carlo_error for each in (both, some) if each.monte_carlo_error is not None]
    error = torch.stack(errors).square().sum(0).sqrt() if errors else None
    how = both.how if both.how == some.how == "exact" else f"{both.how} less {some.how}, no bound"
    return Estimate(both.values - some.values, how, False, monte_carlo_error=error)


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
    x, rows_known, context = _conditioned(program, x, known, context)
    if known.ndim != x.ndim - 1:
        raise ShapeError(f"known must be the same for all rows, of shape {tuple(program.event_shape)}.")
    hidden = ~rows_known[0].flatten()
    reason = _no_enumeration(program, hidden)
    if reason is not None:
        raise CapabilityError(f"The hidden states cannot be enumerated: {reason}.")
    with evaluating(program):
        return _enumerated(program, x, hidden, context)


# Parts.


def _conditioned(
    program: Program, x: Tensor, known: Tensor, context: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """x with zeros at its hidden sites, which may hold anything, checked; what is known, (B, *event_shape); the
    context."""
    event = tuple(program.event_shape)
    if (
        not isinstance(known, Tensor)
        or known.dtype != torch.bool
        or tuple(known.shape[known.ndim - len(event) :]) != event
        or known.ndim - len(event) not in (0, 1)
    ):
        raise ShapeError(
            f"known must be a tensor of booleans of shape {event} or (B, *{event}), got "
            f"{getattr(known, 'dtype', type(known).__name__)} of {tuple(getattr(known, 'shape', ()))}."
        )
    x, context = Data.of(x if context is None else (x, context))
    if x.shape[1:] == event and (known.ndim == len(event) or len(known) == len(x)):
        x = x.masked_fill(~known.to(x.device), 0.0)
    elif known.ndim > len(event) and len(known) != len(x):
        raise ShapeError(f"known has {len(known)} rows and x has {len(x)}; they must match.")
    x, context = checked(program, x, context, complete=True)
    return x, known.to(x.device).expand_as(x), context


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


def _by_pattern(
    why_not: Callable[[Program, Tensor], str | None],
    answer: Callable[[Program, Tensor, Tensor, Tensor | None, Sampling], Answer],
) -> Way:
    """A way whose parts take rows x (b, *event_shape) with the same hidden sites (D,)."""

    def against(program: Program, question: Question) -> str | None:
        found = (why_not(program, ~there) for _, there in question.patterns())
        return next((reason for reason in found if reason is not None), None)

    def whole(program: Program, question: Question, sampling: Sampling) -> Answer:
        values, effective, parts = question.y.new_zeros(sampling.draws, *question.y.shape), None, []
        for rows, there in question.patterns():
            x = question.y[rows].nan_to_num().reshape(-1, *program.event_shape)
            given = None if question.context is None else question.context[rows]
            parts.append(answer(program, x, ~there, given, sampling))
            values[:, rows] = parts[-1].values.reshape(sampling.draws, len(rows), -1)
            if parts[-1].effective is not None:
                effective = question.y.new_zeros(len(question.y)) if effective is None else effective
                effective[rows] = parts[-1].effective
        return Answer.of(values, parts[0].how, parts[0].exact, effective)

    return Way(against, whole)


def _prefix(program: Any, x: Tensor, hidden: Tensor, context: Tensor | None, sampling: Sampling) -> Answer:
    rows, given = _repeat(x, sampling.draws), None if context is None else _repeat(context, sampling.draws)
    drawn = program.complete(rows, int((~hidden).sum()), given)
    return Answer.of(drawn.reshape(sampling.draws, *x.shape), "prefix", True)


def _enumerate(program: Program, x: Tensor, hidden: Tensor, context: Tensor | None, sampling: Sampling) -> Answer:
    states, log_probs = _enumerated(program, x, hidden, context)
    chosen = states[Categorical(logits=log_probs).sample(torch.Size([sampling.draws]))]
    values = _repeat(x.reshape(len(x), -1), sampling.draws).reshape(sampling.draws, len(x), -1)
    values[..., hidden] = chosen
    return Answer.of(values.reshape(sampling.draws, *x.shape), "enumerate", True)


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


def _resampled(program: Program, x: Tensor, hidden: Tensor, context: Tensor | None, sampling: Sampling) -> Answer:
    """Likelihood weighting (Fung & Chang 1990) in the order of the program, then resampling."""
    values, weights = [], []
    for member, share in _members(program, sampling.particles):
        rows, given = _repeat(x, share), None if context is None else _repeat(context, share)
        flat = rows.reshape(len(rows), -1)
        flat[:, hidden] = 0.0
        for site in member.order.tolist():
            if hidden[site]:
                outputs = member.outputs(flat.reshape(rows.shape), given).reshape(*flat.shape, -1)[:, site]
                noise = torch.rand(len(flat), member.likelihood.noise, dtype=flat.dtype, device=flat.device)
                flat[:, site] = member.likelihood.draw(outputs, noise, site)
        rows = flat.reshape(rows.shape)
        terms = member.conditionals(rows, given).log_prob(rows).reshape(flat.shape)
        values.append(rows.reshape(share, *x.shape))
        weights.append(terms[:, ~hidden].sum(-1).reshape(share, len(x)))
    every, shares = torch.cat(values), torch.cat(weights).softmax(0)
    chosen = Categorical(probs=shares.T).sample(torch.Size([sampling.draws]))
    drawn = every[chosen, torch.arange(len(x), device=x.device)]
    return Answer.of(drawn, "importance", False, 1 / shares.square().sum(0))


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


WAYS = {
    "own": OWN, "gaussian": GAUSSIAN, "mixture": MIXTURE, "posterior": POSTERIOR,
    "prefix": _by_pattern(_no_prefix, _prefix), "enumerate": _by_pattern(_no_enumeration, _enumerate),
    "latents": LATENTS, "values": VALUES, "importance": _by_pattern(_no_order, _resampled),
}  # fmt: skip
"""Name -> way, the first that is possible first."""
