r"""StarGAN: one translator for every change of attributes, and a critic that tells the attributes too.

Choi, Choi, Kim, Ha, Kim & Choo, "StarGAN: unified generative adversarial networks for multi-domain image-to-image
translation", CVPR 2018; networks of its appendix 7.2.

    s ~ a gallery of training images,   x = g(s, c);       guide: a ~ the attributes of the gallery, s = g(x, a)

    s --> x <-- c      sites: source (*event_shape) local; x (*event_shape), implicit; the context is c (K,), attributes

Model and guide are the same translator. In the model it takes an image of the gallery to the attributes c that are
asked for. In the guide it takes x back: which image of the gallery x came from is known up to its attributes, which x
no longer shows; so the guide draws those as the gallery has them, and translates x to them. The reconstruction of the
method `star` asks that this finds the source again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints

from zoo.errors import OptionError, ShapeError
from zoo.implicit.networks import network_options
from zoo.implicit.translators import ImageTranslation, ResidualTranslator
from zoo.nets import halvings, image_shape, paddings
from zoo.options import Count, Counts, Natural, Shape
from zoo.process import one_at_a_time
from zoo.program import Implicit, Preset

__all__ = ["AttributeCritic", "Gallery", "StarGAN"]


class StarGAN(ImageTranslation):
    """A residual translator of images to attributes, paired with a critic of patches that reads attributes.

    The attributes are planes beside those of the image, the same number everywhere. An instance norm right behind the
    first convolution would take them away, all but a trace at the borders that the authors' zeros there leave; so there
    is none, which departs from the paper's table.

    Args:
        event_shape: Of x and of the images of the gallery: (height, width) or (channels, height, width), in [0, 1].
        context_shape: (K,), attributes from 0, not there, to 1.
        channels: Of the translator, at full size and after each halving; see `ResidualTranslator`.
        blocks: Its residual blocks.
        gallery: How many training images are kept as sources.
        ink: Whether ink (1) and ground (0) count alike in the distance.
        critic: Options of the critic, those of `AttributeCritic`: `channels` ([32, 64, 128]).

    Raises: OptionError; ShapeError; UnknownNameError for another option of the critic.
    """

    images: Tensor
    looks: Tensor

    paper = "Choi et al., StarGAN: unified generative adversarial networks for multi-domain image translation, 2018"
    dataset = "glyphs-attributes"

    def __init__(
        self,
        event_shape: Shape = (32, 32),
        context_shape: Shape = (5,),
        channels: Counts = (16, 32, 64),
        blocks: Natural = 3,
        gallery: Count = 500,
        ink: bool = False,
        critic: Mapping[str, Any] | None = None,
    ):
        super().__init__(event_shape, event_shape, ink)
        if len(context_shape) != 1:
            raise ShapeError(
                f"StarGAN takes attributes (N, K), got contexts of shape {tuple(context_shape)}; give one row of "
                "numbers from 0 to 1 for each image."
            )
        self.context_shape = torch.Size(context_shape)
        self.critic_options = network_options("StarGAN's critic", critic, channels=(32, 64, 128))
        depth, attributes = self.shape[0], context_shape[0]
        self.translator = ResidualTranslator(
            (depth + attributes, *self.shape[1:]), depth, channels, blocks=blocks, plain_first=True
        )
        self.register_buffer("images", torch.rand(gallery, *self.event_shape))
        self.register_buffer("looks", torch.randint(2, (gallery, attributes)).to(self.images))

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        """An image of the gallery, with the attributes asked for; differentiable in the parameters."""
        assert context is not None
        with self.plate(x, context, size):
            source = pyro.sample("source", Gallery(self.images))
            return pyro.sample("x", Implicit(self._translated(source, context), len(self.event_shape)), obs=x)

    def guide(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> None:
        """x, with attributes drawn from those of the gallery."""
        assert x is not None
        with self.plate(x, context, size):
            looks = self.looks[torch.randint(len(self.looks), (len(x),), device=x.device)]
            pyro.sample("source", Implicit(self._translated(x, looks), len(self.event_shape)))

    def critic(self) -> AttributeCritic:
        """Of patches and attributes."""
        return AttributeCritic(self.event_shape, self.context_shape[0], **self.critic_options)

    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        """Fills the gallery with random training images, once more from the start where there are too few."""
        super().initialise(x, context)
        assert context is not None
        rows = torch.randperm(len(x), device=x.device)[torch.arange(len(self.images), device=x.device) % len(x)]
        self.images.copy_(x[rows])
        self.looks.copy_(context[rows])

    def example_context(self, n: int) -> Tensor:
        """Attributes (n, K), each there or not."""
        return torch.randint(2, (n, *self.context_shape), device=self.looks.device).to(self.looks)

    @one_at_a_time
    @torch.no_grad()
    def translate(self, source: Any, to: Any = None) -> Tensor:
        """Images (N, *event_shape) with other attributes.

        Args:
            source: Images (N, *event_shape).
            to: Attributes (N, K), or (K,) for all.

        Raises: OptionError without attributes; what `check` raises.
        """
        if to is None:
            raise OptionError(
                f"StarGAN must be told which attributes the images shall have, got to=None; give "
                f"{self.context_shape[0]} numbers from 0 to 1 for each."
            )
        wanted = torch.as_tensor(to)
        images, context = self.accept(source, wanted.expand(len(source), -1) if wanted.ndim == 1 else wanted)
        assert context is not None
        return self._translated(images, context)

    def _translated(self, image: Tensor, context: Tensor) -> Tensor:
        batch = image.shape[: image.ndim - len(self.event_shape)]
        planes = context.expand(*batch, -1)[..., None, None].expand(*batch, -1, *self.shape[1:])
        return self.translator(torch.cat([image.reshape(*batch, *self.shape), planes], -3)).reshape(image.shape)

    presets: ClassVar[Mapping[str, Preset]] = {
        "small": Preset(
            {"channels": [12, 24, 48], "ink": True, "critic": {"channels": [16, 32, 64]}}, "star",
            # Without `identity`, and at twice the rate, letters turn into others that lead back.
            {
                "steps": 2000, "batch_size": 16, "lr": 5e-4, "critic_lr": 1e-3, "critic_steps": 2, "ema": 0.99,
                "reconstruction": 20.0, "identity": 10.0,
            },
        ),
        # For images of 128x128, [0, 1] instead of [-1, 1], so that distances are half as large.
        "paper": Preset(
            {"channels": [64, 128, 256], "blocks": 6, "critic": {"channels": [64, 128, 256, 512, 1024, 2048]}}, "star",
            {"steps": 200_000, "batch_size": 16, "lr": 1e-4, "reconstruction": 20.0},
        ),
    }  # fmt: skip


class Gallery(dist.TorchDistribution):
    """One of some images, each as likely as any other.

    Args:
        images: (N, *event_shape).
        batch_shape: How many are drawn.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    def __init__(self, images: Tensor, batch_shape: Sequence[int] = (), validate_args: bool | None = False):
        self.images = images
        super().__init__(torch.Size(batch_shape), images.shape[1:], validate_args=validate_args)

    @property
    def support(self) -> constraints.Constraint:
        """The images of the gallery, which are discrete: nothing lies between two of them."""
        return _Among(self.images)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        """Draws with replacement."""
        shape = torch.Size(sample_shape) + self.batch_shape
        return self.images[torch.randint(len(self.images), shape, device=self.images.device)]

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> Gallery:
        """The same for more draws."""
        return Gallery(self.images, batch_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log of the share of the gallery that equals an image, minus infinity for others."""
        return (_times(value, self.images).to(self.images) / len(self.images)).log()


class _Among(constraints.Constraint):
    is_discrete = True

    def __init__(self, images: Tensor):
        self.images, self.event_dim = images, images.ndim - 1
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        return _times(value, self.images) > 0


def _times(value: Tensor, images: Tensor) -> Tensor:
    """How often each (..., *event_shape) is among images (N, *event_shape)."""
    rows = value.reshape(-1, *images.shape[1:])
    counts = torch.stack([(images == row).flatten(1).all(1).sum() for row in rows])
    return counts.reshape(value.shape[: value.ndim - images.ndim + 1])


class AttributeCritic(nn.Module):
    """Strided 4x4 convolutions with leaky ReLUs, then two heads: patches, real or not; and attributes of the image.

    No normalisation: the gradient penalty is on the slope at each image.

    Args:
        event_shape: Of one image, (height, width) or (channels, height, width).
        attributes: How many.
        channels: Of the convolutions, each of which halves the image.

    Shapes: (B, *event_shape) -> (B, patches) logits of "real"; `attributes` -> (B, attributes) logits.
    """

    SLOPE: ClassVar[float] = 0.01
    """Of the leaky ReLUs below zero."""

    def __init__(self, event_shape: Sequence[int], attributes: Count, *, channels: Counts):
        super().__init__()
        self.shape = image_shape(event_shape)
        sizes, layers, before = halvings(self.shape[1:], len(channels)), [], self.shape[0]
        for width, size in zip(channels, sizes, strict=False):
            layers += [nn.Conv2d(before, width, 4, 2, paddings(4, size)[0]), nn.LeakyReLU(self.SLOPE)]
            before = width
        self.trunk = nn.Sequential(*layers)
        self.patches = nn.Conv2d(before, 1, 3, padding=1, bias=False)
        self.head = nn.Linear(before * math.prod(sizes[-1]), attributes, bias=False)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Logits of patches; what was asked for is no part of this judgement."""
        return self.patches(self._features(x)).flatten(1)

    def attributes(self, x: Tensor) -> Tensor:
        """Logits of each attribute."""
        return self.head(self._features(x).flatten(1))

    def _features(self, x: Tensor) -> Tensor:
        return self.trunk(2 * x.reshape(len(x), *self.shape) - 1)
