"""What one site of an autoregressive network follows, given its predecessors: bits, levels, or real numbers.

An emission says how many numbers the network puts out for a site, which distribution they mean, and how a draw follows
from uniform noise, so that two ways of sampling can be given the same noise and must agree.
"""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.utils import clamp_probs
from torch.nn.functional import log_softmax, one_hot

from zoo.distributions import DiscretizedLogistic, Grid, GridCategorical
from zoo.errors import OptionError, UnknownNameError

__all__ = ["EMISSIONS", "Bernoulli", "Emission", "GaussianMixture", "Levels", "LogisticMixture", "make_emission"]


class Emission:
    """The distribution of one site from `size` numbers."""

    size: int
    """Numbers that the network puts out for a site."""
    noise: int = 1
    """Uniform numbers that a draw of one site uses."""
    support: constraints.Constraint

    def distribution(self, outputs: Tensor) -> dist.TorchDistribution:
        """(..., size) -> a distribution of batch shape (...)."""
        raise NotImplementedError

    def draw(self, outputs: Tensor, noise: Tensor) -> Tensor:
        """Values (...) from outputs (..., size) and uniform noise (..., noise)."""
        raise NotImplementedError

    def initial(self, x: Tensor) -> Tensor:
        """Outputs (*event_shape, size) of independent sites fitted to data (N, *event_shape): where biases start."""
        raise NotImplementedError

    def embed(self, x: Tensor) -> Tensor:
        """What a network sees of values: about centred, about of size one."""
        return x


class Bernoulli(Emission):
    """Bits: one logit a site."""

    size, support = 1, constraints.boolean

    def distribution(self, outputs: Tensor) -> dist.TorchDistribution:
        """Bernoulli(sigmoid(output))."""
        return dist.Bernoulli(logits=outputs.squeeze(-1), validate_args=False)

    def draw(self, outputs: Tensor, noise: Tensor) -> Tensor:
        """1 where the noise is below the probability."""
        return (noise < outputs.sigmoid()).squeeze(-1).to(outputs.dtype)

    def initial(self, x: Tensor) -> Tensor:
        """Logits of the frequencies, half an observation added to each value."""
        return ((x.sum(0) + 0.5) / (len(x) + 1)).logit().unsqueeze(-1)


class Levels(Emission):
    """Levels 0, 1/(values-1), ..., 1 with any probabilities: the 256-way softmax of PixelRNN and WaveNet."""

    def __init__(self, values: int = 256):
        if values < 2:
            raise OptionError(f"values (the number of levels) must be at least 2, got {values}.")
        self.size = self.values = values
        self.support = Grid(values)

    def distribution(self, outputs: Tensor) -> dist.TorchDistribution:
        """Categorical(softmax(outputs)) on the grid."""
        return GridCategorical(outputs)

    def draw(self, outputs: Tensor, noise: Tensor) -> Tensor:
        """The first level at which the cumulative probability exceeds the noise."""
        below = (outputs.softmax(-1).cumsum(-1)[..., :-1] <= noise).sum(-1)
        return below.to(outputs.dtype) / (self.values - 1)

    def initial(self, x: Tensor) -> Tensor:
        """Log frequencies, one observation spread over the levels of each site."""
        counts = torch.zeros(*x.shape[1:], self.values).to(x)
        for part in (x * (self.values - 1)).round().long().split(256):
            counts += one_hot(part, self.values).sum(0)
        return ((counts + 1 / self.values) / (len(x) + 1)).log()

    def embed(self, x: Tensor) -> Tensor:
        """[0, 1] -> [-1, 1]."""
        return 2 * x - 1


