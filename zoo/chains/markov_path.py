r"""The path of a Markov chain as one distribution: what the Markov chain is made of, and the hidden path of the HMM.

Its density is p(z) = pi[z_1] prod_t A_t[z_t, z_t+1].
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from pyro.distributions.util import broadcast_shape
from pyro.ops.indexing import Vindex
from torch import Tensor
from torch.distributions import constraints

from zoo.errors import CapabilityError, OptionError

__all__ = ["MAX_PATHS", "MarkovPath"]

MAX_PATHS = 2**16
"""How many paths `enumerate_support` lists at most."""


class MarkovPath(TorchDistribution):
    """T states of a first-order Markov chain over K values.

    Args:
        initial_logits: (..., K), of the first state.
        transition_logits: (..., T-1, K, K), row = from, column = to, one matrix a step; or (..., K, K), the same
            matrix at each step, when `steps` is given.
        steps: Number T of states; None takes it from `transition_logits`.

    Shapes: a value is (*batch_shape, T) integers. Logits may be -inf (impossible), but not a whole row of them.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    has_enumerate_support = True

    def __init__(self, initial_logits: Tensor, transition_logits: Tensor, steps: int | None = None):
        if steps is not None:
            if steps < 1:
                raise OptionError(f"A Markov path needs at least one step, got steps={steps}.")
            shape = (*transition_logits.shape[:-2], steps - 1, *transition_logits.shape[-2:])
            transition_logits = transition_logits.unsqueeze(-3).log_softmax(-1).expand(shape)
        else:
            transition_logits = transition_logits.log_softmax(-1)
        self.initial_logits = initial_logits.log_softmax(-1)
        self.transition_logits = transition_logits
        self.states = initial_logits.shape[-1]
        batch_shape = broadcast_shape(initial_logits.shape[:-1], transition_logits.shape[:-3])
        super().__init__(batch_shape, torch.Size([transition_logits.shape[-3] + 1]), validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """States 0 ... K-1 at every step."""
        return constraints.independent(constraints.integer_interval(0, self.states - 1), 1)

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> MarkovPath:
        """The same over more batch dimensions."""
        initial = self.initial_logits.expand(*batch_shape, self.states)
        return MarkovPath(initial, self.transition_logits)

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        """Step by step, by the Gumbel-max trick with all noise drawn at once."""
        shape = self._extended_shape(torch.Size(sample_shape))
        noise = -torch.empty((*shape, self.states)).to(self.initial_logits).exponential_().log()
        path = [(self.initial_logits + noise[..., 0, :]).argmax(-1)]
        for t in range(shape[-1] - 1):
            row = Vindex(self.transition_logits[..., t, :, :])[..., path[-1], :]
            path.append((row + noise[..., t + 1, :]).argmax(-1))
        return torch.stack(path, -1)

    def log_prob(self, value: Tensor) -> Tensor:
        """(..., T) -> (...)."""
        path = value.long()
        first = Vindex(self.initial_logits)[..., path[..., 0]]
        # Time is a batch dimension of the transitions here.
        steps = Vindex(self.transition_logits)[..., path[..., :-1], path[..., 1:]]
        return first + steps.sum(-1)

    def marginals(self) -> Tensor:
        """p(z_t = k), (*batch_shape, T, K)."""
        found = [self.initial_logits.exp().expand(*self.batch_shape, self.states)]
        for t in range(self.event_shape[0] - 1):
            found.append((found[-1].unsqueeze(-2) @ self.transition_logits[..., t, :, :].exp()).squeeze(-2))
        return torch.stack(found, -2)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """All K^T paths, (K^T, *batch_shape, T), or with ones for the batch.

        Raises: CapabilityError where they are too many.
        """
        steps = self.event_shape[0]
        if self.states**steps > MAX_PATHS:
            raise CapabilityError(
                f"{self.states} states over {steps} steps have {self.states}^{steps} paths, too many to enumerate "
                f"(at most {MAX_PATHS}). Forward-backward sums them out: use log_prob (elbo='exact') or posterior."
            )
        index = torch.arange(self.states**steps, device=self.initial_logits.device)
        place = self.states ** torch.arange(steps - 1, -1, -1, device=index.device)
        paths = index.unsqueeze(-1) // place % self.states
        paths = paths.reshape(-1, *[1] * len(self.batch_shape), steps)
        return paths.expand(-1, *self.batch_shape, -1) if expand else paths
