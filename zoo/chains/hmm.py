r"""The discrete hidden Markov model: exact likelihood, posterior, Viterbi path, Baum-Welch; and a mean-field guide.

Baum, Petrie, Soules & Weiss, "A maximization technique occurring in the statistical analysis of probabilistic functions
of Markov chains", 1970; Rabiner, "A tutorial on hidden Markov models and selected applications in speech recognition",
1989.

    p(x, z) = pi[z_1] prod_t A[z_t-1, z_t] prod_t prod_d p(x_td | z_t)

    z_1 --> z_2 --> ... --> z_T       sites: z (T,) local, the whole path; x (T,) or (T, D)
     |       |               |
    x_1     x_2             x_T
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints

from zoo.arrays import count_values, fill
from zoo.chains.chain import check_parameters, log_dirichlet, log_frequencies
from zoo.chains.forward_backward import forward_backward, log_evidence
from zoo.chains.markov_path import MarkovPath
from zoo.chains.messages import backward, best_path, log_normalise
from zoo.chains.raster import Raster
from zoo.chains.state_emissions import BernoulliEmission, CategoricalEmission, Emission, NormalEmission
from zoo.distributions import impossible
from zoo.errors import OptionError
from zoo.options import Count, NonNegative, Positive, Shape, Values
from zoo.process import guest
from zoo.program import Preset, Program
from zoo.units import Standard

__all__ = ["HMM"]

KMEANS_STEPS = 10_000
"""How many time steps k-means sees at most."""

CHUNK = 2**17
"""About how many of the B T K probabilities are computed at a time in the E-step."""


class HMM(Program):
    """Hidden Markov model with K states; features are independent given the state.

    The guide is what a student compares with the exact posterior: mean-field, q(z) = prod_t q(z_t | x near t), with
    logits linear in a window of x. It cannot know that neighbouring states go together.

    Args:
        event_shape: (T,) or (T, D): T steps of D features.
        states: Number K of hidden states.
        emission: 'bernoulli' (bits), 'categorical' or 'normal'.
        values: Number m of values of a category, for 'categorical'.
        lengths: Whether sequences are padded at the end; the context is then their lengths (B,). Padded steps
            contribute nothing to any density, and there z is 0.
        smoothing: Pseudo-observations that `m_step` adds to each row of probabilities, spread evenly over it, so that
            what was not seen in training is improbable rather than impossible. Zero is maximum likelihood.
        min_scale: The least standard deviation of a normal emission in `m_step`.
        window: Width of the guide's window, odd.
    """

    family = "chains"
    paper = "Rabiner, A tutorial on hidden Markov models and selected applications in speech recognition, 1989"
    dataset = "digits-binary"
    takes_missing = True
    presets: ClassVar[Mapping[str, Preset]] = {
        "small": Preset({"states": 8}, "em"),
        "chorales": Preset({"states": 16}, "em", data="jsb"),
    }

    def __init__(
        self,
        event_shape: Shape = (8, 8),
        states: Count = 8,
        emission: str = "bernoulli",
        values: Values = 2,
        lengths: bool = False,
        smoothing: NonNegative = 1.0,
        min_scale: Positive = 1e-3,
        window: Count = 5,
    ):
        super().__init__()
        _check_sequences(event_shape, emission, window)
        check_parameters("HMM", states * (states + torch.Size(event_shape[1:]).numel() * values))
        self.event_shape = torch.Size(event_shape)
        self.steps, self.dim = event_shape[0], (event_shape[1] if len(event_shape) == 2 else 1)
        self.states, self.lengths, self.smoothing = states, lengths, smoothing
        self.initial_logits = nn.Parameter(torch.zeros(states))
        self.transition_logits = nn.Parameter(torch.zeros(states, states))
        self.emission: Emission
        if emission == "bernoulli":
            self.emission = BernoulliEmission(states, self.dim)
        elif emission == "categorical":
            self.emission = CategoricalEmission(states, self.dim, values)
        else:
            self.emission = NormalEmission(states, self.dim, min_scale)
        self.support = self.emission.support
        self.context_support = constraints.integer_interval(1, self.steps)
        self.encoder = nn.Conv1d(self.emission.features, states, window, padding=window // 2)

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        """The path, then all steps given the path."""
        mask = self._mask(context)
        with self.plate(x, context, size):
            prior = self._path(*self._log_probabilities(), mask)
            z = pyro.sample("z", prior, infer={"enumerate": "parallel"})
            x, present = self.seen(x)
            drawn = pyro.sample("x", self._emitted(z, self._counted(mask, present)), obs=x)
        if x is None and mask is not None:
            drawn = drawn * mask.reshape(*mask.shape, *[1] * (len(self.event_shape) - 1))
        return drawn

    def guide(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> None:
        """Mean-field: a categorical distribution a step, from a window of x."""
        assert x is not None
        mask = self._mask(context)
        features = self.emission.encode(*self._rows(x))
        if mask is not None:
            features = features * mask.unsqueeze(-1)
        logits = self.encoder(features.transpose(1, 2)).transpose(1, 2)
        if mask is not None:
            logits = torch.where(mask.unsqueeze(-1), logits, self._padding())
        with self.plate(x, context, size):
            pyro.sample("z", dist.Categorical(logits=logits).to_event(1))

    # What is exact.

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """log p(x), all paths summed out by the forward algorithm, (B,)."""
        return impossible(log_evidence(*self._log_probabilities(), self._log_likelihood(x, context)))

    def posterior(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> None:
        """p(z | x): a Markov chain again, p(z_t+1 | z_t, x) in proportion to A p(x_t+1 | z_t+1) beta_t+1."""
        assert x is not None
        initial, transition = self._log_probabilities()
        emission = self._log_likelihood(x, context)
        ahead = emission + backward(transition, emission)
        path = self._path(initial + ahead[:, 0], transition + ahead[:, 1:].unsqueeze(-2), self._mask(context))
        with self.plate(x, context, size):
            pyro.sample("z", path)

    @torch.no_grad()
    def marginals(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """p(z_t = k | x), (B, T, K), by forward-backward; zero at padded steps."""
        found = self.initial_logits.new_empty(len(x), self.steps, self.states)
        for at, _, state, _ in self._expected(x, context):
            found[at] = state
        return found

    def codes_of(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The probabilities of states at each step, (B, T K)."""
        return self.marginals(x, context).flatten(1)

    @torch.no_grad()
    def viterbi(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The most probable path (B, T), integers, zero at padded steps, and log p(x, path), (B,)."""
        return best_path(*self._log_probabilities(), self._log_likelihood(x, context), self._mask(context))

    # Baum-Welch.

    @torch.no_grad()
    def e_step(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Expected counts of first states (K,) and transitions (K, K), and the statistics of the emissions."""
        value, found = self.initial_logits.new_zeros(()), dict[str, Tensor]()
        for at, evidence, state, counts in self._expected(x, context):
            value = value + impossible(evidence).sum()
            part = {
                "initial": state[:, 0].sum(0),
                "transition": counts.sum(0),
                **self.emission.statistics(*self._rows(x[at]), state),
            }
            found = {name: found[name] + v if found else v for name, v in part.items()}
        return value, found

    @torch.no_grad()
    def m_step(self, statistics: Mapping[str, Tensor]) -> None:
        """Expected frequencies, and what maximises the emissions."""
        self.initial_logits.copy_(log_frequencies(statistics["initial"], self.smoothing))
        self.transition_logits.copy_(log_frequencies(statistics["transition"], self.smoothing))
        self.emission.update(statistics, self.smoothing)

    def log_prior(self) -> Tensor:
        """The log prior () of which `smoothing` makes `m_step` the posterior mode, up to a constant."""
        chain = sum(log_dirichlet(logs, self.smoothing) for logs in self._log_probabilities())
        return chain + self.emission.log_prior(self.smoothing)

    @torch.no_grad()
    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        """K-means over time steps, then an `m_step` with nine tenths of each step given to its cluster.

        Does nothing where there are fewer steps than states.
        """
        (rows, present), mask = self._rows(x), self._mask(context)
        valid = torch.ones(rows.shape[:2], dtype=torch.bool, device=x.device) if mask is None else mask
        points = self.emission.encode(self._rows(fill(x))[0], None)[valid]
        if len(points) < self.states:
            return
        self.emission.near(points)
        if isinstance(self.emission, NormalEmission):  # each number in its own units, or the largest would decide
            points = Standard(points.shape[1:]).to(points).take(points)(points)
        # A little noise keeps equal steps (bits have few values) from making fewer clusters than states.
        points = (points.double() + 1e-3 * torch.randn_like(points)).cpu()
        chosen = points[torch.randperm(len(points))[:KMEANS_STEPS]]
        kmeans = guest("sklearn.cluster").KMeans(self.states, n_init=4, random_state=int(torch.randint(2**31 - 1, ())))
        labels = torch.as_tensor(kmeans.fit(chosen.numpy()).predict(points.numpy()), device=x.device).long()
        weight = rows.new_zeros(*rows.shape[:2], self.states)
        weight[valid] = 0.9 * nn.functional.one_hot(labels, self.states).to(weight) + 0.1 / self.states
        chain = {
            "initial": weight[:, 0].sum(0),
            "transition": torch.einsum("bti,btj->ij", weight[:, :-1], weight[:, 1:]),
        }
        for _ in range(2):  # the second time about the means of the clusters
            self.m_step(chain | self.emission.statistics(rows, present, weight))

    # Data, and how large the program is.

    @classmethod
    def for_data(cls, x: Tensor, context: Tensor | None = None, **options: Any) -> Program:
        """Takes the shape from the data, `values` from their maximum, and `lengths` from whether there is a context."""
        if options.get("emission") == "categorical" and "values" not in options:
            options["values"] = count_values(x)
        options.setdefault("lengths", context is not None)
        return super().for_data(x, context, **options)

    def example_context(self, n: int) -> Tensor | None:
        """Lengths T, T-1, ... (if sequences are padded)."""
        if not self.lengths:
            return None
        return (self.steps - torch.arange(n).remainder(self.steps)).to(self.initial_logits)

    def parameter_count(self) -> int:
        """Free numbers of the model, (K - 1) + K (K - 1) + those of the emissions, and the guide's."""
        k, guide = self.states, sum(p.numel() for p in self.encoder.parameters())
        emission = sum(p.numel() for p in self.emission.parameters())
        if isinstance(self.emission, CategoricalEmission):
            emission -= k * self.dim  # each row of probabilities sums to one
        return (k - 1) + k * (k - 1) + emission + guide

    # Parts.

    def _log_probabilities(self) -> tuple[Tensor, Tensor]:
        """log pi (K,), log A (K, K)."""
        return log_normalise(self.initial_logits), log_normalise(self.transition_logits)

    def _rows(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """(B, *event_shape) -> (B, T, D), zero where missing, and which are there, None where all are."""
        return self.seen(x.reshape(len(x), self.steps, self.dim))

    def _counted(self, mask: Tensor | None, present: Tensor | None) -> Tensor | None:
        """Which features of which steps have a density, broadcast with (B, T, D); None for all."""
        if mask is not None and present is not None:
            return mask.unsqueeze(-1) & present.reshape(len(present), self.steps, self.dim)
        if mask is not None:
            return mask.unsqueeze(-1)
        return None if present is None else present.reshape(len(present), self.steps, self.dim)

    def _mask(self, context: Tensor | None) -> Tensor | None:
        """(B, T), False at padded steps; None when there are none."""
        if context is None:
            return None
        return torch.arange(self.steps, device=context.device) < context.unsqueeze(-1)

    def _log_likelihood(self, x: Tensor, context: Tensor | None) -> Tensor:
        """log p(x_t | z_t = k), (B, T, K); zero at padded steps, which the chain then crosses at no cost."""
        found, mask = self.emission.log_prob(*self._rows(x)), self._mask(context)
        return found if mask is None else torch.where(mask.unsqueeze(-1), found, 0.0)

    def _expected(self, x: Tensor, context: Tensor | None) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
        """Which rows of x, and what `forward_backward` says of them; some at a time, which bounds memory."""
        rows, probabilities = max(1, CHUNK // (self.steps * self.states)), self._log_probabilities()
        for first in range(0, len(x), rows):
            at = slice(first, first + rows)
            given = None if context is None else context[at]
            yield at, *forward_backward(*probabilities, self._log_likelihood(x[at], given), self._mask(given))

    def _padding(self) -> Tensor:
        """Logits (K,) of state 0 for certain."""
        certain = torch.full_like(self.initial_logits, -torch.inf)
        certain[0] = 0.0
        return certain

    def _path(self, initial: Tensor, transition: Tensor, mask: Tensor | None) -> MarkovPath:
        """The chain, sent to state 0 where sequences are padded."""
        homogeneous = transition.ndim == 2
        if mask is None:
            return MarkovPath(initial, transition, self.steps if homogeneous else None)
        return MarkovPath(initial, torch.where(mask[:, 1:, None, None], transition, self._padding()))

    def _emitted(self, z: Tensor, counted: Tensor | None) -> TorchDistribution:
        """p(x | z) for paths z (..., T), with event_shape."""
        steps = self.emission.given(z)
        if counted is not None:
            steps = steps.mask(counted)
        return Raster(steps.to_event(2), self.event_shape, self.initial_logits.dtype)


def _check_sequences(event_shape: Sequence[int], emission: str, window: int) -> None:
    """Raises: OptionError."""
    if len(event_shape) not in (1, 2) or min(event_shape) < 1:
        raise OptionError(f"HMM takes sequences of shape (T,) or (T, D), got event_shape={list(event_shape)}.")
    if emission not in ("bernoulli", "categorical", "normal"):
        raise OptionError(f"emission must be 'bernoulli', 'categorical' or 'normal', got {emission!r}.")
    if window < 1 or window % 2 == 0:
        raise OptionError(f"window must be odd and positive, got {window}.")
