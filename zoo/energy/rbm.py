r"""The restricted Boltzmann machine: visible and hidden units, each side independent given the other.

Smolensky, "Information processing in dynamical systems", 1986; Hinton, "Training products of experts by minimizing
contrastive divergence", Neural Computation 14, 2002; Gaussian visibles: Hinton & Salakhutdinov, Science 313, 2006.

    f(v, h) = b'v + c'h + v'W h                                        binary visibles
    f(v, h) = -sum_i (u_i - b_i)^2 / (2 s_i^2) + c'h + (u / s)'W h     Gaussian ones, u = v standardised as the data

    f(v) = log sum_h exp f(v, h) = ... + sum_j log(1 + exp(c_j + (v'W)_j)),     h_j | v ~ Bernoulli(sigmoid(c + W'v)_j)

    x (visibles) --> h      sites: x, up to a constant; h (hidden,) local, given x, whose guide is the exact posterior
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn.functional import softplus

from zoo.energy.base import EnergyProgram, binary_states, choose_states, spread_of, why_too_many
from zoo.errors import CapabilityError
from zoo.options import Count, OneOf, Shape
from zoo.program import Preset
from zoo.stored import blocks

__all__ = ["RBM"]

VISIBLE = ("bernoulli", "gaussian")


class RBM(EnergyProgram):
    """An RBM, whose transitions are block Gibbs: all hidden units given the visible ones, then these given those.

    Args:
        event_shape: Of x; all its numbers are visible units.
        hidden: Hidden units.
        visible: 'bernoulli' (0 or 1) or 'gaussian' (real, with a scale each that is learned).
        draw_sweeps: Transitions of a draw.
        particles: How many chains a fit with persistent chains has, and draws start from.

    Raises: OptionError.
    """

    location: Tensor
    spread: Tensor

    paper = "Hinton, Training products of experts by minimizing contrastive divergence, 2002"
    dataset = "digits-binary"
    support: constraints.Constraint = constraints.boolean

    def __init__(
        self,
        event_shape: Shape = (8,),
        hidden: Count = 4,
        visible: Annotated[str, OneOf(VISIBLE)] = "bernoulli",
        draw_sweeps: Count = 100,
        particles: Count = 100,
    ):
        chains = torch.randn(particles, *event_shape)
        super().__init__(draw_sweeps, chains if visible == "gaussian" else (chains > 0).to(chains))
        self.hidden, self.visible, units = hidden, visible, self.event_shape.numel()
        self.weight = nn.Parameter(0.01 * torch.randn(units, hidden))
        self.bias, self.hidden_bias = nn.Parameter(torch.zeros(units)), nn.Parameter(torch.zeros(hidden))
        # Of the base: logits of binary units, means of Gaussian ones, and the scales of these.
        self.register_buffer("location", torch.zeros(units))
        self.register_buffer("spread", torch.ones(units))
        if visible == "gaussian":
            self.support = constraints.real
            self.log_scale = nn.Parameter(torch.zeros(units))

    @classmethod
    def for_data(cls, x: Tensor, context: Tensor | None = None, **options: Any) -> RBM:
        """Sized for the data, with Gaussian visibles where x is not all 0 and 1."""
        binary = all(bool(((part == 0) | (part == 1)).all()) for part in blocks(x))
        options.setdefault("visible", "bernoulli" if binary else "gaussian")
        return super().for_data(x, context, **options)

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        """Visible units by a chain; then the hidden ones that go with them."""
        with self.plate(x, context, size):
            value = pyro.sample("x", self.drawn(x, context, size), obs=x)
            pyro.sample("h", dist.Bernoulli(logits=self._inputs(value)).to_event(1))
        return value

    def guide(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> None:
        """The exact posterior of the hidden units."""
        assert x is not None
        with self.plate(x, context, size):
            pyro.sample("h", dist.Bernoulli(logits=self._inputs(x)).to_event(1))

    @torch.no_grad()
    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        """Takes base and biases from each unit's own mean (and scale), and starts the chains there.

        Hinton, "A practical guide to training restricted Boltzmann machines", 2010, section 8.
        """
        rows = x.flatten(1)
        if self.visible == "gaussian":
            # The program sees standardised units, where bias and log scale are zero.
            self.location.copy_(rows.mean(0))
            self.spread.copy_(spread_of(rows))
        else:
            share = (rows.sum(0) + 0.5) / (len(rows) + 1)  # never 0 or 1, which have no logit
            self.location.copy_(share.logit())
            self.bias.copy_(self.location)
        self.restart()

    def base(self) -> dist.TorchDistribution:
        """Units on their own."""
        location, spread = (each.reshape(self.event_shape) for each in (self.location, self.spread))
        each = dist.Normal(location, spread) if self.visible == "gaussian" else dist.Bernoulli(logits=location)
        return each.to_event(len(self.event_shape))

    def tempered(self, x: Tensor, beta: float | Tensor) -> Tensor:
        """Inputs of the hidden units times beta, visible terms between those of base and program.

        At beta = 0 hidden units are fair coins, whose log 2 each is taken off on the way, so that the base has the
        constant 1 (Salakhutdinov & Murray, "On the quantitative analysis of deep belief networks", ICML 2008).
        """
        u = self._units(x)
        # Over x, not over its units, up to a constant: its distance to the base has no units either.
        gaussian = -0.5 * ((u - self.bias) / self.scale()).square() - self.spread.log() - 0.5 * math.log(2 * math.pi)
        own = gaussian if self.visible == "gaussian" else u * self.bias
        hidden = softplus(beta * self._inputs(x)) - (1 - beta) * math.log(2)
        return (1 - beta) * self.base().log_prob(x) + beta * own.sum(1) + hidden.sum(1)

    @torch.no_grad()
    def sweep(self, x: Tensor, beta: float | Tensor = 1.0) -> Tensor:
        """Hidden units given x, then x given them."""
        h = torch.bernoulli(torch.sigmoid(beta * self._inputs(x)))
        return self._given(h, beta).reshape(x.shape)

    def scale(self) -> Tensor:
        """Of Gaussian visibles, in spreads of the data, (units,); ones for binary ones."""
        return self.log_scale.exp() if self.visible == "gaussian" else torch.ones_like(self.bias)

    def encode(self, x: Tensor) -> dist.TorchDistribution:
        """The exact posterior of the hidden units, (B, hidden)."""
        return dist.Bernoulli(logits=self._inputs(x)).to_event(1)

    def log_partition(self) -> Tensor:
        """log Z, by the sum over all states of the hidden units, or of binary visible ones where these are fewer.

        Raises: CapabilityError for more than 24 units on the smaller side, 20 where gradients are wanted.
        """
        return torch.cat([self._log_weights(states) for states in self._states()]).logsumexp(0)

    def why_not_summed(self) -> str | None:
        """More than 24 units on the smaller side; 20 where gradients are wanted."""
        return why_too_many(self, self._summed())

    @torch.no_grad()
    def draw_exactly(self, n: int) -> Tensor:
        """Hidden units from all their states by weight, then x given them; (n, *event_shape).

        Raises: CapabilityError for more than 24 units on the smaller side.
        """
        log_weights = torch.cat([self._log_weights(states) for states in self._states()])
        rows = choose_states(log_weights, n, self._summed())
        return (rows if self._sums_visible() else self._given(rows, 1.0)).reshape(n, *self.event_shape)

    def _inputs(self, x: Tensor) -> Tensor:
        """Of the hidden units, (..., hidden)."""
        return self.hidden_bias + (self._units(x) / self.scale()) @ self.weight

    def _units(self, x: Tensor) -> Tensor:
        """Visible units (..., units), Gaussian ones standardised."""
        v = x.flatten(-len(self.event_shape)) if self.event_shape else x.unsqueeze(-1)
        return (v - self.location) / self.spread if self.visible == "gaussian" else v

    def _given(self, h: Tensor, beta: float | Tensor) -> Tensor:
        """Visible units (B, units) drawn given hidden ones."""
        push = h @ self.weight.T
        if self.visible == "bernoulli":
            return torch.bernoulli(torch.sigmoid((1 - beta) * self.location + beta * (self.bias + push)))
        scale = self.scale()
        precision = (1 - beta) + beta * scale**-2
        mean = beta * (self.bias / scale**2 + push / scale) / precision
        return self.location + self.spread * (mean + precision**-0.5 * torch.randn_like(push))

    def _sums_visible(self) -> bool:
        return self.visible == "bernoulli" and len(self.bias) < self.hidden

    def _summed(self) -> int:
        """Units of the side that is summed over."""
        return len(self.bias) if self._sums_visible() else self.hidden

    def _states(self) -> Iterator[Tensor]:
        """All states of the side that is summed over, some at a time."""
        if (reason := self.why_not_summed()) is not None:
            raise CapabilityError(f"{reason}: take inference.evaluation.partition.log_partition, which anneals.")
        yield from binary_states(self._summed(), self.bias)

    def _log_weights(self, states: Tensor) -> Tensor:
        """Log of the sum over the other side, (states,)."""
        if self._sums_visible():
            return states @ self.bias + softplus(self.hidden_bias + states @ self.weight).sum(1)
        push = states @ self.weight.T
        if self.visible == "bernoulli":
            return states @ self.hidden_bias + softplus(self.bias + push).sum(1)
        each = self.log_scale + push * self.bias / self.scale() + 0.5 * push**2
        return states @ self.hidden_bias + each.sum(1)

    presets: ClassVar[Mapping[str, Preset]] = {
        "small": Preset(
            {"hidden": 128}, "cd",
            {"chains": "persistent", "sweeps": 5, "epochs": 150, "batch_size": 100, "lr": 1e-2},
        ),
        "paper": Preset(
            {"hidden": 500, "particles": 100}, "cd",
            {"chains": "persistent", "sweeps": 25, "epochs": 200, "batch_size": 100, "lr": 5e-3},
            data="mnist10k-binary",
        ),
    }  # fmt: skip
