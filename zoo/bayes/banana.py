r"""The banana: a curved two-dimensional posterior that no Gaussian fits.

After the curved target of Haario, Saksman & Tamminen, "Adaptive proposal distribution for random walk Metropolis
algorithm", 1999, made into the posterior of a program.

    z ~ N(0, I_2),   x | z ~ N((z_1, z_2 + z_1^2), diag(noise_scale^2))

    z --> x      sites: z (2,) local; x (2,)

The first reading is vague and the second sharp, so the posterior lies along the parabola z_2 = x_2 - z_1^2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from zoo.bayes.plane import PlaneProgram
from zoo.options import Count, Length, Positive

__all__ = ["Banana"]


class Banana(PlaneProgram):
    """A fixed program with a banana-shaped posterior, and an amortised diagonal Gaussian guide, which cannot fit it.

    Args:
        noise_scale: Standard deviations of the two readings.
        hidden: Width of the guide's encoder.
    """

    paper = "after Haario, Saksman & Tamminen, Adaptive proposal distribution for random walk Metropolis, 1999"

    def __init__(self, noise_scale: Annotated[Sequence[Positive], Length(2)] = (2.0, 0.3), hidden: Count = 32):
        super().__init__(noise_scale, hidden)

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        """A standard normal seen through a curve."""
        with self.plate(x, context, size):
            z = pyro.sample("z", dist.Normal(torch.zeros_like(self.noise_scale), 1.0).to_event(1))
            loc = torch.stack([z[..., 0], z[..., 1] + z[..., 0] ** 2], -1)
            return pyro.sample("x", dist.Normal(loc, self.noise_scale).to_event(1), obs=x)
