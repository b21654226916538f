r"""The puzzle GAN: some patches of an image are given, and the rest is made to fit, in more than one way.

No single paper has this program under its name. It is a context encoder (Pathak et al., "Context encoders: feature
learning by inpainting", CVPR 2016): strided convolutions read what is given, a dense layer carries it everywhere,
transposed convolutions draw. Its critic looks at the whole and at neighbourhoods of what was missing (Iizuka,
Simo-Serra & Ishikawa, "Globally and locally consistent image completion", SIGGRAPH 2017). Noise goes in beside what was
read, and the reconstruction is a proper score of a distribution, not a distance that blurs (`PuzzleGAN.distance`).

    z ~ N(0, I),   x = m * g + (1 - m) * G(g, m, z)

    z --> x <-- (g, m)      sites: z (latent_dim,) local; x (*event_shape), implicit; the context is the given pixels g
                            (0 elsewhere) and where they are, m
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn.functional import adaptive_avg_pool2d

from zoo.errors import OptionError
from zoo.implicit.networks import ConvCritic, network_options
from zoo.nets import BatchNorm1d, BatchNorm2d, halvings, image_shape, paddings
from zoo.options import Count, Counts, Fraction, Length, Shape
from zoo.program import Implicit, ImplicitProgram, Preset
from zoo.puzzles import Patches, Solves

__all__ = ["PuzzleCritic", "PuzzleGAN", "PuzzleNetwork"]

SLOPE = 0.2
"""Of the leaky ReLUs that read what is given."""


class PuzzleGAN(Solves, ImplicitProgram):
    """Draws the whole image from any of its patches, which stay as they are.

    A context has shape (N, channels + 1, height, width): the given pixels, 0 elsewhere, and a plane that is 1 where
    they are given. Data need none: `accept` makes puzzles of images, always the same of the same images, and a fit
    makes new ones at every step (`puzzles`), whatever contexts its data have. `zoo.puzzles.puzzle_from_boxes` makes
    one's own.

    Args:
        event_shape: (height, width) or (channels, height, width), in [0, 1].
        latent_dim: Number of noise inputs.
        hidden: Numbers in which what is given is summed up.
        channels: Of the strided convolutions that read, from the image on; of those that draw backwards.
        grid: Rows and columns of the patches that puzzles are made of.
        keep: Least and largest share of patches that a puzzle gives, before it is rounded to whole patches.
        critic: Options of `PuzzleCritic`: `whole` ([16, 32, 64]) and `local` ([16, 32]).

    Raises: OptionError for a grid finer than the image or shares that are not in order; UnknownNameError for another
        option of the critic; ShapeError for what are no images.
    """

    paper = (
        "after Pathak et al., Context encoders, 2016, and Iizuka et al., Globally and locally consistent image "
        "completion, 2017"
    )
    dataset = "freyfaces"
    support = constraints.unit_interval
    context_support = constraints.unit_interval

    def __init__(
        self,
        event_shape: Shape = (8, 8),
        latent_dim: Count = 16,
        hidden: Count = 64,
        channels: Counts = (8, 16),
        grid: Annotated[Counts, Length(2)] = (4, 4),
        keep: Annotated[Sequence[Fraction], Length(2)] = (0.2, 0.7),
        critic: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        self.event_shape, self.shape = torch.Size(event_shape), image_shape(event_shape)
        self.critic_options = network_options("the puzzle's critic", critic, whole=(16, 32, 64), local=(16, 32))
        if not channels:
            raise OptionError("channels must name at least one layer, got none.")
        self.latent_dim = latent_dim
        self.task = Patches(event_shape, grid, keep)
        self.net = PuzzleNetwork(self.shape, latent_dim, hidden=hidden, channels=channels)

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        """Given pixels as they are, and the others from them and noise; differentiable in its parameters."""
        assert context is not None
        with self.plate(x, context, size):
            zero = context.new_zeros(self.latent_dim)
            z = pyro.sample("z", dist.Normal(zero, 1.0).to_event(1))
            return pyro.sample("x", Implicit(self.completed(z, context), len(self.event_shape)), obs=x)

    def completed(self, z: Tensor, context: Tensor) -> Tensor:
        """Noise (..., B, latent_dim) and contexts (B, channels + 1, height, width) to images (..., B, *event_shape)."""
        given, mask = context[:, :-1], context[:, -1:]
        # Centred, so that what is missing is grey.
        made = self.net(torch.cat([(2 * given - 1) * mask, mask], 1), z)
        made = torch.where(mask > 0.5, given, (torch.tanh(made) + 1) / 2)
        return made.reshape(*z.shape[:-1], *self.event_shape)

    def distance(self, made: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The continuous ranked probability score of the missing pixels, from two completions, averaged, ().

        E|X - x| - E|X - X'| / 2, with X and X' completions of one puzzle: least where each missing pixel has the
        distribution that it has in data given the puzzle (Gneiting & Raftery, "Strictly proper scoring rules", 2007),
        so that it asks for the right spread, where an absolute or squared error asks for none.

        Args:
            made: Completions (B, *event_shape); it draws another.
            x: The images.
            context: Their puzzles.
        """
        assert context is not None
        z = torch.randn(len(x), self.latent_dim, dtype=x.dtype, device=x.device)
        other = self.completed(z, context)
        missing = (1 - context[:, -1:]).expand(-1, self.shape[0], -1, -1).reshape(x.shape)
        score = ((made - x).abs() + (other - x).abs() - (made - other).abs()) / 2
        return (score * missing).sum() / missing.sum().clamp(min=1.0)

    def critic(self) -> nn.Module:
        """Of the whole image and of the neighbourhoods of what was missing."""
        return PuzzleCritic(self.event_shape, **self.critic_options)

    presets: ClassVar[Mapping[str, Preset]] = {
        "small": Preset(
            {"latent_dim": 32, "hidden": 256, "channels": [16, 32, 64]}, "gan",
            {
                "game": "hinge", "regulariser": "spectral-norm", "reconstruction": 50.0, "steps": 1500,
                "batch_size": 32, "lr": 3e-3, "critic_lr": 1e-3, "ema": 0.995,
            },
        ),
        "paper": Preset(
            {
                "latent_dim": 100, "hidden": 4000, "channels": [64, 64, 128, 256, 512],
                "critic": {"whole": [64, 128, 256, 512, 512, 512], "local": [64, 128, 256, 512]},
            }, "gan",
            # Pathak et al. weigh reconstruction by 0.999 and the game by 0.001.
            {"reconstruction": 999.0, "epochs": 100, "batch_size": 64, "lr": 2e-4, "decay": "constant"},
        ),
    }  # fmt: skip


