r"""WaveGAN: a second of sound, all of its samples at once, and no density.

Donahue, McAuley & Puckette, "Adversarial audio synthesis", ICLR 2019: the DCGAN in one dimension, with long filters and
a stride of four, a critic whose layers see their input shifted at random (phase shuffle), and the Wasserstein game with
a gradient penalty. Given classes as in Miyato & Koyama, "cGANs with projection discriminator", ICLR 2018.

    z ~ U[-1, 1]^k,   x = tanh g(z, y)

    z --> x <-- y      sites: z (k,) local; x (samples,), implicit; the context y, if any, is a class, one-hot
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn.functional import one_hot

from zoo.errors import OptionError, ShapeError
from zoo.nets import BatchNorm1d, OverBatch
from zoo.options import Count, Counts, Natural, Shape
from zoo.program import Implicit, ImplicitProgram, Preset

__all__ = ["PhaseShuffle", "WaveCritic", "WaveGAN"]

STRIDE = 4
SLOPE = 0.2
"""Of the critic's leaky ReLUs below zero."""


class WaveGAN(ImplicitProgram):
    """A generator of sounds by transposed convolutions in one dimension, and a critic of strided ones.

    Where it departs from the paper, which is unconditional: given a class, that stands beside the noise, and the critic
    adds the inner product of its features with the class's own.

    Args:
        event_shape: (samples,), amplitudes in [-1, 1].
        context_shape: (classes,), one-hot; None for an unconditional program.
        latent_dim: Number k of noise inputs.
        channels: Of the generator's signals, from the shortest on; of the critic's the other way round. Each layer
            makes a signal four times as long.
        kernel: Length of the filters, at least 4.
        shift: n of the phase shuffle; 0 for none.
        batch_norm: Normalises the generator's signals, an option of the code that came with the paper.
        post_filter: Length of a filter that the generator learns for its output (section 3.3 of the paper; 512 there);
            0 for none.

    Raises: OptionError; ShapeError for what are no sounds, or a context that is no row of classes.
    """

    paper = "Donahue, McAuley & Puckette, Adversarial audio synthesis, 2019"
    dataset = "spoken_digits-whole-labelled"
    support = constraints.real
    context_support = constraints.one_hot

    LABEL: ClassVar[float] = 3.0
    """What the label is multiplied by, so that one number of it counts beside all those of the noise."""

    def __init__(
        self,
        event_shape: Shape = (64,),
        context_shape: Shape | None = None,
        latent_dim: Count = 32,
        channels: Counts = (16, 8),
        kernel: Count = 25,
        shift: Natural = 2,
        batch_norm: bool = False,
        post_filter: Natural = 0,
    ):
        super().__init__()
        if len(event_shape) != 1:
            raise ShapeError(f"WaveGAN is for sounds (N, samples), got examples of shape {tuple(event_shape)}.")
        if context_shape is not None and len(context_shape) != 1:
            raise ShapeError(
                f"WaveGAN takes classes one-hot (N, classes), got contexts of shape {tuple(context_shape)}: "
                "torch.nn.functional.one_hot(labels, classes) makes them."
            )
        if not channels:
            raise OptionError("channels must name at least one layer, got none.")
        if kernel < STRIDE:
            raise OptionError(f"kernel must be at least {STRIDE}, the stride, or samples are left out; got {kernel}.")
        self.event_shape, self.classes = torch.Size(event_shape), context_shape[0] if context_shape else 0
        self.latent_dim, self.channels, self.kernel, self.shift = latent_dim, channels, kernel, shift
        lengths = quarters(event_shape[0], len(channels))[::-1]
        layers: list[nn.Module] = [
            nn.Linear(latent_dim + self.classes, channels[0] * lengths[0]), nn.Unflatten(1, (channels[0], lengths[0]))
        ]  # fmt: skip
        for before, after, length in zip(channels, [*channels[1:], 1], lengths[1:], strict=True):
            pad, more = padding(kernel, length)
            layers += [BatchNorm1d(before)] if batch_norm else []
            layers += [nn.ReLU(), nn.ConvTranspose1d(before, after, kernel, STRIDE, pad, more)]
        layers.append(nn.Tanh())
        if post_filter:
            around = ((post_filter - 1) // 2, post_filter // 2)
            layers += [nn.ConstantPad1d(around, 0.0), nn.Conv1d(1, 1, post_filter, bias=False)]
        self.net = OverBatch(nn.Sequential(*layers, nn.Flatten()), 1)

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        """Noise, and the class if any, through the generator; differentiable in its parameters."""
        with self.plate(x, context, size):
            low = next(self.net.parameters()).new_full((self.latent_dim,), -1.0)
            z = pyro.sample("z", dist.Uniform(low, -low).to_event(1))
            if context is not None:
                z = torch.cat([z, self.LABEL * context.expand(*z.shape[:-1], -1)], -1)
            return pyro.sample("x", Implicit(self.net(z), 1), obs=x)

    def critic(self) -> nn.Module:
        """The generator the other way round, with leaky ReLUs and phase shuffle."""
        return WaveCritic(
            self.event_shape[0], self.channels[::-1], kernel=self.kernel, shift=self.shift, classes=self.classes
        )

    def example_context(self, n: int) -> Tensor | None:
        """Classes one-hot (n, classes), one after the other; None without."""
        if not self.classes:
            return None
        weight = next(self.net.parameters())
        return one_hot(torch.arange(n, device=weight.device) % self.classes, self.classes).to(weight.dtype)

    presets: ClassVar[Mapping[str, Preset]] = {
        "small": Preset(
            {"latent_dim": 100, "channels": [64, 32, 16, 8], "batch_norm": True}, "gan",
            {
                "game": "wasserstein", "regulariser": "gradient-penalty", "steps": 1600, "batch_size": 16, "lr": 1e-3,
                "critic_lr": 3e-3, "betas": [0.5, 0.9], "ema": 0.99,
            }, data="spoken_digits-4khz-labelled",
        ),
        "paper": Preset(
            {"latent_dim": 100, "channels": [1024, 512, 256, 128, 64]}, "gan",
            {
                "game": "wasserstein", "regulariser": "gradient-penalty", "critic_steps": 5, "steps": 200_000,
                "batch_size": 64, "lr": 1e-4, "betas": [0.5, 0.9], "decay": "constant",
            },
        ),
    }  # fmt: skip


class WaveCritic(nn.Module):
    """Strided convolutions with leaky ReLUs and phase shuffle between them, then one linear unit.

    Args:
        samples: Of one sound.
        channels: Of each convolution.
        kernel: Length of its filters.
        shift: See `PhaseShuffle`.
        classes: If any, the features have an inner product with the class's besides.

    Shapes: (B, samples), and with classes (B, classes) -> (B,) logits of "real".
    """

    def __init__(self, samples: int, channels: Sequence[int], *, kernel: int = 25, shift: int = 2, classes: int = 0):
        super().__init__()
        layers: list[nn.Module] = []
        lengths, before = quarters(samples, len(channels)), 1
        for depth, (after, length) in enumerate(zip(channels, lengths, strict=False)):
            layers += [nn.Conv1d(before, after, kernel, STRIDE, padding(kernel, length)[0]), nn.LeakyReLU(SLOPE)]
            if shift and depth < len(channels) - 1:
                layers.append(PhaseShuffle(shift))
            before = after
        self.down = nn.Sequential(nn.Unflatten(1, (1, samples)), *layers, nn.Flatten())
        features = before * lengths[-1]
        self.read = nn.Linear(features, 1)
        self.project = nn.Linear(classes, features, bias=False) if classes else None

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Logits."""
        features = self.down(x)
        logits = self.read(features).squeeze(-1)
        return logits if self.project is None else logits + (features * self.project(context)).sum(-1)


class PhaseShuffle(nn.Module):
    """In training, shifts each signal by a whole number of steps from -n to n, all as likely; its ends are mirrored.

    Transposed convolutions leave artifacts of a fixed phase, by which a critic could know samples without listening
    (section 3.3 of the paper).

    Args:
        shift: n. No more than the signal allows: one step less than its length.

    Shapes: (B, channels, steps), the same for all channels of an example.
    """

    def __init__(self, shift: int):
        super().__init__()
        self.shift = shift

    def forward(self, x: Tensor) -> Tensor:
        """The shifted signals."""
        last = x.shape[2] - 1
        n = min(self.shift, last)
        if not self.training or n == 0:
            return x
        by = torch.randint(-n, n + 1, (len(x), 1, 1), device=x.device)
        seen = (torch.arange(last + 1, device=x.device) + by).abs()
        return x.gather(2, (last - (last - seen).abs()).expand_as(x))


def quarters(length: int, times: int) -> list[int]:
    """A length, then its quarters, rounded up, so many times."""
    found = [length]
    for _ in range(times):
        found.append(math.ceil(found[-1] / STRIDE))
    return found


def padding(kernel: int, length: int) -> tuple[int, int]:
    """(padding, output padding) of convolutions of stride 4 between signals of this length and of its quarter.

    A transposed one takes n to 4 n - 4 - 2 padding + kernel + output padding, which is to be the length.
    """
    excess = STRIDE * (math.ceil(length / STRIDE) - 1) + kernel - length
    pad = (excess + 1) // 2
    return pad, 2 * pad - excess
