r"""The conditional GAN: a generator that is told what to draw, against a critic that is told what it should see.

Mirza & Osindero, "Conditional generative adversarial nets", 2014; sizes from its section 4.1 (MNIST). Trained there by
stochastic gradient descent with growing momentum and falling rate; here by the Adam of the method `gan`.

    z ~ U(0, 1)^k,   x = g(z, y)

    z --> x <-- y      sites: z (k,) local; x (*event_shape), implicit; the context is y (*context_shape), one-hot
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn.functional import one_hot

from zoo.errors import OptionError
from zoo.implicit.convolutions import conv_generator
from zoo.implicit.gan import Maxout
from zoo.implicit.infogan import downward
from zoo.nets import OverBatch, image_shape
from zoo.program import Implicit, ImplicitProgram, Preset

__all__ = ["ConditionalCritic", "ConditionalGAN"]


class ConditionalGAN(ImplicitProgram):
    """A generator of images of an asked class, paired with a critic that knows what was asked.

    Noise and label each have a hidden layer of their own before they meet; in the critic, image and label do.

    Args:
        event_shape: Shape of one example; (height, width) or (channels, height, width) for 'conv'.
        context_shape: Shape of one context: (classes,) for classes one-hot. Any other vectors will do for training;
            `example_context` has classes.
        network: 'mlp', the paper's; 'conv' reads and writes the image by strided convolutions with batch norm (as
            Radford et al. 2016) where the paper has dense layers, and adds to the critic the inner product of image and
            label (Miyato & Koyama, "cGANs with projection discriminator", 2018).
        latent_dim: Number k of noise inputs.
        hidden: Rectified linear units of the generator: for the noise, for the label, for both together.
        channels: Of the generator's transposed convolutions, for 'conv'.
        critic_hidden: Units of the critic: for the image, for the label, for both together; maxout, but for the image
            leaky rectified linear ones on top of convolutions for 'conv'.
        pieces: Linear pieces of these maxout units, three numbers.
        critic_channels: Of the critic's convolutions, for 'conv'.
        dropout: The critic drops hidden units with this probability, pixels with 0.4 of it ('mlp' only).

    Raises: OptionError for an unknown network or other than three numbers; ShapeError for 'conv' without images.
    """

    paper = "Mirza & Osindero, Conditional generative adversarial nets, 2014"
    dataset = "mnist10k-labelled"
    support = constraints.unit_interval
    presets: ClassVar[Mapping[str, Preset]] = {
        "small": Preset(
            {
                "network": "conv", "latent_dim": 64, "hidden": [64, 64, 128], "critic_hidden": [128, 32, 64],
                "dropout": 0.0,
            },
            "gan",
            {"steps": 1500, "batch_size": 64, "lr": 1e-3, "critic_lr": 4e-4, "ema": 0.99, "compile": "never"},
        ),
        "paper": Preset(
            {"latent_dim": 100, "hidden": [200, 1000, 1200], "critic_hidden": [240, 50, 240]}, "gan",
            {"epochs": 200, "batch_size": 100, "lr": 2e-4},
        ),
    }  # fmt: skip

    def __init__(
        self,
        event_shape: list[int] = [8, 8],  # noqa: B006 (JSON-like, never changed)
        context_shape: list[int] = [10],  # noqa: B006
        network: str = "mlp",
        latent_dim: int = 32,
        hidden: list[int] = [32, 32, 64],  # noqa: B006
        channels: list[int] = [32, 16],  # noqa: B006
        critic_hidden: list[int] = [32, 16, 32],  # noqa: B006
        pieces: list[int] = [5, 5, 4],  # noqa: B006
        critic_channels: list[int] = [16, 32],  # noqa: B006
        dropout: float = 0.5,
    ):
        super().__init__()
        if network not in ("mlp", "conv"):
            raise OptionError(f"network must be 'mlp' or 'conv', got {network!r}.")
        for name, three in (("hidden", hidden), ("critic_hidden", critic_hidden), ("pieces", pieces)):
            if len(three) != 3:
                raise OptionError(f"{name} must be three numbers, got {three}.")
        self.event_shape, self.context_shape = torch.Size(event_shape), torch.Size(context_shape)
        self.network, self.latent_dim = network, latent_dim
        self.critic_hidden, self.pieces, self.dropout = list(critic_hidden), list(pieces), dropout
        self.critic_channels = list(critic_channels)
        for_noise, for_label, for_both = hidden
        self.noise = nn.Sequential(nn.Linear(latent_dim, for_noise), nn.ReLU())
        self.label = nn.Sequential(nn.Linear(self.context_shape.numel(), for_label), nn.ReLU())
        mix: nn.Module = nn.Linear(for_noise + for_label, for_both)
        if network == "conv":
            # Else what all examples share would drown their differences in the next batch norm, which is over pixels
            # too, and all images would begin alike.
            mix = OverBatch(nn.Sequential(mix, nn.BatchNorm1d(for_both)), 1)
        self.both = nn.Sequential(mix, nn.ReLU())
        self.image = (
            nn.Linear(for_both, self.event_shape.numel(), bias=False)
            if network == "mlp"
            else conv_generator(for_both, channels, image_shape(event_shape))
        )
        # One for each pixel, also when convolutional: data can set it.
        self.bias = nn.Parameter(torch.zeros(self.event_shape))
        self._start()

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

    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        """Sets the output bias so that without input from below the generator draws the data's mean."""
        self.bias.copy_(torch.logit(x.mean(0), eps=1e-2))

    def example_context(self, n: int) -> Tensor:
        """Classes one-hot (n, *context_shape), one after the other."""
        classes = self.context_shape.numel()
        hot = one_hot(torch.arange(n, device=self.bias.device) % classes, classes)
        return hot.to(self.bias.dtype).reshape(n, *self.context_shape)

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        """Noise and label through the generator; differentiable in its parameters."""
        assert context is not None
        with self.plate(x, context, size):
            zero = self.bias.new_zeros(self.latent_dim)
            z = pyro.sample("z", dist.Uniform(zero, zero + 1).to_event(1))
            label = self.label(context.flatten(1)).expand(*z.shape[:-1], -1)
            both = self.both(torch.cat([self.noise(z), label], -1))
            value = torch.sigmoid(self.image(both).reshape(*z.shape[:-1], *self.event_shape) + self.bias)
            return pyro.sample("x", Implicit(value, len(self.event_shape)), obs=x)

    def critic(self) -> nn.Module:
        """Maxout layers with dropout, or convolutions and maxout layers."""
        channels = self.critic_channels if self.network == "conv" else None
        shapes = self.event_shape, self.context_shape
        return ConditionalCritic(*shapes, self.critic_hidden, self.pieces, channels, self.dropout)


