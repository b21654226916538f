"""The critic that gives an implicit guide a density: the log ratio of its draws to draws of something known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from inference.guides.implicit import ImplicitGuide, Piece, _side_by_side
from inference.particles import LogDensity
from zoo.errors import CapabilityError, UnknownNameError
from zoo.nets import mlp

__all__ = ["CONTRASTS", "Contrast", "RatioCritic", "estimated_log_prob"]


CONTRASTS = ("adaptive", "prior", "joint")
"""What a critic compares the guide's draws with: a Gaussian of their moments, the prior, or pairs of the program."""


@dataclass(frozen=True)
class Contrast:
    """The Gaussian N(loc, tril tril') with which a critic compares a block of the guide; loc (U, D) or (S, U, D)."""

    loc: Tensor
    tril: Tensor

    def whiten(self, u: Tensor) -> Tensor:
        """u as the Gaussian's standard normal coordinates."""
        centred = (u - self.loc).unsqueeze(-1)
        return torch.linalg.solve_triangular(self.tril, centred, upper=False).squeeze(-1)

    def log_prob(self, whitened: Tensor) -> Tensor:
        """Density at u, given `whiten(u)`."""
        log_det = self.tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return -0.5 * (whitened.square() + math.log(2 * math.pi)).sum(-1) - log_det


class RatioCritic(nn.Module):
    """The log ratio T(u, h) of the guide's draws to what they are compared with, learned by telling them apart.

    'adaptive': with a Gaussian r( . | h) of the guide's own moments, so that log q(u | h) = log r(u | h) + T, and T has
        only the guide's departure from a Gaussian to learn. Mescheder et al. match variances; here covariances are
        matched too, shrunk towards the diagonal by D / (D + moments). Any r is valid, as long as T meets the same one
        every time: the moments are those of the guide at a fixed set of noise vectors, because fresh ones would blur
        what T sees.
    'prior': with the program's prior (the paper's plain version), log q(z | x) = log p(z) + T.
    'joint': pairs of data and guide with pairs of the program, T = log q(z | x) p_D(x) - log p(x, z).

    T sees u in the coordinates in which the Gaussian is standard normal; in those of the prior's spread, for 'prior'.

    Args:
        guide: The guide.
        moments: Number of noise vectors behind the moments, by block.
        hidden: Units of each hidden layer of T.
        contrast: One of CONTRASTS.

    Raises: UnknownNameError.
    """

    def __init__(
        self,
        guide: ImplicitGuide,
        moments: Mapping[str, int],
        hidden: Sequence[int] = (64, 64),
        contrast: str = "adaptive",
    ):
        super().__init__()
        if contrast not in CONTRASTS:
            raise UnknownNameError("contrast", contrast, CONTRASTS)
        self.contrast = contrast
        self.nets = nn.ModuleDict(
            {kind: mlp(guide.block(kind).dim + guide.block(kind).features, hidden, 1, "silu") for kind in guide.blocks}
        )
        for kind in guide.blocks:
            self.register_buffer(f"{kind}_noise", torch.randn(moments[kind], guide.block(kind).noise))
        self.to(guide.feature_loc)

    @torch.no_grad()
    def gaussian(self, guide: ImplicitGuide, kind: str, h: Tensor) -> Contrast:
        """The Gaussian r( . | h); a constant, since with its gradient the guide would play to the moments' noise."""
        block = guide.block(kind)
        if self.contrast == "prior":
            return Contrast(block.loc, torch.diag(block.scale))
        noise = self.get_buffer(f"{kind}_noise")
        n = len(noise)
        u = block(noise.reshape(n, *(1 for _ in h.shape[:-1]), block.noise), h)
        loc = u.mean(0)
        centred = u - loc
        covariance = torch.einsum("n...i,n...j->...ij", centred, centred) / n
        diagonal = torch.diag_embed(covariance.diagonal(dim1=-2, dim2=-1))
        weight = block.dim / (block.dim + n)
        return Contrast(loc, torch.linalg.cholesky((1 - weight) * covariance + weight * diagonal))

    def forward(self, kind: str, whitened: Tensor, h: Tensor) -> Tensor:
        """T, (S, U)."""
        return self.nets[kind](_side_by_side(whitened, h)).squeeze(-1)

    def log_ratio(self, guide: ImplicitGuide, piece: Piece) -> tuple[Tensor, Tensor]:
        """T at a piece, and log r of the Gaussian, (S, U) each: their sum is log q(u | h) in adaptive contrast."""
        r = self.gaussian(guide, piece.kind, piece.h)
        whitened = r.whiten(piece.u)
        return self(piece.kind, whitened, piece.h), r.log_prob(whitened)


@torch.no_grad()
def estimated_log_prob(
    guide: ImplicitGuide,
    critic: RatioCritic,
    values: Mapping[str, Tensor],
    x: Tensor,
    context: Tensor | None = None,
) -> LogDensity:
    """The critic's estimate of log q(latents | x) at given values (S, B or 1, *event): neither exact nor a bound.

    Worth little where the guide draws nothing. Minus the log prior it is the log ratio of the paper.

    Raises: CapabilityError for a critic of pairs, whose ratio has the unknown density of the data in it.
    """
    if critic.contrast == "joint":
        raise CapabilityError(
            "A critic of pairs estimates log q(z | x) p_D(x) - log p(x, z), not log q(z | x); fit with contrast="
            "'adaptive' or 'prior'."
        )
    above, n = None, max(v.shape[0] for v in values.values())
    parts = {"global": x.new_zeros(1, 1), "local": x.new_zeros(1, 1)}
    for kind in guide.blocks:
        u = guide._packed(kind, values, len(x))
        ratio, reference = critic.log_ratio(guide, Piece(kind, guide.given(kind, x, context, above), u))
        if critic.contrast == "adaptive":
            coordinates = guide.block(kind).coordinates
            ratio = ratio + reference - coordinates.total(coordinates.unpack(u)[1])
        parts[kind] = ratio
        above = u if kind == "global" else above
    local, global_ = parts["local"].expand(n, len(x)), parts["global"].expand(n, 1)[:, 0]
    if critic.contrast == "prior":
        prior = guide.log_prior(values, x, context)
        local, global_ = local + prior.local, global_ + prior.globals
    return LogDensity(local, global_, "global" in guide.blocks)
