"""What the states of a hidden Markov model emit: Bernoulli, categorical or normal features.

Features are independent given the state. Each class has the same parts: the distribution given a path, log-likelihoods
of all states at once, the expected statistics of the data, their maximiser with its log prior, and an encoding of x as
real features (for k-means and the guide).
"""

from __future__ import annotations

from collections.abc import Mapping

import pyro.distributions as dist
import torch
import torch.nn.functional as F
from pyro.distributions.torch_distribution import TorchDistribution
from pyro.nn import PyroModule, PyroParam
from torch import Tensor, nn
from torch.distributions import constraints

from zoo.chains.chain import log_dirichlet, log_frequencies
from zoo.distributions import LOG_ZERO, bernoulli_logs, certain

__all__ = ["BernoulliEmission", "CategoricalEmission", "Emission", "NormalEmission"]


class Emission(PyroModule):
    """p(x_t | z_t) of D features for K states.

    Shapes: x (B, T, D), zero where a feature is missing; `present` (B, T, D), which features are there, None for all;
    posterior state probabilities `weight` (B, T, K), zero at padded steps.
    """

    support: constraints.Constraint
    features: int
    """Size of the encoding of one step."""

    def given(self, z: Tensor) -> TorchDistribution:
        """Distribution of x given a path z (..., T): batch shape (..., T, D)."""
        raise NotImplementedError

    def log_prob(self, x: Tensor, present: Tensor | None = None) -> Tensor:
        """log p(x_t | z_t = k), (B, T, K), finite: LOG_ZERO or less where x_t cannot be."""
        raise NotImplementedError

    def statistics(self, x: Tensor, present: Tensor | None, weight: Tensor) -> dict[str, Tensor]:
        """Expected sufficient statistics; they add over minibatches."""
        raise NotImplementedError

    def update(self, statistics: Mapping[str, Tensor], smoothing: float) -> None:
        """Sets the parameters to the maximiser."""
        raise NotImplementedError

    def log_prior(self, smoothing: float) -> Tensor:
        """The log prior () that `update` adds to the log-likelihood, up to a constant."""
        raise NotImplementedError

    def encode(self, x: Tensor, present: Tensor | None = None) -> Tensor:
        """x as real features (B, T, features)."""
        return x

    def near(self, points: Tensor) -> None:
        """Moves the parameters to where data lie (n, features), so that statistics about them keep their digits."""


class BernoulliEmission(Emission):
    """D bits a step: K D free parameters."""

    support = constraints.boolean

    def __init__(self, states: int, dim: int):
        super().__init__()
        self.features = dim
        self.logits = nn.Parameter(0.5 * torch.randn(states, dim))

    def given(self, z: Tensor) -> TorchDistribution:
        """Bits with the state's probabilities."""
        return dist.Bernoulli(logits=certain(self.logits)[z])

    def log_prob(self, x: Tensor, present: Tensor | None = None) -> Tensor:
        """Two matrix products; (B, T, K, D) is never stored."""
        one, zero = bernoulli_logs(self.logits)
        return x @ one.T + _zeros(x, present) @ zero.T

    def statistics(self, x: Tensor, present: Tensor | None, weight: Tensor) -> dict[str, Tensor]:
        """Expected counts of zeros and ones, (K, D, 2)."""
        ones = torch.einsum("btk,btd->kd", weight, x)
        return {"emission": torch.stack([torch.einsum("btk,btd->kd", weight, _zeros(x, present)), ones], -1)}

    def update(self, statistics: Mapping[str, Tensor], smoothing: float) -> None:
        """Expected frequencies."""
        logs = log_frequencies(statistics["emission"], smoothing)
        self.logits.copy_(logs[..., 1] - logs[..., 0])

    def log_prior(self, smoothing: float) -> Tensor:
        """Dirichlet over zero and one, for each state and bit."""
        one, zero = bernoulli_logs(self.logits)
        return log_dirichlet(torch.stack([zero, one], -1), smoothing)


