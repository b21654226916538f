r"""Autoregression of order k: each site given its k predecessors in raster order, logistic for bits, linear for reals.

Yule, "On a method of investigating periodicities in disturbed series", 1927 (linear); Frey, "Graphical models for
machine learning and digital communication", 1998 (logistic, where k = n - 1 is the fully visible belief network).

    bernoulli:  x_i ~ Bernoulli(sigmoid(b_i + sum_j w_ij x_i-j))        normal:  x_i ~ N(b_i + sum_j w_ij x_i-j, s_i^2)

    x_i-k, ..., x_i-1 --> x_i      sites: x (*event_shape); no latents
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
import torch.nn.functional as F
from pyro.distributions.torch_distribution import TorchDistribution
from pyro.nn import PyroParam
from torch import Tensor, nn
from torch.distributions import constraints

from zoo.chains.chain import Chain
from zoo.distributions import certain, impossible
from zoo.errors import OptionError
from zoo.options import Shape
from zoo.program import Preset

__all__ = ["Autoregression", "AutoregressiveChain"]


class AutoregressiveChain(Chain):
    """AR(k) over the pixels in raster order, with its own weights at every site.

    With bits and k = 1 this is the Markov chain again, 2n - 1 parameters; the logistic form keeps the count linear in
    k, n + k n - k (k + 1) / 2, where conditional tables would need 2^k a site.

    Args:
        event_shape: Shape of one example, n sites.
        order: Number k of predecessors.
        likelihood: 'bernoulli' for bits, 'normal' for real numbers.
    """

    paper = "Yule, On a method of investigating periodicities in disturbed series, 1927; Frey 1998"
    presets: ClassVar[Mapping[str, Preset]] = {"small": Preset({"order": 8}, "svi", {"steps": 2000})}

    def __init__(self, event_shape: Shape = (8, 8), order: int = 8, likelihood: str = "bernoulli"):
        super().__init__(event_shape)
        if order < 1:
            raise OptionError(f"order must be at least 1, got {order}; order 0 is the program Independent.")
        if likelihood not in ("bernoulli", "normal"):
            raise OptionError(f"likelihood must be 'bernoulli' or 'normal', got {likelihood!r}.")
        self.order, self.likelihood = order, likelihood
        self.support = constraints.boolean if likelihood == "bernoulli" else constraints.real
        self.bias = nn.Parameter(torch.zeros(self.length))
        self.weight = nn.Parameter(torch.zeros(self.length, order))
        if likelihood == "normal":
            self.scale = PyroParam(torch.ones(self.length), constraint=constraints.positive)

    def distribution(self) -> Autoregression:
        """The autoregression from the first pixel to the last."""
        return Autoregression(self.bias, self.weight, self.scale if self.likelihood == "normal" else None)

    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        """Starts from independent sites at the data's frequencies, or means and standard deviations."""
        flat = x.reshape(len(x), self.length)
        if self.likelihood == "normal":
            self.bias.copy_(flat.mean(0))
            self.scale = flat.std(0, correction=0).clamp(min=1e-3)
        else:
            self.bias.copy_(((flat.sum(0) + 0.5) / (len(x) + 1)).logit())

    def parameter_count(self) -> int:
        """Free numbers: a bias (and a scale) a site, and a weight for each predecessor that exists."""
        weights = sum(min(i, self.order) for i in range(self.length))
        return weights + self.length * (2 if self.likelihood == "normal" else 1)


class Autoregression(TorchDistribution):
    """n sites, each with a Bernoulli or normal distribution whose parameter is linear in its k predecessors.

    Args:
        bias: (n,).
        weight: (n, k); column j belongs to the predecessor k - j sites back. Sites before the first count as zero.
        scale: (n,) standard deviations; None makes the sites binary and the linear part a logit.
        batch_shape: Of independent copies.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    def __init__(
        self, bias: Tensor, weight: Tensor, scale: Tensor | None = None, batch_shape: torch.Size = torch.Size()
    ):
        self.bias, self.weight, self.scale = bias, weight, scale
        super().__init__(batch_shape, bias.shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """Bits or real numbers at every site."""
        return constraints.independent(constraints.boolean if self.scale is None else constraints.real, 1)

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> Autoregression:
        """The same over more batch dimensions."""
        return Autoregression(self.bias, self.weight, self.scale, batch_shape=torch.Size(batch_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """All sites at once: their predecessors are known."""
        k = self.weight.shape[-1]
        windows = F.pad(value, (k, 0)).unfold(-1, k, 1)[..., :-1, :]
        linear = self.bias + (windows * self.weight).sum(-1)
        if self.scale is None:
            return impossible(dist.Bernoulli(logits=certain(linear), validate_args=False).log_prob(value).sum(-1))
        return dist.Normal(linear, self.scale, validate_args=False).log_prob(value).sum(-1)

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        """Site by site, O(k) each; all noise is drawn at once."""
        k, shape = self.weight.shape[-1], self._extended_shape(torch.Size(sample_shape))
        noise = torch.empty(shape).to(self.bias)
        noise = noise.uniform_() if self.scale is None else noise.normal_() * self.scale
        padded = F.pad(torch.zeros_like(noise), (k, 0))
        for i in range(shape[-1]):
            linear = self.bias[i] + padded[..., i : i + k] @ self.weight[i]
            drawn = (noise[..., i] < linear.sigmoid()) if self.scale is None else linear + noise[..., i]
            padded[..., k + i] = drawn.to(padded)
        return padded[..., k:]
