r"""Tags of images from a conditional GAN: not one guess, but a distribution over the words that an image may be given.

Mirza & Osindero, "Conditional generative adversarial nets", 2014, section 4.2: image features and noise go in, the
vector of a word comes out, and the words near many such vectors are the tags. There the features are those of a network
trained on ImageNet and the vectors those of a skip-gram model; here both are learned from the data at hand.

    z ~ N(0, I),   x = G(f(y), z)

    z --> x <-- y      sites: z (latent_dim,) local; x (E,), implicit; the context y is an image
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints
from torch.func import functional_call
from torch.nn.functional import mse_loss

from zoo.errors import ShapeError
from zoo.implicit.networks import Maxout, network_options
from zoo.nets import conv_encoder, image_shape
from zoo.options import Count, Counts, Length, Shape
from zoo.program import Implicit, ImplicitProgram, Preset

__all__ = ["TagCritic", "TagGAN"]

BATCH = 64
"""Images at a time when features are learned."""


class TagGAN(ImplicitProgram):
    """Draws the vector of a word that an image may be tagged with.

    What an image shows is read by convolutions that `initialise` trains to predict the mean vector of an image's words,
    and that stay as they are from then on: the game moves neither them nor what the critic sees.

    Args:
        event_shape: Of the vector of a word, (E,).
        context_shape: Of an image, (height, width) or (channels, height, width), in [0, 1].
        latent_dim: Number of noise inputs.
        hidden: Rectified linear units for the noise, and for the features.
        features: Options of what reads the image: `channels` of its strided convolutions ([16, 32, 64]), how many
            features it gives, `width` (128), and in how many `steps` it is trained (1500).
        critic: Options of `TagCritic`: rectified linear units `hidden` for the vector and for the features
            ([128, 128]), maxout units on both, `joint` (128), and `pieces` of each (3).

    Raises: ShapeError for what are no vectors or no images; UnknownNameError for another option of a part.
    """

    paper = "Mirza & Osindero, Conditional generative adversarial nets, 2014 (section 4.2)"
    dataset = "glyphs-tags"
    context_support = constraints.unit_interval

    def __init__(
        self,
        event_shape: Shape = (4,),
        context_shape: Shape = (8, 8),
        latent_dim: Count = 16,
        hidden: Annotated[Counts, Length(2)] = (64, 64),
        features: Mapping[str, Any] | None = None,
        critic: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        if len(event_shape) != 1:
            raise ShapeError(f"TagGAN draws vectors of words (E,), got examples of shape {tuple(event_shape)}.")
        self.event_shape, self.context_shape = torch.Size(event_shape), torch.Size(context_shape)
        self.image, self.latent_dim = image_shape(context_shape), latent_dim
        known = {"channels": (16, 32, 64), "width": 128, "steps": 1500}
        self.reader_options = network_options("the tags' features", features, **known)
        known = {"hidden": (128, 128), "joint": 128, "pieces": 3}
        self.critic_options = network_options("the tags' critic", critic, **known)
        self.width = self.reader_options["width"]
        self.reader = conv_encoder(self.image, self.reader_options["channels"], self.width)
        _freeze(self.reader)
        for_noise, for_image = hidden
        self.of_noise = nn.Sequential(nn.Linear(latent_dim, for_noise), nn.ReLU())
        self.of_image = nn.Sequential(nn.Linear(self.width, for_image), nn.ReLU())
        both = for_noise + for_image
        self.word = nn.Sequential(nn.Linear(both, both), nn.ReLU(), nn.Linear(both, event_shape[0]))

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        """Noise and features through the generator; differentiable in its parameters."""
        assert context is not None
        with self.plate(x, context, size):
            z = pyro.sample("z", dist.Normal(context.new_zeros(self.latent_dim), 1.0).to_event(1))
            seen = self.of_image(self.describe(context)).expand(*z.shape[:-1], -1)
            return pyro.sample("x", Implicit(self._word(z, seen), 1), obs=x)

    def _word(self, z: Tensor, seen: Tensor) -> Tensor:
        return self.word(torch.cat([self.of_noise(z), seen], -1)) / self.event_shape[0] ** 0.5

    def distance(self, made: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The energy score of two draws, (B,): |X - x| averaged over both, less half the distance of the two.

        Its mean is least where draws have the distribution of an image's words (Gneiting & Raftery, "Strictly proper
        scoring rules", 2007), so that it asks for all of them, in their shares. The paper has the game alone.

        Args:
            made: Draws (B, E); it makes another of each.
            x: Vectors of words the images have.
            context: The images.
        """
        assert context is not None
        z = torch.randn(len(x), self.latent_dim, dtype=x.dtype, device=x.device)
        other = self._word(z, self.of_image(self.describe(context)))
        return ((made - x).norm(dim=1) + (other - x).norm(dim=1) - (made - other).norm(dim=1)) / 2

    def describe(self, context: Tensor) -> Tensor:
        """Features (B, width) of images (B, *context_shape)."""
        return self.reader(2 * context.reshape(len(context), *self.image) - 1).relu()

    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        """Trains what reads images, by a linear map of its features to the vectors of their words."""
        assert context is not None
        steps = self.reader_options["steps"]
        weights = {name: value.clone().requires_grad_() for name, value in self.reader.named_buffers()}
        head = nn.Linear(self.width, x.shape[1]).to(x)
        optimizer = torch.optim.Adam([*weights.values(), *head.parameters()], 2e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        with torch.enable_grad():
            for _ in range(steps):
                rows = torch.randint(len(x), (BATCH,)).to(x.device)
                image = 2 * context[rows].reshape(BATCH, *self.image) - 1
                made = head(functional_call(self.reader, weights, (image,)).relu())
                optimizer.zero_grad()
                mse_loss(made, x[rows]).backward()
                optimizer.step()
                schedule.step()
        for name, value in self.reader.named_buffers():
            value.copy_(weights[name])

    def critic(self) -> nn.Module:
        """The paper's: units for the vector, for the features, and maxout units on both."""
        return TagCritic(self.event_shape[0], self.width, self.describe, **self.critic_options)

    def example_context(self, n: int) -> Tensor:
        """Images of noise."""
        like = next(self.of_noise.parameters())
        return torch.rand(n, *self.context_shape, dtype=like.dtype, device=like.device)

    presets: ClassVar[Mapping[str, Preset]] = {
        "small": Preset(
            {"latent_dim": 32, "hidden": [128, 128]}, "gan",
            {
                "game": "hinge", "regulariser": "spectral-norm", "reconstruction": 10.0, "steps": 1500,
                "batch_size": 64, "lr": 1e-3, "ema": 0.995,
            },
        ),
        "paper": Preset(
            {
                "latent_dim": 100, "hidden": [500, 2000], "features": {"width": 4096},
                "critic": {"hidden": [500, 1200], "joint": 1000, "pieces": 3},
            }, "gan",
            {"epochs": 100, "batch_size": 100, "lr": 2e-4},
        ),
    }  # fmt: skip


class TagCritic(nn.Module):
    """Tells the vectors of words that an image has from made ones.

    Args:
        size: Numbers of a vector.
        width: Numbers of the features.
        describe: Images to features (B, width); no part of what is learned.
        hidden: Rectified linear units for the vector, and for the features.
        joint: Maxout units on both.
        pieces: Linear pieces of each.

    Shapes: x (B, size), context (B, *context_shape) -> (B,) logits of "real".
    """

    def __init__(
        self,
        size: int,
        width: int,
        describe: Callable[[Tensor], Tensor],
        *,
        hidden: Annotated[Counts, Length(2)],
        joint: Count,
        pieces: Count,
    ):
        super().__init__()
        self.describe = describe
        self.of_word = nn.Sequential(nn.Linear(size, hidden[0]), nn.ReLU())
        self.of_image = nn.Sequential(nn.Linear(width, hidden[1]), nn.ReLU())
        self.both = nn.Sequential(Maxout(hidden[0] + hidden[1], joint, pieces), nn.Linear(joint, 1))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Logits."""
        x = x * x.shape[-1] ** 0.5  # each number of a vector of length 1 then counts as much as a feature
        return self.both(torch.cat([self.of_word(x), self.of_image(self.describe(context))], -1)).squeeze(-1)


def _freeze(net: nn.Module) -> None:
    """Makes buffers of a network's parameters."""
    for module in net.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            delattr(module, name)
            module.register_buffer(name, parameter.detach())