class CategoricalEmission(Emission):
    """D categories of m values a step: K D (m - 1) free parameters."""

    def __init__(self, states: int, dim: int, values: int):
        super().__init__()
        self.values, self.features = values, dim * values
        self.support = constraints.integer_interval(0, values - 1)
        self.logits = nn.Parameter(0.5 * torch.randn(states, dim, values))

    def given(self, z: Tensor) -> TorchDistribution:
        """Categories with the state's probabilities."""
        return dist.Categorical(logits=self.logits[z])

    def log_prob(self, x: Tensor, present: Tensor | None = None) -> Tensor:
        """One-hot times log-probabilities."""
        return self.encode(x, present) @ self.logits.log_softmax(-1).clamp(min=LOG_ZERO).flatten(1).T

    def statistics(self, x: Tensor, present: Tensor | None, weight: Tensor) -> dict[str, Tensor]:
        """Expected counts of each value, (K, D, m)."""
        return {"emission": torch.einsum("btk,btf->kf", weight, self.encode(x, present)).view_as(self.logits)}

    def update(self, statistics: Mapping[str, Tensor], smoothing: float) -> None:
        """Expected frequencies."""
        self.logits.copy_(log_frequencies(statistics["emission"], smoothing))

    def log_prior(self, smoothing: float) -> Tensor:
        """Dirichlet over the values, for each state and category."""
        return log_dirichlet(self.logits.log_softmax(-1), smoothing)

    def encode(self, x: Tensor, present: Tensor | None = None) -> Tensor:
        """One-hot; zeros where missing."""
        found = F.one_hot(x.long(), self.values)
        if present is not None:
            found = found * present.unsqueeze(-1)
        return found.flatten(-2).to(x.dtype)


class NormalEmission(Emission):
    """D real numbers a step with a diagonal covariance: 2 K D free parameters."""

    support = constraints.real

    def __init__(self, states: int, dim: int, min_scale: float):
        super().__init__()
        self.features, self.min_scale = dim, min_scale
        self.loc = nn.Parameter(torch.randn(states, dim))
        self.scale = PyroParam(torch.ones(states, dim), constraint=constraints.positive)

    def near(self, points: Tensor) -> None:
        """All means to that of the data."""
        self.loc.copy_(points.double().mean(0).expand_as(self.loc))

    def given(self, z: Tensor) -> TorchDistribution:
        """Normals with the state's means and standard deviations."""
        return dist.Normal(self.loc[z], self.scale[z])

    def log_prob(self, x: Tensor, present: Tensor | None = None) -> Tensor:
        """Sum over features."""
        found = dist.Normal(self.loc, self.scale).log_prob(x.unsqueeze(-2))
        return (found if present is None else torch.where(present.unsqueeze(-2), found, 0.0)).sum(-1)

    def statistics(self, x: Tensor, present: Tensor | None, weight: Tensor) -> dict[str, Tensor]:
        """Expected number of steps (K, D), first and second moments (K, D) about each state's current mean.

        About a point amid its data, since E[x^2] - E[x]^2 about zero loses the digits of a small variance.
        """
        first, second = [], []
        for k, mean in enumerate(self.loc):
            centred = x - mean if present is None else torch.where(present, x - mean, 0.0)
            first.append(torch.einsum("bt,btd->d", weight[..., k], centred))
            second.append(torch.einsum("bt,btd->d", weight[..., k], centred.square()))
        mass = weight.sum((0, 1)).unsqueeze(-1).repeat(1, self.loc.shape[1])
        if present is not None:
            mass = torch.einsum("btk,btd->kd", weight, present.to(weight))
        return {"mass": mass, "sum": torch.stack(first), "square": torch.stack(second)}

    def update(self, statistics: Mapping[str, Tensor], smoothing: float) -> None:
        """Weighted means and standard deviations, these at least `min_scale`; states that own no data stay."""
        mass = statistics["mass"]
        seen = mass > torch.finfo(mass.dtype).eps
        shift = statistics["sum"] / mass.clamp(min=torch.finfo(mass.dtype).eps)
        variance = statistics["square"] / mass.clamp(min=torch.finfo(mass.dtype).eps) - shift.square()
        scale = variance.clamp(min=self.min_scale**2).sqrt()
        self.scale = torch.where(seen, scale, self.scale)
        self.loc.add_(torch.where(seen, shift, 0.0))

    def log_prior(self, smoothing: float) -> Tensor:
        """None: means and standard deviations are maximum likelihood."""
        return self.loc.new_zeros(())


def _zeros(x: Tensor, present: Tensor | None) -> Tensor:
    """1 where a bit is 0 and there."""
    return 1 - x if present is None else present.to(x) - x
