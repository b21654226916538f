"""What numbers follow, given what a network puts out for them: bits, categories, levels, or real numbers.

One module for the decoders of latent programs and for the conditionals of autoregressive networks. A likelihood says
how many numbers the network puts out for a site, which distribution they mean, where its biases start, and how a draw
follows from uniform noise, so that two ways of sampling can be given the same noise and must agree.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyro.distributions as dist
import torch
from pyro.nn import PyroModule, PyroParam
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.utils import clamp_probs
from torch.nn.functional import log_softmax, one_hot

from zoo.datasets import audio
from zoo.distributions import CompandedLogistic, DiscretizedLogistic, Grid, GridCategorical
from zoo.errors import OptionError, UnknownNameError
from zoo.options import Count, NonNegative, Shape, Values
from zoo.specs import Spec, make_part
from zoo.units import SiteUnits

__all__ = [
    "LIKELIHOODS",
    "Bernoulli",
    "Categorical",
    "CompandedMixture",
    "GaussianMixture",
    "Levels",
    "Likelihood",
    "Logistic",
    "LogisticMixture",
    "Normal",
    "make_likelihood",
]

SCALES = ("global", "pixel")


class Likelihood(PyroModule):
    """The distribution of one site from `size` numbers."""

    size: int = 1
    """Numbers that the network puts out for a site."""
    noise: int = 1
    """Uniform numbers that a draw of one site uses."""
    support: constraints.Constraint

    def distribution(self, outputs: Tensor) -> dist.TorchDistribution:
        """(..., size) -> a distribution of batch shape (...)."""
        raise NotImplementedError(f"{type(self).__name__} must define distribution(outputs)")

    def draw(self, outputs: Tensor, noise: Tensor, site: int | Tensor | None = None) -> Tensor:
        """Values (...) from outputs (..., size) and uniform noise (..., noise).

        Args:
            outputs: Of all sites (..., *event_shape, size), or of one (..., size).
            noise: Likewise.
            site: Which one, its position in the flattened event; None for all, or where sites are alike.
        """
        raise NotImplementedError(f"{type(self).__name__} must define draw(outputs, noise)")

    def initial(self, x: Tensor) -> Tensor:
        """Outputs (*event_shape, size) of independent sites fitted to data (N, *event_shape): where biases start.

        Sets what the likelihood itself learns to go with them.
        """
        raise NotImplementedError(f"{type(self).__name__} must define initial(x)")

    def embed(self, x: Tensor, site: int | Tensor | None = None) -> Tensor:
        """What a network sees of values, of all sites or of one: about of size one."""
        return x


class Bernoulli(Likelihood):
    """Bits: one logit a site."""

    support = constraints.boolean

    def distribution(self, outputs: Tensor) -> dist.TorchDistribution:
        """Bernoulli(sigmoid(output))."""
        return dist.Bernoulli(logits=outputs.squeeze(-1))

    def draw(self, outputs: Tensor, noise: Tensor, site: int | Tensor | None = None) -> Tensor:
        """1 where the noise is below the probability."""
        return (noise < outputs.sigmoid()).squeeze(-1).to(outputs.dtype)

    def initial(self, x: Tensor) -> Tensor:
        """Logits of the frequencies, half an observation added to each value."""
        return ((x.sum(0) + 0.5) / (len(x) + 1)).logit().unsqueeze(-1)


class Categorical(Likelihood):
    """Integers 0, ..., values - 1 with any probabilities.

    Args:
        values: How many, at least 2; so many numbers a site.
    """

    def __init__(self, values: Values = 256):
        super().__init__()
        self.size = self.values = values
        self.support = constraints.integer_interval(0, values - 1)

    def distribution(self, outputs: Tensor) -> dist.TorchDistribution:
        """Categorical(softmax(outputs))."""
        return dist.Categorical(logits=outputs)

    def draw(self, outputs: Tensor, noise: Tensor, site: int | Tensor | None = None) -> Tensor:
        """The first value at which the cumulative probability exceeds the noise."""
        below = (outputs.softmax(-1).cumsum(-1)[..., :-1] <= noise).sum(-1)
        return below.to(outputs.dtype)

    def initial(self, x: Tensor) -> Tensor:
        """Log frequencies, one observation spread over the values of each site."""
        counts = torch.zeros(*x.shape[1:], self.values).to(x)
        for part in x.round().long().split(256):
            counts += one_hot(part, self.values).sum(0)
        return ((counts + 1 / self.values) / (len(x) + 1)).log()

    def embed(self, x: Tensor, site: int | Tensor | None = None) -> Tensor:
        """To [0, 1]."""
        return x / (self.values - 1)


class Levels(Categorical):
    """Levels 0, 1/(values-1), ..., 1 with any probabilities: the 256-way softmax of PixelRNN and WaveNet.

    Args:
        values: How many, at least 2; so many numbers a site.
    """

    def __init__(self, values: Values = 256):
        super().__init__(values)
        self.support = Grid(values)

    def distribution(self, outputs: Tensor) -> dist.TorchDistribution:
        """Categorical(softmax(outputs)) on the grid."""
        return GridCategorical(outputs)

    def draw(self, outputs: Tensor, noise: Tensor, site: int | Tensor | None = None) -> Tensor:
        """The first level at which the cumulative probability exceeds the noise."""
        return super().draw(outputs, noise, site) / (self.values - 1)

    def initial(self, x: Tensor) -> Tensor:
        """Log frequencies, one observation spread over the levels of each site."""
        return super().initial(x * (self.values - 1))

    def embed(self, x: Tensor, site: int | Tensor | None = None) -> Tensor:
        """[0, 1] -> [-1, 1]."""
        return 2 * x - 1


class _Scaled(Likelihood):
    """The network puts out a location; the scale around it is the likelihood's own and learned.

    Args:
        scale: 'global' (one number) or 'pixel' (one for each site).
        event_shape: Of an example; None where sites are drawn one by one and do not know which they are.

    Raises: UnknownNameError, OptionError.
    """

    least: float
    """Of the scale at the start."""
    of_unit_variance: float = 1.0
    """The scale at which the variance is one."""

    def __init__(self, scale: str, event_shape: Sequence[int] | None):
        super().__init__()
        if scale not in SCALES:
            raise UnknownNameError("scale", scale, SCALES)
        if scale == "pixel" and event_shape is None:
            raise OptionError(
                "scale='pixel' needs a net with weights for each site; here sites share a scale ('global')."
            )
        shape = torch.Size(event_shape or ()) if scale == "pixel" else torch.Size()
        self.scale = PyroParam(torch.ones(shape), constraint=constraints.positive)

    def scale_at(self, site: int | Tensor | None) -> Tensor:
        """The scale of one site, or of all."""
        return self.scale if site is None or not self.scale.shape else self.scale.flatten()[site]

    def initial(self, x: Tensor) -> Tensor:
        """Means; the scale starts at the spread around them."""
        mean = x.mean(0)
        variance = (x - mean).square().mean(0)
        # Pixels that never change have no spread of their own.
        spread = variance.clamp(min=1e-4 * variance.mean()) if self.scale.shape else variance.mean()
        self.scale = (spread.sqrt() * self.of_unit_variance).clamp(min=self.least)
        return mean.unsqueeze(-1)


class Normal(_Scaled):
    """Real numbers: a mean a site, and a learned scale.

    Where data are far from size one, means and scale are in their units: of each column of a table, of all pixels of
    images that are large.

    Args:
        scale: 'global' (one number) or 'pixel' (one for each site).
        event_shape: Given by the network.

    Raises: UnknownNameError, OptionError.
    """

    support, least = constraints.real, 1e-6

    def __init__(self, scale: str = "global", event_shape: Shape | None = None):
        super().__init__(scale, event_shape)
        self.unit = SiteUnits(event_shape)

    def distribution(self, outputs: Tensor) -> dist.TorchDistribution:
        """Normal(output, scale), in units."""
        return dist.Normal(self.unit.back(outputs.squeeze(-1)), self.unit.size * self.scale)

    def draw(self, outputs: Tensor, noise: Tensor, site: int | Tensor | None = None) -> Tensor:
        """By the inverse distribution function."""
        normal = torch.special.ndtri(clamp_probs(noise[..., 0]))
        return self.unit.back(outputs.squeeze(-1) + self.scale_at(site) * normal, site)

    def initial(self, x: Tensor) -> Tensor:
        """Means, and the spread around them, in the units of the data, which it takes."""
        return super().initial(self.unit.take(x)(x))

    def embed(self, x: Tensor, site: int | Tensor | None = None) -> Tensor:
        """In units."""
        return self.unit(x, site)


class Logistic(_Scaled):
    """Levels 0, 1/(values-1), ..., 1: a discretised logistic, a mean a site, and a learned scale.

    Args:
        values: Number of levels, at least 2.
        scale: 'global' (one number) or 'pixel' (one for each site).
        event_shape: Given by the network.

    Raises: UnknownNameError, OptionError.
    """

    # A logistic variable of scale s has standard deviation pi s / sqrt(3).
    of_unit_variance = 3**0.5 / torch.pi

    def __init__(self, values: Values = 256, scale: str = "global", event_shape: Shape | None = None):
        super().__init__(scale, event_shape)
        self.values = values
        self.support, self.least = Grid(values), 1 / values

    def distribution(self, outputs: Tensor) -> dist.TorchDistribution:
        """The rounded logistic."""
        return DiscretizedLogistic(outputs.squeeze(-1), self.scale, self.values)

    def draw(self, outputs: Tensor, noise: Tensor, site: int | Tensor | None = None) -> Tensor:
        """By the inverse distribution function, rounded to the grid."""
        logistic = torch.logit(clamp_probs(noise[..., 0]))
        return _to_grid(outputs.squeeze(-1) + self.scale_at(site) * logistic, self.values)


class GaussianMixture(Likelihood):
    """Real numbers: a mixture of normals (logits, means, log scales), as in RNADE.

    Where data are far from size one, means and scales are in their units, as those of `Normal`.

    Args:
        components: K; 3 K numbers a site.
        floor: Smallest standard deviation, in units, so that the density stays bounded where data repeat.
        event_shape: Given by the network.
    """

    noise, support = 2, constraints.real

    def __init__(self, components: Count = 10, floor: NonNegative = 1e-3, event_shape: Shape | None = None):
        super().__init__()
        self.components, self.floor, self.size = components, floor, 3 * components
        self.unit = SiteUnits(event_shape)

    def parts(self, outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-weights, means and scales, (..., K) each, in units."""
        logits, loc, log_scale = outputs.chunk(3, -1)
        return log_softmax(logits, -1), loc, log_scale.exp() + self.floor

    def distribution(self, outputs: Tensor) -> dist.TorchDistribution:
        """The mixture."""
        log_weights, loc, scale = self.parts(outputs)
        centre, size = self.unit.centre.unsqueeze(-1), self.unit.size.unsqueeze(-1)
        weights = dist.Categorical(logits=log_weights, validate_args=False)
        normals = dist.Normal(loc * size + centre, scale * size, validate_args=False)
        return dist.MixtureSameFamily(weights, normals, validate_args=False)

    def draw(self, outputs: Tensor, noise: Tensor, site: int | Tensor | None = None) -> Tensor:
        """A component by the first number, its normal by the inverse distribution function of the second."""
        log_weights, loc, scale = self.parts(outputs)
        chosen = _component(log_weights, noise[..., :1])
        normal = torch.special.ndtri(clamp_probs(noise[..., 1]))
        drawn = loc.gather(-1, chosen).squeeze(-1) + scale.gather(-1, chosen).squeeze(-1) * normal
        return self.unit.back(drawn, site)

    def initial(self, x: Tensor) -> Tensor:
        """Means at spread quantiles of each site, equal weights, scales of the standard deviation over K.

        In the units of the data, which it takes.
        """
        x = self.unit.take(x)(x)
        at = (torch.arange(self.components, device=x.device).to(x) + 0.5) / self.components
        loc = torch.quantile(x[:10_000], at, dim=0).movedim(0, -1)
        scale = (_spread(x) / self.components + self.floor).unsqueeze(-1).expand_as(loc)
        return torch.cat([torch.zeros_like(loc), loc, scale.log()], -1)

    def embed(self, x: Tensor, site: int | Tensor | None = None) -> Tensor:
        """In units."""
        return self.unit(x, site)


