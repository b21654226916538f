r"""MADE: an autoencoder whose weights are masked until each output sees only the inputs before it.

Germain, Gregor, Murray & Larochelle, "MADE: masked autoencoder for distribution estimation", ICML 2015.

    h_l = g(b_l + (W_l * M_l) h_l-1),   p(x_i | x_<i) = likelihood(c + (V * M_V) h_L + (A * M_A) x)_i

Site i has its rank r(i) in 1..D, hidden unit k of layer l a degree m_l(k) in 1..D-1, drawn at random:

    M_1[k, i] = m_1(k) >= r(i),   M_l[k, j] = m_l(k) >= m_l-1(j),   M_V[i, k] = r(i) > m_L(k),   M_A[i, j] = r(i) > r(j)

    x_1, ..., x_i-1 --> x_i      sites: x (*event_shape); no latents
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.autoregressive.base import pixel_order
from zoo.autoregressive.ensemble import OrderEnsemble, pick
from zoo.errors import OptionError
from zoo.nets import activation as make_activation
from zoo.options import Count, Counts, Seed, Shape
from zoo.program import Preset
from zoo.specs import Spec, with_options

__all__ = ["MADE", "Masks", "draw_degrees"]


class MADE(OrderEnsemble):
    """MADE with one mask, or a mixture over K masks that share the weights.

    In training mode each step uses one of the masks; the density in evaluation mode is that of the mixture. A draw
    computes each hidden unit and each output once, so that it costs about as much as one pass through the network.

    Args:
        event_shape: Shape of one example.
        hidden: Widths of the hidden layers, at least one.
        masks: Number K of masks, or the options of `Masks`: {"count": 32, "shuffle": True, "aware": True, "seed": 0}.
        direct: Whether outputs see the inputs before them directly (A).
        activation: A key of `zoo.nets.ACTIVATIONS`.
        likelihood: What a site follows; see `zoo.likelihoods.LIKELIHOODS`. A 'gaussian-mixture' of one component is the
            Gaussian MADE.

    Raises: OptionError, UnknownNameError.
    """

    paper = "Germain, Gregor, Murray & Larochelle, MADE: masked autoencoder for distribution estimation, 2015"
    dataset = "digits-binary"

    def __init__(
        self,
        event_shape: Shape = (8, 8),
        hidden: Counts = (64,),
        masks: Count | Mapping[str, Any] = 1,
        direct: bool = False,
        activation: str = "relu",
        likelihood: Spec = "bernoulli",
    ):
        super().__init__(event_shape, likelihood)
        if not hidden or min(hidden) < 1:
            raise OptionError(f"hidden must give the width of at least one layer, each at least 1; got {hidden}.")
        chosen = with_options("masks", Masks, {"count": masks} if isinstance(masks, int) else masks)
        self.activation = make_activation(activation)
        sites, generator = self.event_shape.numel(), torch.Generator().manual_seed(chosen.seed)
        orders = [
            torch.randperm(sites, generator=generator) if chosen.shuffle else pixel_order(self.event_shape)
            for _ in range(chosen.count)
        ]
        self.register_buffer("permutations", torch.stack(orders))
        self.depth = len(hidden)
        for i, degrees in enumerate(draw_degrees(sites, hidden, chosen.count, generator)):
            self.register_buffer(f"degrees_{i}", degrees)
        # K masks over the same weights: kept as degrees, D + H numbers each, not as matrices. For the same reason these
        # are no `pyro.nn.MaskedLinear`, which holds the one mask of its weights.
        widths = [sites, *hidden, sites * self.likelihood.size]
        pairs = list(pairwise(widths))
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairs)
        self.aware = nn.ParameterList(torch.zeros(b, a) for a, b in pairs) if chosen.aware else None
        self.direct = nn.Parameter(torch.zeros(widths[-1], sites)) if direct else None
        self.keeps = chosen.count == 1
        if self.keeps:  # one mask is made once, and again when others are loaded
            self.keep_masks()
            self.register_load_state_dict_post_hook(_loaded)

    def keep_masks(self) -> None:
        """Makes the masks of a single order, as numbers beside the weights; they are not saved."""
        for i, mask in enumerate(self.masks_of(0)):
            self.register_buffer(f"mask_{i}", mask.to(next(self.parameters())), persistent=False)

    def masks_of(self, k: int | Tensor) -> list[Tensor]:
        """The mask of each layer, and of the direct connection, under order k."""
        below = self.degrees(k)
        rank = below[0].unsqueeze(-1).expand(-1, self.likelihood.size).reshape(-1, 1)
        masks = [above.unsqueeze(-1) >= under for under, above in pairwise(below)]
        return [*masks, rank > below[-1], *([] if self.direct is None else [rank > below[0]])]

    def degrees(self, k: int | Tensor) -> list[Tensor]:
        """Ranks (D,) of the inputs, from 1, and degrees of the units of each hidden layer, under mask k."""
        rank = pick(self.permutations, k).argsort() + 1
        return [rank, *(pick(getattr(self, f"degrees_{i}"), k) for i in range(self.depth))]

    def masked(self, k: int | Tensor) -> tuple[list[tuple[Tensor, Tensor]], Tensor | None]:
        """(weight, bias) of each layer under mask k, and the weights of the direct connection."""
        kept = (
            [getattr(self, f"mask_{i}") for i in range(self.depth + 1 + (self.direct is not None))]
            if self.keeps
            else []
        )
        masks = kept or self.masks_of(k)
        found = []
        for i, layer in enumerate(self.layers):
            assert isinstance(layer, nn.Linear)
            bias = layer.bias if self.aware is None else layer.bias + (self.aware[i] * masks[i]).sum(-1)
            found.append((layer.weight * masks[i], bias))
        return found, None if self.direct is None else self.direct * masks[-1]

    def outputs_of(self, x: Tensor, k: int | Tensor, context: Tensor | None = None) -> Tensor:
        """One pass under mask k."""
        layers, direct = self.masked(k)
        seen = self.likelihood.embed(x).reshape(len(x), -1)
        h = seen
        for weight, bias in layers[:-1]:
            h = self.activation(F.linear(h, weight, bias))
        out = F.linear(h, *layers[-1])
        if direct is not None:
            out = out + F.linear(seen, direct)
        return out.reshape(*x.shape, self.likelihood.size)

    def continue_from(self, x: Tensor, known: int, context: Tensor | None, noise: Tensor) -> Tensor:
        """With units sorted by degree, those of degree i can be computed when site i is known, and never change."""
        k, order, sites = self.single or 0, self.order, self.event_shape.numel()
        layers, direct = self.masked(k)
        degrees = self.degrees(k)
        sort = [d.argsort() for d in degrees]  # that of the ranks is the order
        # How many units of each layer have at most degree i; of the inputs, i.
        upto = torch.arange(sites, device=x.device)
        ends = [torch.searchsorted(d[s], upto, right=True).tolist() for d, s in zip(degrees, sort, strict=True)]
        rows = [*sort[1:], torch.arange(sites * self.likelihood.size, device=x.device).reshape(sites, -1)[order]]
        weights = [w[r][..., s] for (w, _), r, s in zip(layers, rows, sort, strict=True)]
        biases = [b[r] for (_, b), r in zip(layers, rows, strict=True)]
        skip = None if direct is None else direct[rows[-1]][..., order]
        flat = x.reshape(len(x), sites).clone()
        units: list[Any] = [self.likelihood.embed(flat)[:, order], *(x.new_zeros(len(x), len(s)) for s in sort[1:])]
        done = [0] * self.depth
        for i in range(known, sites):
            for j in range(self.depth):
                start, end = done[j], ends[j + 1][i]
                if end > start:
                    linear = F.linear(
                        units[j][:, : ends[j][i]], weights[j][start:end, : ends[j][i]], biases[j][start:end]
                    )
                    units[j + 1][:, start:end] = self.activation(linear)
                    done[j] = end
            end = ends[-1][i]
            out = F.linear(units[-1][:, :end], weights[-1][i, :, :end], biases[-1][i])
            if skip is not None:
                out = out + F.linear(units[0][:, :i], skip[i, :, :i])
            drawn = self.likelihood.draw(out, noise[:, i], order[i])
            flat[:, order[i]] = drawn
            units[0][:, i] = self.likelihood.embed(drawn, order[i])
        return flat.reshape(x.shape)

    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        """Starts the outputs at those of independent sites fitted to the data."""
        self.layers[-1].get_parameter("bias").copy_(self.likelihood.initial(x).reshape(-1))

    presets: ClassVar[Mapping[str, Preset]] = {
        "small": Preset(  # plain SGD: Adam moves all weights alike, and overfits the many direct ones
            {"hidden": [500], "direct": True, "activation": "tanh"},
            "svi",
            {"optimizer": "sgd", "lr": 0.1, "decay": "constant", "epochs": 150, "batch_size": 100, "patience": 4},
        ),
        "sampled": Preset(
            {"hidden": [500], "direct": True, "masks": {"count": 100, "shuffle": True}},
            "svi",
            {"optimizer": "sgd", "lr": 0.6, "decay": "constant", "epochs": 200, "batch_size": 100, "patience": 4},
        ),
        "paper": Preset(
            {"hidden": [8000, 8000], "direct": True, "masks": {"count": 32, "shuffle": True, "aware": True}},
            "svi",
            {"epochs": 1000, "batch_size": 100, "lr": 1.0, "optimizer": "adadelta", "patience": 30},
        ),
    }


@dataclass(frozen=True)
class Masks:
    """K masks over the same weights.

    Args:
        count: K.
        shuffle: Whether each mask comes with a random order of its own; else all have the order of pixels, and differ
            in their degrees.
        aware: Whether each layer adds (U * M) 1, from which the units know their mask (eq. 15 of the paper); for K > 1.
        seed: Of degrees and orders.

    Raises: OptionError.
    """

    count: Count = 1
    shuffle: bool = False
    aware: bool = False
    seed: Seed = 0


def draw_degrees(sites: int, hidden: Sequence[int], masks: int, generator: torch.Generator) -> list[Tensor]:
    """Degrees (masks, width) of each hidden layer: uniform from the least of the layer below to sites - 1.

    So no unit is cut off from all inputs. (`pyro.nn`'s `sample_mask_indices` spreads them evenly, without chance: there
    is one such mask only.)
    """
    most = max(sites - 1, 1)
    least = torch.ones(masks, 1, dtype=torch.long)
    degrees = []
    for width in hidden:
        uniform = torch.rand(masks, width, generator=generator, dtype=torch.float64)
        degrees.append(least + (uniform * (most + 1 - least)).long())
        least = degrees[-1].amin(1, keepdim=True)
    return degrees


def _loaded(program: MADE, keys: Any) -> None:
    program.keep_masks()