class GaussianMixture(Emission):
    """Real numbers: a mixture of normals (logits, means, log scales), as in RNADE.

    Args:
        components: K; 3 K numbers a site.
        floor: Smallest standard deviation, so that the density stays bounded where data repeat.
    """

    noise, support = 2, constraints.real

    def __init__(self, components: int = 10, floor: float = 1e-3):
        if components < 1:
            raise OptionError(f"components must be at least 1, got {components}.")
        self.components, self.floor, self.size = components, floor, 3 * components

    def parts(self, outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-weights, means and scales, (..., K) each."""
        logits, loc, log_scale = outputs.chunk(3, -1)
        return log_softmax(logits, -1), loc, log_scale.exp() + self.floor

    def distribution(self, outputs: Tensor) -> dist.TorchDistribution:
        """The mixture."""
        log_weights, loc, scale = self.parts(outputs)
        weights = dist.Categorical(logits=log_weights, validate_args=False)
        normals = dist.Normal(loc, scale, validate_args=False)
        return dist.MixtureSameFamily(weights, normals, validate_args=False)

    def draw(self, outputs: Tensor, noise: Tensor) -> Tensor:
        """A component by the first number, its normal by the inverse distribution function of the second."""
        log_weights, loc, scale = self.parts(outputs)
        chosen = _component(log_weights, noise[..., :1])
        normal = torch.special.ndtri(clamp_probs(noise[..., 1]))
        return loc.gather(-1, chosen).squeeze(-1) + scale.gather(-1, chosen).squeeze(-1) * normal

    def initial(self, x: Tensor) -> Tensor:
        """Means at spread quantiles of each site, equal weights, scales of the standard deviation over K."""
        at = (torch.arange(self.components, device=x.device).to(x) + 0.5) / self.components
        loc = torch.quantile(x[:10_000], at, dim=0).movedim(0, -1)
        scale = (x.std(0) / self.components + self.floor).unsqueeze(-1).expand_as(loc)
        return torch.cat([torch.zeros_like(loc), loc, scale.log()], -1)


class LogisticMixture(Emission):
    """Levels 0, 1/(values-1), ..., 1: a mixture of discretised logistics (PixelCNN++): near levels are alike.

    Args:
        components: K; 3 K numbers a site.
        values: Number of levels.
    """

    noise = 2

    def __init__(self, components: int = 10, values: int = 256):
        if components < 1:
            raise OptionError(f"components must be at least 1, got {components}.")
        self.components, self.values, self.size = components, values, 3 * components
        self.support = Grid(values)

    def parts(self, outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-weights, means in [0, 1] and scales, (..., K) each; outputs are on the paper's scale, [-1, 1]."""
        logits, loc, log_scale = outputs.chunk(3, -1)
        return log_softmax(logits, -1), 0.5 * (loc + 1), 0.5 * log_scale.clamp(min=-7.0).exp()

    def distribution(self, outputs: Tensor) -> dist.TorchDistribution:
        """The mixture."""
        log_weights, loc, scale = self.parts(outputs)
        weights = dist.Categorical(logits=log_weights, validate_args=False)
        logistics = DiscretizedLogistic(loc, scale, self.values, validate_args=False)
        return dist.MixtureSameFamily(weights, logistics, validate_args=False)

    def draw(self, outputs: Tensor, noise: Tensor) -> Tensor:
        """A component by the first number, its logistic variable by the second, rounded to the grid."""
        log_weights, loc, scale = self.parts(outputs)
        chosen = _component(log_weights, noise[..., :1])
        logistic = torch.logit(clamp_probs(noise[..., 1]))
        x = loc.gather(-1, chosen).squeeze(-1) + scale.gather(-1, chosen).squeeze(-1) * logistic
        return (x.clamp(0, 1) * (self.values - 1)).round() / (self.values - 1)

    def initial(self, x: Tensor) -> Tensor:
        """Means at spread quantiles of each site, equal weights, scales of the standard deviation over K."""
        at = (torch.arange(self.components, device=x.device).to(x) + 0.5) / self.components
        loc = 2 * torch.quantile(x[:10_000], at, dim=0).movedim(0, -1) - 1
        scale = (2 * x.std(0) / self.components + 0.02).unsqueeze(-1).expand_as(loc)
        return torch.cat([torch.zeros_like(loc), loc, scale.log()], -1)

    def embed(self, x: Tensor) -> Tensor:
        """[0, 1] -> [-1, 1]."""
        return 2 * x - 1


def _component(log_weights: Tensor, noise: Tensor) -> Tensor:
    """Index (..., 1) of the component at which the cumulative weight exceeds the noise (..., 1)."""
    return (log_weights.exp().cumsum(-1)[..., :-1] <= noise).sum(-1, keepdim=True)


EMISSIONS = ("bernoulli", "levels", "gaussian-mixture", "logistic-mixture")


def make_emission(name: str, values: int = 256, components: int = 10) -> Emission:
    """An emission by name.

    Args:
        name: One of EMISSIONS.
        values: Levels of 'levels' and 'logistic-mixture'.
        components: Of the mixtures.

    Raises: UnknownNameError, OptionError.
    """
    if name == "bernoulli":
        return Bernoulli()
    if name == "levels":
        return Levels(values)
    if name == "gaussian-mixture":
        return GaussianMixture(components)
    if name == "logistic-mixture":
        return LogisticMixture(components, values)
    raise UnknownNameError("likelihood", name, EMISSIONS)
