r"""The vector-quantised autoencoder: an image as a small grid of codes from a learned book, with a PixelCNN over codes.

van den Oord, Vinyals & Kavukcuoglu, "Neural discrete representation learning", NIPS 2017; running averages in the place
of their loss of the codebook: its appendix A.1; codes that are not used begin anew: Dhariwal et al., "Jukebox", 2020.

    z ~ PixelCNN over (h, w),   x | z ~ prod_i p(x_i | f(e_z)_i),   q(z | x) = 1 at the codes nearest to g(x)

    z --> x      sites: z (h, w) local, of values 0, ..., K - 1; x (*event_shape)

The guide is certain, so that its bound on the evidence is one term of the sum that the evidence is,

    log p(x) = log sum_z P(z) p(x | z) >= log P(z(x)) + log p(x | z(x)),

what it takes to write down codes and image. No number of particles makes it tighter.

Encoder and decoder learn from log p(x | z) alone, since the gradient of codes is copied from the decoder's input to the
encoder's output and P(z) sees whole numbers. The paper fits the prior when they are done; here it learns beside them,
on the codes of the moment: the same autoencoder, and one fit, whose bound is true at every step. The prior is a program
of its own, so `fit(program.prior, program.codes(x), "svi")` is the paper's second stage.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from zoo.autoregressive.gated_pixelcnn import GatedPixelCNN
from zoo.density import NetworkDensity
from zoo.likelihoods import make_likelihood
from zoo.nets import OverBatch, halvings, image_shape, paddings
from zoo.options import Count, Natural, NonNegative, Probability, Shape, Values
from zoo.program import Preset, Program
from zoo.specs import Spec, make_part

__all__ = ["VQVAE", "ResidualCoders"]

DEAD = 0.03
"""Share of an even part of the positions below which a code is taken for unused."""
START = 100
"""Examples whose features the codebook starts from: about a batch, of which running averages are."""


class Residual(nn.Module):
    """h + a layer of 3 x 3 and one of 1 x 1, each after a ReLU.

    Args:
        channels: Feature maps.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.net = nn.Sequential(
            nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, channels, 1)
        )

    def forward(self, h: Tensor) -> Tensor:
        """(B, channels, H, W)."""
        return h + self.net(h)


@dataclass(frozen=True)
class ResidualCoders:
    """The paper's networks: 4 x 4 convolutions that halve the image, then residual blocks; and back.

    Args:
        hidden: Feature maps.
        blocks: Residual blocks of each.
        halvings: How often the image is halved (rounding up).
    """

    hidden: Count = 64
    blocks: Natural = 2
    halvings: Count = 2

    def sizes(self, image: tuple[int, int, int]) -> list[tuple[int, int]]:
        """(height, width) at each resolution, the image first and the grid of codes last."""
        return halvings(image[1:], self.halvings)

    def encoder(self, image: tuple[int, int, int], out: int) -> nn.Module:
        """(*batch, *image) -> (*batch, out, h, w)."""
        layers: list[nn.Module] = []
        channels = image[0]
        for large in self.sizes(image)[:-1]:
            layers += [nn.Conv2d(channels, self.hidden, 4, stride=2, padding=paddings(4, large)[0]), nn.ReLU()]
            channels = self.hidden
        body = [nn.Conv2d(channels, channels, 3, padding=1), *(Residual(channels) for _ in range(self.blocks))]
        return OverBatch(nn.Sequential(*layers, *body, nn.ReLU(), nn.Conv2d(channels, out, 1)), 3)

    def decoder(self, features: int, image: tuple[int, int, int]) -> nn.Module:
        """(*batch, features, h, w) -> (*batch, *image), without a last bias."""
        hidden = self.hidden
        layers: list[nn.Module] = [nn.Conv2d(features, hidden, 3, padding=1)]
        layers += [Residual(hidden) for _ in range(self.blocks)]
        up = self.sizes(image)[-2::-1]
        for i, large in enumerate(up):
            last = i == len(up) - 1
            pad, more = paddings(4, large)
            channels = image[0] if last else hidden
            layers += [
                nn.ReLU(),
                nn.ConvTranspose2d(hidden, channels, 4, stride=2, padding=pad, output_padding=more, bias=not last),
            ]
        return OverBatch(nn.Sequential(*layers), 3)


NETWORKS = {"residual": ResidualCoders}
PRIORS = {"gated-pixelcnn": GatedPixelCNN}


