"""Random numbers as an input: a step that draws its own becomes a function of two tensors, normals and uniforms.

A compiled step has to be a pure function, and R fits in one must each meet the numbers that they would meet alone. So
everything that samples inside `with Noise(...)` is fed from given tensors, in the order of the calls: the same numbers
whether the step runs as Python or as compiled code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["Noise"]

GAMMA_TRIES = 8
"""Proposals for each gamma draw: all are refused with probability below 0.049**8 = 3e-11, below float32's rounding."""


class Noise(TorchFunctionMode):
    """Within it, torch's random functions read from `normals` and `uniforms`; without those, it draws and keeps them.

    Covers torch.randn, rand, normal, bernoulli, multinomial (one draw, or with replacement), randperm, randint, dropout
    and the variates of gamma and Dirichlet laws, and the in-place normal_, uniform_, exponential_, cauchy_ and
    bernoulli_. Others are left to torch.

    Args:
        normals: Standard normal numbers (n,), or None to record.
        uniforms: Uniform numbers in [0, 1) (m,), or None to record.
    """

    def __init__(self, normals: Tensor | None = None, uniforms: Tensor | None = None):
        super().__init__()
        self.recording = normals is None or uniforms is None
        self._given = {"normal": normals, "uniform": uniforms}
        self._kept: dict[str, list[Tensor]] = {"normal": [], "uniform": []}
        self._used = {"normal": 0, "uniform": 0}
        self.calls = 0
        """Number of torch functions called so far."""

    def recorded(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """What was drawn, as (normals (n,), uniforms (m,)) of the dtype and device of `like`."""
        normals, uniforms = (
            torch.cat([like.new_empty(0), *(v.to(like).flatten() for v in self._kept[kind])])
            for kind in ("normal", "uniform")
        )
        return normals, uniforms

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal numbers of a tensor's shape and kind."""
        return self._take("normal", like)

    def uniform(self, like: Tensor) -> Tensor:
        """Uniform numbers in [0, 1) of a tensor's shape and kind."""
        return self._take("uniform", like)

    def _take(self, kind: str, like: Tensor) -> Tensor:
        if self.recording:
            drawn = torch.randn_like(like) if kind == "normal" else torch.rand_like(like)
            self._kept[kind].append(drawn.detach())
            return drawn
        given, start = self._given[kind], self._used[kind]
        assert given is not None
        self._used[kind] = start + like.numel()
        return given[start : start + like.numel()].reshape(like.shape).to(like)

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        """Replaces a random function by its counterpart fed from the noise."""
        self.calls += 1
        kwargs = kwargs or {}
        replacement = REPLACEMENTS.get(func)
        if replacement is None or kwargs.get("generator") is not None:
            return func(*args, **kwargs)
        return replacement(self, func, *args, **kwargs)


def _factory(kind: str) -> Callable[..., Any]:
    """torch.randn and torch.rand."""

    def draw(noise: Noise, func: Any, *size: Any, **kwargs: Any) -> Tensor:
        requires_grad = kwargs.pop("requires_grad", False)
        return noise._take(kind, torch.empty(*size, **kwargs)).requires_grad_(requires_grad)

    return draw


def _like(kind: str) -> Callable[..., Any]:
    """torch.randn_like and torch.rand_like."""
    return lambda noise, func, like, **kwargs: noise._take(kind, torch.empty_like(like, **kwargs))


def _normal(noise: Noise, func: Any, mean: Any = 0.0, std: Any = 1.0, size: Any = None, **kwargs: Any) -> Tensor:
    if size is not None:
        return mean + std * noise.normal(torch.empty(size, **kwargs))
    if isinstance(mean, Tensor) and isinstance(std, Tensor):
        mean, std = torch.broadcast_tensors(mean, std)
    like = mean if isinstance(mean, Tensor) else std
    return (mean + std * noise.normal(like)).detach()


def _normal_(noise: Noise, func: Any, self: Tensor, mean: float = 0.0, std: float = 1.0, **kwargs: Any) -> Tensor:
    value = noise.normal(self)
    return self.copy_(value if mean == 0 and std == 1 else mean + std * value)


def _uniform_(noise: Noise, func: Any, self: Tensor, low: float = 0.0, high: float = 1.0, **kwargs: Any) -> Tensor:
    # `from` is a keyword of Python, and of this method.
    low, high = kwargs.get("from", low), kwargs.get("to", high)
    return self.copy_(low + (high - low) * noise.uniform(self))


def _exponential_(noise: Noise, func: Any, self: Tensor, lambd: float = 1.0, **kwargs: Any) -> Tensor:
    return self.copy_(-torch.log1p(-noise.uniform(self)) / lambd)


def _cauchy_(noise: Noise, func: Any, self: Tensor, median: float = 0.0, sigma: float = 1.0, **kwargs: Any) -> Tensor:
    return self.copy_(median + sigma * torch.tan(math.pi * (noise.uniform(self) - 0.5)))


def _bernoulli(noise: Noise, func: Any, probs: Tensor, *p: float, **kwargs: Any) -> Tensor:
    level = p[0] if p else probs.detach()
    return (noise.uniform(probs) < level).to(probs.dtype)


def _bernoulli_(noise: Noise, func: Any, self: Tensor, p: Any = 0.5, **kwargs: Any) -> Tensor:
    return self.copy_(noise.uniform(self) < p)


def _dropout(
    noise: Noise, func: Any, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    if not training or p == 0:
        return input
    keep = (noise.uniform(input) >= p).to(input.dtype) / (1 - p)
    return input.mul_(keep) if inplace else input * keep


def _multinomial(noise: Noise, func: Any, probs: Tensor, n: int, replacement: bool = False, **kwargs: Any) -> Tensor:
    """Inverts the distribution function."""
    if n > 1 and not replacement:
        return func(probs, n, replacement, **kwargs)
    cdf = probs.detach().cumsum(-1)
    total = cdf[..., -1:]
    u = noise.uniform(probs.new_empty(*probs.shape[:-1], n)) * total
    found = (u[..., None] >= cdf[..., None, :]).sum(-1)
    # Rounding may put u at the total: the last category of positive probability is then meant.
    return torch.minimum(found, (cdf < total).sum(-1, keepdim=True))


def _randperm(noise: Noise, func: Any, n: int, **kwargs: Any) -> Tensor:
    """The order of so many uniform numbers; equal ones, two of a hundred in 3,000 draws, stand as they came."""
    like = torch.empty(n, dtype=torch.float64, device=kwargs.get("device"))
    return noise.uniform(like).argsort()


def _randint(noise: Noise, func: Any, *bounds: Any, size: Any = None, **kwargs: Any) -> Tensor:
    """Whole numbers from low (0) to high - 1, as (high, size) or (low, high, size)."""
    *ends, size = bounds if size is None else (*bounds, size)
    ends = [*ends, *(kwargs[name] for name in ("low", "high") if name in kwargs)]
    low, high = ends if len(ends) == 2 else (0, *ends)
    uniforms = noise.uniform(torch.empty(size, dtype=torch.float64, device=kwargs.get("device")))
    return (low + (uniforms * (high - low)).floor()).to(kwargs.get("dtype") or torch.int64)


def _log_gamma(noise: Noise, alpha: Tensor) -> Tensor:
    """The log of gamma variates, which for small alpha are smaller than any number.

    Marsaglia & Tsang 2000, with a fixed number of proposals.
    """
    tries = alpha.expand(GAMMA_TRIES, *alpha.shape)
    normals, uniforms, boost = noise.normal(tries), noise.uniform(tries), noise.uniform(alpha)
    # For alpha < 1: Gamma(alpha) = Gamma(alpha + 1) U^(1 / alpha).
    d = torch.where(alpha < 1, alpha + 1, alpha) - 1 / 3
    cube = (1 + normals / (9 * d).sqrt()) ** 3
    proposals, tiny = d * cube, torch.finfo(alpha.dtype).tiny
    accepted = (cube > 0) & (
        torch.log1p(-uniforms) < 0.5 * normals**2 + d - proposals + d * cube.clamp(min=1e-30).log()
    )
    first = accepted.to(torch.int64).argmax(0, keepdim=True)
    value = proposals.gather(0, first)[0].clamp(min=tiny).log()
    return torch.where(alpha < 1, value + torch.log1p(-boost) / alpha, value)


class _Gamma(torch.autograd.Function):
    """A gamma variate that is given, with torch's own gradient."""

    @staticmethod
    def forward(ctx: Any, alpha: Tensor, log_value: Tensor) -> Tensor:
        value = log_value.exp().clamp(min=torch.finfo(alpha.dtype).tiny)
        ctx.save_for_backward(alpha, value)
        return value

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        alpha, value = ctx.saved_tensors
        return grads[0] * torch._standard_gamma_grad(alpha, value), None


def _gamma(noise: Noise, func: Any, alpha: Tensor, **kwargs: Any) -> Tensor:
    result = _Gamma.apply(alpha, _log_gamma(noise, alpha.detach()))
    assert isinstance(result, Tensor)
    return result


def _dirichlet(noise: Noise, func: Any, concentration: Tensor, **kwargs: Any) -> Tensor:
    """Positive like torch's, which differentiates it itself: a share that is zero has no density and no gradient."""
    shares = _log_gamma(noise, concentration.detach()).softmax(-1)
    return shares.clamp(min=torch.finfo(shares.dtype).tiny)


REPLACEMENTS: dict[Any, Callable[..., Any]] = {
    torch.randn: _factory("normal"),
    torch.rand: _factory("uniform"),
    torch.randn_like: _like("normal"),
    torch.rand_like: _like("uniform"),
    torch.normal: _normal,
    torch.Tensor.normal_: _normal_,
    torch.Tensor.uniform_: _uniform_,
    torch.Tensor.exponential_: _exponential_,
    torch.Tensor.cauchy_: _cauchy_,
    torch.bernoulli: _bernoulli,
    torch.Tensor.bernoulli: _bernoulli,
    torch.Tensor.bernoulli_: _bernoulli_,
    torch.multinomial: _multinomial,
    torch.Tensor.multinomial: _multinomial,
    torch.nn.functional.dropout: _dropout,
    torch.dropout: _dropout,
    torch.randperm: _randperm,
    torch.randint: _randint,
    torch._standard_gamma: _gamma,
    torch._sample_dirichlet: _dirichlet,
}