class ConditionalCritic(nn.Module):
    """Image and label, each through a layer of its own, then both: (B, *event_shape), (B, *context_shape) -> (B,).

    Args:
        event_shape: Shape of one example.
        context_shape: Shape of one context.
        hidden: Units for the image, for the label, for both.
        pieces: Linear pieces of these maxout units.
        channels: Of convolutions that read the image in place of the maxout layer, and then a projection of the image's
            features on the label's is added; None for the maxout layer.
        dropout: Probability of dropping a hidden unit; pixels are dropped with 0.4 of it where no convolution is.
    """

    def __init__(
        self,
        event_shape: torch.Size,
        context_shape: torch.Size,
        hidden: Sequence[int],
        pieces: Sequence[int] = (5, 5, 4),
        channels: Sequence[int] | None = None,
        dropout: float = 0.5,
    ):
        super().__init__()
        self.shape = event_shape if channels is None else torch.Size(image_shape(event_shape))
        if channels is None:
            maxout = Maxout(event_shape.numel(), hidden[0], pieces[0])
            self.image = nn.Sequential(nn.Flatten(), nn.Dropout(0.4 * dropout), maxout, nn.Dropout(dropout))
        else:
            self.image = nn.Sequential(*downward(self.shape, channels, hidden[0]), nn.Dropout(dropout))
        classes = context_shape.numel()
        self.project = None if channels is None else nn.Linear(classes, hidden[0], bias=False)
        self.label = nn.Sequential(nn.Flatten(), Maxout(classes, hidden[1], pieces[1]))
        nn.init.normal_(next(self.label.parameters()))  # of a one-hot label a single input is not zero
        both = Maxout(hidden[0] + hidden[1], hidden[2], pieces[2])
        self.both = nn.Sequential(both, nn.Dropout(dropout), nn.Linear(hidden[2], 1))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Logits of "real"."""
        read = self.image(x.reshape(len(x), *self.shape))
        logits = self.both(torch.cat([read, self.label(context)], -1)).squeeze(-1)
        return logits if self.project is None else logits + (read * self.project(context.flatten(1))).sum(-1)
