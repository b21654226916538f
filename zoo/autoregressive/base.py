"""What the autoregressive programs share: sites in an order, one distribution each, and sampling from any prefix.

p(x) = prod_i p(x_o(i) | x_o(1), ..., x_o(i-1))          o the order of the sites
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions import constraints
from torch.nn.functional import one_hot

from zoo.density import DensityProgram
from zoo.errors import ShapeError, UnknownNameError
from zoo.likelihoods import make_likelihood
from zoo.program import Program
from zoo.specs import Spec

__all__ = ["ORDERS", "Autoregressive", "ClassConditional", "FixedOrder", "fixed_order", "pixel_order", "sound_shape"]


def pixel_order(event_shape: torch.Size) -> Tensor:
    """Sites in the order of PixelRNN: row by row, pixel by pixel, and the channels of a pixel one after the other.

    Args:
        event_shape: Any shape of up to two dimensions, or (channels, height, width).

    Returns: (D,) positions in the flattened event.
    """
    positions = torch.arange(event_shape.numel()).reshape(event_shape)
    return (positions.permute(1, 2, 0) if len(event_shape) == 3 else positions).flatten()


class Autoregressive(DensityProgram):
    """Base of the programs with exact conditionals.

    A subclass gives `outputs`. Sampling by the base costs a pass through the network for every site; a subclass that
    can do better overrides `continue_from` alone.

    Args:
        event_shape: Shape of one example.
        likelihood: What a site follows given those before it, one of `zoo.likelihoods.LIKELIHOODS`: 'bernoulli' (x in
            {0, 1}), 'levels' (a softmax; x on a grid of `values` levels in [0, 1]), 'logistic-mixture' (the same grid),
            'gaussian-mixture' (x real); with options: {"name": "logistic-mixture", "values": 256, "components": 10}.

    Raises: UnknownNameError, OptionError.
    """

    family = "autoregressive"
    knows_sites: ClassVar[bool] = False
    """Whether draws tell the likelihood which site they are of, so that each column of a table has its own units."""

    def __init__(self, event_shape: Sequence[int], likelihood: Spec):
        super().__init__()
        self.event_shape = torch.Size(event_shape)
        self.likelihood = make_likelihood(likelihood, self.event_shape if self.knows_sites else None)
        self.support = self.likelihood.support

    @property
    def order(self) -> Tensor:
        """(D,) positions in the flattened event, in the order in which sites are drawn."""
        return pixel_order(self.event_shape)

    def outputs(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """What the likelihood wants of each site, from those before: (B, *event_shape) -> (B, *event_shape, size)."""
        raise NotImplementedError(f"{type(self).__name__} must define outputs(x, context)")

    def conditionals(self, x: Tensor, context: Tensor | None = None) -> TorchDistribution:
        """p(x_i | the sites before i) of every site, of batch shape (B, *event_shape)."""
        return self.likelihood.distribution(self.outputs(x, context))

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The sum over all sites; one pass."""
        return self.conditionals(x, context).log_prob(x).reshape(len(x), -1).sum(-1)

    def draw(self, n: int, context: Tensor | None = None) -> Tensor:
        """n draws (n, *event_shape)."""
        return self.complete(self._blank(n), 0, context)

    def complete(self, x: Tensor, known: int, context: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        """Keeps the first `known` sites of the order and draws the others given them: exact, as the model says.

        Args:
            x: (n, *event_shape); what its other sites hold does not matter.
            known: 0 draws all.
            context: (n, ...) or None.
            noise: Uniform numbers (n, D, likelihood.noise), the i-th for the i-th site of the order; None draws them.

        Raises: ShapeError.
        """
        sites = self.event_shape.numel()
        if not 0 <= known <= sites:
            raise ShapeError(f"known must be between 0 and the number of sites, {sites}; got {known}.")
        if noise is None:
            noise = torch.rand(len(x), sites, self.likelihood.noise, dtype=x.dtype, device=x.device)
        hidden = torch.ones(sites, dtype=torch.bool, device=x.device)
        hidden[self.order[:known].to(x.device)] = False
        start = x.reshape(len(x), sites).masked_fill(hidden, 0.0)
        was_training = self.training
        self.eval()
        try:
            with torch.no_grad():
                return self.continue_from(start.reshape(x.shape), known, context, noise)
        finally:
            self.train(was_training)

    def continue_from(self, x: Tensor, known: int, context: Tensor | None, noise: Tensor) -> Tensor:
        """Draws the sites after the first `known`, which x holds (zeros elsewhere); see `complete`."""
        return self.continue_naively(x, known, context, noise)

    def continue_naively(self, x: Tensor, known: int, context: Tensor | None, noise: Tensor) -> Tensor:
        """The same by a whole pass through the network for each site: what faster ways are tested against."""
        flat = x.reshape(len(x), -1).clone()
        for i, site in enumerate(self.order.tolist()[known:], start=known):
            outputs = self.outputs(flat.reshape(x.shape), context).reshape(*flat.shape, -1)
            flat[:, site] = self.likelihood.draw(outputs[:, site], noise[:, i], site)
        return flat.reshape(x.shape)

    def _blank(self, n: int) -> Tensor:
        """Zeros (n, *event_shape) in the dtype and on the device of the parameters."""
        return next(self.parameters()).new_zeros(n, *self.event_shape)


class ClassConditional(Autoregressive):
    """Base of the programs that can be given a class.

    Args:
        event_shape: Shape of one example.
        likelihood: What a site follows.
        classes: Number of classes that the context says, one-hot; 0 for no context.

    Raises: UnknownNameError, OptionError.
    """

    context_support = constraints.one_hot

    def __init__(self, event_shape: Sequence[int], likelihood: Spec, classes: int):
        super().__init__(event_shape, likelihood)
        self.classes = classes

    @classmethod
    def for_data(cls, x: Tensor, context: Tensor | None = None, **options: Any) -> Program:
        """Sets `event_shape`, and `classes` where there is a context: classes one-hot (N, classes).

        Raises: ShapeError for labels that are not one-hot.
        """
        if context is not None:
            if context.ndim != 2:
                raise ShapeError(
                    f"{cls.__name__} takes classes one-hot (N, classes), got a context of shape "
                    f"{tuple(context.shape)}: torch.nn.functional.one_hot(labels, classes) makes it."
                )
            options.setdefault("classes", context.shape[-1])
        return super().for_data(x, context, **options)

    def example_context(self, n: int) -> Tensor | None:
        """Classes one-hot (n, classes), one after the other."""
        if not self.classes:
            return None
        like = next(self.parameters())
        return one_hot(torch.arange(n, device=like.device) % self.classes, self.classes).to(like.dtype)


ORDERS = ("raster", "random")


def fixed_order(event_shape: torch.Size, order: str, seed: int) -> Tensor:
    """(D,) positions in the flattened event: 'raster' is the order of pixels, 'random' one drawn from the seed.

    Raises: UnknownNameError.
    """
    if order not in ORDERS:
        raise UnknownNameError("order", order, ORDERS)
    if order == "raster":
        return pixel_order(event_shape)
    return torch.randperm(event_shape.numel(), generator=torch.Generator().manual_seed(seed))


class FixedOrder(Autoregressive):
    """Base of the programs that are built for one order, any, and keep it.

    Args:
        event_shape: Shape of one example.
        likelihood: What a site follows.
        order: One of ORDERS.
        seed: Of the random order.

    Raises: UnknownNameError, OptionError.
    """

    knows_sites = True
    permutation: Tensor

    def __init__(self, event_shape: Sequence[int], likelihood: Spec, order: str, seed: int):
        super().__init__(event_shape, likelihood)
        self.register_buffer("permutation", fixed_order(self.event_shape, order, seed))

    @property
    def order(self) -> Tensor:
        """(D,) positions in the flattened event, in the order in which sites are drawn."""
        return self.permutation


def sound_shape(name: str, event_shape: Sequence[int]) -> torch.Size:
    """The shape (samples,) of a program over sound.

    Raises: ShapeError for anything but one dimension with a sample or more.
    """
    if len(event_shape) != 1 or event_shape[0] < 1:
        raise ShapeError(f"{name} is over sound, of shape (samples,) with a sample or more; got {list(event_shape)}.")
    return torch.Size(event_shape)
