r"""WaveNet: raw audio, a sample at a time, from causal convolutions whose dilation doubles from layer to layer.

van den Oord, Dieleman, Zen, Simonyan, Vinyals, Graves, Kalchbrenner, Senior & Kavukcuoglu, "WaveNet: a generative model
for raw audio", 2016; sampling with queues: Le Paine et al., "Fast WaveNet generation algorithm", 2016.

    z = tanh(W_f * h + V_f c) . sigmoid(W_g * h + V_g c)      c the class, one-hot; * of width 2, dilation 1, 2, 4, ...

    x_t-2, x_t-1 --> causal --> h --> [dilated, gate] --> 1x1 + residual --> next layer
                                             \-> 1x1, summed over layers --> ReLU --> 1x1 --> ReLU --> 1x1 --> softmax

    sites: x (samples,), mu-law levels on the grid 0, 1/(values-1), ..., 1; context: classes one-hot; no latents
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.autoregressive.base import ClassConditional, sound_shape
from zoo.datasets import audio
from zoo.distributions import Grid
from zoo.errors import OptionError, ShapeError, UnknownNameError
from zoo.options import Count, Natural, Shape
from zoo.program import Preset
from zoo.specs import Spec

__all__ = ["INPUTS", "WaveNet"]

INPUTS = ("one-hot", "scalar")
"""What the first convolution may see of a sample."""


class WaveNet(ClassConditional):
    """WaveNet, on its own or conditional on a class (the paper's global conditioning).

    A sample sees the `receptive_field` samples before it, and silence of no level at all (zeros in place of the one-hot
    vector) before the first. One pass gives the density of all samples; a drawn sample costs one step of each layer,
    whatever came before, since each layer keeps what its second tap will see in a queue.

    Args:
        event_shape: (samples,).
        layers: Layers of a stack; dilations 1, 2, ..., 2^(layers-1).
        stacks: How often they are repeated.
        residual: Channels of the residual connections and of the gates.
        skip: Channels of the skip connections, and of the 1x1 convolution in the head.
        likelihood: What a sample follows, 'levels' (the paper's softmax) or another over a grid, as 'logistic-mixture'.
        inputs: What the first convolution (width 2) sees of a sample: 'one-hot' (the paper's) or 'scalar', its
            companded value in [-1, 1].
        classes: Number of classes that the context says, one-hot; 0 for an unconditional program.

    Raises: ShapeError, OptionError, UnknownNameError.
    """

    paper = "van den Oord et al., WaveNet: a generative model for raw audio, 2016"
    dataset = "spoken_digits"

    def __init__(
        self,
        event_shape: Shape = (24,),
        layers: Count = 3,
        stacks: Count = 2,
        residual: Count = 8,
        skip: Count = 16,
        likelihood: Spec = "levels",
        inputs: str = "one-hot",
        classes: Natural = 0,
    ):
        super().__init__(sound_shape("WaveNet", event_shape), likelihood, classes)
        if inputs not in INPUTS:
            raise UnknownNameError("inputs", inputs, INPUTS)
        if not isinstance(self.support, Grid):
            raise OptionError(
                f"WaveNet is over mu-law levels and needs a likelihood over a grid, as 'levels' is; got {likelihood!r}."
            )
        self.values = values = self.support.values
        # A convolution of a one-hot vector picks a row for each tap; both taps lie side by side.
        taps = 2 * residual
        self.embedding = nn.Embedding(values, taps) if inputs == "one-hot" else nn.Linear(1, taps, bias=False)
        if inputs == "one-hot":
            # As a convolution of 2 * values inputs starts, not at torch's N(0, 1) for embeddings: what is learned of a
            # level soon outweighs the noise that it starts with.
            nn.init.uniform_(self.embedding.weight, -((2 * values) ** -0.5), (2 * values) ** -0.5)
        dilations = [2**i for i in range(layers)] * stacks
        self.layers = nn.ModuleList(
            _Layer(residual, skip, dilation, classes=classes, last=i == len(dilations) - 1)
            for i, dilation in enumerate(dilations)
        )
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(skip, skip), nn.ReLU(), nn.Linear(skip, self.likelihood.size))

    @property
    def receptive_field(self) -> int:
        """How many samples before it a sample depends on."""
        return 2 + sum(layer.dilation for layer in self._layers())

    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        """Starts the outputs at how often each level occurs."""
        self.head[-1].get_parameter("bias").copy_(self.likelihood.initial(x.reshape(-1)))

    def outputs(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Logits (B, T, values) of all samples; T may be another than that of the event."""
        return self.head(self._skips(x, self._labels(context)))

    def continue_from(self, x: Tensor, known: int, context: Tensor | None, noise: Tensor) -> Tensor:
        """With queues, O(layers) a sample."""
        return self._continue(x[:, :known], context, noise)

    @torch.no_grad()
    def generate_audio(
        self,
        seconds: float,
        context: Tensor | None = None,
        n: int = 1,
        rate: int = 8000,
        start: Tensor | None = None,
    ) -> Tensor:
        """Draws sound of any length: the queues go on past `event_shape`.

            for i, waveform in enumerate(program.generate_audio(0.5, context=torch.eye(10))):
                audio.write_wav(f"digit-{i}.wav", waveform)

        Args:
            seconds: How long.
            context: Classes one-hot (n, classes), or None.
            n: How many, without a context.
            rate: Samples a second of the data that the program was fitted to.
            start: Levels (n, samples) to go on from, kept as they are and counted in `seconds`; None starts afresh.

        Returns: amplitudes (n, seconds * rate) in [-1, 1].

        Raises: ShapeError.
        """
        if (context is None) != (self.classes == 0):
            raise ShapeError(f"WaveNet with classes={self.classes} got {'no' if context is None else 'a'} context.")
        n, samples = len(context) if context is not None else n, round(seconds * rate)
        if start is None:
            start = self._blank(n)[:, :0]
        if start.ndim != 2 or len(start) != n or start.shape[1] > samples:
            raise ShapeError(f"start must have the shape ({n}, at most {samples}), got {tuple(start.shape)}.")
        noise = torch.rand(n, samples, 1, dtype=start.dtype, device=start.device)
        return audio.from_levels(self._continue(start, context, noise), self.values)

    def _layers(self) -> Iterable[Any]:
        return self.layers

    def _labels(self, context: Tensor | None) -> list[Tensor | None]:
        """What the class adds in each layer, (B, 2 R)."""
        return [None if context is None or layer.label is None else layer.label(context) for layer in self._layers()]

    def _taps(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What samples (...) add one and two steps later, (..., R) each."""
        if isinstance(self.embedding, nn.Embedding):
            seen = self.embedding((x * (self.values - 1)).round().long())
        else:
            seen = self.embedding(self.likelihood.embed(x).unsqueeze(-1))
        one, two = seen.chunk(2, -1)
        return one, two

    def _skips(self, x: Tensor, labels: list[Tensor | None], keep: list[Tensor] | None = None) -> Tensor:
        """The sum of the skip connections, (B, T, S); `keep` gets the input of every layer, (B, T, R)."""
        one, two = self._taps(x)
        h = _delayed(one, 1) + _delayed(two, 2)
        total: Tensor | None = None
        for layer, label in zip(self._layers(), labels, strict=True):
            if keep is not None:
                keep.append(h)
            h, skip = layer(_delayed(h, layer.dilation), h, None if label is None else label.unsqueeze(1))
            total = skip if total is None else total + skip
        assert total is not None
        return total

    def _continue(self, start: Tensor, context: Tensor | None, noise: Tensor) -> Tensor:
        """Levels (n, T) that begin with `start` (n, known), T the length of the noise (n, T, 1)."""
        (n, known), labels = start.shape, self._labels(context)
        width = self.embedding.weight.shape[1 if isinstance(self.embedding, nn.Embedding) else 0] // 2
        silence = start.new_zeros(n, width)
        seen: list[Tensor] = []
        if known:
            self._skips(start, labels, seen)
        queues = []
        for i, layer in enumerate(self._layers()):
            queue = deque([silence] * layer.dilation, maxlen=layer.dilation)
            queue.extend(seen[i][:, -layer.dilation :].unbind(1) if known else [])
            queues.append(queue)
        one = self._taps(start[:, -1])[0] if known else silence
        two = self._taps(start[:, -2])[1] if known > 1 else silence
        drawn = list(start.unbind(1))
        for t in range(known, noise.shape[1]):
            h, total = one + two, 0.0
            for layer, label, queue in zip(self._layers(), labels, queues, strict=True):
                past = queue[0]
                queue.append(h)
                h, skip = layer(past, h, label)
                total = total + skip
            drawn.append(self.likelihood.draw(self.head(total), noise[:, t]))
            two = self._taps(drawn[-2])[1] if t else silence
            one = self._taps(drawn[-1])[0]
        return torch.stack(drawn, 1)

    presets: ClassVar[Mapping[str, Preset]] = {
        "small": Preset(
            {"layers": 7, "stacks": 2, "residual": 32, "skip": 64},
            "svi",
            {"steps": 1000, "batch_size": 8, "lr": 3e-3},
        ),
        # The paper gives the dilations and no widths; the widths are ours.
        "paper": Preset(
            {"layers": 10, "stacks": 3, "residual": 256, "skip": 256},
            "svi",
            {"epochs": 300, "batch_size": 16, "lr": 1e-3},
        ),
    }


class _Layer(nn.Module):
    """A dilated convolution of width 2 with its gate, and the 1x1 convolutions after it.

    Convolutions are products with what they see side by side, so that a pass over all samples and a step of sampling
    are the same code.

    Args:
        residual: Channels R.
        skip: Channels S that go to the head.
        dilation: How many samples lie between the two taps.
        classes: Size of the one-hot class; 0 for none.
        last: Whether the head alone uses what it says.
    """

    def __init__(self, residual: int, skip: int, dilation: int, classes: int, last: bool):
        super().__init__()
        self.skip, self.dilation, self.is_last = skip, dilation, last
        self.dilated = nn.Linear(2 * residual, 2 * residual)
        self.label = nn.Linear(classes, 2 * residual, bias=False) if classes else None
        self.across = nn.Linear(residual, skip if last else skip + residual)

    def forward(self, past: Tensor, now: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
        """(..., R) at t - dilation and at t, and what the class adds -> (..., R) for the next layer, (..., S)."""
        z = self.dilated(torch.cat([past, now], -1))
        if label is not None:
            z = z + label
        value, gate = z.chunk(2, -1)
        out = self.across(value.tanh() * gate.sigmoid())
        return now if self.is_last else now + out[..., self.skip :], out[..., : self.skip]


def _delayed(h: Tensor, steps: int) -> Tensor:
    """(B, T, R) moved to later by so many samples, zeros first."""
    return F.pad(h, (0, 0, steps, 0))[:, : h.shape[1]]