class PuzzleNetwork(nn.Module):
    """A context encoder with noise and skips: strided convolutions, a dense layer, transposed convolutions.

    Leaky ReLUs on the way down and ReLUs on the way up, all batch-normalised. Each image on the way up sees that of its
    size on the way down (Ronneberger et al. 2015), so that patches go on where given ones end.

    Args:
        shape: (channels, height, width) of an image.
        latent_dim: Numbers of the noise, which goes in beside the dense layer.
        hidden: Units of the dense layer.
        channels: Of the strided convolutions, from the image on; of the others backwards.

    Shapes: images with their mask (B, channels + 1, height, width), noise (..., B, latent_dim) -> (..., B, *shape),
        without nonlinearity.
    """

    def __init__(self, shape: tuple[int, int, int], latent_dim: int, *, hidden: int, channels: Sequence[int]):
        super().__init__()
        widths, sizes = [shape[0] + 1, *channels], halvings(shape[1:], len(channels))
        smallest = (widths[-1], *sizes[-1])
        down, up = [], []
        for below, width, size in zip(widths, channels, sizes, strict=False):
            pad, more = paddings(4, size)
            halved = nn.Conv2d(below, width, 4, 2, pad, bias=False)
            down.append(nn.Sequential(halved, BatchNorm2d(width), nn.LeakyReLU(SLOPE)))
            above = channels[0] if size == sizes[0] else below
            doubled = nn.ConvTranspose2d(2 * width, above, 4, 2, pad, more, bias=False)
            up.append(nn.Sequential(doubled, BatchNorm2d(above), nn.ReLU()))
        self.down, self.up = nn.ModuleList(down), nn.ModuleList(up[::-1])
        self.told = nn.Sequential(
            nn.Flatten(), nn.Linear(math.prod(smallest), hidden, bias=False), BatchNorm1d(hidden), nn.LeakyReLU(SLOPE)
        )
        self.inner = nn.Sequential(
            nn.Linear(hidden + latent_dim, math.prod(smallest), bias=False), nn.Unflatten(1, smallest),
            BatchNorm2d(widths[-1]), nn.ReLU(),
        )  # fmt: skip
        self.out = nn.Conv2d(channels[0] + widths[0], shape[0], 3, padding=1)

    def forward(self, given: Tensor, z: Tensor) -> Tensor:
        """Images."""
        seen = [given]
        for layer in self.down:
            seen.append(layer(seen[-1]))
        batch = z.shape[:-1]

        def each(x: Tensor) -> Tensor:
            return x.expand(*batch, *x.shape[1:]).reshape(-1, *x.shape[1:])

        h = self.inner(torch.cat([each(self.told(seen[-1])), z.reshape(-1, z.shape[-1])], -1))
        for layer in self.up:
            h = layer(torch.cat([h, each(seen.pop())], 1))
        h = self.out(torch.cat([h, each(seen.pop())], 1))
        return h.reshape(*batch, *h.shape[1:])


class PuzzleCritic(nn.Module):
    """Two critics in one: convolutions of the whole image, and of the neighbourhoods of missing pixels alone.

    Both see which pixels were given. The logit is linear in the features of both, as Iizuka et al. have it; theirs of a
    rectangular hole are here the average over all places, each by its share of missing pixels, so that a hole can have
    any shape.

    Args:
        event_shape: (height, width) or (channels, height, width), in [0, 1].
        whole: Channels of the strided convolutions of the whole image, from the image on.
        local: Likewise of the neighbourhoods, which are the smaller the fewer there are.

    Shapes: x (B, *event_shape), context (B, channels + 1, height, width) -> (B,) logits of "real".
    """

    def __init__(self, event_shape: torch.Size, *, whole: Sequence[int], local: Sequence[int]):
        super().__init__()
        channels, *size = self.shape = image_shape(event_shape)
        shape = (channels + 1, *size)
        self.whole = ConvCritic(shape, whole, norm="none")
        *near, _, _ = ConvCritic(shape, local, norm="none").net
        self.local = nn.Sequential(*near, nn.Conv2d(local[-1], 1, 1, bias=False))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Logits."""
        mask = context[:, -1:]
        seen = torch.cat([x.reshape(len(x), *self.shape), mask], 1)
        places = self.local(2 * seen - 1)
        missing = adaptive_avg_pool2d(1 - mask, (places.shape[-2], places.shape[-1]))
        near = (places * missing).sum((1, 2, 3)) / missing.sum((1, 2, 3)).clamp(min=1e-6)
        return self.whole(seen) + near
