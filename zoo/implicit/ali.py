r"""A generator with an encoder as its guide: adversarially learned inference, and the bidirectional GAN.

Dumoulin et al., "Adversarially learned inference", ICLR 2017 (the stacks of convolutions, the Gaussian encoder);
Donahue, Krahenbuhl & Darrell, "Adversarial feature learning", ICLR 2017 (the multilayer perceptrons, the deterministic
encoder). One critic compares pairs: (x, z ~ q(z | x)) of data and guide with (x = g(z), z ~ p(z)) of the program. Where
it cannot tell them apart the two joint distributions are the same, so that q(z | x) is the posterior of a program
that has no likelihood.

    z ~ N(0, I_k),   x = g(z);      guide: z = m(x) + s(x) e,  e ~ N(0, I_k)

    z --> x      sites: z (k,) local; x (*event_shape), implicit
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints

from zoo.errors import OptionError
from zoo.guards import same_support
from zoo.implicit.networks import SUPPORTS, JointCritic, Layers, decoder_stack, encoder_stack, network_options
from zoo.nets import OverBatch
from zoo.options import Count, Shape
from zoo.program import Implicit, ImplicitProgram, Preset

__all__ = ["ALI"]

LOG_SCALES = (-5.0, 1.0)
"""Bounds of the encoder's log scale: no narrower, nor wider than e, than any posterior under N(0, I) need be."""


class ALI(ImplicitProgram):
    """A generator, the mirrored encoder as its guide, and a critic of pairs.

    Layers are given from the image to the latents: numbers are widths of dense layers (BiGAN's networks on MNIST),
    triples [channels, kernel, stride] convolutions without padding (ALI's), transposed in the generator. Dense and
    convolutional layers do not mix.

    Args:
        event_shape: Shape of one example; (height, width) or (channels, height, width) for convolutions.
        latent_dim: Number k of latent dimensions.
        layers: Of the encoder, reversed in the generator.
        encoder: 'normal', with mean and scale from x, reparameterised (ALI); 'deterministic', one point for each x
            (BiGAN), which has no density.
        support: 'unit' ends the generator in a sigmoid, for data in [0, 1]; 'real' in nothing.
        batch_norm: Whether generator and encoder normalise their layers but the last, as in both papers. Not together
            with the method's `cycle`: the generator would then see batches of two kinds, latents of the prior and of
            the guide, and be judged by an average of their moments that is neither's.
        critic: Options of `JointCritic`: `layers` of its branch for x (those of the encoder), widths `latent` of its
            branch for z ([64]) and `joint` of what sees both ([128]), and `dropout` before every hidden layer (0.2;
            0.4 of it on the image).

    Raises: OptionError for an unknown support or encoder or mixed layers, UnknownNameError for another option of the
        critic, ShapeError for layers that do not fit.
    """

    paper = "Dumoulin et al., Adversarially learned inference, 2017"
    dataset = "mnist10k"

    def __init__(
        self,
        event_shape: Shape = (8, 8),
        latent_dim: Count = 16,
        layers: Layers = (64, 64),
        encoder: str = "normal",
        support: str = "unit",
        batch_norm: bool = True,
        critic: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        if support not in SUPPORTS:
            raise OptionError(f"support must be 'unit' (data in [0, 1]) or 'real', got {support!r}.")
        if encoder not in ("normal", "deterministic"):
            raise OptionError(f"encoder must be 'normal' (ALI) or 'deterministic' (BiGAN), got {encoder!r}.")
        self.event_shape, self.support = torch.Size(event_shape), SUPPORTS[support]
        self.latent_dim, self.deterministic = latent_dim, encoder == "deterministic"
        self.critic_options = network_options(
            "ALI's critic", critic, layers=layers, latent=(64,), joint=(128,), dropout=0.2
        )
        codes = latent_dim if self.deterministic else 2 * latent_dim
        body, width = encoder_stack(self.event_shape, layers, norm=batch_norm)
        encoder_stack(self.event_shape, self.critic_options["layers"])  # so that layers that do not fit fail here
        self.encoder = OverBatch(nn.Sequential(body, nn.Linear(width, codes)), len(self.event_shape))
        self.decoder = OverBatch(decoder_stack(latent_dim, self.event_shape, layers, norm=batch_norm), 1)
        # The generator's last bias, one for each pixel also when convolutional: data can set it.
        self.bias = nn.Parameter(torch.zeros(self.event_shape))

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        """A standard normal latent through the generator; differentiable in its parameters."""
        with self.plate(x, context, size):
            z = pyro.sample("z", dist.Normal(self.bias.new_zeros(self.latent_dim), 1.0).to_event(1))
            return pyro.sample("x", Implicit(self.decode(z), len(self.event_shape)), obs=x)

    def guide(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> None:
        """q(z | x) from the encoder."""
        assert x is not None
        with self.plate(x, context, size):
            pyro.sample("z", self.encode(x))

    def decode(self, z: Tensor) -> Tensor:
        """g(z): (*batch, k) -> (*batch, *event_shape)."""
        out = self.decoder(z) + self.bias
        return out.sigmoid() if same_support(self.support, constraints.unit_interval) else out

    def encode(self, x: Tensor) -> Any:
        """q(z | x), a distribution: x (*batch, *event_shape) -> batch shape (*batch), event shape (k,)."""
        codes = self.encoder(x)
        if self.deterministic:
            return Implicit(codes, 1)
        loc, log_scale = codes.chunk(2, -1)
        return dist.Normal(loc, log_scale.clamp(*LOG_SCALES).exp()).to_event(1)

    def joint_critic(self) -> nn.Module:
        """A fresh critic of pairs, (B, *event_shape), (B, k) -> (B,) logits."""
        return JointCritic(self.event_shape, self.latent_dim, **self.critic_options)

    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        """Sets the last bias so that without input from below the generator draws the data's mean."""
        mean = x.mean(0)
        self.bias.copy_(torch.logit(mean, eps=1e-2) if same_support(self.support, constraints.unit_interval) else mean)

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """g at the guide's mean, (B, *event_shape) -> the same; in evaluation mode, for examples not trained on."""
        q = self.encode(x)
        return self.decode(q.value if self.deterministic else q.mean)

    presets: ClassVar[Mapping[str, Preset]] = {
        "small": Preset(  # dense as BiGAN's, with ALICE's term: two minutes are too few for the game alone
            {"latent_dim": 32, "layers": [256, 256], "batch_norm": False, "critic": {"latent": [64], "joint": [256]}},
            "ali",
            {"regulariser": "spectral-norm", "cycle": 2.0, "steps": 2500, "batch_size": 100, "lr": 1e-3},
        ),
        "paper": Preset(  # ALI's table for images of 32 x 32, with a last kernel that fits those of 28 x 28
            {
                "latent_dim": 64,
                "layers": [[32, 5, 1], [64, 4, 2], [128, 4, 1], [256, 4, 2], [512, 3, 1], [512, 1, 1]],
                "critic": {
                    "layers": [[32, 5, 1], [64, 4, 2], [128, 4, 1], [256, 4, 2], [512, 3, 1]],
                    "latent": [512, 512],
                    "joint": [1024, 1024],
                },
            },
            "ali",
            {"epochs": 100, "batch_size": 100, "lr": 1e-4},
        ),
    }
