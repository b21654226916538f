r"""The banana: a curved two-dimensional posterior that no Gaussian fits.

After the curved target of Haario, Saksman & Tamminen, "Adaptive proposal distribution for random walk Metropolis
algorithm", 1999, made into the posterior of a program.

    z ~ N(0, I_2),   x | z ~ N((z_1, z_2 + z_1^2), diag(noise_scale^2))

    z --> x      sites: z (2,) local; x (2,)

The first reading is vague and the second sharp, so the posterior lies along the parabola z_2 = x_2 - z_1^2.
"""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from zoo.nets import mlp
from zoo.program import Program

__all__ = ["Banana"]


class Banana(Program):
    """A fixed program with a banana-shaped posterior, and an amortised diagonal Gaussian guide, which cannot fit it.

    Args:
        noise_scale: Standard deviations of the two readings.
        hidden: Width of the guide's encoder.
    """

    family = "bayes"
    paper = "after Haario, Saksman & Tamminen, Adaptive proposal distribution for random walk Metropolis, 1999"
    dataset = "moons"
    event_shape = torch.Size([2])
    noise_scale: Tensor

    def __init__(self, noise_scale: list[float] = [2.0, 0.3], hidden: int = 32):  # noqa: B006 (JSON-like, never changed)
        super().__init__()
        self.register_buffer("noise_scale", torch.tensor([float(s) for s in noise_scale]))
        self.encoder = mlp(2, [hidden], 4, "tanh")

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        """A standard normal seen through a curve."""
        with self.plate(x, context, size):
            z = pyro.sample("z", dist.Normal(torch.zeros_like(self.noise_scale), 1.0).to_event(1))
            loc = torch.stack([z[..., 0], z[..., 1] + z[..., 0] ** 2], -1)
            return pyro.sample("x", dist.Normal(loc, self.noise_scale).to_event(1), obs=x)

    def guide(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> None:
        """q(z | x) = N(l(x), diag(s(x)^2))."""
        assert x is not None
        loc, log_scale = self.encoder(x).chunk(2, -1)
        with self.plate(x, context, size):
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))
