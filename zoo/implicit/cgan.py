r"""The conditional GAN: a generator that is told what to draw, against a critic that is told what it should see.

Mirza & Osindero, "Conditional generative adversarial nets", 2014; sizes from its section 4.1 (MNIST). Trained there by
stochastic gradient descent with growing momentum and falling rate; here by the Adam of the method `gan`.

    z ~ U(0, 1)^k,   x = g(z, y)

    z --> x <-- y      sites: z (k,) local; x (*event_shape), implicit; the context is y (*context_shape), one-hot
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn.functional import one_hot

from zoo.errors import OptionError, ShapeError
from zoo.implicit.networks import ConvCritic, Maxout, Shaped, conv_generator, network_options
from zoo.nets import image_shape
from zoo.options import Count, Counts, Shape, Share
from zoo.program import Implicit, ImplicitProgram, Preset

__all__ = ["ConditionalCritic", "ConditionalGAN", "ProjectionCritic"]


class ConditionalGAN(ImplicitProgram):
    """A generator of images of an asked class, paired with a critic that knows what was asked.

    Args:
        event_shape: Shape of one example; (height, width) or (channels, height, width) for 'conv'.
        context_shape: Shape of one context, (classes,): contexts are classes, one-hot.
        network: 'mlp', the paper's, where noise and label, and in the critic image and label, each have a hidden layer
            of their own before they meet; 'conv', the networks of Miyato et al. (2018, table 3), the label beside the
            noise, and in the critic as an inner product with the image's features (Miyato & Koyama, "cGANs with
            projection discriminator", ICLR 2018), for the hinge game with spectral normalisation.
        latent_dim: Number k of noise inputs.
        hidden: Rectified linear units of the generator: for the noise, for the label, for both together ('mlp').
        channels: Of the generator's images, from the smallest on ('conv').
        critic: Options of the critic. Of 'mlp', those of `ConditionalCritic`: maxout units `hidden` for the image, for
            the label, for both together ([32, 16, 32]), as many linear `pieces` of these ([5, 5, 4]), and `dropout`
            (0.5). Of 'conv', that of `ProjectionCritic`: `channels` of the strided convolutions, from the image on
            ([8, 16]).

    Raises: OptionError for an unknown network or other than three numbers; UnknownNameError for another option of the
        critic; ShapeError for 'conv' without images, or a context that is no row of classes.
    """

    paper = "Mirza & Osindero, Conditional generative adversarial nets, 2014"
    dataset = "mnist10k-labelled"
    support = constraints.unit_interval
    context_support = constraints.one_hot

    LABEL: ClassVar[float] = 3.0
    """What 'conv' multiplies the label by, so that one number of it counts beside all those of the noise."""

    def __init__(
        self,
        event_shape: Shape = (8, 8),
        context_shape: Shape = (10,),
        network: str = "mlp",
        latent_dim: Count = 32,
        hidden: Counts = (32, 32, 64),
        channels: Counts = (32, 16, 8),
        critic: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        if network not in ("mlp", "conv"):
            raise OptionError(f"network must be 'mlp' or 'conv', got {network!r}.")
        if len(context_shape) != 1:
            raise ShapeError(
                f"ConditionalGAN takes classes one-hot (N, classes), got contexts of shape {tuple(context_shape)}: "
                "torch.nn.functional.one_hot(labels, classes) makes them."
            )
        self.event_shape, self.context_shape = torch.Size(event_shape), torch.Size(context_shape)
        self.network, self.latent_dim = network, latent_dim
        self.critic_options = network_options(f"the critic of network={network!r}", critic, **CRITICS[network])
        # One for each pixel, in both: data can set it for the paper's.
        self.bias = nn.Parameter(torch.zeros(self.event_shape))
        if network == "conv":
            features = latent_dim + self.context_shape.numel()
            self.image = conv_generator(features, channels, image_shape(event_shape), smooth=True)
            return
        units, pieces = self.critic_options["hidden"], self.critic_options["pieces"]
        for name, three in (("hidden", hidden), ("the critic's hidden", units), ("the critic's pieces", pieces)):
            if len(three) != 3:
                raise OptionError(f"{name} must be three numbers, got {three}.")
        for_noise, for_label, for_both = hidden
        self.noise = nn.Sequential(nn.Linear(latent_dim, for_noise), nn.ReLU())
        self.label = nn.Sequential(nn.Linear(self.context_shape.numel(), for_label), nn.ReLU())
        self.both = nn.Sequential(nn.Linear(for_noise + for_label, for_both), nn.ReLU())
        self.image = nn.Linear(for_both, self.event_shape.numel(), bias=False)
        self._start()

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        """Noise and label through the generator; differentiable in its parameters."""
        assert context is not None
        with self.plate(x, context, size):
            zero = self.bias.new_zeros(self.latent_dim)
            z = pyro.sample("z", dist.Uniform(zero, zero + 1).to_event(1))
            value = self.image(self._read(z, context.flatten(1))).reshape(*z.shape[:-1], *self.event_shape)
            # The tanh of the convolutional papers, scaled to [0, 1], is a sigmoid of twice the slope.
            slope = 2.0 if self.network == "conv" else 1.0
            value = torch.sigmoid(slope * value + self.bias)
            return pyro.sample("x", Implicit(value, len(self.event_shape)), obs=x)

    def _read(self, z: Tensor, label: Tensor) -> Tensor:
        """Noise and label in one vector, (..., features)."""
        if self.network == "mlp":
            return self.both(torch.cat([self.noise(z), self.label(label).expand(*z.shape[:-1], -1)], -1))
        standard = (z - 0.5) * 12**0.5
        return torch.cat([standard, self.LABEL * label.expand(*z.shape[:-1], -1)], -1)

    def critic(self) -> nn.Module:
        """Maxout layers with dropout, or convolutions and a projection."""
        kind = ProjectionCritic if self.network == "conv" else ConditionalCritic
        return kind(self.event_shape, self.context_shape, **self.critic_options)

    def example_context(self, n: int) -> Tensor:
        """Classes one-hot (n, *context_shape), one after the other."""
        classes = self.context_shape.numel()
        hot = one_hot(torch.arange(n, device=self.bias.device) % classes, classes)
        return hot.to(self.bias.dtype).reshape(n, *self.context_shape)

    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        """Sets the output bias of 'mlp' so that without input from below it draws the data's mean.

        Convolutions do better from grey: where the mean is black their sigmoid has next to no slope.
        """
        if self.network == "mlp":
            self.bias.copy_(torch.logit(x.mean(0), eps=1e-2))

    @torch.no_grad()
    def _start(self) -> None:
        """Weights under which noise and label both make a difference at once.

        Noise in [0, 1] has a small variance about a large mean, and of the label one number is not zero: under torch's
        own start all images begin alike, and the game can end as it began.
        """
        into, bias = self.noise.parameters()
        nn.init.normal_(into, 0.0, (12 / self.latent_dim) ** 0.5)
        bias.copy_(-into.sum(1) / 2)
        nn.init.normal_(next(self.label.parameters()))
        nn.init.kaiming_normal_(next(self.both.parameters()))

    presets: ClassVar[Mapping[str, Preset]] = {
        "small": Preset(
            {"network": "conv", "latent_dim": 64, "channels": [64, 32, 8], "critic": {"channels": [8, 16]}}, "gan",
            {
                "game": "hinge", "regulariser": "spectral-norm", "steps": 3000, "batch_size": 32, "lr": 1e-3,
                "ema": 0.995,
            },
        ),
        "paper": Preset(
            {"latent_dim": 100, "hidden": [200, 1000, 1200], "critic": {"hidden": [240, 50, 240]}}, "gan",
            {"epochs": 200, "batch_size": 100, "lr": 2e-4},
        ),
    }  # fmt: skip


CRITICS: dict[str, dict[str, Any]] = {
    "mlp": {"hidden": (32, 16, 32), "pieces": (5, 5, 4), "dropout": 0.5},
    "conv": {"channels": (8, 16)},
}
"""The critic's options for each network, and their defaults."""