class VQVAE(Program):
    """An autoencoder whose latents are a grid of codes.

    Args:
        event_shape: (height, width) or (channels, height, width).
        codes: Number K of codes.
        code_dim: Numbers D of a code.
        network: 'residual', or with options: {"name": "residual", "hidden": 256, "blocks": 2, "halvings": 2}.
        likelihood: What a number of x follows, as of `zoo.latent.vae.VAE`.
        prior: Over codes: 'gated-pixelcnn', or with options of it: {"name": "gated-pixelcnn", "features": 32}.
        commitment: Weight of the squared distance between the encoder's output and the codes it is rounded to (the
            paper's beta), summed over the grid; added in training, also to the history's loss, and no part of any
            density.
        memory: Of the running averages of what each code stands for.

    Raises: ShapeError (no image), UnknownNameError, OptionError.
    """

    family = "latent"
    paper = "van den Oord, Vinyals & Kavukcuoglu, Neural discrete representation learning, 2017"
    dataset = "digits-binary"
    codebook: Tensor
    """(K, D)."""
    counts: Tensor
    """Running average of how many positions of a batch each code took, (K,)."""
    sums: Tensor
    """Running average of the sum of their features, (K, D)."""

    def __init__(
        self,
        event_shape: Shape = (8, 8),
        codes: Values = 16,
        code_dim: Count = 8,
        network: Spec = "residual",
        likelihood: Spec = "bernoulli",
        prior: Spec = "gated-pixelcnn",
        commitment: NonNegative = 0.25,
        memory: Probability = 0.99,
    ):
        super().__init__()
        self.event_shape, self.image = torch.Size(event_shape), image_shape(event_shape)
        self.number, self.commitment, self.memory = codes, commitment, memory
        self.likelihood = make_likelihood(likelihood, self.event_shape)
        self.support = self.likelihood.support
        coders = make_part("network", network, NETWORKS)
        channels, height, width = self.image
        self.encoder = coders.encoder(self.image, code_dim)
        self.decoder = coders.decoder(code_dim, (self.likelihood.size * channels, height, width))
        self.prior = make_part(
            "prior", prior, PRIORS, event_shape=list(coders.sizes(self.image)[-1]),
            likelihood={"name": "categorical", "values": codes},
        )  # fmt: skip
        # The decoder's last bias, one for each pixel: data can set it.
        self.bias = nn.Parameter(torch.zeros(self.likelihood.size, *self.event_shape))
        self._open(torch.randn(codes, code_dim))

    def _open(self, codebook: Tensor) -> None:
        for name, value in (("codebook", codebook), ("counts", torch.ones(len(codebook))), ("sums", codebook.clone())):
            self.register_buffer(name, value)

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        """Codes from the prior, decoded; in training, codes of x carry gradients to the encoder."""
        with self.plate(x, context, size):
            z = pyro.sample("z", NetworkDensity(self.prior))
            quantised = self.quantised(z)
            if x is not None and self.training:
                seen = self.look(x)
                apart = (seen - quantised).square().flatten(-3).sum(-1)
                pyro.factor("commitment", -self.commitment * apart)
                quantised = quantised + (seen - seen.detach())
            return pyro.sample("x", self.decode(quantised), obs=x).to(self.bias.dtype)

    def guide(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> None:
        """The codes nearest to the encoder's output, for certain."""
        assert x is not None
        with self.plate(x, context, size):
            pyro.sample("z", dist.Delta(self.codes(x), event_dim=2))

    def look(self, x: Tensor) -> Tensor:
        """The encoder's output, (B, *event_shape) to (B, D, h, w)."""
        return self.encoder(self.likelihood.embed(x.to(self.bias.dtype)).reshape(len(x), *self.image))

    @torch.no_grad()
    def codes(self, x: Tensor) -> Tensor:
        """The codes nearest to the encoder's output, (B, *event_shape) to (B, h, w), as floating point numbers."""
        seen = self.look(x)
        rows = seen.movedim(1, -1).flatten(0, -2)
        return self._nearest(rows).reshape(len(x), *seen.shape[2:]).to(self.bias.dtype)

    def codes_of(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The vectors of the codes, whose numbers mean nothing, side by side, (B, D h w)."""
        return self.quantised(self.codes(x)).flatten(1)

    def quantised(self, z: Tensor) -> Tensor:
        """Codes (*batch, h, w) to their vectors (*batch, D, h, w)."""
        return embedding(z.long(), self.codebook).movedim(-1, -3)

    def decode(self, quantised: Tensor) -> Any:
        """p(x | z), a distribution: vectors (*batch, D, h, w) -> batch shape (*batch), event shape `event_shape`."""
        out = self.decoder(quantised).reshape(*quantised.shape[:-3], *self.bias.shape) + self.bias
        n = len(self.event_shape)
        return self.likelihood.distribution(out.movedim(-1 - n, -1)).to_event(n)

    def _nearest(self, rows: Tensor) -> Tensor:
        """Indices (n,) of the codes nearest to rows (n, D)."""
        # Neither distances nor averages bear half precision, in which a codebook would stop moving.
        with torch.autocast(rows.device.type, enabled=False):
            return (self.codebook.square().sum(-1) - 2 * rows.to(self.codebook) @ self.codebook.T).argmin(-1)

    @torch.no_grad()
    def keep_averages(self, x: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        """Moves each code towards the mean of what it stands for, after a step of training on x.

        A code that is hardly used begins anew at something that the encoder has just put out.

        Returns: `code_perplexity`, how many equally used codes would be as varied: near 1 where the codebook has
            collapsed.
        """
        rows = self.look(x).movedim(1, -1).flatten(0, -2).to(self.codebook)
        chosen = (self._nearest(rows)[:, None] == torch.arange(self.number, device=rows.device)).to(rows)
        self.counts.lerp_(chosen.sum(0), 1 - self.memory)
        with torch.autocast(rows.device.type, enabled=False):
            self.sums.lerp_(chosen.T @ rows, 1 - self.memory)
        even = len(rows) / self.number
        anew = rows[(torch.rand(self.number, dtype=rows.dtype, device=rows.device) * len(rows)).long()]
        dead = self.counts < DEAD * even
        self.sums.copy_(torch.where(dead[:, None], even * anew, self.sums))
        self.counts.copy_(torch.where(dead, torch.full_like(self.counts, even), self.counts))
        self.codebook.copy_(self.sums / self.counts[:, None])
        return {"code_perplexity": perplexity(self.counts)}

    @torch.no_grad()
    def code_perplexity(self, x: Tensor) -> float:
        """How varied the codes of examples (N, *event_shape) are: e to the entropy of their shares, between 1 and K."""
        counts = sum(torch.bincount(self.codes(rows).long().flatten(), minlength=self.number) for rows in x.split(512))
        return float(perplexity(torch.as_tensor(counts).to(self.bias)))

    @torch.no_grad()
    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        """Sets the decoder's last bias to what fits each pixel on its own, and the codebook to features of examples."""
        self.bias.copy_(self.likelihood.initial(x).movedim(-1, 0))
        few = x[torch.randperm(len(x), device=x.device)[:START]]
        rows = self.look(few).movedim(1, -1).flatten(0, -2)
        order = torch.cat([torch.randperm(len(rows)) for _ in range(-(-self.number // len(rows)))])[: self.number]
        self.codebook.copy_(rows[order.to(x.device)])
        self.counts.fill_(len(rows) / self.number)
        self.sums.copy_(self.codebook * self.counts[:, None])

    presets: ClassVar[Mapping[str, Preset]] = {
        # A coarser grid than the paper's: 7 x 7 codes cost 150 nats to write down, of which the bound is made too.
        "small": Preset(
            {"codes": 64, "code_dim": 16, "network": {"name": "residual", "hidden": 32, "blocks": 1, "halvings": 3},
             "prior": {"name": "gated-pixelcnn", "features": 24, "layers": 3, "first_kernel": 5}}, "svi",
            {"epochs": 10, "batch_size": 64, "lr": 3e-3}, data="mnist10k-binary",
        ),
        "paper": Preset(
            {"codes": 512, "code_dim": 64, "network": {"name": "residual", "hidden": 256},
             "prior": {"name": "gated-pixelcnn", "features": 128, "layers": 12, "head_hidden": 512}}, "svi",
            {"epochs": 500, "batch_size": 128, "lr": 2e-4, "decay": "constant"}, data="mnist-binary",
        ),
    }  # fmt: skip


def perplexity(counts: Tensor) -> Tensor:
    """e to the entropy of the shares of counts (K,)."""
    shares = counts / counts.sum()
    return torch.special.entr(shares).sum().exp()
