r"""Linear prediction of sound: each sample near a weighted sum of the k before it; what WaveNet has to beat.

Atal & Hanauer, "Speech analysis and synthesis by linear prediction of the speech wave", JASA 1971.

    w_t = sum_j a_j w_t-j + e_t,     e_t ~ sum_m pi_m Logistic(0, s_m),     x_t = the mu-law level nearest to w_t

Prediction is in the linear domain of amplitudes, where speech is close to linear; the density of the residual is
integrated over the interval of amplitudes that a level stands for. So this is a distribution over the same levels as
WaveNet's softmax, and their bits a sample compare. The mixture over scales gives the residual its heavy tails.

    sites: x (samples,), mu-law levels on the grid 0, 1/(values-1), ..., 1; context: classes one-hot; no latents
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all, clamp_probs
from torch.nn.functional import log_softmax, logsigmoid, pad

from zoo.autoregressive.base import ClassConditional, sound_shape
from zoo.datasets import audio
from zoo.distributions import Grid
from zoo.errors import OptionError
from zoo.likelihoods import Emission
from zoo.program import Preset

__all__ = ["CompandedLogistic", "CompandedLogisticMixture", "LinearPrediction"]


class CompandedLogistic(dist.TorchDistribution):
    """A logistic amplitude rounded to its mu-law level; what lies outside [-1, 1] goes to the outermost.

    Args:
        loc: Mean amplitude.
        scale: Its scale, positive.
        edges: Amplitudes (values - 1,) between the levels; see `zoo.datasets.audio.edges`.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    def __init__(self, loc: Tensor, scale: Tensor, edges: Tensor):
        self.loc, self.scale = broadcast_all(loc, scale)
        self.edges = edges.to(self.loc)
        super().__init__(self.loc.shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """The grid."""
        return Grid(len(self.edges) + 1)

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> CompandedLogistic:
        """The same over more batch dimensions."""
        return CompandedLogistic(self.loc.expand(batch_shape), self.scale.expand(batch_shape), self.edges)

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        """Draws levels."""
        noise = torch.rand(self._extended_shape(sample_shape), dtype=self.loc.dtype, device=self.loc.device)
        return audio.to_levels(self.loc + self.scale * torch.logit(clamp_probs(noise)), len(self.edges) + 1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log mass of each level."""
        last = len(self.edges)
        level = (value * last).round().long()
        upper, lower = self.edges[level.clamp(max=last - 1)], self.edges[(level - 1).clamp(min=0)]
        to_left = logsigmoid((upper - self.loc) / self.scale)
        to_right = logsigmoid((self.loc - lower) / self.scale)
        # s(a) - s(b) = s(a) s(-b) (1 - e^(b - a)), which loses no digits in the tails. The outermost have no a, or no
        # b; what stands in for it keeps the gradient of the branch not taken finite.
        width = torch.where(upper > lower, upper - lower, torch.ones_like(upper))
        inside = to_left + to_right + torch.log(-torch.expm1(-width / self.scale))
        return torch.where(level == 0, to_left, torch.where(level == last, to_right, inside))


class CompandedLogisticMixture(Emission):
    """Mu-law levels from a mixture of logistic amplitudes with one mean: (mean, logits, log scales).

    Args:
        components: K; 2 K + 1 numbers a site.
        values: Number of levels.
    """

    noise = 2

    def __init__(self, components: int, values: int):
        if components < 1:
            raise OptionError(f"components must be at least 1, got {components}.")
        self.components, self.values, self.size = components, values, 2 * components + 1
        self.edges, self.support = audio.edges(values), Grid(values)

    def distribution(self, outputs: Tensor) -> dist.TorchDistribution:
        """The mixture."""
        loc, logits, log_scale = outputs.split([1, self.components, self.components], -1)
        weights = dist.Categorical(logits=logits, validate_args=False)
        logistics = CompandedLogistic(loc, log_scale.exp(), self.edges)
        return dist.MixtureSameFamily(weights, logistics, validate_args=False)

    def draw(self, outputs: Tensor, noise: Tensor) -> Tensor:
        """A component by the first number, its logistic amplitude by the second, companded to the nearest level."""
        loc, logits, log_scale = outputs.split([1, self.components, self.components], -1)
        below = log_softmax(logits, -1).exp().cumsum(-1)[..., :-1] <= noise[..., :1]
        scale = log_scale.exp().gather(-1, below.sum(-1, keepdim=True)).squeeze(-1)
        return audio.to_levels(loc.squeeze(-1) + scale * torch.logit(clamp_probs(noise[..., 1])), self.values)


class LinearPrediction(ClassConditional):
    """Linear prediction of order k over mu-law levels, with weights of its own for each class where there are classes.

    Args:
        event_shape: (samples,). Samples before the first count as zero.
        order: Number k of samples that are seen.
        components: Scales of the residual's mixture.
        values: Number of levels.
        classes: Number of classes that the context says, one-hot; 0 for an unconditional program.

    Raises: ShapeError, OptionError.
    """

    paper = "Atal & Hanauer, Speech analysis and synthesis by linear prediction of the speech wave, 1971"
    dataset = "spoken_digits"
    presets: ClassVar[Mapping[str, Preset]] = {
        "small": Preset({"order": 16, "components": 6}, "svi", {"steps": 2000, "batch_size": 32, "lr": 3e-2}),
    }

    def __init__(
        self,
        event_shape: list[int] = [24],  # noqa: B006 (JSON-like, never changed)
        order: int = 8,
        components: int = 3,
        values: int = 256,
        classes: int = 0,
    ):
        super().__init__()
        if order < 1:
            raise OptionError(f"order (the number of samples seen) must be at least 1, got {order}.")
        if classes < 0:
            raise OptionError(f"classes must be 0 (no context) or the number of classes, got {classes}.")
        self.event_shape = sound_shape("LinearPrediction", event_shape)
        self.taps, self.values, self.classes = order, values, classes
        self.emission = CompandedLogisticMixture(components, values)
        self.support = self.emission.support
        self.weight = nn.Parameter(torch.zeros(max(classes, 1), order))
        self.logits = nn.Parameter(torch.zeros(max(classes, 1), components))
        spread = torch.linspace(-1.0, 1.0, components) if components > 1 else torch.zeros(1)
        self.log_scale = nn.Parameter((2 * spread - 4).repeat(max(classes, 1), 1))

    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        """Weights by least squares over all classes; scales spread about that of the residual."""
        pieces = x.split(256)  # the k samples before each of all at once would be k times the data
        gram, cross = (x.new_zeros(*shape, dtype=torch.float64) for shape in ((self.taps, self.taps), (self.taps,)))
        square = x.new_zeros((), dtype=torch.float64)
        for piece in pieces:
            seen, wave = self._windows(piece).double().flatten(0, 1), audio.from_levels(piece.double(), self.values)
            gram, cross = gram + seen.T @ seen, cross + wave.flatten() @ seen
            square = square + wave.square().sum()
        ridge = (1e-6 * gram.diagonal().mean() + 1e-6) * torch.eye(self.taps).to(gram)
        best = torch.linalg.solve(gram + ridge, cross)
        self.weight.copy_(best.expand_as(self.weight))
        variance = (square - 2 * best @ cross + best @ gram @ best).clamp(min=0) / x.numel()
        # The standard deviation of a logistic variable is pi / sqrt(3) scales.
        middle = (variance.sqrt() * 3**0.5 / torch.pi).clamp(min=1e-4).log()
        self.log_scale.add_(middle - self.log_scale.mean())

    def outputs(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Mean, logits and log scales of all samples, (B, T, 2 K + 1); T may be another than that of the event."""
        weight, *rest = self._of(context)
        loc = (self._windows(x) * weight.unsqueeze(1)).sum(-1, keepdim=True)
        return torch.cat([loc, *(part.unsqueeze(1).expand(len(x), x.shape[1], -1) for part in rest)], -1)

    def continue_from(self, x: Tensor, known: int, context: Tensor | None, noise: Tensor) -> Tensor:
        """Each sample from the k before it alone."""
        weight, *rest = (part.expand(len(x), -1) for part in self._of(context))
        x = pad(x, (self.taps, 0))
        wave = audio.from_levels(x, self.values)
        wave[:, : self.taps] = 0
        for i in range(known, noise.shape[1]):
            loc = (wave[:, i : i + self.taps] * weight).sum(-1, keepdim=True)
            x[:, self.taps + i] = self.emission.draw(torch.cat([loc, *rest], -1), noise[:, i])
            wave[:, self.taps + i] = audio.from_levels(x[:, self.taps + i], self.values)
        return x[:, self.taps :]

    def _of(self, context: Tensor | None) -> tuple[Tensor, ...]:
        """Weights (B, k), logits and log scales (B, K) of each example's class; B = 1 without classes."""
        tables = (self.weight, self.logits, self.log_scale)
        return tables if context is None else tuple(context @ table for table in tables)

    def _windows(self, x: Tensor) -> Tensor:
        """Amplitudes (B, T, k) of the k samples before each, the nearest last."""
        wave = pad(audio.from_levels(x, self.values), (self.taps, 0))
        return wave.unfold(-1, self.taps, 1)[:, :-1]