class LogisticMixture(Likelihood):
    """Levels 0, 1/(values-1), ..., 1: a mixture of discretised logistics (PixelCNN++): near levels are alike.

    Args:
        components: K; 3 K numbers a site.
        values: Number of levels.
    """

    noise = 2

    def __init__(self, components: Count = 10, values: Values = 256):
        super().__init__()
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

    def draw(self, outputs: Tensor, noise: Tensor, site: int | Tensor | None = None) -> Tensor:
        """A component by the first number, its logistic variable by the second, rounded to the grid."""
        log_weights, loc, scale = self.parts(outputs)
        chosen = _component(log_weights, noise[..., :1])
        logistic = torch.logit(clamp_probs(noise[..., 1]))
        x = loc.gather(-1, chosen).squeeze(-1) + scale.gather(-1, chosen).squeeze(-1) * logistic
        return _to_grid(x, self.values)

    def initial(self, x: Tensor) -> Tensor:
        """Means at spread quantiles of each site, equal weights, scales of the standard deviation over K."""
        at = (torch.arange(self.components, device=x.device).to(x) + 0.5) / self.components
        loc = 2 * torch.quantile(x[:10_000], at, dim=0).movedim(0, -1) - 1
        scale = (2 * _spread(x) / self.components + 0.02).unsqueeze(-1).expand_as(loc)
        return torch.cat([torch.zeros_like(loc), loc, scale.log()], -1)

    def embed(self, x: Tensor, site: int | Tensor | None = None) -> Tensor:
        """[0, 1] -> [-1, 1]."""
        return 2 * x - 1


