"""Autoregressive networks on binary digits, MADE and the gated PixelCNN: a step up the exact likelihood.

Nothing is latent, so that a step is one pass, its slope, and Adam.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import pyro
import pyro.distributions as dist
import torch
import torch.nn.functional as F
from pyro.infer import Trace_ELBO
from torch import Tensor, nn

from benchmarks.speed.contender import (
    Contender,
    Work,
    at_hand,
    pyro_contender,
    torch_contenders,
    zoo_contenders,
)
from zoo.autoregressive.gated_pixelcnn import GatedPixelCNN
from zoo.autoregressive.made import MADE
from zoo.datasets import Data
from zoo.program import Program

__all__ = ["contenders", "work"]

PRESETS = {"made": MADE.presets["small"], "gated-pixelcnn": GatedPixelCNN.presets["mnist"]}
"""Whose networks are taken; MADE's preset has plain SGD, everyone here Adam."""
ROWS = 8000
"""So that batches of 32 and of 100 come out even."""


def work(
    device: str = "cpu",
    seed: int = 0,
    network: str = "made",
    batch_size: int = 100,
    rows: int = ROWS,
    lr: float = 1e-3,
    **sizes: Any,
) -> Work:
    """Binary digits.

    Args:
        device, seed, batch_size, rows, lr: Of the data and of everyone's training.
        network: 'made' or 'gated-pixelcnn'.
        sizes: Options of the program that win over its preset's.

    Raises: Unavailable when the data are not on this machine.
    """
    x = at_hand("mnist10k-binary").train.x[:rows].to(torch.device(device), torch.float32)
    facts = {"network": network, **PRESETS[network].program, **sizes, "estimator": "exact log-likelihood"}
    return Work(Data(x), batch_size, lr, seed=seed, facts=facts)


def contenders(job: Work) -> list[Contender]:
    """All but NumPyro."""
    logits, how = LOGITS[job.facts["network"]]
    return [
        *zoo_contenders(lambda: by_zoo(job), job),
        pyro_contender(
            lambda: by_pyro(job, logits),
            job,
            job.batch_size,
            f"the network by hand as pyro.module, {how}; Trace_ELBO, Adam",
        ),
        *torch_contenders(lambda: by_torch(job, logits), job, how),
    ]


def by_zoo(job: Work) -> tuple[Program, Mapping[str, Any]]:
    """The program of the zoo; its weights, drawn from the seed, are where everyone starts."""
    cls = {"made": MADE, "gated-pixelcnn": GatedPixelCNN}[job.facts["network"]]
    options = {name: value for name, value in job.facts.items() if name not in ("network", "estimator")}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.seed)
        program: Program = cls([28, 28], **options)
    return program.float().to(job.device), {"elbo": "trace"}


class Masked(nn.Module):
    """MADE with one mask: layers whose masks were made once, the direct connection with its own.

    Args:
        program: Has the weights, which are shared, and the degrees.
    """

    def __init__(self, program: MADE):
        super().__init__()
        degrees = program.degrees(0)
        self.weights = nn.ParameterList(layer.get_parameter("weight") for layer in program.layers)
        self.biases = nn.ParameterList(layer.get_parameter("bias") for layer in program.layers)
        self.direct, self.activation = program.direct, program.activation
        self.masks = [(above[:, None] >= below).float() for below, above in pairwise(degrees)]
        self.masks.append((degrees[0][:, None] > degrees[-1]).float())
        self.before = (degrees[0][:, None] > degrees[0]).float()

    def forward(self, x: Tensor) -> Tensor:
        """(B, 28, 28) -> logits (B, 28, 28)."""
        seen = h = x.flatten(1)
        *inner, last = zip(self.weights, self.masks, self.biases, strict=True)
        for weight, mask, bias in inner:
            h = self.activation(F.linear(h, weight * mask, bias))
        weight, mask, bias = last
        out = F.linear(h, weight * mask, bias)
        if self.direct is not None:
            out = out + F.linear(seen, self.direct * self.before)
        return out.view_as(x)


class TwoStacks(nn.Module):
    """The gated PixelCNN, layer by layer; its convolutions are the zoo's.

    Args:
        program: Has them.
    """

    def __init__(self, program: GatedPixelCNN):
        super().__init__()
        self.layers, self.mix, self.head = program.layers, program.mix, program.head

    def forward(self, x: Tensor) -> Tensor:
        """(B, 28, 28) -> logits (B, 28, 28)."""
        v = h = x.unsqueeze(1)
        skips, last = [], len(self.layers) - 1
        layers: Any = self.layers
        for i, layer in enumerate(layers):
            v = layer.vertical(v)
            across = _gate(layer.horizontal(h) + layer.down(v))
            skips.append(layer.skip(across))
            if i < last:
                v, own = _gate(v), layer.across(across)
                h = h + own if i else own
        out = self.head(F.relu(self.mix(F.relu(sum(skips[1:], skips[0])))))
        return out.view_as(x)


def _gate(h: Tensor) -> Tensor:
    value, gate = h.chunk(2, 1)
    return torch.tanh(value) * torch.sigmoid(gate)


LOGITS: Mapping[str, tuple[Callable[[Any], nn.Module], str]] = {
    "made": (Masked, "masks made once"),
    "gated-pixelcnn": (TwoStacks, "two stacks layer by layer"),
}
"""Network -> how it is written by hand, from the program that has the weights; and in words."""


def by_pyro(job: Work, logits: Callable[[Any], nn.Module]) -> tuple[Any, Any, Trace_ELBO]:
    """Plain Pyro, with nothing to guide."""
    net = logits(by_zoo(job)[0])

    def model(x: Tensor, context: None) -> None:
        pyro.module("net", net)
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Bernoulli(logits=net(x)).to_event(2), obs=x)

    return model, lambda x, context: None, Trace_ELBO()


def by_torch(job: Work, logits: Callable[[Any], nn.Module]) -> tuple[list[nn.Parameter], Any]:
    """The cross-entropy of the bits."""
    net = logits(by_zoo(job)[0])

    def loss(x: Tensor, context: Tensor | None) -> Tensor:
        return F.binary_cross_entropy_with_logits(net(x), x, reduction="sum") / len(x)

    return list(net.parameters()), loss
