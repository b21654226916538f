"""What the chains without latents share: one site x with a tractable density over pixels in raster order."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pyro
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from zoo.arrays import count_values
from zoo.chains.raster import Raster
from zoo.errors import OptionError
from zoo.program import Preset, Program

__all__ = ["MAX_PARAMETERS", "Chain", "TableChain", "check_parameters", "log_dirichlet", "log_frequencies"]

MAX_PARAMETERS = 2**24
"""The largest table a chain allocates: 64 MB in float32. An RGB pixel just fits; torch.multinomial takes no more."""


class Chain(Program):
    """Base of the programs without latents: subclasses give the `distribution` of x in raster order.

    Args:
        event_shape: Shape of one example; its pixels are the sites, row by row.
    """

    family = "chains"
    dataset = "digits-binary"

    def __init__(self, event_shape: Sequence[int]):
        super().__init__()
        self.event_shape = torch.Size(event_shape)
        self.length = self.event_shape.numel()
        if self.length < 1:
            raise OptionError(f"event_shape {list(event_shape)} has no sites; every dimension must be at least 1.")

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        """One site; nothing is latent."""
        with self.plate(x, context, size):
            x, present = self.seen(x)
            return pyro.sample("x", self._image(present), obs=x)

    def distribution(self) -> TorchDistribution:
        """p(x_1, ..., x_n), of event shape (n,)."""
        raise NotImplementedError(f"{type(self).__name__} must define distribution()")

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The density itself, (B,)."""
        x, present = self.seen(x)
        return self._image(present).log_prob(x)

    def marginal(self, present: Tensor) -> TorchDistribution:
        """Of chains that take missing values: `distribution` with sites that are not `present` (B, n) summed out."""
        raise NotImplementedError(f"{type(self).__name__} takes no missing values")

    def _image(self, present: Tensor | None = None) -> Raster:
        base = self.distribution() if present is None else self.marginal(present.reshape(len(present), -1))
        return Raster(base, self.event_shape, next(self.parameters()).dtype)


class TableChain(Chain):
    """Base of the chains whose parameters are tables of probabilities: maximum likelihood is counting.

    `e_step` counts (there is nothing to expect: EM converges in one step), `m_step` divides. Parameters are tables of
    logits (..., m), with one number more a row than is free; `parameter_count` counts the free ones.

    Args:
        event_shape: Shape of one example, n sites.
        values: Number m of values a site takes, 0 ... m-1.
        smoothing: Pseudo-observations that `m_step` adds to each row of a table, spread evenly over its m values, so
            that what was not seen in training is improbable rather than impossible. Zero is plain maximum likelihood.
    """

    presets: ClassVar[Mapping[str, Preset]] = {"small": Preset({}, "em")}

    def __init__(self, event_shape: Sequence[int], values: int, smoothing: float):
        super().__init__(event_shape)
        what = f"{type(self).__name__} over {self.length} sites of {values} values"
        check_parameters(what, self.free_parameters(self.length, values))
        self.values, self.smoothing = values, smoothing
        self.support = constraints.boolean if values == 2 else constraints.integer_interval(0, values - 1)

    @staticmethod
    def free_parameters(sites: int, values: int = 2) -> int:
        """How many free numbers the program has over so many sites; without building it."""
        raise NotImplementedError

    def parameter_count(self) -> int:
        """How many free numbers the program has (each row of probabilities sums to one, which takes one away)."""
        return self.free_parameters(self.length, self.values)

    def log_prior(self) -> Tensor:
        """The log prior () of which `smoothing` makes `m_step` the posterior mode, up to a constant."""
        return torch.stack([log_dirichlet(p.log_softmax(-1), self.smoothing) for p in self.parameters()]).sum()

    @classmethod
    def for_data(cls, x: Tensor, context: Tensor | None = None, **options: Any) -> Program:
        """Takes the shape from the data, and from its largest value how many values there are."""
        if "values" not in options:
            options["values"] = count_values(x)
        return super().for_data(x, context, **options)

    def _sites(self, x: Tensor) -> Tensor:
        """(B, *event_shape) -> values in raster order, (B, n) integers."""
        return x.reshape(len(x), self.length).long()

    def _count(self, index: Tensor, size: int) -> Tensor:
        """How often each of `size` table cells occurs in `index`, in the dtype of the parameters."""
        return torch.bincount(index.flatten(), minlength=size).to(next(self.parameters()).dtype)


def log_frequencies(counts: Tensor, smoothing: float = 0.0) -> Tensor:
    """Log of the maximum likelihood probabilities (..., m) given counts (..., m).

    Args:
        counts: Observed or expected counts.
        smoothing: Pseudo-observations added to each row, spread evenly over its m values: the mode of the posterior
            under `log_dirichlet`. Zero is plain maximum likelihood.

    Rows that were never seen become uniform. Zero counts get the smallest positive number, not zero, so that no
    parameter is infinite.
    """
    m = counts.shape[-1]
    smoothed = counts + smoothing / m
    total = smoothed.sum(-1, keepdim=True)
    probs = torch.where(total > 0, smoothed / total.clamp(min=torch.finfo(counts.dtype).tiny), 1 / m)
    return probs.clamp(min=torch.finfo(counts.dtype).tiny).log()


def log_dirichlet(log_probs: Tensor, smoothing: float) -> Tensor:
    """Log prior () of tables of log-probabilities (..., m), each row Dirichlet(1 + smoothing / m), up to a constant."""
    return smoothing / log_probs.shape[-1] * log_probs.sum()


def check_parameters(what: str, needed: int) -> None:
    """Refuses tables that are too large, before anything is allocated.

    Raises: OptionError for more than MAX_PARAMETERS.
    """
    if needed > MAX_PARAMETERS:
        count = f"{needed:,}" if needed < 1e15 else f"about 10^{math.log10(needed):.0f}"
        size = f"{4 * needed / 1e9:,.1f} GB" if needed < 1e15 else "more than any machine has"
        raise OptionError(
            f"{what} needs {count} parameters ({size} in single precision); at most {MAX_PARAMETERS:,} are allowed. "
            "Use fewer sites or values, or a program with fewer parameters."
        )
