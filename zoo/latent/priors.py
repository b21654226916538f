"""Priors of codes. Those that an aggregate posterior can be made to follow: a Gaussian, the petals of a flower, a Swiss
roll; and those that follow it: a mixture of Gaussians that is learned, and one of posteriors (VampPrior).

Makhzani, Shlens, Jaitly, Goodfellow & Frey, "Adversarial autoencoders", ICLR workshop 2016; Tomczak & Welling, "VAE
with a VampPrior", AISTATS 2018.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from zoo.distributions import NormalMixture, Sampler
from zoo.errors import OptionError
from zoo.options import Count, OneOf, Positive, Shape
from zoo.specs import Spec, make_part

__all__ = [
    "LEARNED", "PRIORS", "Flower", "Gaussian", "LearnedMixture", "Prior", "SwissRoll", "Vamp", "flower", "make_prior",
    "swiss_roll",
]  # fmt: skip

Encode = Callable[[Tensor], Any]
"""Examples (K, *event_shape) to q(z | x), of batch shape (K,)."""


class Prior(nn.Module):
    """p(z), of event shape (k,).

    Args:
        latent_dim: Number k of dimensions; given by the program.
        scale: What draws are multiplied by.

    Raises: OptionError.
    """

    zero: Tensor
    """(k,), of the dtype and on the device of draws."""

    def __init__(self, latent_dim: int, scale: Positive = 1.0):
        super().__init__()
        self.scale = scale
        self.register_buffer("zero", torch.zeros(latent_dim), persistent=False)

    def forward(self, encode: Encode) -> Any:
        """The distribution.

        Args:
            encode: q(z | x) of the program, which some priors are made of.
        """
        raise NotImplementedError(f"{type(self).__name__} must define forward(encode)")

    def initialise(self, x: Tensor) -> None:
        """Starts from data (N, *event_shape), of a prior that is learned."""


class Gaussian(Prior):
    """N(0, scale^2 I)."""

    def forward(self, encode: Encode) -> Any:
        """The distribution."""
        return dist.Normal(self.zero, self.scale).to_event(1)


class Flower(Prior):
    """A mixture of Gaussians that lie like the petals of a flower; see `flower`.

    Args:
        latent_dim: Number k of dimensions, at least 2; given by the program.
        components: Number of petals, at least 2.
        scale: What draws are multiplied by.

    Raises: OptionError.
    """

    means: Tensor
    factors: Tensor

    def __init__(self, latent_dim: int, components: Count = 10, scale: Positive = 1.0):
        super().__init__(latent_dim, scale)
        for name, values in zip(("means", "factors"), flower(latent_dim, components), strict=True):
            self.register_buffer(name, (scale * values).to(self.zero))

    def forward(self, encode: Encode) -> Any:
        """The distribution."""
        petals = dist.MultivariateNormal(self.means, scale_tril=self.factors)
        return NormalMixture(dist.Categorical(logits=self.zero.new_zeros(len(self.means))), petals)


class SwissRoll(Prior):
    """`swiss_roll` in the first two dimensions and N(0, 1) in the others, times the scale; it has no density.

    Raises: OptionError for less than two dimensions.
    """

    def __init__(self, latent_dim: int, scale: Positive = 1.0):
        super().__init__(latent_dim, scale)
        if latent_dim < 2:
            raise OptionError(f"A swiss roll lies in a plane: it needs latent_dim >= 2, got {latent_dim}.")

    def forward(self, encode: Encode) -> Any:
        """The sampler."""
        return Sampler(self.draw, torch.Size(), self.zero.shape)

    def draw(self, shape: torch.Size) -> Tensor:
        """(*shape, k)."""
        like = self.zero
        roll = swiss_roll(torch.rand(shape, dtype=like.dtype, device=like.device))
        others = torch.randn(*shape, len(like) - 2, dtype=like.dtype, device=like.device)
        return self.scale * torch.cat([roll, others], -1)


class LearnedMixture(Prior):
    """Independent Gaussians in equal shares, whose means and scales are learned.

    Args:
        latent_dim: Number k of dimensions; given by the program.
        components: How many.
    """

    def __init__(self, latent_dim: int, components: Count = 50):
        super().__init__(latent_dim)
        self.loc = nn.Parameter(torch.randn(components, latent_dim))
        self.log_scale = nn.Parameter(torch.zeros(components, latent_dim))

    def forward(self, encode: Encode) -> Any:
        """The mixture."""
        return _evenly(dist.Normal(self.loc, self.log_scale.exp()).to_event(1), self.loc)


class Vamp(Prior):
    """q(z | u_1), ..., q(z | u_K) in equal shares: the guide's posteriors of K examples that are learned themselves.

    It is the aggregate posterior of the data, (1/N) sum_n q(z | x_n), which would be the best prior for the bound, with
    few learned pseudo-inputs in the place of the data. They are any real numbers; the paper's code clips them to the
    range of pixels, where their gradient ends.

    Args:
        latent_dim, event_shape: Given by the program.
        components: Number K of pseudo-inputs.
        start: Where they begin: 'data', at random examples; 'noise', at the mean of the data and a hundredth of their
            spread around it, as in the paper's code.
    """

    def __init__(
        self,
        latent_dim: int,
        event_shape: Shape,
        components: Count = 200,
        start: Annotated[str, OneOf(("data", "noise"))] = "data",
    ):
        super().__init__(latent_dim)
        self.start = start
        self.inputs = nn.Parameter(torch.rand(components, *event_shape))

    def forward(self, encode: Encode) -> Any:
        """The mixture."""
        return _evenly(encode(self.inputs), self.inputs)

    def initialise(self, x: Tensor) -> None:
        """Puts the pseudo-inputs where they begin."""
        if self.start == "data":
            # Without repetition as long as there are enough.
            rows = torch.cat([torch.randperm(len(x)) for _ in range(-(-len(self.inputs) // len(x)))])
            self.inputs.copy_(x[rows[: len(self.inputs)].to(x.device)])
            again = self.inputs[len(x) :]  # apart from the first of their kind, or both would learn the same for ever
            again += 0.01 * x.std() * torch.randn_like(again)
        else:
            self.inputs.copy_(x.mean(0) + 0.01 * (x - x.mean(0)).square().mean().sqrt() * torch.randn_like(self.inputs))


def _evenly(components: Any, like: Tensor) -> Any:
    """The mixture of a batch of distributions (K,), in equal shares."""
    return NormalMixture(dist.Categorical(logits=like.new_zeros(len(like))), components)


PRIORS: dict[str, type[Prior]] = {"gaussian": Gaussian, "mixture": Flower, "swiss-roll": SwissRoll}
"""Fixed ones: name -> class; its constructor's arguments are the options."""
LEARNED: dict[str, type[Prior]] = {"learned-mixture": LearnedMixture, "vamp": Vamp}
"""Those that are learned with the program."""


