"""Six numbers made by two factors, and the program for them: what fits are tried on."""

from __future__ import annotations

import io
from pathlib import Path

import torch

from zoo.latent.ppca import PPCA


def data(n: int = 300) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    z = torch.randn(n, 2, generator=generator)
    return z @ torch.randn(2, 6, generator=generator) + 0.3 * torch.randn(n, 6, generator=generator)


def ppca() -> PPCA:
    torch.manual_seed(0)
    return PPCA([6], 2)


def steps_done(checkpoint: Path) -> int:
    """Where the fit stood that left a checkpoint."""
    body = checkpoint.read_bytes().partition(b"\n")[2]
    return torch.load(io.BytesIO(body), weights_only=True)["state"]["done"]


def state(program) -> list[torch.Tensor]:
    return [v.clone() for v in program.state_dict().values()]


def same(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
