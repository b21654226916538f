r"""Evidence and expected counts of a hidden Markov model by the scaled forward-backward recursion, and their gradient.

Rabiner, "A tutorial on hidden Markov models", 1989, section V.A. Messages are probabilities, rescaled at each step to
sum to one; both directions of all sequences take one batched matrix product a step:

    p_t = (p_t-1 A) * b_t / c_t      forward;  b_t = p(x_t | z_t) / max_k,  log p(x) = sum_t log c_t + log max_k
    w_t = (w_t+1 A') * b_t / d_t     backward, the emission included
    p(z_t-1 = i, z_t = j | x) = p_t-1[i] A[i, j] w_t[j] / m_t,     m_t = (p_t-1 A) . w_t

Numbers below the dtype's smallest (`tiny`) are lost here. A step loses at most K tiny of each message before it is
divided by c_t or d_t, and this changes the evidence by a share of K^2 tiny / (c_t m_t) at most, so all that is lost is
below rounding error where every c_t m_t and d_t m_t exceeds T K^2 tiny / eps. Where the emissions favour by hundreds of
nats states that the chain must not enter, it does not: such sequences are done again in log space, by `messages`.

The recursions are operators of their own (`torch.library`): a traced graph has one node for all T steps. In compiled
libraries both directions are done by `native_counts`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.chains import messages
from zoo.chains.native_counts import scaled_counts
from zoo.errors import CapabilityError
from zoo.native import allowed

__all__ = ["forward_backward", "log_evidence"]


ALONE = 2**18
"""Multiplications of a product that no library shares out among threads."""


def log_evidence(initial: Tensor, transition: Tensor, emission: Tensor) -> Tensor:
    """log p(x), (B,), differentiable once: its gradient is the expected counts.

    make_fx traces it, and vmap maps it over any of its arguments.

    Args:
        initial: log pi, (K,); like the others finite (see `messages.log_normalise`).
        transition: log A (K, K), row = from.
        emission: log p(x_t | z_t = k), (B, T, K).
    """
    inputs = initial.unsqueeze(0), transition.unsqueeze(0), emission.unsqueeze(0)
    # Under vmap a tensor does not say whether its slope is wanted.
    if torch.is_grad_enabled() and any(t.requires_grad or torch._C._functorch.is_batchedtensor(t) for t in inputs):
        return _Evidence.apply(*inputs)[0].squeeze(0)
    return _evidence(*inputs).squeeze(0)


@torch.no_grad()
def forward_backward(
    initial: Tensor, transition: Tensor, emission: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Evidence and expected counts, without gradients; about 5 B T K numbers of memory.

    Args:
        initial, transition, emission: As for `log_evidence`.
        mask: (B, T), False at padded steps, whose states and the transitions into which do not count; None counts all.

    Returns:
        log p(x) (B,); p(z_t = k | x) (B, T, K); expected number of each transition given x (B, K, K).
    """
    given = None if mask is None else mask.unsqueeze(0)
    found = _counts(initial.unsqueeze(0), transition.unsqueeze(0), emission.unsqueeze(0), given)
    return found[0].squeeze(0), found[1].squeeze(0), found[2].squeeze(0)


