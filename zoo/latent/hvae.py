r"""The hierarchical variational autoencoder: layers of latents, each drawn given the one above it.

Sønderby, Raiko, Maaløe, Sønderby & Winther, "Ladder variational autoencoders", NIPS 2016; the guide that goes from the
data upward: Burda, Grosse & Salakhutdinov, "Importance weighted autoencoders", ICLR 2016.

    z_L ~ N(0, I),   z_l | z_l+1 ~ N(m(z_l+1), S(z_l+1)),   x | z_1 ~ prod_i p(x_i | f(z_1)_i)

    z_L --> ... --> z_2 --> z_1 --> x      sites: z1 (k_1), ..., zL (k_L) local; x (*event_shape)

    ladder       q(z_L | x) q(z_L-1 | z_L, x) ... q(z_1 | z_2, x):   each Gaussian is the product of the layer's prior
                 and of what a deterministic pass upward sees of it in x, their precisions added (equations 17 to 19)
    bottom-up    q(z_1 | x) q(z_2 | z_1) ... q(z_L | z_L-1)

Not here: their batch normalisation, with which the density of an example would depend on who else is in its batch.
Their warm-up is `kl_anneal` of `svi`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from zoo.errors import OptionError
from zoo.likelihoods import make_likelihood
from zoo.nets import mlp
from zoo.options import Counts, Natural, OneOf, Shape
from zoo.program import Preset, Program
from zoo.specs import Spec

__all__ = ["INFERENCE", "HierarchicalVAE", "product"]

INFERENCE = ("ladder", "bottom-up")
LEAST = 1e-4
"""Of standard deviations: softplus reaches zero in float32."""


class HierarchicalVAE(Program):
    """A VAE with several layers of latents.

    Args:
        event_shape: Shape of one example; flattened.
        latents: Sizes k_1, ..., k_L of the layers, from the one next to the data upward.
        hidden: Width of the networks below each layer (between x and z_1, z_1 and z_2, ...), as many as layers.
        depth: Hidden layers of each network; 0 for linear ones.
        likelihood: What a number of x follows, as of `zoo.latent.vae.VAE`.
        activation: A key of `zoo.nets.ACTIVATIONS`.
        inference: 'ladder' or 'bottom-up'; see the module.

    Raises: UnknownNameError, OptionError.
    """

    family = "latent"
    paper = "Sønderby, Raiko, Maaløe, Sønderby & Winther, Ladder variational autoencoders, 2016"
    dataset = "digits-binary"

    def __init__(
        self,
        event_shape: Shape = (8, 8),
        latents: Counts = (8, 4),
        hidden: Counts = (128, 64),
        depth: Natural = 1,
        likelihood: Spec = "bernoulli",
        activation: str = "leaky_relu",
        inference: Annotated[str, OneOf(INFERENCE)] = "ladder",
    ):
        super().__init__()
        if not latents or len(latents) != len(hidden):
            raise OptionError(
                f"latents and hidden have one number for each layer of latents, of which there is at least one; got "
                f"latents={list(latents)} and hidden={list(hidden)}."
            )
        self.event_shape, self.latents, self.inference = torch.Size(event_shape), tuple(latents), inference
        self.likelihood = make_likelihood(likelihood, self.event_shape)
        self.support = self.likelihood.support
        d, size = self.event_shape.numel(), self.likelihood.size
        widths = [[width] * depth for width in hidden]

        def net(features: int, layer: int, out: int, **options: Any) -> nn.Module:
            return mlp(features, widths[layer], out, activation, **options)

        layers = range(1, len(latents))
        self.decoder = net(latents[0], 0, size * d, out_bias=False)
        self.priors = nn.ModuleList(net(latents[i], i, 2 * latents[i - 1]) for i in layers)
        if inference == "bottom-up":
            self.encoders = nn.ModuleList(net(latents[i - 1] if i else d, i, 2 * k) for i, k in enumerate(latents))
        else:  # what goes on upward is the last hidden layer, without the numbers of the Gaussian
            self.climbs, self.heads, seen = nn.ModuleList(), nn.ModuleList(), d
            for width, k in zip(widths, latents, strict=True):
                self.climbs.append(mlp(seen, width, k, activation)[:-1])
                seen = width[-1] if width else seen
                self.heads.append(nn.Linear(seen, 2 * k))
        # The decoder's last bias, one for each number of x: data can set it.
        self.bias = nn.Parameter(torch.zeros(size, *self.event_shape))

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        """From the top layer down to x."""
        with self.plate(x, context, size):
            z = None
            for layer in reversed(range(len(self.latents))):
                z = pyro.sample(f"z{layer + 1}", _normal(*self.prior(layer, z)))
            assert z is not None
            return pyro.sample("x", self.decode(z), obs=x).to(self.bias.dtype)

    def guide(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> None:
        """Downward beside the prior ('ladder'), or upward from x ('bottom-up')."""
        assert x is not None
        seen = self.likelihood.embed(x.to(self.bias.dtype)).reshape(len(x), -1)
        with self.plate(x, context, size):
            if self.inference == "bottom-up":
                for layer, encoder in enumerate(self.encoders, 1):
                    seen = pyro.sample(f"z{layer}", _normal(*_moments(encoder(seen))))
                return
            told, z = self.look(seen), None
            for layer in reversed(range(len(self.latents))):
                # The top has no prior but N(0, I), which its own Gaussian need not be multiplied with (equation 17).
                moments = told[layer] if z is None else product(told[layer], self.prior(layer, z))
                z = pyro.sample(f"z{layer + 1}", _normal(*moments))

    def prior(self, layer: int, above: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and scale of a layer (0 is next to the data), (*batch, k), given z (*batch, k) of the one above.

        None for the top layer's: zeros and ones (k,).
        """
        if above is None:
            zero = self.bias.new_zeros(self.latents[layer])
            return zero, torch.ones_like(zero)
        return _moments(self.priors[layer](above))

    def look(self, seen: Tensor) -> list[tuple[Tensor, Tensor]]:
        """What the pass upward sees of each layer in x (B, d): means and scales (B, k), from the data upward."""
        told = []
        for climb, head in zip(self.climbs, self.heads, strict=True):
            seen = climb(seen)
            told.append(_moments(head(seen)))
        return told

    def decode(self, z: Tensor) -> Any:
        """p(x | z_1), a distribution: z_1 (*batch, k_1) -> batch shape (*batch), event shape `event_shape`."""
        out = self.decoder(z).reshape(*z.shape[:-1], *self.bias.shape) + self.bias
        n = len(self.event_shape)
        return self.likelihood.distribution(out.movedim(-1 - n, -1)).to_event(n)

    @torch.no_grad()
    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        """Sets the decoder's last bias to what fits each number on its own, and a scale to the spread around it."""
        self.bias.copy_(self.likelihood.initial(x).movedim(-1, 0))

    presets: ClassVar[Mapping[str, Preset]] = {
        "small": Preset(
            {"latents": [32, 16], "hidden": [256, 128], "depth": 1}, "svi",
            {"epochs": 25, "batch_size": 100, "lr": 2e-3, "kl_anneal": 0.3}, data="mnist10k-binary",
        ),
        "paper": Preset(
            {"latents": [64, 32, 16, 8, 4], "hidden": [512, 256, 128, 64, 32], "depth": 2}, "svi",
            {"epochs": 2000, "batch_size": 256, "lr": 1e-3, "decay": "constant", "kl_anneal": 0.1}, data="mnist-binary",
        ),
    }  # fmt: skip


def product(a: Sequence[Tensor], b: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and scale of the normalised product of two Gaussians, number by number; precisions add.

    Args:
        a, b: Mean and scale of each, broadcast with one another.
    """
    (loc_a, scale_a), (loc_b, scale_b) = a, b
    both = torch.hypot(scale_a, scale_b)
    share = (scale_b / both).square()  # of the precision that is a's
    return loc_b + share * (loc_a - loc_b), scale_a * scale_b / both


def _moments(out: Tensor) -> tuple[Tensor, Tensor]:
    loc, scale = out.chunk(2, -1)
    return loc, nn.functional.softplus(scale) + LEAST


def _normal(loc: Tensor, scale: Tensor) -> Any:
    return dist.Normal(loc, scale).to_event(1)
