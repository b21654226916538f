r"""Two modes: a posterior that is two equal islands, as a complex number has two square roots.

    z ~ N(0, I_2),   x | z ~ N((z_1^2 - z_2^2, 2 z_1 z_2), noise_scale^2 I)

    z --> x      sites: z (2,) local; x (2,)

z and -z explain x equally well; for |x| well above the noise the modes are at the roots of x, shrunk by the prior.
"""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from zoo.bayes.plane import PlaneProgram
from zoo.options import Count, Positive

__all__ = ["TwoModes"]


class TwoModes(PlaneProgram):
    """A fixed program with a two-mode posterior, and an amortised diagonal Gaussian guide, which sees one.

    Args:
        noise_scale: Standard deviation of x given z.
        hidden: Width of the guide's encoder.
    """

    paper = "made for this zoo: the square roots of a noisy complex number"

    def __init__(self, noise_scale: Positive = 0.5, hidden: Count = 32):
        super().__init__(noise_scale, hidden)

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        """The square of a complex standard normal, and noise."""
        with self.plate(x, context, size):
            z = pyro.sample("z", dist.Normal(self.noise_scale.new_zeros(2), 1.0).to_event(1))
            a, b = z[..., 0], z[..., 1]
            loc = torch.stack([a**2 - b**2, 2 * a * b], -1)
            return pyro.sample("x", dist.Normal(loc, self.noise_scale).to_event(1), obs=x)
