r"""The adversarial autoencoder: an autoencoder whose codes are made to follow a prior by a critic of codes.

Makhzani, Shlens, Jaitly, Goodfellow & Frey, "Adversarial autoencoders", ICLR workshop 2016.

    z ~ p(z),   x | z ~ prod_i p(x_i | f(z)_i),   z = g(x), q(z | x) = N(m(x), S(x)) or z = g(x, noise)

    z --> x      sites: z (k,) local; x (*event_shape)

The prior is one that can be drawn from, with a density or without. The paper's method makes the aggregate posterior
q(z) = E_data[q(z | x)] equal to it; it is `inference.games.aae`, and takes other programs too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from zoo.distributions import NormalMixture, Sampler
from zoo.errors import OptionError, UnknownNameError
from zoo.latent.vae import GUIDE_FAMILIES, VAE
from zoo.nets import activation as make_activation
from zoo.nets import conv_encoder, image_shape, mlp
from zoo.program import Implicit, Preset

__all__ = ["AAE", "PRIORS", "flower", "swiss_roll"]

PRIORS = ("gaussian", "mixture", "swiss-roll")
IMPLICIT_GUIDES = ("deterministic", "universal")
"""Guides that have draws and no density; the others are those of the VAE."""
SMALL = {"steps": 16_000, "batch_size": 100, "lr": 1e-3, "weight": 0.01}


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


class AAE(VAE):
    """A VAE's networks with a prior and a guide of the adversarial autoencoder's kinds.

    Without a density, of the prior or of the guide, there is no evidence bound, and who asks for it gets an
    `ImplicitDensityError`. `encode` and `decode` are the VAE's: `encode(x).sample()` is a code.

    Args:
        event_shape, latent_dim, hidden, likelihood, values, scale, network, activation, flow_steps, flow_hidden: As in
            `zoo.latent.vae.VAE`.
        prior: 'gaussian', N(0, I); 'mixture', `flower`; 'swiss-roll', `swiss_roll` in the first two dimensions and
            N(0, 1) in the others, which has no density.
        prior_scale: What draws of the prior are multiplied by (5 for the paper's likelihoods).
        components: Of the mixture.
        guide_family: 'deterministic', a code is a function of x; 'universal', of x and noise; both have no density. Or
            one of the VAE's.
        noise_dim: Noise inputs of 'universal', beside the features that the encoder has of x.

    Raises: UnknownNameError, OptionError, ShapeError (convolutions over what is no image).
    """

    paper = "Makhzani et al., Adversarial autoencoders, 2016"
    dataset = "mnist10k-binary"
    presets: ClassVar[Mapping[str, Preset]] = {
        "small": Preset({"latent_dim": 8, "hidden": [256, 256], "guide_family": "deterministic"}, "aae", SMALL),
        "digits": Preset(  # 8x8: fewer pixels, so that each has to count for more
            {"latent_dim": 8, "hidden": [256, 256], "guide_family": "deterministic"}, "aae",
            {**SMALL, "steps": 3000, "weight": 0.1},
        ),
        "plane": Preset(  # the paper's pictures: two latents
            {"latent_dim": 2, "hidden": [256, 256], "guide_family": "deterministic"}, "aae", SMALL
        ),
        "paper": Preset(
            {"latent_dim": 8, "hidden": [1000, 1000], "prior": "gaussian", "prior_scale": 5.0,
             "guide_family": "deterministic"},
            "aae", {"epochs": 1000, "batch_size": 100, "lr": 1e-3, "weight": 0.01, "critic_hidden": [1000, 1000]},
        ),
    }  # fmt: skip
    means: Tensor
    factors: Tensor

    def __init__(
        self,
        event_shape: list[int] = [8, 8],  # noqa: B006 (JSON-like, never changed)
        latent_dim: int = 2,
        hidden: list[int] = [64, 64],  # noqa: B006
        likelihood: str = "bernoulli",
        values: int = 256,
        scale: str = "global",
        network: str = "mlp",
        activation: str = "relu",
        prior: str = "mixture",
        prior_scale: float = 1.0,
        components: int = 10,
        guide_family: str = "diagonal",
        noise_dim: int = 10,
        flow_steps: int = 2,
        flow_hidden: int = 64,
    ):
        for what, name, known in (
            ("prior", prior, PRIORS),
            ("guide family", guide_family, (*IMPLICIT_GUIDES, *GUIDE_FAMILIES)),
        ):
            if name not in known:
                raise UnknownNameError(what, name, known)
        if prior_scale <= 0 or noise_dim < 1:
            raise OptionError(f"prior_scale and noise_dim must be positive, got {prior_scale} and {noise_dim}.")
        if prior == "swiss-roll" and latent_dim < 2:
            raise OptionError(f"A swiss roll lies in a plane: it needs latent_dim >= 2, got {latent_dim}.")
        implicit = guide_family in IMPLICIT_GUIDES
        super().__init__(
            event_shape, latent_dim, hidden, likelihood, values, scale, network, activation,
            "diagonal" if implicit else guide_family, flow_steps, flow_hidden,
        )  # fmt: skip
        self.prior, self.prior_scale, self.noise_dim, self.guide_family = prior, prior_scale, noise_dim, guide_family
        if prior == "mixture":
            for name, values_ in zip(("means", "factors"), flower(latent_dim, components), strict=True):
                self.register_buffer(name, (prior_scale * values_).to(self.bias))
        if implicit:
            universal = guide_family == "universal"
            width = (hidden[-1] if hidden else latent_dim) if universal else latent_dim
            if network == "mlp":
                self.encoder = mlp(self.network_shape[0], hidden, width, activation)
            else:
                self.encoder = conv_encoder(image_shape(event_shape), hidden, width, activation)
            if universal:
                self.encoder = nn.Sequential(self.encoder, make_activation(activation))
                self.head = mlp(width + noise_dim, [width], latent_dim, activation)

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        """A latent of the prior, decoded."""
        with self.plate(x, context, size):
            z = pyro.sample("z", self.prior_distribution())
            return pyro.sample("x", self.decode(z), obs=x).to(self.bias.dtype)

    def prior_distribution(self) -> Any:
        """p(z), of event shape (k,); a swiss roll has no density."""
        k, like = self.latent_dim, self.bias
        if self.prior == "gaussian":
            return dist.Normal(like.new_zeros(k), self.prior_scale).to_event(1)
        if self.prior == "mixture":
            petals = dist.MultivariateNormal(self.means, scale_tril=self.factors)
            return NormalMixture(dist.Categorical(logits=like.new_zeros(len(self.means))), petals)

        def draw(shape: torch.Size) -> Tensor:
            roll = swiss_roll(torch.rand(shape, dtype=like.dtype, device=like.device))
            others = torch.randn(*shape, k - 2, dtype=like.dtype, device=like.device)
            return self.prior_scale * torch.cat([roll, others], -1)

        return Sampler(draw, torch.Size(), torch.Size([k]))

    def encode(self, x: Tensor) -> Any:
        """q(z | x), a distribution: x (*batch, *event_shape) -> batch shape (*batch), event shape (k,)."""
        if self.guide_family not in IMPLICIT_GUIDES:
            return super().encode(x)
        features = self.encoded(x)
        if self.guide_family == "deterministic":
            return Implicit(features, 1)

        def draw(shape: torch.Size) -> Tensor:
            noise = torch.randn(*shape, self.noise_dim, dtype=features.dtype, device=features.device)
            return self.head(torch.cat([features.expand(*shape, features.shape[-1]), noise], -1))

        return Sampler(draw, features.shape[:-1], torch.Size([self.latent_dim]))
