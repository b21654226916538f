r"""PixelCNN++: shifted convolutions at several resolutions, and a mixture of logistics for each pixel.

Salimans, Karpathy, Chen & Kingma, "PixelCNN++: improving the PixelCNN with discretized logistic mixture likelihood and
other modifications", ICLR 2017.

    p(x_i | x_<i) = sum_k w_k prod_c Logistic(x_i,c; m_k,c, s_k,c)     on the grid of levels, k shared by the channels c
    m_k,G = n_k,G + a_k x_R,     m_k,B = n_k,B + b_k x_R + c_k x_G,    a, b, c = tanh of what the network puts out

One channel at a time this is a mixture again: given the channels before, its weights are the posterior of k,
w_k prod_c' Logistic(x_c'; ...) normalised, so the product of the channels' densities is the joint one.

    u: rows above (down-shifted 2x3) ----\   gated residual blocks, halved and doubled again,
    l: and the row's left (2x2) <- u -----> 1x1 --> mixture         with short cuts; sites: x (*event_shape); no latents

The paper's weight normalisation with its data-dependent start is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import elu

from zoo.autoregressive.incremental import PixelNetwork, Whole
from zoo.autoregressive.masked_conv import CausalConv2d
from zoo.distributions import DiscretizedLogistic
from zoo.errors import OptionError
from zoo.likelihoods import LogisticMixture
from zoo.options import Count, Shape, Share
from zoo.program import Preset
from zoo.specs import Spec

__all__ = ["PixelCNNPlusPlus"]

POINT = ((1, 1), (0, 0, 0, 0))
DOWN = ((2, 3), (1, 1, 1, 0))  # this row and the one above, a column to either side
RIGHT = ((2, 2), (1, 0, 1, 0))  # this row and the one above, this column and the one to the left


class PixelCNNPlusPlus(PixelNetwork):
    """The PixelCNN++.

    Args:
        event_shape: (height, width) or (channels, height, width).
        features: Feature maps of each stream.
        blocks: Residual blocks of each stream before the next lower resolution.
        scales: Number of resolutions, each half of the one before.
        dropout: Probability of dropping a feature within a block, in training.
        likelihood: 'logistic-mixture' (the paper's; x on a grid of `values` levels in [0, 1]); or, for images of one
            channel, any other of `zoo.likelihoods.LIKELIHOODS`.

    Raises: ShapeError, OptionError, UnknownNameError.
    """

    paper = "Salimans, Karpathy, Chen & Kingma, PixelCNN++, 2017"
    by_channel = False

    def __init__(
        self,
        event_shape: Shape = (8, 8),
        features: Count = 8,
        blocks: Count = 1,
        scales: Count = 2,
        dropout: Share = 0.5,
        likelihood: Spec = "bernoulli",
    ):
        super().__init__(event_shape, likelihood)
        channels = self.image[0]
        if channels > 1 and not isinstance(self.likelihood, LogisticMixture):
            raise OptionError(
                f"The channels of a pixel depend on each other through the components of a logistic mixture, so images "
                f"of {channels} channels need likelihood='logistic-mixture', got {likelihood!r}."
            )
        self.dropout = dropout
        # One plane of ones tells the margins, which are zero, from the image.
        seen = channels + 1
        self.start = CausalConv2d(seen, features, (2, 3), margins=(1, 1, 2, -1))
        self.start_above = CausalConv2d(seen, features, (1, 3), margins=(1, 1, 1, -1))
        self.start_left = CausalConv2d(seen, features, (2, 1), margins=(1, -1, 1, 0))
        self.scale = _Scale(features, blocks, scales - 1)
        # Of several channels: the weights, which they share, means and scales of each, coefficients of the means.
        k, pairs = self.likelihood.size // 3, channels * (channels - 1) // 2
        self.split = [k, 2 * k * channels, k * pairs]
        self.head = CausalConv2d(features, sum(self.split) if pairs else self.likelihood.size, *POINT)

    def see(self, x: Tensor) -> Tensor:
        """What the likelihood shows of x, and ones."""
        return torch.cat([self.likelihood.embed(x), torch.ones_like(x[:, :1])], 1)

    def above(self, run: Whole, context: Tensor | None) -> None:
        """The stream of the rows above."""
        run.keep(self.start_above, run.first(self.start_above))
        self.scale.above(run, run.first(self.start))

    def beside(self, run: Whole, context: Tensor | None) -> Tensor:
        """The other stream and the head."""
        start = run.recall(self.start_above) + run.first(self.start_left)
        h = elu(self.scale.beside(run, start))
        return run(self.head, h)

    def biases(self, outputs: Tensor) -> Tensor:
        """The head's biases for outputs (channels, size); coefficients are zero."""
        if len(outputs) == 1:
            return super().biases(outputs)
        k, _, coefficients = self.split
        return torch.cat([outputs[0, :k], outputs[:, k:].flatten(), outputs.new_zeros(coefficients)])

    def arrange(self, raw: Tensor, x: Tensor) -> Tensor:
        """For several channels, the weights and means of each given the values of those before it."""
        channels, likelihood = self.image[0], self.likelihood
        if channels == 1:
            return super().arrange(raw, x)
        assert isinstance(likelihood, LogisticMixture)
        logits, own, pairs = (part.movedim(1, -1) for part in raw.split(self.split, 1))
        log_weights, own = logits.log_softmax(-1), own.unflatten(-1, (channels, 2, -1))
        coefficients = iter(pairs.tanh().split(likelihood.components, -1))
        seen, found = likelihood.embed(x).unsqueeze(-1), []
        for channel in range(channels):
            loc, log_scale = own[..., channel, :, :].unbind(-2)
            for before in range(channel):
                loc = loc + next(coefficients) * seen[:, before]
            found.append(torch.cat([log_weights, loc, log_scale], -1))
            if channel < channels - 1:  # the posterior of the component, up to its constant
                _, mean, scale = likelihood.parts(found[-1])
                logistic = DiscretizedLogistic(mean, scale, likelihood.values, validate_args=False)
                log_weights = log_weights + logistic.log_prob(x[:, channel].unsqueeze(-1))
        return torch.stack(found, 1)

    def training_log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The density of the network that dropout leaves."""
        log_probs = self.likelihood.distribution(self.outputs(x, context, self.dropout)).log_prob(x)
        return log_probs.reshape(len(x), -1).sum(-1)

    presets: ClassVar[Mapping[str, Preset]] = {
        "small": Preset(
            {"features": 16, "blocks": 1, "scales": 2, "dropout": 0.2},
            "svi",
            {"epochs": 20, "batch_size": 32, "lr": 3e-3},
        ),
        "mnist": Preset(
            {"features": 12, "blocks": 1, "scales": 3, "dropout": 0.1},
            "svi",
            {"epochs": 10, "batch_size": 32, "lr": 3e-3},
            data="mnist10k-binary",
        ),
        "paper": Preset(
            {"features": 192, "blocks": 5, "scales": 3, "dropout": 0.5, "likelihood": "logistic-mixture"},
            "svi",
            {"epochs": 100, "batch_size": 16, "lr": 1e-3},
        ),
    }


def _concat_elu(h: Tensor) -> Tensor:
    """ELU of the features and of their negatives."""
    return elu(torch.cat([h, -h], 1))


class _Residual(nn.Module):
    """The gated residual block.

    Args:
        features: Feature maps in and out.
        shape: Kernel size and margins of its convolutions.
        others: Feature maps that come in from the side.
    """

    def __init__(self, features: int, shape: tuple[tuple[int, int], tuple[int, int, int, int]], others: Count = 0):
        super().__init__()
        self.first = CausalConv2d(2 * features, features, *shape)
        self.side = CausalConv2d(2 * others, features, *POINT) if others else None
        self.second = CausalConv2d(2 * features, 2 * features, *shape)
        with torch.no_grad():  # blocks start near the identity
            self.second.weight.mul_(0.1)

    def forward(self, run: Whole, h: Tensor, other: Tensor | None = None) -> Tensor:
        """Adds to h what it and the other say."""
        inside = run(self.first, _concat_elu(h))
        if self.side is not None and other is not None:
            inside = inside + run(self.side, _concat_elu(other))
        value, gate = run(self.second, run.drop(_concat_elu(inside))).chunk(2, 1)
        return h + value * gate.sigmoid()


class _Scale(nn.Module):
    """Both streams at one resolution, and all lower ones within.

    Args:
        features: Feature maps of a stream.
        blocks: Residual blocks before the next lower resolution; after it there are as many, and one more.
        below: Number of lower resolutions.
    """

    def __init__(self, features: int, blocks: int, below: int):
        super().__init__()
        after = blocks + 1 if below else blocks
        self.u_in = nn.ModuleList(_Residual(features, DOWN) for _ in range(blocks))
        self.l_in = nn.ModuleList(_Residual(features, RIGHT, features) for _ in range(blocks))
        self.u_out = nn.ModuleList(_Residual(features, DOWN, features) for _ in range(after))
        self.l_out = nn.ModuleList(_Residual(features, RIGHT, 2 * features) for _ in range(after))
        self.lower = _Scale(features, blocks, below - 1) if below else None
        if below:
            self.u_shrink = CausalConv2d(features, features, *DOWN, stride=2)
            self.l_shrink = CausalConv2d(features, features, *RIGHT, stride=2)
            self.u_grow = nn.ConvTranspose2d(features, features, (2, 3), 2, padding=(0, 1), output_padding=(0, 1))
            self.l_grow = nn.ConvTranspose2d(features, features, 2, 2)

    def above(self, run: Whole, u: Tensor) -> Tensor:
        """The stream of the rows above; keeps what each block gives."""
        passed = [u]
        for block in self.u_in:
            passed.append(block(run, passed[-1]))
            run.keep(block, passed[-1])
        u = passed[-1]
        if self.lower is not None:
            lower = self.lower
            u = run.lower(self.u_shrink, self.u_grow, u, lambda low: lower.above(run, low))
        else:
            passed.pop()
        for block in self.u_out:
            u = block(run, u, passed.pop())
            run.keep(block, u)
        return u

    def beside(self, run: Whole, h: Tensor) -> Tensor:
        """The stream that sees the row's left too, and the other stream block by block."""
        passed = [h]
        for block, other in zip(self.l_in, self.u_in, strict=True):
            passed.append(block(run, passed[-1], run.recall(other)))
        h = passed[-1]
        if self.lower is not None:
            lower = self.lower
            h = run.lower(self.l_shrink, self.l_grow, h, lambda low: lower.beside(run, low))
        else:
            passed.pop()
        for block, other in zip(self.l_out, self.u_out, strict=True):
            h = block(run, h, torch.cat([run.recall(other), passed.pop()], 1))
        return h
