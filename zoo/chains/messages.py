r"""Forward, backward and Viterbi recursions of a hidden Markov model, in log space: exact for any probabilities.

Rabiner, "A tutorial on hidden Markov models", 1989. The much faster recursion in probabilities is in `evidence`.

All functions take log-probabilities `initial` (K,), `transition` (K, K) (row = from) and `emission` (B, T, K), finite
(see `log_normalise`); the first two may differ by sequence, (B, K) and (B, K, K). Every sum over states is a logsumexp
of the very terms: Pyro's `_sequential_logmatmulexp`, which multiplies exponentials shifted by row and column maxima, is
leaner but underflows in float32 when the path of highest score is forbidden by a zero transition, and then calls
possible data impossible.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.distributions import LOG_ZERO

__all__ = ["backward", "best_path", "expected_transitions", "forward", "log_normalise"]


def log_normalise(logits: Tensor) -> Tensor:
    """Log-probabilities over the last dimension, with log 0 made finite."""
    return logits.log_softmax(-1).clamp(min=LOG_ZERO)


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
    """Expected number of transitions (B, K, K) of each sequence given the data; one step at a time, O(B K^2) memory.

    Args:
        transition: (K, K).
        emission: (B, T, K).
        alpha: What `forward` returned.
        beta: What `backward` returned.
        mask: (B, T), False at padded steps, transitions into which do not count; None counts all.
    """
    batch, steps, states = emission.shape
    counts = emission.new_zeros(batch, states * states)
    for t in range(1, steps):
        pair = alpha[:, t - 1].unsqueeze(-1) + transition + (emission[:, t] + beta[:, t]).unsqueeze(-2)
        posterior = pair.flatten(1).softmax(-1)
        counts += posterior if mask is None else posterior * mask[:, t, None]
    return counts.view(batch, states, states)


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
