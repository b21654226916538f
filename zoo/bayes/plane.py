"""What programs over the plane share: two numbers latent, two observed, and a guide too simple for their posterior."""

from __future__ import annotations

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from zoo.nets import mlp
from zoo.program import Program

__all__ = ["PlaneProgram"]


class PlaneProgram(Program):
    """Base of programs z --> x, both (2,), with a diagonal Gaussian guide given by an encoder; subclasses give `model`.

    Args:
        noise_scale: Standard deviation of x given z, one for both numbers or one for each.
        hidden: Width of the guide's encoder.
    """

    family = "bayes"
    dataset = "moons"
    event_shape = torch.Size([2])
    noise_scale: Tensor

    def __init__(self, noise_scale: float | Sequence[float], hidden: int):
        super().__init__()
        self.register_buffer("noise_scale", torch.tensor(noise_scale, dtype=torch.get_default_dtype()))
        self.encoder = mlp(2, [hidden], 4, "tanh")

    def guide(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> None:
        """q(z | x) = N(l(x), diag(s(x)^2))."""
        assert x is not None
        loc, log_scale = self.encoder(x).chunk(2, -1)
        with self.plate(x, context, size):
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))
