"""Priors that an aggregate posterior can be made to follow: a Gaussian, the petals of a flower, a Swiss roll.

Makhzani, Shlens, Jaitly, Goodfellow & Frey, "Adversarial autoencoders", ICLR workshop 2016.
"""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from zoo.distributions import NormalMixture, Sampler
from zoo.errors import OptionError
from zoo.options import Count, Positive
from zoo.specs import Spec, make_part

__all__ = ["PRIORS", "Flower", "Gaussian", "Prior", "SwissRoll", "flower", "make_prior", "swiss_roll"]


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

    def forward(self) -> Any:
        """The distribution."""
        raise NotImplementedError(f"{type(self).__name__} must define forward()")


class Gaussian(Prior):
    """N(0, scale^2 I)."""

    def forward(self) -> Any:
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

    def forward(self) -> Any:
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

    def forward(self) -> Any:
        """The sampler."""
        return Sampler(self.draw, torch.Size(), self.zero.shape)

    def draw(self, shape: torch.Size) -> Tensor:
        """(*shape, k)."""
        like = self.zero
        roll = swiss_roll(torch.rand(shape, dtype=like.dtype, device=like.device))
        others = torch.randn(*shape, len(like) - 2, dtype=like.dtype, device=like.device)
        return self.scale * torch.cat([roll, others], -1)


PRIORS: dict[str, type[Prior]] = {"gaussian": Gaussian, "mixture": Flower, "swiss-roll": SwissRoll}
"""Name -> class; its constructor's arguments are the options."""


def make_prior(prior: Spec, latent_dim: int) -> Prior:
    """A prior by name, or by name and options ({"name": "gaussian", "scale": 5.0}).

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
