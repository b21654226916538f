"""Autoregressive programs in a shuffled order, small enough to be enumerated."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import constraints

from zoo.autoregressive.base import Autoregressive
from zoo.autoregressive.ensemble import OrderEnsemble


class Linear(Autoregressive):
    """What each site's likelihood wants is linear in the sites before it, in a shuffled order."""

    def __init__(self, event_shape: list[int], likelihood: str = "bernoulli", values: int = 5, classes: int = 0):
        options = {"levels": {"values": values}, "logistic-mixture": {"values": values, "components": 2}}
        super().__init__(event_shape, {"name": likelihood, **options.get(likelihood, {})})
        n = self.event_shape.numel()
        self.register_buffer("permutation", torch.randperm(n))
        place = torch.empty(n).index_put((self.permutation,), torch.arange(n).to(torch.empty(())))
        self.register_buffer("mask", (place[:, None] > place).to(place).unsqueeze(-1))
        self.weight = nn.Parameter(0.8 * torch.randn(n, n, self.likelihood.size))
        self.bias = nn.Parameter(torch.randn(n, self.likelihood.size))
        self.classes, self.context_support = classes, constraints.integer_interval(0, classes - 1)
        self.shift = nn.Parameter(torch.randn(classes, n, self.likelihood.size)) if classes else None

    def example_context(self, n: int) -> Tensor | None:
        return (torch.arange(n) % self.classes).to(self.bias) if self.classes else None

    @property
    def order(self) -> Tensor:
        return self.permutation

    def outputs(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        seen = self.likelihood.embed(x).reshape(len(x), -1)
        found = torch.einsum("bj,ijs->bis", seen, self.weight * self.mask) + self.bias
        if self.shift is not None and context is not None:
            found = found + self.shift[context.long()]
        return found.reshape(*x.shape, -1)


class Two(OrderEnsemble):
    """A mixture of two of them."""

    def __init__(self, event_shape: list[int]):
        super().__init__(event_shape, "bernoulli")
        self.each = nn.ModuleList([Linear(event_shape), Linear(event_shape)])
        self.register_buffer("permutations", torch.stack([p.permutation for p in self.each]))

    def outputs_of(self, x: Tensor, k: int | Tensor, context: Tensor | None = None) -> Tensor:
        return self.each[int(k)].outputs(x, context)
