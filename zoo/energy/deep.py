r"""The deep energy model: a network says how likely each example is, up to a constant.

Ngiam, Chen, Koh & Ng, "Learning deep energy models", ICML 2011; trained by short Langevin chains with a buffer of past
ones: Du & Mordatch, "Implicit generation and modeling with energy-based models", NeurIPS 2019.

    f(x) = log N(x; m, diag(s^2)) + g(x)        g a network, m and s mean and spread of the training data

The Gaussian keeps exp(f) integrable whatever the network says far away, where it grows at most linearly; and it is
where annealing starts. Smooth activations only: chains and score matching follow the slope of f.

    sites: x, up to a constant; no latents
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

from zoo.energy.base import EnergyProgram, metropolis_langevin, spread_of
from zoo.nets import conv_encoder, image_shape, mlp
from zoo.options import Count, Counts, OneOf, Positive, Shape
from zoo.program import Preset

__all__ = ["DeepEnergy"]

SMOOTH = ("silu", "softplus", "gelu", "tanh", "elu", "sigmoid")
NETWORKS = ("mlp", "conv")


class DeepEnergy(EnergyProgram):
    """A network beside a Gaussian, whose transitions are Metropolis-adjusted Langevin steps.

    Args:
        event_shape: Of x.
        network: 'mlp', or 'conv' for images: strided convolutions.
        hidden: Widths of the layers, or channels of the convolutions.
        activation: A smooth one.
        step: Of a Langevin transition, in spreads of the data.
        draw_sweeps: Transitions of a draw.
        particles: How many chains a fit with persistent chains has, and draws start from.

    Raises: OptionError; ShapeError for 'conv' without images.
    """

    mean: Tensor
    spread: Tensor

    paper = "Ngiam et al., Learning deep energy models, 2011; Du & Mordatch 2019"
    dataset = "ring"
    support = constraints.real
    sweep_gradients = 2

    def __init__(
        self,
        event_shape: Shape = (2,),
        network: Annotated[str, OneOf(NETWORKS)] = "mlp",
        hidden: Counts = (16, 16),
        activation: Annotated[str, OneOf(SMOOTH)] = "silu",
        step: Positive = 0.2,
        draw_sweeps: Count = 100,
        particles: Count = 256,
    ):
        super().__init__(draw_sweeps, torch.randn(particles, *event_shape))
        self.step = step
        if network == "conv":
            self.image: tuple[int, ...] = image_shape(event_shape)
            self.net = conv_encoder(image_shape(event_shape), hidden, 1, activation)
        else:
            self.image = (self.event_shape.numel(),)
            self.net = mlp(self.event_shape.numel(), hidden, 1, activation)
        self.register_buffer("mean", torch.zeros(self.event_shape))
        self.register_buffer("spread", torch.ones(self.event_shape))

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        """x by a chain."""
        with self.plate(x, context, size):
            return pyro.sample("x", self.drawn(x, context, size), obs=x)

    @torch.no_grad()
    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        """Takes mean and spread from the data, and starts the chains there.

        Numbers have a spread each, since each has its own units. Pixels, in [0, 1], share one: those that hardly ever
        change would have next to none, and steps there as well. So do those of convolutions, whatever their units.
        """
        self.mean.copy_(x.mean(0))
        pixels = len(self.image) > 1 or (x.ndim > 2 and bool(((x >= 0) & (x <= 1)).all()))
        self.spread.copy_(spread_of((x - x.mean(0)).reshape(-1, 1)) if pixels else spread_of(x))
        self.restart()

    def base(self) -> dist.TorchDistribution:
        """The Gaussian."""
        return dist.Normal(self.mean, self.spread).to_event(len(self.event_shape))

    def tempered(self, x: Tensor, beta: float | Tensor) -> Tensor:
        """The network times beta."""
        seen = (x - self.mean) / self.spread
        told = self.net(seen.reshape(*x.shape[: x.ndim - len(self.event_shape)], *self.image)).squeeze(-1)
        return self.base().log_prob(x) + beta * told

    @torch.no_grad()
    def sweep(self, x: Tensor, beta: float | Tensor = 1.0) -> Tensor:
        """One Langevin transition."""
        return metropolis_langevin(self, x, beta, self.step * self.spread)[0]

    presets: ClassVar[Mapping[str, Preset]] = {
        "small": Preset(
            {"hidden": [128, 128], "step": 0.1}, "cd",
            {"chains": "replay", "sweeps": 20, "steps": 3000, "batch_size": 128, "lr": 1e-3, "regularise": 1e-3},
        ),
        "paper": Preset(
            {"network": "conv", "hidden": [64, 128, 256], "step": 0.05, "particles": 10_000}, "cd",
            {"chains": "replay", "sweeps": 60, "epochs": 200, "batch_size": 128, "lr": 1e-4, "regularise": 1.0},
            data="mnist10k",
        ),
    }  # fmt: skip
