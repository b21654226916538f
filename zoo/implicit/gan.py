r"""The generative adversarial network: a multilayer perceptron that turns noise into data, and no density.

Goodfellow et al., "Generative adversarial nets", NeurIPS 2014; sizes and regularisation from the code that came with
the paper (goodfeli/adversarial, mnist.yaml).

    z ~ N(0, I_k),   x = g(z)

    z --> x      sites: z (k,) local; x (*event_shape), implicit
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import ClassVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints

from zoo.errors import OptionError
from zoo.guards import same_support
from zoo.implicit.networks import SUPPORTS, MaxoutCritic
from zoo.options import Count, Counts, Shape, Share
from zoo.program import Implicit, ImplicitProgram, Preset

__all__ = ["GAN"]


class GAN(ImplicitProgram):
    """A generator of rectified linear layers, paired with a maxout critic.

    Args:
        event_shape: Shape of one example.
        latent_dim: Number k of noise inputs.
        hidden: Units of each hidden layer of the generator.
        support: 'unit' ends the generator in a sigmoid, for data in [0, 1]; 'real' in nothing.
        critic_hidden: Maxout units of each hidden layer of the suggested critic.
        pieces: Linear pieces of a maxout unit.
        dropout: The critic drops hidden units with this probability, inputs with 0.4 of it (0.5 and 0.2 in the paper).

    Raises: OptionError for an unknown support.
    """

    paper = "Goodfellow et al., Generative adversarial nets, 2014"

    def __init__(
        self,
        event_shape: Shape = (8, 8),
        latent_dim: Count = 32,
        hidden: Counts = (256, 256),
        support: str = "unit",
        critic_hidden: Counts = (64, 64),
        pieces: Count = 5,
        dropout: Share = 0.5,
    ):
        super().__init__()
        if support not in SUPPORTS:
            raise OptionError(f"support must be 'unit' (data in [0, 1]) or 'real', got {support!r}.")
        self.event_shape = torch.Size(event_shape)
        self.support = SUPPORTS[support]
        self.latent_dim = latent_dim
        self.critic_hidden, self.pieces, self.dropout = critic_hidden, pieces, dropout
        sizes = [latent_dim, *hidden]
        layers: list[nn.Module] = []
        for i, o in itertools.pairwise(sizes):
            layers += [nn.Linear(i, o), nn.ReLU()]
        self.last = nn.Linear(sizes[-1], self.event_shape.numel())
        self.net = nn.Sequential(*layers, self.last, nn.Sigmoid() if support == "unit" else nn.Identity())

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        """Noise through the generator; differentiable in its parameters."""
        with self.plate(x, context, size):
            zero = self.last.bias.new_zeros(self.latent_dim)
            z = pyro.sample("z", dist.Normal(zero, 1.0).to_event(1))
            value = self.net(z).reshape(*z.shape[:-1], *self.event_shape)
            return pyro.sample("x", Implicit(value, len(self.event_shape)), obs=x)

    def critic(self) -> nn.Module:
        """Maxout layers with dropout."""
        return MaxoutCritic(self.event_shape, self.critic_hidden, pieces=self.pieces, dropout=self.dropout)

    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        """Sets the output bias so that without input from below the generator draws the data's mean (as the paper)."""
        mean = x.reshape(len(x), -1).mean(0)
        self.last.bias.copy_(
            torch.logit(mean, eps=1e-2) if same_support(self.support, constraints.unit_interval) else mean
        )

    presets: ClassVar[Mapping[str, Preset]] = {
        "small": Preset(
            {}, "gan", {"steps": 8000, "batch_size": 100, "lr": 1e-3, "critic_lr": 2e-4, "ema": 0.995}
        ),
        "paper": Preset(
            {"latent_dim": 100, "hidden": [1200, 1200], "critic_hidden": [240, 240]}, "gan",
            {"epochs": 200, "batch_size": 100, "lr": 2e-4},
        ),
        # The generator and the settings of the other programs' presets of this name, to compare games by.
        "ring": Preset(
            {
                "latent_dim": 2, "hidden": [128, 128, 128], "support": "real",
                "critic_hidden": [128, 128, 128], "pieces": 2, "dropout": 0.0,
            },
            "gan",
            {"steps": 7000, "batch_size": 128, "lr": 1e-3, "betas": [0.0, 0.9], "ema": 0.999},
            data="ring",
        ),
    }  # fmt: skip