def make_prior(prior: Spec, latent_dim: int) -> Prior:
    """A fixed prior by name, or by name and options ({"name": "gaussian", "scale": 5.0}).

    Raises: UnknownNameError, OptionError.
    """
    return make_part("prior", prior, PRIORS, latent_dim=latent_dim)


def flower(latent_dim: int, components: int = 10) -> tuple[Tensor, Tensor]:
    """Means (n, k) and factors (n, k, k) of the covariances of Gaussians that lie like the petals of a flower.

    In the plane: means on a circle of radius 1.4, standard deviation 0.5 along the radius and, for ten petals, 0.1
    across. In more dimensions the directions are u_i with coordinates cos(2 pi i h / n), sin(2 pi i h / n), h = 1, 2,
    ..., scaled to length 1 (in n - 1 dimensions or more: a regular simplex); lengths grow as sqrt(k / 2), so that the
    variance of a coordinate stays near 1, and the petals are as wide across as their neighbours allow: of the smallest
    distance of two means, the part that 0.1 is in the plane.

    Raises: OptionError for less than two dimensions or components.
    """
    if min(latent_dim, components) < 2:
        raise OptionError(
            f"A flower needs at least 2 dimensions and 2 components, got latent_dim={latent_dim} and "
            f"components={components}; use prior='gaussian'."
        )
    angle = 2 * torch.pi * torch.arange(components, dtype=torch.float64) / components
    waves = [wave(h * angle) for h in range(1, components // 2 + 1) for wave in (torch.cos, torch.sin)]
    if components % 2 == 0:  # the sine of the last is zero, and its cosine would count twice
        waves = [*waves[:-2], waves[-2] / math.sqrt(2)]
    directions = torch.zeros(components, latent_dim, dtype=torch.float64)
    few = min(latent_dim, len(waves))
    directions[:, :few] = torch.stack(waves[:few], -1)
    directions = directions / directions.norm(dim=-1, keepdim=True)
    size = math.sqrt(latent_dim / 2)
    means, along = 1.4 * size * directions, 0.5 * size
    distances = torch.pdist(means)
    across = 0.1 * float(distances.min()) / (2 * 1.4 * math.sin(math.pi / 10))
    outer = directions[:, :, None] * directions[:, None, :]
    factors = torch.linalg.cholesky(across**2 * torch.eye(latent_dim).to(outer) + (along**2 - across**2) * outer)
    return means, factors.contiguous()


def swiss_roll(uniform: Tensor) -> Tensor:
    """(...,) in [0, 1] -> (..., 2): a spiral of two turns, nearly even along its length, of variance 1 and mean near 0.

    z = 2 sqrt(u) (cos, sin)(4 pi sqrt(u)).
    """
    radius = uniform.sqrt()
    return 2 * radius[..., None] * torch.stack([torch.cos(4 * torch.pi * radius), torch.sin(4 * torch.pi * radius)], -1)
