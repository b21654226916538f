r"""Images from captions: an encoder that knows what words look like, and a generator that is told what it says.

Reed, Akata, Yan, Logeswaran, Schiele & Lee, "Generative adversarial text to image synthesis", ICML 2016; the encoder
after their paper of the same year (`zoo.implicit.joint_embedding`).

    h = phi(t),   z ~ N(0, I_k),   x = (tanh g(z, P h) + 1) / 2

    t --> h --> x <-- z      sites: h is `code` (E,), implicit, z (k,) local; x (*event_shape), implicit; the context is
                             the caption t (L,), numbers of words, 0 after the last
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints

from zoo.implicit.joint_embedding import CaptionEncoder, JointEmbedding
from zoo.implicit.networks import ConvCritic, conv_generator, network_options
from zoo.nets import halvings, image_shape
from zoo.options import Count, Counts, Shape, Values
from zoo.program import Implicit, ImplicitProgram, Preset

__all__ = ["CaptionCritic", "TextToImage"]

SLOPE = 0.2
"""Of the leaky ReLUs below zero."""


class TextToImage(ImplicitProgram):
    """A generator of images from a caption's code and noise, and a critic that is shown the code beside the image.

    The caption encoder learns from the training pairs before the game (`initialise`), beside an image encoder that is
    then thrown away. The method `gan-cls`, the paper's, leaves it as it is from there on, as the paper does for speed;
    true images of other captions count as wrong for the critic there, and the generator is asked for what lies between
    two captions, too.

    Args:
        event_shape: (height, width) or (channels, height, width), in [0, 1].
        context_shape: (L,), words of the longest caption.
        words: Word numbers go from 0, which is no word, to `words` - 1.
        latent_dim: Number k of noise inputs.
        projection: Numbers that generator and critic each make of the code.
        channels: Of the generator's images, from the smallest on.
        critic_channels: Of the critic's strided convolutions, from the image on; None is `channels` backwards.
        encoder: Options of the caption encoder: its `code` (64 numbers), its `width` (64), and the `steps` that it
            learns for (400).

    Raises: OptionError, UnknownNameError, ShapeError for what are no images.
    """

    paper = "Reed et al., Generative adversarial text to image synthesis, 2016"
    dataset = "glyphs-captions"
    support = constraints.unit_interval

    def __init__(
        self,
        event_shape: Shape = (8, 8),
        context_shape: Shape = (3,),
        words: Values = 5,
        latent_dim: Count = 16,
        projection: Count = 16,
        channels: Counts = (16, 8),
        critic_channels: Counts | None = None,
        encoder: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        self.event_shape, self.context_shape = torch.Size(event_shape), torch.Size(context_shape)
        self.words, self.latent_dim, self.projection = words, latent_dim, projection
        self.critic_channels = channels[::-1] if critic_channels is None else critic_channels
        options = network_options("the caption encoder", encoder, code=64, width=64, steps=400)
        self.code, self.steps = options["code"], options["steps"]
        self.context_support = constraints.independent(constraints.integer_interval(0, words - 1), 1)
        self.encoder = CaptionEncoder(words, options["width"], self.code)
        self.project = nn.Sequential(nn.Linear(self.code, projection), nn.LeakyReLU(SLOPE))
        self.image = conv_generator(latent_dim + projection, channels, image_shape(event_shape))

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        """The caption's code and noise through the generator; differentiable in its parameters."""
        assert context is not None
        with self.plate(x, context, size):
            code = pyro.sample("code", Implicit(self.encode(context), 1))
            zero = code.new_zeros(self.latent_dim)
            z = pyro.sample("z", dist.Normal(zero, 1.0).to_event(1))
            told = self.project(code).expand(*z.shape[:-1], -1)
            value = self.image(torch.cat([z, told], -1)).reshape(*z.shape[:-1], *self.event_shape)
            return pyro.sample("x", Implicit((torch.tanh(value) + 1) / 2, len(self.event_shape)), obs=x)

    def encode(self, context: Tensor) -> Tensor:
        """Captions (B, L) as codes (B, E)."""
        return self.encoder(context)

    def critic(self) -> nn.Module:
        """A `CaptionCritic` of images and captions."""
        return self._critic(self.encode)

    def code_critic(self) -> nn.Module:
        """A `CaptionCritic` of images and codes."""
        return self._critic(None)

    def _critic(self, encode: Callable[[Tensor], Tensor] | None) -> nn.Module:
        return CaptionCritic(
            self.event_shape, self.code, channels=self.critic_channels, projection=self.projection, encode=encode
        )

    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        """Teaches the caption encoder, beside a fresh image encoder."""
        assert context is not None
        JointEmbedding(self.encoder, self.event_shape).to(x).learn(x, context, self.steps)

    def example_context(self, n: int) -> Tensor:
        """Captions (n, L) of one word after the other."""
        places, weight = self.context_shape.numel(), self.encoder.code.weight
        return 1.0 * (torch.arange(n * places, device=weight.device, dtype=weight.dtype) % self.words).reshape(
            n, places
        )

    @classmethod
    def for_data(cls, x: Tensor, context: Tensor | None = None, **options: Any) -> TextToImage:
        """Sized for images, captions, and the largest word number in these."""
        if context is not None and context.numel():
            options.setdefault("words", max(2, int(context.max()) + 1))
        return super().for_data(x, context, **options)

    presets: ClassVar[Mapping[str, Preset]] = {
        "small": Preset(
            {"latent_dim": 32, "projection": 64, "channels": [64, 32, 16], "encoder": {"steps": 600}}, "gan-cls",
            {
                "steps": 1500, "batch_size": 64, "lr": 2e-3, "critic_lr": 1e-3, "ema": 0.995,
            },
        ),
        "paper": Preset(
            {
                "latent_dim": 100, "projection": 128, "channels": [1024, 512, 256, 128],
                "critic_channels": [64, 128, 256, 512], "encoder": {"code": 1024, "width": 512, "steps": 20_000},
            }, "gan-cls",
            {"epochs": 600, "batch_size": 64, "lr": 2e-4, "betas": [0.5, 0.999], "decay": "constant"},
        ),
    }  # fmt: skip


class CaptionCritic(nn.Module):
    """Strided convolutions of the image, the code beside each of their last positions, and two more convolutions.

    Args:
        event_shape: Of one image.
        code: Width of a code.
        channels: Of the strided convolutions, from the image on.
        projection: Numbers that the code is projected to.
        encode: What makes codes of contexts; None where contexts are codes.

    Shapes: (B, *event_shape), (B, ...) contexts -> (B,) logits of "real, and of this caption".
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        code: int,
        *,
        channels: Sequence[int],
        projection: int,
        encode: Callable[[Tensor], Tensor] | None = None,
    ):
        super().__init__()
        self.shape, self.encode = image_shape(event_shape), encode
        self.down = ConvCritic(event_shape, channels, norm="layer", slope=SLOPE).net[:-2]
        self.project = nn.Sequential(nn.Linear(code, projection), nn.LeakyReLU(SLOPE))
        last = halvings(self.shape[1:], len(channels))[-1]
        self.both = nn.Sequential(
            nn.Conv2d(channels[-1] + projection, channels[-1], 1), nn.LeakyReLU(SLOPE), nn.Conv2d(channels[-1], 1, last)
        )

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Logits."""
        features = self.down(2 * x.reshape(len(x), *self.shape) - 1)
        told = self.project(context if self.encode is None else self.encode(context))[:, :, None, None]
        return self.both(torch.cat([features, told.expand(-1, -1, *features.shape[2:])], 1)).flatten()
