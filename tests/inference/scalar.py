"""One Gaussian latent with an off guide: every bound and its gradient in closed form."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from torch import nn

from zoo.program import Program


class Scalar(Program):
    family = "latent"

    def __init__(self, reparameterised: bool = True):
        super().__init__()
        self.reparameterised = reparameterised
        self.w = nn.Parameter(torch.tensor(0.8))
        self.a = nn.Parameter(torch.tensor(-0.1))
        self.log_s = nn.Parameter(torch.tensor(-0.2))

    def model(self, x=None, context=None, size=None):
        with self.plate(x, context, size):
            z = pyro.sample("z", dist.Normal(self.w.new_zeros(()), 1.0))
            return pyro.sample("x", dist.Normal(self.w * z, 1.0), obs=x)

    def guide(self, x=None, context=None, size=None):
        with self.plate(x, context, size):
            fn = dist.Normal(self.a * x, self.log_s.exp())
            pyro.sample("z", fn if self.reparameterised else fn.has_rsample_(False))

    def log_prob(self, x, context=None):
        return dist.Normal(torch.zeros_like(self.w), (1 + self.w**2).sqrt()).log_prob(x)


X = torch.tensor([0.5, -1.2, 2.0, 0.1], dtype=torch.float64)