class CompandedMixture(Likelihood):
    """Mu-law levels from a mixture of logistic amplitudes with one mean: (mean, logits, log scales).

    Args:
        components: K; 2 K + 1 numbers a site.
        values: Number of levels.
    """

    noise = 2

    def __init__(self, components: Count = 3, values: Values = 256):
        super().__init__()
        self.components, self.values, self.size = components, values, 2 * components + 1
        self.edges, self.support = audio.edges(values), Grid(values)

    def parts(self, outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean (..., 1), logits and log scales (..., K)."""
        loc, logits, log_scale = outputs.split([1, self.components, self.components], -1)
        return loc, logits, log_scale

    def distribution(self, outputs: Tensor) -> dist.TorchDistribution:
        """The mixture."""
        loc, logits, log_scale = self.parts(outputs)
        weights = dist.Categorical(logits=logits, validate_args=False)
        logistics = CompandedLogistic(loc, log_scale.exp(), self.edges)
        return dist.MixtureSameFamily(weights, logistics, validate_args=False)

    def draw(self, outputs: Tensor, noise: Tensor, site: int | Tensor | None = None) -> Tensor:
        """A component by the first number, its logistic amplitude by the second, companded to the nearest level."""
        loc, logits, log_scale = self.parts(outputs)
        chosen = _component(log_softmax(logits, -1), noise[..., :1])
        scale = log_scale.exp().gather(-1, chosen).squeeze(-1)
        return audio.to_levels(loc.squeeze(-1) + scale * torch.logit(clamp_probs(noise[..., 1])), self.values)

    def initial(self, x: Tensor) -> Tensor:
        """The mean amplitude, equal weights, scales spread about that of the amplitudes."""
        wave = audio.from_levels(x, self.values)
        scale = (_spread(wave) * 3**0.5 / torch.pi).clamp(min=1 / self.values)
        spread = torch.linspace(-1.0, 1.0, self.components).to(x) if self.components > 1 else x.new_zeros(1)
        log_scale = scale.log().unsqueeze(-1) + spread
        return torch.cat([wave.mean(0).unsqueeze(-1), torch.zeros_like(log_scale), log_scale], -1)

    def embed(self, x: Tensor, site: int | Tensor | None = None) -> Tensor:
        """[0, 1] -> [-1, 1]."""
        return 2 * x - 1


LIKELIHOODS: dict[str, type[Likelihood]] = {
    "bernoulli": Bernoulli,
    "categorical": Categorical,
    "levels": Levels,
    "normal": Normal,
    "logistic": Logistic,
    "gaussian-mixture": GaussianMixture,
    "logistic-mixture": LogisticMixture,
    "companded-mixture": CompandedMixture,
}
"""Name -> class; its constructor's arguments are the options."""


def make_likelihood(likelihood: Spec, event_shape: Sequence[int] | None = None) -> Likelihood:
    """A likelihood by name ("bernoulli"), or by name and options ({"name": "levels", "values": 4}).

    Args:
        likelihood: A key of LIKELIHOODS, or a mapping with one as its "name" and options of the class.
        event_shape: Of an example, from a decoder, which puts out all sites at once.

    Raises: UnknownNameError for a name or an option that there is not; OptionError for a bad value of one.
    """
    return make_part("likelihood", likelihood, LIKELIHOODS, event_shape=event_shape)


def _spread(x: Tensor) -> Tensor:
    """Standard deviation of each site over the examples; of a single one, zero."""
    return x.std(0, correction=min(1, len(x) - 1))


def _component(log_weights: Tensor, noise: Tensor) -> Tensor:
    """Index (..., 1) of the component at which the cumulative weight exceeds the noise (..., 1)."""
    return (log_weights.exp().cumsum(-1)[..., :-1] <= noise).sum(-1, keepdim=True)


def _to_grid(x: Tensor, values: int) -> Tensor:
    """The nearest of the levels in [0, 1]."""
    return (x.clamp(0, 1) * (values - 1)).round() / (values - 1)
