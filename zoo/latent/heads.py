"""What a guide makes of the numbers that an encoder puts out: Gaussians, flows, and samplers without a density.

Inverse autoregressive flow: Kingma et al., "Improving variational inference with inverse autoregressive flow", NIPS
2016; splines: Durkan et al., "Neural spline flows", NeurIPS 2019; the guides without a density: Makhzani et al.,
"Adversarial autoencoders", ICLR workshop 2016.
"""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from zoo.distributions import Sampler
from zoo.errors import OptionError
from zoo.guide_flows import BatchedAffine, flow_layers
from zoo.nets import activation as make_activation
from zoo.nets import mlp
from zoo.options import Count
from zoo.program import Implicit

__all__ = [
    "HEADS",
    "IAF",
    "IMPLICIT_HEADS",
    "Deterministic",
    "Diagonal",
    "Full",
    "GuideHead",
    "Spline",
    "Universal",
]


class GuideHead(nn.Module):
    """q(z | x) from `size` numbers.

    `size` is known at once, and tells how wide the encoder is; layers of the head's own come by `build`, after it.
    """

    size: int
    """Numbers that the encoder puts out."""

    def build(self, activation: str) -> None:
        """Makes the head's own layers, if it has any, with this nonlinearity."""

    def forward(self, out: Tensor) -> Any:
        """(*batch, size) -> a distribution of batch shape (*batch), event shape (k,)."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(out)")


class Diagonal(GuideHead):
    """A Gaussian of independent coordinates.

    Args:
        latent_dim: Number k of coordinates; given by the program.
    """

    def __init__(self, latent_dim: int):
        super().__init__()
        self.size = 2 * latent_dim

    def forward(self, out: Tensor) -> Any:
        """Mean and log scale of each."""
        loc, log_scale = out.chunk(2, -1)
        return dist.Normal(loc, log_scale.exp()).to_event(1)


class Full(GuideHead):
    """A Gaussian with all covariances.

    Args:
        latent_dim: Number k of coordinates; given by the program.
    """

    def __init__(self, latent_dim: int):
        super().__init__()
        self.latent_dim = latent_dim
        self.below = latent_dim * (latent_dim - 1) // 2  # the diagonal
        self.size = 2 * latent_dim + self.below

    def parts(self, out: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (*batch, k) and the covariance's lower triangular factor (*batch, k, k)."""
        k = self.latent_dim
        loc, log_scale, below = out.split([k, k, self.below], -1)
        scale_tril = torch.diag_embed(log_scale.exp())
        row, column = torch.tril_indices(k, k, -1)
        scale_tril[..., row, column] = below
        return loc, scale_tril

    def forward(self, out: Tensor) -> Any:
        """Mean, log diagonal of the factor, and what lies below it."""
        loc, scale_tril = self.parts(out)
        return dist.MultivariateNormal(loc, scale_tril=scale_tril)


class _Flows(GuideHead):
    """A Gaussian and flows that see features of x.

    Args:
        kind: A key of `zoo.guide_flows.FLOWS`.
        gaussian: Takes the first numbers.
        latent_dim: Number k of coordinates, at least 2.
        steps: Number of flows.
        hidden: Hidden units of each, and the features of x that it sees; at least k.

    Raises: OptionError.
    """

    flows: Any

    def __init__(self, kind: str, gaussian: GuideHead, latent_dim: int, steps: int, hidden: int):
        super().__init__()
        if not (latent_dim >= 2 and hidden >= latent_dim and steps >= 1):
            raise OptionError(
                "An autoregressive flow needs latent_dim >= 2 (there must be a coordinate to look at), "
                f"hidden >= latent_dim and steps >= 1; got {latent_dim}, {hidden} and {steps}."
            )
        self.kind, self.gaussian, self.latent_dim, self.steps, self.hidden = kind, gaussian, latent_dim, steps, hidden
        self.size = gaussian.size + hidden

    def build(self, activation: str) -> None:
        """Makes the flows."""
        self.flows = flow_layers(
            self.kind, self.latent_dim, self.steps, self.hidden, self.hidden, make_activation(activation)
        )

    def split(self, out: Tensor) -> tuple[Tensor, list[Any]]:
        """The Gaussian's numbers, and the flows given the features."""
        numbers, features = out.split([self.gaussian.size, self.hidden], -1)
        return numbers, [flow.condition(features) for flow in self.flows]


