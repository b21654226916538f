r"""InfoGAN: some of a generator's inputs are codes that its images must give away; classes are found without labels.

Chen et al., "InfoGAN: interpretable representation learning by information maximizing generative adversarial nets",
NeurIPS 2016; networks from its appendix C.1 (MNIST).

    c ~ Categorical(1/K),   s ~ N(0, I),   z ~ N(0, I),   x = g(c, s, z);       guide: q(c | x) q(s | x)

    c, s, z --> x      sites: c (K,) one-hot, s (codes,), z (latent_dim,) local; x (*event_shape), implicit

The code network of the paper is the guide, and what the paper maximises besides the game is the evidence bound of the
codes on dreams, E_p(c, s, x)[log q(c, s | x) - log p(c, s)] <= I(c, s; x): the method `gan` adds it for every program
with a guide. The noise z is nobody's to recover, and the guide leaves it out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn.functional import affine_grid, grid_sample, softplus

from zoo.errors import OptionError
from zoo.implicit.networks import conv_generator, conv_trunk, network_options
from zoo.nets import BatchNorm1d, OverBatch, image_shape
from zoo.options import Count, Counts, Shape, Values
from zoo.program import Implicit, ImplicitProgram, Preset

__all__ = ["InfoGAN", "InfoGANCritic"]

MOST = (0.15, 0.2, 0.3, 0.2, 0.2)
"""How far images are moved: shift in half sides, turn in radians, shear, log stretch; standard deviation of noise."""
SLOPE = 0.1
"""Of the leaky ReLUs, as in the paper."""


class InfoGAN(ImplicitProgram):
    """A generator of images from a class, continuous codes and noise; the network that reads the codes is its guide.

    Where it departs from the paper:

    - The paper's continuous codes are uniform on (-1, 1) and its guide Gaussian, with mass where no code is. Here s is
      standard normal, and the generator gets 2 Phi(s) - 1, which is uniform on (-1, 1): the same program up to a
      bijection, I(s; x) unchanged, with a guide that has the support of its prior.
    - What an image says of a continuous code grows without bound as the generator learns to be precise. The paper's
      code fixes the guide's scale; here it is learned but no less than a `least_scale`, which keeps the bound below
      1/2 - log(least_scale) a code, and honest.
    - The guide shares the critic's layers, as in the paper, and learns in the critic's turn. Besides, in training it
      reads the class from images that are shifted, turned, sheared and stretched at random, with noise (`moves`): by
      the data processing inequality the bound is then one on less than I(c; x), still a lower bound, and it asks for a
      class that survives all this.

    Args:
        event_shape: (height, width) or (channels, height, width), in [0, 1].
        categories: Number K of values of the categorical code.
        codes: Number of continuous codes.
        latent_dim: Number of noise inputs that are no codes.
        hidden: Units of the dense layer that each network has on the far side of its convolutions.
        channels: Of the strided convolutions of critic and guide, from the image on; of the generator's backwards.
        reader: Options of what the guide has of its own: units `hidden` of its last hidden layer (32); `least_scale`,
            which its scale of s is at least (0.5); how much images `moves` before it reads them in training, 0 for not
            at all, at 1 as much as `MOST` says (1).

    Raises: OptionError; UnknownNameError for another option of the reader; ShapeError for what are no images.
    """

    paper = "Chen et al., InfoGAN: interpretable representation learning by information maximizing GANs, 2016"
    dataset = "mnist10k"
    support = constraints.unit_interval

    def __init__(
        self,
        event_shape: Shape = (8, 8),
        categories: Values = 10,
        codes: Count = 2,
        latent_dim: Count = 16,
        hidden: Count = 64,
        channels: Counts = (8, 16),
        reader: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        options = network_options("InfoGAN's reader", reader, hidden=32, least_scale=0.5, moves=1.0)
        self.least_scale, self.moves = options["least_scale"], options["moves"]
        if self.least_scale <= 0 or self.moves < 0:
            raise OptionError(f"least_scale must be positive and moves >= 0, got {self.least_scale} and {self.moves}.")
        self.event_shape, self.shape = torch.Size(event_shape), image_shape(event_shape)
        self.categories, self.codes, self.latent_dim, self.hidden = categories, codes, latent_dim, hidden
        self.generator = OverBatch(
            nn.Sequential(
                nn.Linear(categories + codes + latent_dim, hidden, bias=False), BatchNorm1d(hidden), nn.ReLU(),
                conv_generator(hidden, channels[::-1], self.shape, apart=True),
            ), 1,
        )  # fmt: skip
        self.trunk = conv_trunk(self.shape, channels, hidden, SLOPE)
        width = options["hidden"]
        self.reader = nn.Sequential(
            nn.Linear(hidden, width, bias=False), BatchNorm1d(width), nn.LeakyReLU(SLOPE),
            nn.Linear(width, categories + 2 * codes),
        )  # fmt: skip

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        """Class, codes and noise through the generator; differentiable in its parameters."""
        with self.plate(x, context, size):
            zero = next(self.trunk.parameters()).new_zeros(())
            c = pyro.sample("c", dist.OneHotCategorical(logits=zero.expand(self.categories)))
            s = pyro.sample("s", dist.Normal(zero.expand(self.codes), 1.0).to_event(1))
            z = pyro.sample("z", dist.Normal(zero.expand(self.latent_dim), 1.0).to_event(1))
            uniform = torch.erf(s / 2**0.5)  # 2 Phi(s) - 1
            value = self.generator(torch.cat([c, uniform, z], -1)).reshape(*z.shape[:-1], *self.event_shape)
            return pyro.sample("x", Implicit((torch.tanh(value) + 1) / 2, len(self.event_shape)), obs=x)

    def guide(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> None:
        """q(c | x) and q(s | x); in training c is read from a moved image."""
        assert x is not None
        with self.plate(x, context, size):
            image = x.reshape(len(x), *self.shape)
            read = self.reader(self.trunk(image))
            seen = self.reader(self.trunk(self._moved(image))) if self.training and self.moves else read
            loc, scale = read[:, self.categories :].chunk(2, -1)
            pyro.sample("c", dist.OneHotCategorical(logits=seen[:, : self.categories]))
            pyro.sample("s", dist.Normal(loc, self.least_scale + softplus(scale)).to_event(1))

    def critic(self) -> nn.Module:
        """The paper's critic: a linear unit on the layers that it shares with the guide."""
        return InfoGANCritic(self.trunk, self.shape, self.hidden)

    def _moved(self, x: Tensor) -> Tensor:
        """Images (B, channels, height, width), each after a random affine map, zero outside, and with noise."""
        shift, turn, shear, stretch, noise = (self.moves * most for most in MOST)
        right, down, angle, lean, wide, high = (2 * torch.rand(6, len(x), dtype=x.dtype, device=x.device) - 1).unbind()
        angle, lean = turn * angle, shear * lean
        wide, high = (stretch * wide).exp(), (stretch * high).exp()
        cos, sin = angle.cos(), angle.sin()
        across = torch.stack([wide * cos, wide * (lean * cos - sin), shift * right], 1)
        along = torch.stack([high * sin, high * (lean * sin + cos), shift * down], 1)
        grid = affine_grid(torch.stack([across, along], 1), list(x.shape), align_corners=False)
        return grid_sample(x, grid, align_corners=False) + noise * torch.randn(x.shape, dtype=x.dtype, device=x.device)

    presets: ClassVar[Mapping[str, Preset]] = {
        "small": Preset(
            {"latent_dim": 32, "hidden": 128, "channels": [16, 32], "reader": {"hidden": 64, "moves": 0.7}}, "gan",
            {
                "steps": 3000, "batch_size": 64, "lr": 4e-3, "critic_lr": 2e-3,
                "information": {"c": 1.0, "s": 0.2},
            },
        ),
        "digits": Preset(
            {"hidden": 64, "channels": [16, 32]}, "gan",
            {
                "steps": 5000, "batch_size": 64, "lr": 4e-3, "critic_lr": 2e-3,
                "information": {"c": 1.0, "s": 0.3},
            }, data="digits",
        ),
        "paper": Preset(
            {"latent_dim": 62, "hidden": 1024, "channels": [64, 128], "reader": {"hidden": 128, "moves": 0.0}}, "gan",
            {
                "epochs": 100, "batch_size": 128, "lr": 1e-3, "critic_lr": 2e-4, "decay": "constant",
                "information": {"c": 1.0, "s": 0.1},
            },
        ),
    }  # fmt: skip


class InfoGANCritic(nn.Module):
    """A linear unit on top of a trunk: (B, *event_shape) -> (B,) logits.

    Args:
        trunk: From images (B, *shape) to features (B, hidden); the guide's too.
        shape: (channels, height, width).
        hidden: Width of the features.
    """

    def __init__(self, trunk: nn.Module, shape: tuple[int, int, int], hidden: int):
        super().__init__()
        self.shape, self.trunk, self.head = shape, trunk, nn.Linear(hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of "real"."""
        return self.head(self.trunk(x.reshape(len(x), *self.shape))).squeeze(-1)