class _Evidence(torch.autograd.Function):
    """log p(x) (S, B) of S models; the other outputs are kept for the gradient."""

    generate_vmap_rule = True

    @staticmethod
    def forward(initial: Tensor, transition: Tensor, emission: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Both directions at once, since they share each matrix product."""
        return _counts(initial, transition, emission, None)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        """Keeps the expected counts; they are outputs, so that a second derivative is noticed."""
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*output[1:])

    @staticmethod
    def backward(ctx: Any, weight: Tensor | None, *second: Tensor | None) -> tuple[Tensor | None, ...]:
        """Expected counts of each sequence times its incoming gradient."""
        if any(g is not None for g in second):
            raise CapabilityError(
                "The evidence of a hidden Markov model was differentiated twice; its gradient has no derivative here. "
                "Take finite differences of the gradient, or differentiate zoo.chains.messages.forward."
            )
        if weight is None:
            return None, None, None
        state, counts = ctx.saved_tensors
        weight = weight[..., None, None]
        emission = weight * state
        return emission[:, :, 0].sum(1), (weight * counts).sum(1), emission


# The operators take S models at once: initial (S, K), transition (S, K, K), emission (S, B, T, K), mask (S, B, T).


@torch.library.custom_op("zoo::hmm_evidence", mutates_args=())
def _evidence(initial: Tensor, transition: Tensor, emission: Tensor) -> Tensor:
    """log p(x), (S, B)."""
    probs, least = transition.exp(), _least(emission)
    rarest = probs.amin()
    # One direction does not tell what was lost, unless no transition is rare: each state then gets `rarest` at least
    # from every step, which takes the place of m_t in the bound.
    if emission.is_cuda or not bool(rarest >= least):
        return _counts(initial, transition, emission, None)[0]
    found, smallest = _empty_evidence(initial, transition, emission), _empty_evidence(initial, transition, emission)
    for rows in _rows(emission):
        top, flow = _likelihoods(emission[:, rows], 1)
        flow[:, 0] *= initial.exp().unsqueeze(1)
        total = _sweep(probs, flow)
        found[:, rows] = (total.transpose(1, 2).log() + top).sum(-1)
        smallest[:, rows] = total.amin(1)
    s, b = torch.where(~(smallest * rarest >= least))
    if len(s):
        wide = initial[s].double(), transition[s].double(), emission[s, b].double()
        found[s, b] = messages.forward(*wide)[:, -1].logsumexp(-1).to(found)
    return found


@torch.library.custom_op("zoo::hmm_counts", mutates_args=())
def _counts(
    initial: Tensor, transition: Tensor, emission: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """log p(x) (S, B), states (S, B, T, K) and transitions (S, B, K, K)."""
    models, batch = emission.shape[:2]
    if emission.is_cuda:
        # To look at the bound is to wait for the device, which a CUDA graph cannot do: log space for all.
        start, chain = initial.repeat_interleave(batch, 0), transition.repeat_interleave(batch, 0)
        flat = _log_counts(start, chain, emission.flatten(0, 1), None if mask is None else mask.flatten(0, 1))
        evidence, state, counts = (t.unflatten(0, (models, batch)) for t in flat)
        return evidence, state, counts
    twin = scaled_counts(initial, transition, emission) if allowed() and mask is None else None
    if twin is not None:
        *found, lowest = twin
        trusted = lowest >= _least(emission)
    else:
        found = list(_empty_counts(initial, transition, emission, mask))
        trusted = torch.empty(emission.shape[:2], dtype=torch.bool)
        for rows in _rows(emission):
            part = _scaled_counts(initial, transition, emission[:, rows], None if mask is None else mask[:, rows])
            for whole, these in zip((*found, trusted), part, strict=True):
                whole[:, rows] = these
    s, b = torch.where(~trusted)
    if len(s):  # in float64: over a long sequence the float32 sums would have few digits left
        wide = initial[s].double(), transition[s].double(), emission[s, b].double()
        for whole, these in zip(found, _log_counts(*wide, None if mask is None else mask[s, b]), strict=True):
            whole[s, b] = these.to(whole)
    evidence, state, counts = found
    return evidence, state, counts


def _scaled_counts(
    initial: Tensor, transition: Tensor, emission: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `_counts`, by the recursion above; and which sequences (S, B) it can be trusted for."""
    models, probs, start = len(emission), transition.exp(), initial.exp().unsqueeze(1)
    top, flow = _likelihoods(emission, 2)
    flow[:models, 0] *= start
    total = _sweep(torch.cat([probs, probs.mT]), flow)
    evidence = (total[:models].transpose(1, 2).log() + top).sum(-1)
    before, ahead = flow[:models, :-1], flow[models:].flip(1)
    joint = torch.empty_like(ahead)  # p(z_t | x_1 ... x_t-1), then times w_t
    joint[:, 0] = start
    torch.bmm(before.flatten(1, 2), probs, out=joint[:, 1:].flatten(1, 2))
    mass = joint.mul_(ahead).sum(-1)
    trusted = total.amin(1).unflatten(0, (2, models)).amin(0) * mass.amin(1) >= _least(emission)
    share = mass.reciprocal() if mask is None else mask.transpose(1, 2) / mass
    state = torch.empty_like(emission, memory_format=torch.contiguous_format)
    torch.mul(joint.transpose(1, 2), share.transpose(1, 2).unsqueeze(-1), out=state)
    before.mul_(share[:, 1:].unsqueeze(-1))
    pairs = before.permute(0, 2, 3, 1) @ ahead[:, 1:].transpose(1, 2)
    return evidence, state, pairs.mul_(probs.unsqueeze(1)), trusted


def _likelihoods(emission: Tensor, directions: int) -> tuple[Tensor, Tensor]:
    """Largest log-likelihood of each step (S, B, T); likelihoods over it (directions S, T, B, K), the 2nd reversed."""
    models, batch, steps, states = emission.shape
    top = emission.amax(-1)
    flow = emission.new_empty(directions * models, steps, batch, states)
    torch.sub(emission.transpose(1, 2), top.transpose(1, 2).unsqueeze(-1), out=flow[:models]).exp_()
    if directions == 2:
        flow[models:] = flow[:models].flip(1)
    return top, flow


def _rows(emission: Tensor) -> Iterator[slice]:
    """Some sequences at a time: so few that one step is too little work for torch and MKL to share out among threads.

    A step takes microseconds, and to wait for a thread that another process keeps off its core takes milliseconds.
    """
    batch, states = emission.shape[1], emission.shape[-1]
    rows = max(64, min(2**16 // states**2, 2**13 // states))
    return (slice(first, first + rows) for first in range(0, batch, rows))


def _sweep(matrix: Tensor, flow: Tensor) -> Tensor:
    """Makes messages of likelihoods (D, T, B, K), in place, by matrices (D, K, K); returns their sums (D, T, B).

    Small steps by numpy, which asks for a third of torch's time before it does anything.
    """
    total, ones = torch.empty_like(flow[..., :1]), torch.ones_like(matrix[0, :, :1])
    arrays: Any = (flow.transpose(0, 1), total.transpose(0, 1), matrix.contiguous(), ones, torch.empty_like(flow[:, 0]))
    small = flow[0, 0].numel() * flow.shape[-1] <= ALONE and flow.dtype in (torch.float32, torch.float64)
    of: Any = np if small else torch
    steps, sums, chain, ones, product = (t.numpy() for t in arrays) if small else arrays
    last = None
    with np.errstate(all="ignore"):  # what is lost here is looked for by the caller
        for now, size in zip(steps, sums, strict=True):
            if last is not None:
                of.matmul(last, chain, out=product)
                of.multiply(now, product, out=now)
            of.matmul(now, ones, out=size)
            last = of.divide(now, size, out=now)
    return total.squeeze(-1)


def _log_counts(
    initial: Tensor, transition: Tensor, emission: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """As `_counts` in log space, for sequences (F, ...) with a model each, O(F K^2) memory."""
    alpha, beta = messages.forward(initial, transition, emission), messages.backward(transition, emission)
    state = (alpha + beta).softmax(-1)
    pairs = messages.expected_transitions(transition, emission, alpha, beta, mask)
    return alpha[:, -1].logsumexp(-1), state if mask is None else state * mask.unsqueeze(-1), pairs


def _least(emission: Tensor) -> float:
    """What c_t m_t must exceed, T K^2 tiny / eps; at least one normal number."""
    info = torch.finfo(emission.dtype)
    return emission.shape[-2] * emission.shape[-1] ** 2 * info.tiny / info.eps


@_evidence.register_fake
def _empty_evidence(initial: Tensor, transition: Tensor, emission: Tensor) -> Tensor:
    return emission.new_empty(emission.shape[:2])


@_counts.register_fake
def _empty_counts(
    initial: Tensor, transition: Tensor, emission: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    models, batch, _, states = emission.shape
    shapes = (models, batch), emission.shape, (models, batch, states, states)
    return tuple(emission.new_empty(shape) for shape in shapes)  # type: ignore[return-value]


def _vmap(operator: Any) -> Any:
    """The rule that folds a mapped dimension into the models."""

    def rule(info: Any, in_dims: tuple[int | None, ...], *args: Tensor | None) -> tuple[Any, Any]:
        n = info.batch_size
        folded = [
            None if t is None else (t.expand(n, *t.shape) if d is None else t.movedim(d, 0)).flatten(0, 1)
            for t, d in zip(args, in_dims, strict=True)
        ]
        found = operator(*folded)
        if isinstance(found, Tensor):
            return found.unflatten(0, (n, -1)), 0
        return tuple(t.unflatten(0, (n, -1)) for t in found), (0,) * len(found)

    return rule


for _operator in (_evidence, _counts):
    _operator.register_vmap(_vmap(_operator))
