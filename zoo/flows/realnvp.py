r"""RealNVP: affine couplings; for images checkerboard and channel masks, squeezing, and several scales.

Dinh, Sohl-Dickstein & Bengio, "Density estimation using Real NVP", ICLR 2017.

    z_b = exp(s(x_a)) x_b + t(x_a)

    image:  3 checkerboard couplings, squeeze, 3 channel couplings, half of the channels leave as noise; again; ...
            at the last scale one checkerboard coupling more, and all that is left is noise

    sites: x (*event_shape); no latents
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from zoo.errors import ShapeError, UnknownNameError
from zoo.flows.coupling import Coupling, ResidualNet, Univariate, checkerboard, coupling_mlp, squeeze, unsqueeze
from zoo.flows.flow import Flow, Permutation, back, check_size, through
from zoo.nets import image_shape
from zoo.options import Count, Counts, Shape
from zoo.program import Preset

__all__ = ["RealNVP"]

NETWORKS = ("mlp", "conv")


class RealNVP(Flow):
    """Affine couplings over vectors or, with several scales, over images.

    A soft bound on the log scales, |s| < 2, takes the place of the paper's tanh with a learned gain. It matters: with
    a wide one, examples unlike those of training get densities that are lower by orders of magnitude.
    Batch normalisation is left out: with it an example's density depends on the others of its batch.

    Args:
        event_shape: Shape of one example; an image (height, width) or (channels, height, width) for convolutions.
        couplings: How many; of convolutions, at each scale of each of the two kinds.
        hidden: Widths of the hidden layers; of convolutions, their width once for each residual block.
        network: 'mlp' (even and odd places take turns) or 'conv'.
        scales: Of convolutions: how often the image is looked at, at half the size each time.
        activation: Of 'mlp', a key of `zoo.nets.ACTIVATIONS`.

    Raises: OptionError, ShapeError, UnknownNameError.
    """

    paper = "Dinh, Sohl-Dickstein & Bengio, Density estimation using Real NVP, 2017"
    presets: ClassVar[Mapping[str, Preset]] = {
        "small": Preset(
            {"couplings": 6, "hidden": [64, 64]}, "svi", {"steps": 4000, "batch_size": 128, "lr": 2e-3}
        ),
        "paper": Preset(
            {"network": "conv", "couplings": 3, "hidden": [64] * 8, "scales": 3},
            "svi",
            {"epochs": 100, "batch_size": 64, "lr": 1e-3},
        ),
    }  # fmt: skip

    def __init__(
        self,
        event_shape: Shape = (2,),
        couplings: Count = 4,
        hidden: Counts = (32, 32),
        network: str = "mlp",
        scales: Count = 2,
        activation: str = "relu",
    ):
        super().__init__(event_shape)
        if network not in NETWORKS:
            raise UnknownNameError("network", network, NETWORKS)
        check_size(event_shape)
        self.network = network
        if network == "mlp":
            d = self.event_shape.numel()
            layers: list[nn.Module] = [Permutation(d, "alternate")]
            for _ in range(couplings):
                layers += [coupling_mlp(Univariate("affine"), d, hidden, activation=activation), Permutation(d)]
            self.stages = nn.ModuleList([nn.ModuleList(layers)])
            return
        channels, height, width = self.image = image_shape(event_shape)
        if height % 2 ** (scales - 1) or width % 2 ** (scales - 1) or not hidden:
            raise ShapeError(
                f"{scales} scales need a height and a width that {2 ** (scales - 1)} divides, and hidden not empty; "
                f"got event_shape {tuple(event_shape)} and hidden={list(hidden)}."
            )
        self.stages = nn.ModuleList()
        for scale in range(scales):
            last = scale == scales - 1
            stage = [
                _coupling(channels, hidden, checkerboard(height, width, i % 2)) for i in range(couplings + int(last))
            ]
            self.stages.append(nn.ModuleList(stage))
            if not last:
                channels, height, width = 4 * channels, height // 2, width // 2
                layers = []
                for _ in range(couplings):
                    layers += [_coupling(channels, hidden), Permutation(channels)]
                self.stages.append(nn.ModuleList(layers))
                channels //= 2

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """All scales; what leaves first comes first."""
        if self.network == "mlp":
            return through(self.stages[0], x.flatten(1))
        h, total, noise = x.reshape(-1, *self.image), x.new_zeros(len(x)), []
        for i, stage in enumerate(self.stages):
            channelwise = i % 2 == 1
            h, log_det = through(stage, squeeze(h) if channelwise else h)
            total = total + log_det
            if channelwise:
                out, h = h.chunk(2, 1)
                noise.append(out.flatten(1))
        return torch.cat([*noise, h.flatten(1)], 1), total

    def decode(self, z: Tensor) -> Tensor:
        """From the coarsest scale to the finest."""
        if self.network == "mlp":
            return back(self.stages[0], z).reshape(len(z), *self.event_shape)
        channels, height, width = self.image
        cuts = []
        for _ in range(len(self.stages) // 2):
            channels, height, width = 2 * channels, height // 2, width // 2
            cuts.append(channels * height * width)
        *noise, rest = z.split([*cuts, channels * height * width], 1)
        h = rest.reshape(-1, channels, height, width)
        for i in reversed(range(len(self.stages))):
            channelwise = i % 2 == 1
            if channelwise:
                h = torch.cat([noise.pop().reshape(h.shape), h], 1)
            h = back(self.stages[i], h)
            if channelwise:
                h = unsqueeze(h)
        return h.reshape(len(z), *self.event_shape)


def _coupling(channels: int, hidden: Sequence[int], mask: Tensor | None = None) -> Coupling:
    """An affine coupling of an image by a residual network."""
    univariate = Univariate("affine")
    seen = channels if mask is not None else channels // 2
    changed = channels if mask is not None else channels - seen
    return Coupling(univariate, ResidualNet(seen, changed * univariate.size, width=hidden[0], blocks=len(hidden)), mask)
