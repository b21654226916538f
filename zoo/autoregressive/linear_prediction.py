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
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from zoo.autoregressive.base import ClassConditional, sound_shape
from zoo.datasets import audio
from zoo.errors import OptionError
from zoo.likelihoods import CompandedMixture
from zoo.options import Count, Natural, Shape
from zoo.program import Preset
from zoo.specs import Spec

__all__ = ["LinearPrediction"]


class LinearPrediction(ClassConditional):
    """Linear prediction of order k over mu-law levels, with weights of its own for each class where there are classes.

    Args:
        event_shape: (samples,). Samples before the first count as zero.
        order: Number k of samples that are seen.
        likelihood: 'companded-mixture', with options: {"name": "companded-mixture", "components": 3, "values": 256} for
            three scales of the residual and 256 levels.
        classes: Number of classes that the context says, one-hot; 0 for an unconditional program.

    Raises: ShapeError, OptionError.
    """

    paper = "Atal & Hanauer, Speech analysis and synthesis by linear prediction of the speech wave, 1971"
    dataset = "spoken_digits"

    def __init__(
        self,
        event_shape: Shape = (24,),
        order: Count = 8,
        likelihood: Spec = "companded-mixture",
        classes: Natural = 0,
    ):
        super().__init__(sound_shape("LinearPrediction", event_shape), likelihood, classes)
        if not isinstance(self.likelihood, CompandedMixture):
            raise OptionError(f"The residual of linear prediction is a 'companded-mixture', got {likelihood!r}.")
        self.taps, self.values, components = order, self.likelihood.values, self.likelihood.components
        self.weight = nn.Parameter(torch.zeros(max(classes, 1), order))
        self.logits = nn.Parameter(torch.zeros(max(classes, 1), components))
        spread = torch.linspace(-1.0, 1.0, components) if components > 1 else torch.zeros(1)
        self.log_scale = nn.Parameter((2 * spread - 4).repeat(max(classes, 1), 1))

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
            x[:, self.taps + i] = self.likelihood.draw(torch.cat([loc, *rest], -1), noise[:, i])
            wave[:, self.taps + i] = audio.from_levels(x[:, self.taps + i], self.values)
        return x[:, self.taps :]

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

    def _of(self, context: Tensor | None) -> tuple[Tensor, ...]:
        """Weights (B, k), logits and log scales (B, K) of each example's class; B = 1 without classes."""
        tables = (self.weight, self.logits, self.log_scale)
        return tables if context is None else tuple(context @ table for table in tables)

    def _windows(self, x: Tensor) -> Tensor:
        """Amplitudes (B, T, k) of the k samples before each, the nearest last."""
        wave = pad(audio.from_levels(x, self.values), (self.taps, 0))
        return wave.unfold(-1, self.taps, 1)[:, :-1]

    presets: ClassVar[Mapping[str, Preset]] = {
        "small": Preset(
            {"order": 16, "likelihood": {"name": "companded-mixture", "components": 6}},
            "svi",
            {"steps": 2000, "batch_size": 32, "lr": 3e-2},
        ),
    }
