"""Autoregressive programs in a shuffled order, small enough to be enumerated."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.autoregressive.base import Autoregressive
from zoo.autoregressive.ensemble import OrderEnsemble
from zoo.likelihoods import make_emission


class Linear(Autoregressive):
    """What each site's emission wants is linear in the sites before it, in a shuffled order."""

    def __init__(self, event_shape: list[int], likelihood: str = "bernoulli", values: int = 5, classes: int = 0):
        super().__init__()
        self.event_shape = torch.Size(event_shape)
        self.emission = make_emission(likelihood, values, components=2)
        self.support = self.emission.support
        n = self.event_shape.numel()
        self.register_buffer("permutation", torch.randperm(n))
        place = torch.empty(n).index_put((self.permutation,), torch.arange(n).to(torch.empty(())))
        self.register_buffer("mask", (place[:, None] > place).to(place).unsqueeze(-1))
        self.weight = nn.Parameter(0.8 * torch.randn(n, n, self.emission.size))
        self.bias = nn.Parameter(torch.randn(n, self.emission.size))
        self.shift = nn.Parameter(torch.randn(classes, n, self.emission.size)) if classes else None

    @property
    def order(self) -> Tensor:
        return self.permutation

    def outputs(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        seen = self.emission.embed(x).reshape(len(x), -1)
        found = torch.einsum("bj,ijs->bis", seen, self.weight * self.mask) + self.bias
        if self.shift is not None and context is not None:
            found = found + self.shift[context.long()]
        return found.reshape(*x.shape, -1)


class Two(OrderEnsemble):
    """A mixture of two of them."""

    def __init__(self, event_shape: list[int]):
        super().__init__()
        self.each = nn.ModuleList([Linear(event_shape), Linear(event_shape)])
        self.event_shape, self.emission, self.support = (
            self.each[0].event_shape, self.each[0].emission, self.each[0].support
        )  # fmt: skip
        self.register_buffer("permutations", torch.stack([p.permutation for p in self.each]))

    def outputs_of(self, x: Tensor, k: int | Tensor, context: Tensor | None = None) -> Tensor:
        return self.each[int(k)].outputs(x, context)
