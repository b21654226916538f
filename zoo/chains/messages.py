r"""Forward, backward and Viterbi recursions of a hidden Markov model, in log space.

Rabiner, "A tutorial on hidden Markov models", 1989; the parallel scan: Särkkä & García-Fernández, "Temporal
parallelization of Bayesian smoothers", 2019.

All functions take log-probabilities `initial` (K,), `transition` (K, K) (row = from) and `emission` (B, T, K), finite
(see `log_normalise`). Every sum over states is a logsumexp of the very terms: Pyro's `_sequential_logmatmulexp`, which
multiplies exponentials shifted by row and column maxima, is leaner but underflows in float32 when the path of highest
score is forbidden by a zero transition, and then calls possible data impossible.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["backward", "best_path", "expected_transitions", "forward", "log_evidence", "log_normalise"]

LOG_ZERO = -1e30
"""Stands for log 0: small enough in any dtype, and finite, since the gradient of logsumexp of -infs is NaN."""

SCAN_STATES = 4
"""Up to so many states the scan over T matrix products (K^3 each) beats the loop of T steps (K^2 each)."""


def log_normalise(logits: Tensor) -> Tensor:
    """Log-probabilities over the last dimension, with log 0 made finite."""
    return logits.log_softmax(-1).clamp(min=LOG_ZERO)


def log_evidence(initial: Tensor, transition: Tensor, emission: Tensor) -> Tensor:
    """log p(x), (B,), differentiable: in O(log T) parallel steps for few states, by the forward loop for more."""
    if transition.shape[-1] > SCAN_STATES:
        return forward(initial, transition, emission)[:, -1].logsumexp(-1)
    return _scan(initial, transition, emission)


def _scan(initial: Tensor, transition: Tensor, emission: Tensor) -> Tensor:
    """log p(x) from the product of the T-1 matrices A diag(e_t), by halves."""
    start = (initial + emission[:, 0]).unsqueeze(-2)
    product = transition + emission[:, 1:].unsqueeze(-2)
    while product.shape[1] > 1:
        even = product.shape[1] // 2 * 2
        pairs = _log_matmul(product[:, 0:even:2], product[:, 1:even:2])
        product = torch.cat([pairs, product[:, even:]], 1)
    if product.shape[1] == 1:
        start = _log_matmul(start, product[:, 0])
    return start.squeeze(-2).logsumexp(-1)


def _log_matmul(x: Tensor, y: Tensor) -> Tensor:
    """Matrix product of exponentials, (..., I, K) and (..., K, J) -> (..., I, J)."""
    return (x.unsqueeze(-1) + y.unsqueeze(-3)).logsumexp(-2)


def forward(initial: Tensor, transition: Tensor, emission: Tensor) -> Tensor:
    """log p(x_1 ... x_t, z_t), (B, T, K)."""
    found = [initial + emission[:, 0]]
    for t in range(1, emission.shape[1]):
        found.append((found[-1].unsqueeze(-1) + transition).logsumexp(-2) + emission[:, t])
    return torch.stack(found, 1)


def backward(transition: Tensor, emission: Tensor) -> Tensor:
    """log p(x_t+1 ... x_T | z_t), (B, T, K); zero at the last step."""
    found = [torch.zeros_like(emission[:, -1])]
    for t in range(emission.shape[1] - 1, 0, -1):
        found.append((transition + (emission[:, t] + found[-1]).unsqueeze(-2)).logsumexp(-1))
    return torch.stack(found[::-1], 1)


def expected_transitions(
    transition: Tensor, emission: Tensor, alpha: Tensor, beta: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Expected number of transitions (K, K) over all sequences given the data; one step at a time, O(B K^2) memory.

    Args:
        transition: (K, K).
        emission: (B, T, K).
        alpha: What `forward` returned.
        beta: What `backward` returned.
        mask: (B, T), False at padded steps, transitions into which do not count; None counts all.
    """
    counts = torch.zeros_like(transition)
    for t in range(1, emission.shape[1]):
        pair = alpha[:, t - 1].unsqueeze(-1) + transition + (emission[:, t] + beta[:, t]).unsqueeze(-2)
        posterior = pair.flatten(1).softmax(-1)
        if mask is not None:
            posterior = posterior * mask[:, t, None]
        counts += posterior.sum(0).view_as(counts)
    return counts


def best_path(
    initial: Tensor, transition: Tensor, emission: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Viterbi: the most probable path (B, T), zero at padded steps, and its log joint density (B,)."""
    steps, states = emission.shape[1:]
    score, stay, pointers = initial + emission[:, 0], torch.arange(states, device=emission.device), []
    for t in range(1, steps):
        best, pointer = (score.unsqueeze(-1) + transition).max(-2)
        best = best + emission[:, t]
        if mask is not None:
            best = torch.where(mask[:, t, None], best, score)
            pointer = torch.where(mask[:, t, None], pointer, stay)
        score = best
        pointers.append(pointer)
    log_joint, state = score.max(-1)
    path = [state]
    for pointer in reversed(pointers):
        path.append(pointer.gather(-1, path[-1].unsqueeze(-1)).squeeze(-1))
    found = torch.stack(path[::-1], 1)
    return (found if mask is None else found * mask), log_joint
