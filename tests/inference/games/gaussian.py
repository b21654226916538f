"""A correlated Gaussian in the plane and a small game that learns it."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.implicit.gan import GAN


def gaussian_data() -> Tensor:
    torch.manual_seed(0)
    return torch.tensor([1.0, -2.0]) + torch.randn(2000, 2) @ torch.tensor([[1.0, 0.8], [0.0, 0.6]])


def gaussian_gan(seed: int = 0) -> GAN:
    torch.manual_seed(seed)
    return GAN([2], latent_dim=2, hidden=[32], support="real", critic_hidden=[32], pieces=2, dropout=0.0)
