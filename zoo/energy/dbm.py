r"""The deep Boltzmann machine: layers of binary units, each tied to the one below and the one above.

Salakhutdinov & Hinton, "Deep Boltzmann machines", AISTATS 2009; learned without pretraining by centring: Montavon &
Mueller, "Deep Boltzmann machines and the centering trick", Neural Networks: Tricks of the Trade, 2012.

    f(h0, ..., hL) = sum_k b_k'(h_k - m_k) + sum_k (h_k-1 - m_k-1)'W_k (h_k - m_k),     h0 = x

Units of the even layers (x, h2, ...) are independent given the odd ones (h1, h3, ...) and the other way round, so that
one side can always be summed out. Chains carry the odd side, x being summed out: their density is exact. Of an example
the sum over hidden units is exact while one of their sides is small; else the mean field of the hidden units bounds it,

    f(x) >= E_q[f(x, h)] + H(q),     q(h) = prod_i Bernoulli(mu_i),     mu_k = sigmoid(b_k + what its neighbours push)

The centres m are constants: the same family of densities whatever they are, and a better conditioned slope.

    x -- h1 -- h2 -- ...      sites: x, up to a constant; h1, h2, ... (hidden_k,) local, given x, whose guide is q
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn.functional import softplus

from zoo.energy.base import EnergyProgram, Unnormalised, binary_states, choose_states, why_too_many
from zoo.errors import CapabilityError, OptionError
from zoo.options import Count, Counts, Shape
from zoo.program import Preset

__all__ = ["DBM"]

MOST_EACH, MOST_EACH_WITH_GRADIENTS = 16, 12
"""Hidden units that are summed over for each example: 65,536 states; with gradients 4,096."""
PAIRS = 2**14
"""Pairs of an example and a state at a time."""
ROUNDS, TOLERANCE = 100, 1e-4
"""Of the mean field: it ends when no unit moves further in a round, as a rule after ten or twenty."""

Layers = Mapping[int, Tensor]
"""Values of some layers by number, (..., units) each."""


class DBM(EnergyProgram):
    """A deep Boltzmann machine of binary units, whose chains sample its even and its odd layers in turn.

    Args:
        event_shape: Of x; all its numbers are visible units.
        hidden: Units of each hidden layer, from the one above x on; a single layer is an RBM.
        centred: Whether visible units are seen less their mean and hidden ones less a half (Montavon & Mueller).
        draw_sweeps: Transitions of a draw.
        particles: How many chains a fit with persistent chains has, and draws start from.

    Raises: OptionError.
    """

    location: Tensor

    paper = "Salakhutdinov & Hinton, Deep Boltzmann machines, 2009; Montavon & Mueller 2012"
    dataset = "digits-binary"
    support = constraints.boolean
    looks_at_values = True

    def __init__(
        self,
        event_shape: Shape = (8,),
        hidden: Counts = (4, 3),
        centred: bool = True,
        draw_sweeps: Count = 100,
        particles: Count = 100,
    ):
        if not hidden:
            raise OptionError("hidden must name at least one layer of hidden units, got none: [128, 64], say.")
        super().__init__(draw_sweeps, torch.rand(particles, sum(hidden[::2])).round(), event_shape)
        self.sizes, self.centred = [self.event_shape.numel(), *hidden], centred
        pairs = zip(self.sizes, hidden, strict=False)
        self.weights = nn.ParameterList([nn.Parameter(0.01 * torch.randn(below, above)) for below, above in pairs])
        self.biases = nn.ParameterList([nn.Parameter(torch.zeros(units)) for units in self.sizes])
        # Logits of the base; fair coins for hidden units.
        self.register_buffer("location", torch.zeros(self.sizes[0]))
        for k, units in enumerate(self.sizes):
            self.register_buffer(f"centre{k}", torch.full((units,), 0.5 if centred else 0.0))

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        """Visible units by a chain; then, by one that holds them fast, the hidden ones that go with them."""
        with self.plate(x, context, size):
            value = pyro.sample("x", self.drawn(x, context, size), obs=x)
            for k, h in self._hidden_given(value).items():
                pyro.sample(f"h{k}", Unnormalised(h, self, 1))
        return value

    def guide(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> None:
        """The mean field of the hidden units."""
        assert x is not None
        with self.plate(x, context, size):
            for k, mu in self.mean_field(x).items():
                pyro.sample(f"h{k}", dist.Bernoulli(probs=mu).to_event(1))

    @torch.no_grad()
    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        """Takes base, biases and centres of the visible units from their means, and starts the chains at the base."""
        rows = x.flatten(1)
        share = (rows.sum(0) + 0.5) / (len(rows) + 1)  # never 0 or 1, which have no logit
        self.location.copy_(share.logit())
        self.biases[0].copy_(self.location)
        if self.centred:
            self._centre(0).copy_(share)
        self.restart()

    def base(self) -> dist.TorchDistribution:
        """Fair coins, of the odd layers."""
        return dist.Bernoulli(probs=torch.full_like(self.particles[0], 0.5)).to_event(1)

    def tempered(self, x: Tensor, beta: float | Tensor) -> Tensor:
        """Of odd layers (B, odd units): all inputs times beta, of visible units between those of base and program."""
        return (1 - beta) * self.base().log_prob(x) + self._sum(self._split(x, 1), beta)

    @torch.no_grad()
    def sweep(self, x: Tensor, beta: float | Tensor = 1.0) -> Tensor:
        """Even layers given the odd ones (B, odd units), then these given those."""
        odd = self._split(x, 1)
        even = self._drawn_given(odd, range(0, len(self.sizes), 2), beta)
        return torch.cat(list(self._drawn_given(even, odd, beta).values()), -1)

    @torch.no_grad()
    def shown(self, state: Tensor) -> Tensor:
        """Visible units drawn given the odd layers."""
        return self._drawn_given(self._split(state, 1), (0,))[0].reshape(-1, *self.event_shape)

    @torch.no_grad()
    def started(self, x: Tensor) -> Tensor:
        """Odd layers drawn from the mean field."""
        mu = self.mean_field(x)
        return torch.bernoulli(torch.cat([mu[k] for k in range(1, len(self.sizes), 2)], -1))

    @torch.no_grad()
    def mean_field(self, x: Tensor) -> dict[int, Tensor]:
        """Layer -> the share mu of each hidden unit given x, (B, units): the fixed point, odd layers before even ones.

        It starts bottom up, each layer counting what is below it twice where another is above (their section 3).
        """
        layers: dict[int, Tensor] = {0: self._visible(x)}
        top = len(self.sizes) - 1
        for k in range(1, top + 1):
            pushed = self._pushed({k - 1: layers[k - 1]}, k)
            layers[k] = torch.sigmoid(self.biases[k] + (1 if k == top else 2) * pushed)
        for _ in range(ROUNDS):
            before = dict(layers)
            for k in (*range(1, top + 1, 2), *range(2, top + 1, 2)):
                layers[k] = torch.sigmoid(self.biases[k] + self._pushed(layers, k))
            if all(float((layers[k] - before[k]).abs().max()) < TOLERANCE for k in range(1, top + 1)):
                break
        return {k: layers[k] for k in range(1, top + 1)}

    def unnormalised_log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """f(x), (B, *event_shape) -> (B,), by the sum over all states of one side of the hidden units.

        Raises: CapabilityError for more than 16 units on the smaller one, 12 where gradients are wanted.
        """
        if (reason := self.why_bounded()) is not None:
            raise CapabilityError(f"{reason}: take unnormalised_bound, which is below it.")
        first, units = self._fewer_hidden()
        found = []
        for rows in self._visible(x).split(PAIRS):
            parts = [
                self._sum({0: rows[:, None], **self._split(states, first)})
                for all_states in binary_states(units, rows)
                for states in all_states.split(max(1, PAIRS // len(rows)))
            ]
            found.append(torch.cat(parts, 1).logsumexp(1))
        return torch.cat(found)

    def unnormalised_bound(self, x: Tensor) -> Tensor:
        """E_q[f(x, h)] + H(q), a lower bound of f(x), at the mean field q; (B, *event_shape) -> (B,)."""
        mu = {k: each for k, each in self.mean_field(x).items() if k % 2 == 0}
        # The odd layers' best shares given the even ones' are what summing them out comes to.
        bound = self._sum({0: self._visible(x), **mu})
        for each in mu.values():
            bound = bound + dist.Bernoulli(probs=each).entropy().sum(-1)
        return bound

    def why_bounded(self) -> str | None:
        """More than 16 hidden units on the smaller side; 12 where gradients are wanted."""
        units, most = self._fewer_hidden()[1], MOST_EACH_WITH_GRADIENTS if torch.is_grad_enabled() else MOST_EACH
        if units <= most:
            return None
        return f"f(x) of {type(self).__name__} sums 2^{units} states for each example, beyond the {most} units that can"

    def log_partition(self) -> Tensor:
        """log Z, by the sum over all states of the odd layers, or of the even ones where these have fewer units.

        Raises: CapabilityError for more than 24 units on the smaller side, 20 where gradients are wanted.
        """
        return self._log_weights().logsumexp(0)

    def why_not_summed(self) -> str | None:
        """More than 24 units on the smaller side; 20 where gradients are wanted."""
        return why_too_many(self, self._fewer()[1])

    @torch.no_grad()
    def draw_exactly(self, n: int) -> Tensor:
        """Odd layers, n of them, by their weight.

        Raises: CapabilityError for more than 24 units on the smaller side.
        """
        first, units = self._fewer()
        chosen = choose_states(self._log_weights(), n, units)
        if first == 1:
            return chosen
        odd = self._drawn_given(self._split(chosen, 0), range(1, len(self.sizes), 2))
        return torch.cat(list(odd.values()), -1)

    def _log_weights(self) -> Tensor:
        """Of all states of the smaller side, the other one summed out."""
        if (reason := self.why_not_summed()) is not None:
            raise CapabilityError(f"{reason}: take inference.evaluation.partition.log_partition, which anneals.")
        first, units = self._fewer()
        like = self.biases[0]
        return torch.cat([self._sum(self._split(states, first)) for states in binary_states(units, like)])

    def _fewer(self) -> tuple[int, int]:
        """The side with fewer units, by its first layer, 0 or 1, and how many these are."""
        return min(((first, sum(self.sizes[first::2])) for first in (1, 0)), key=lambda side: side[1])

    def _fewer_hidden(self) -> tuple[int, int]:
        """The same of hidden units: by its first layer, 1 or 2."""
        return min(((first, sum(self.sizes[first::2])) for first in (2, 1)), key=lambda side: side[1])

    def _split(self, side: Tensor, first: int) -> dict[int, Tensor]:
        """Every other layer from `first` on, side by side (..., units), as layers."""
        numbers = range(first, len(self.sizes), 2)
        return dict(zip(numbers, side.split(self.sizes[first::2], -1), strict=True)) if numbers else {}

    def _visible(self, x: Tensor) -> Tensor:
        return x.flatten(-len(self.event_shape)) if self.event_shape else x.unsqueeze(-1)

    def _centre(self, k: int) -> Tensor:
        return self.get_buffer(f"centre{k}")

    def _pushed(self, layers: Layers, k: int) -> Tensor:
        """What those neighbours of layer k that are there push it by, (..., units)."""
        parts = []
        if k - 1 in layers:
            parts.append((layers[k - 1] - self._centre(k - 1)) @ self.weights[k - 1])
        if k + 1 in layers:
            parts.append((layers[k + 1] - self._centre(k + 1)) @ self.weights[k].T)
        return sum(parts[1:], parts[0])

    def _input(self, layers: Layers, k: int, beta: float | Tensor) -> Tensor:
        """Logits of layer k given its neighbours, (..., units)."""
        own = beta * (self.biases[k] + self._pushed(layers, k))
        return own + (1 - beta) * self.location if k == 0 else own

    def _sum(self, given: Layers, beta: float | Tensor = 1.0) -> Tensor:
        """f of the layers that are given, all others, of which no two are neighbours, summed out; (...,).

        Given shares instead of states it is the mean of f and the entropy of those others under their best shares. On
        the way to beta = 0 what is summed out there, coins of the base, is taken off.
        """
        parts = []
        for k in range(len(self.sizes)):
            if k in given:
                parts.append(beta * (given[k] - self._centre(k)) @ self.biases[k])
                if k + 1 in given:
                    away = given[k + 1] - self._centre(k + 1)
                    parts.append(beta * (self._pushed({k: given[k]}, k + 1) * away).sum(-1))
                continue
            there = self.location if k == 0 else torch.zeros_like(self.biases[k])
            pushed = self.biases[k] + self._pushed(given, k)
            summed = softplus((1 - beta) * there + beta * pushed) - beta * pushed * self._centre(k)
            parts.append((summed - (1 - beta) * softplus(there)).sum(-1))
        return sum(parts[1:], parts[0])

    def _drawn_given(self, layers: Layers, which: Iterable[int], beta: float | Tensor = 1.0) -> dict[int, Tensor]:
        """Layers drawn given all their neighbours."""
        return {k: torch.bernoulli(torch.sigmoid(self._input(layers, k, beta))) for k in which}

    @torch.no_grad()
    def _hidden_given(self, x: Tensor) -> dict[int, Tensor]:
        """Hidden layers by a chain that holds x fast, from its mean field on."""
        layers = {0: self._visible(x), **{k: torch.bernoulli(mu) for k, mu in self.mean_field(x).items()}}
        for _ in range(self.draw_sweeps):
            for first in (1, 2):
                layers |= self._drawn_given(layers, range(first, len(self.sizes), 2))
        return {k: layers[k] for k in range(1, len(self.sizes))}

    presets: ClassVar[Mapping[str, Preset]] = {
        "small": Preset(
            {"hidden": [128, 64]}, "cd",
            {"chains": "persistent", "sweeps": 5, "epochs": 150, "batch_size": 100, "lr": 1e-2},
        ),
        "paper": Preset(
            {"hidden": [500, 1000], "particles": 100}, "cd",
            {"chains": "persistent", "sweeps": 5, "epochs": 300, "batch_size": 100, "lr": 5e-3},
            data="mnist10k-binary",
        ),
    }  # fmt: skip