class IAF(_Flows):
    """A diagonal Gaussian through inverse autoregressive flows.

    Args:
        latent_dim: Number k of coordinates, at least 2; given by the program.
        steps: Number of flows.
        hidden: Hidden units of each flow, which sees as many features of x; at least k.

    Raises: OptionError.
    """

    def __init__(self, latent_dim: int, steps: Count = 2, hidden: Count = 64):
        super().__init__("iaf", Diagonal(latent_dim), latent_dim, steps, hidden)

    def forward(self, out: Tensor) -> Any:
        """The flows after the Gaussian."""
        numbers, flows = self.split(out)
        return dist.TransformedDistribution(self.gaussian(numbers), flows)


class Spline(_Flows):
    """A full Gaussian whose standard normal goes through spline flows first, as they act on a box.

    Args:
        latent_dim: Number k of coordinates, at least 2; given by the program.
        steps: Number of flows.
        hidden: Hidden units of each flow, which sees as many features of x; at least k.

    Raises: OptionError.
    """

    gaussian: Full

    def __init__(self, latent_dim: int, steps: Count = 2, hidden: Count = 64):
        super().__init__("spline", Full(latent_dim), latent_dim, steps, hidden)

    def forward(self, out: Tensor) -> Any:
        """The flows before the Gaussian's mean and factor."""
        numbers, flows = self.split(out)
        loc, scale_tril = self.gaussian.parts(numbers)
        standard = dist.Normal(torch.zeros_like(loc), 1.0).to_event(1)
        # The cache keeps what was drawn, so that its density needs no inversion.
        return dist.TransformedDistribution(standard, [*flows, BatchedAffine(loc, scale_tril, cache_size=1)])


class Deterministic(GuideHead):
    """A code is a function of x; no density.

    Args:
        latent_dim: Number k of coordinates; given by the program.
    """

    def __init__(self, latent_dim: int):
        super().__init__()
        self.size = latent_dim

    def forward(self, out: Tensor) -> Any:
        """The code itself."""
        return Implicit(out, 1)


class Universal(GuideHead):
    """A code is a function of x and noise, so that it may follow any law; no density.

    Args:
        latent_dim: Number k of coordinates; given by the program.
        width: Features of x, and units of the head's hidden layer; given by the program, as wide as its last one.
        noise: Standard normal numbers beside them.

    Raises: OptionError.
    """

    net: nn.Module

    def __init__(self, latent_dim: int, width: int, noise: Count = 10):
        super().__init__()
        self.latent_dim, self.size, self.noise = latent_dim, width, noise

    def build(self, activation: str) -> None:
        """Makes the layers that see the noise."""
        self.activation = make_activation(activation)
        self.net = mlp(self.size + self.noise, [self.size], self.latent_dim, activation)

    def forward(self, out: Tensor) -> Any:
        """A sampler: fresh noise for each draw."""
        features = self.activation(out)

        def draw(shape: torch.Size) -> Tensor:
            noise = torch.randn(*shape, self.noise, dtype=features.dtype, device=features.device)
            return self.net(torch.cat([features.expand(*shape, features.shape[-1]), noise], -1))

        return Sampler(draw, features.shape[:-1], torch.Size([self.latent_dim]))


HEADS: dict[str, type[GuideHead]] = {"diagonal": Diagonal, "full": Full, "iaf": IAF, "spline": Spline}
"""Name -> class; its constructor's arguments are the options."""
IMPLICIT_HEADS: dict[str, type[GuideHead]] = {"deterministic": Deterministic, "universal": Universal}
"""Those that have draws and no density."""