class ConditionalCritic(nn.Module):
    """The paper's: image and label, each through a maxout layer, then both through another.

    Args:
        event_shape: Shape of one example.
        context_shape: Shape of one context.
        hidden: Units for the image, for the label, for both.
        pieces: Linear pieces of these units.
        dropout: Probability of dropping a hidden unit; pixels are dropped with 0.4 of it.

    Shapes: (B, *event_shape), (B, *context_shape) -> (B,) logits of "real".
    """

    def __init__(
        self,
        event_shape: torch.Size,
        context_shape: torch.Size,
        *,
        hidden: Sequence[int],
        pieces: Counts = (5, 5, 4),
        dropout: Share = 0.5,
    ):
        super().__init__()
        maxout = Maxout(event_shape.numel(), hidden[0], pieces[0])
        flat = Shaped([event_shape.numel()])
        self.image = nn.Sequential(flat, nn.Dropout(0.4 * dropout), maxout, nn.Dropout(dropout))
        self.label = nn.Sequential(nn.Flatten(), Maxout(context_shape.numel(), hidden[1], pieces[1]))
        nn.init.normal_(next(self.label.parameters()))  # of a one-hot label a single input is not zero
        both = Maxout(hidden[0] + hidden[1], hidden[2], pieces[2])
        self.both = nn.Sequential(both, nn.Dropout(dropout), nn.Linear(hidden[2], 1))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Logits."""
        return self.both(torch.cat([self.image(x), self.label(context)], -1)).squeeze(-1)


class ProjectionCritic(nn.Module):
    """Convolutions of the image, read by a linear unit, plus the inner product of their features with the label's.

    Args:
        event_shape: Shape of one image.
        context_shape: Shape of one context.
        channels: Of the strided convolutions, from the image on.

    Shapes: (B, *event_shape), (B, *context_shape) -> (B,) logits of "real".
    """

    def __init__(self, event_shape: torch.Size, context_shape: torch.Size, *, channels: Sequence[int]):
        super().__init__()
        self.shape = image_shape(event_shape)
        *down, self.read = ConvCritic(event_shape, channels, norm="none", slope=0.1, smooth=True).net
        assert isinstance(self.read, nn.Linear)
        self.down = nn.Sequential(*down)
        self.project = nn.Linear(context_shape.numel(), self.read.in_features, bias=False)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Logits."""
        features = self.down(2 * x.reshape(len(x), *self.shape) - 1)
        return self.read(features).squeeze(-1) + (features * self.project(context.flatten(1))).sum(-1)
