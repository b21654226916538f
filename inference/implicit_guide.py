"""A guide with samples but no density: noise through a network, and the critic that estimates the density it lacks.

Mescheder, Nowozin & Geiger, "Adversarial variational Bayes", ICML 2017.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn
from torch.distributions import constraints

from inference.coordinates import Coordinates
from inference.particles import LogDensity
from zoo.datasets.data import Data
from zoo.errors import CapabilityError
from zoo.nets import mlp
from zoo.program import Implicit, ImplicitProgram, Program, Site

__all__ = ["Contrast", "ImplicitGuide", "Piece", "RatioCritic", "estimated_log_prob", "unsuitable"]

PRIOR_DRAWS = 512


@dataclass(frozen=True)
class Piece:
    """Draws of one block of a guide: unconstrained latents `u` (S, U, D) given features `h` (U, F) or (S, U, F)."""

    kind: str
    h: Tensor
    u: Tensor


class Block(nn.Module):
    """A conditional sampler of all global, or all local, latents side by side.

    u = loc + scale (A [e, h] + net([e, h])), with features h and standard normal noise e. `loc` and `scale` are the
    prior's median and half its 68% interval, and at the start u = loc + scale e: as wide as the prior.
    """

    loc: Tensor
    scale: Tensor

    def __init__(
        self, sites: Mapping[str, Site], prior: Tensor, features: int, hidden: Sequence[int], extra_noise: int
    ):
        super().__init__()
        self.coordinates = Coordinates(sites, 1, tied=False)
        self.features, self.dim = features, self.coordinates.size
        self.noise = self.dim + extra_noise
        low, middle, high = prior.quantile(prior.new_tensor([0.16, 0.5, 0.84]), 0)
        self.register_buffer("loc", middle)
        self.register_buffer("scale", (high - low) / 2)
        self.skip = nn.Linear(self.noise + features, self.dim)
        self.net = mlp(self.noise + features, hidden, self.dim, "silu")
        with torch.no_grad():
            for parameter in (*self.skip.parameters(), *self.net[-1].parameters()):
                parameter.zero_()
            self.skip.weight[:, : self.dim] = torch.eye(self.dim)

    def forward(self, noise: Tensor, h: Tensor) -> Tensor:
        """(..., U, noise), (..., U, F) -> (..., U, D)."""
        inputs = _side_by_side(noise, h)
        return self.loc + self.scale * (self.skip(inputs) + self.net(inputs))

    def start_log_prob(self, u: Tensor) -> Tensor:
        """Density of the Gaussian N(loc, scale) that the block starts from, (..., U)."""
        return dist.Normal(self.loc, self.scale, validate_args=False).log_prob(u).sum(-1)


class ImplicitGuide(nn.Module):
    """q(global) q(local | global, x) without density, for the continuous latents of any program.

    Noise, features of x (standardised, with the context) and the global latents pass through a network to
    unconstrained values, which `biject_to` takes to each site's support. Global latents see no data: their block is the
    posterior of the one data set it was fitted to. Local latents are amortised. Sites are `Implicit`.

    Args:
        program: What it is a guide of.
        data: Training data; sets the standardisation of x.
        hidden: Units of each hidden layer.
        extra_noise: Noise inputs beyond one for each latent dimension.

    Raises: CapabilityError, with the reason, for a program that `unsuitable` names.
    """

    feature_loc: Tensor
    feature_scale: Tensor

    def __init__(self, program: Program, data: Data, hidden: Sequence[int] = (64, 64), extra_noise: int = 16):
        super().__init__()
        reason = unsuitable(program)
        if reason is not None:
            raise CapabilityError(f"No implicit guide for {type(program).__name__}: {reason}.")
        raw = _flat(*data)
        scale = raw.std(0, correction=0)
        self.register_buffer("feature_loc", raw.mean(0))
        self.register_buffer("feature_scale", torch.where(scale > 0, scale, torch.ones_like(scale)))
        sites = {name: site for name, site in program.sites().items() if not site.is_discrete}
        prior = _prior_draws(program, data)
        self.blocks = nn.ModuleDict()
        features = 0
        for kind in ("global", "local"):
            chosen = {name: site for name, site in sites.items() if site.is_global == (kind == "global")}
            if not chosen:
                continue
            if kind == "local":
                features += raw.shape[1]
            draws = {name: prior[name].reshape(-1, 1, *site.event_shape) for name, site in chosen.items()}
            packed = Coordinates(chosen, 1, tied=False).pack(draws)[:, 0]
            self.blocks[kind] = Block(chosen, packed, features, hidden, extra_noise)
            features += packed.shape[-1]
        self._plate = program.plate
        self.to(data.x)

    def block(self, kind: str) -> Block:
        """The block 'global' or 'local'."""
        found = self.blocks[kind]
        assert isinstance(found, Block)
        return found

    def given(self, kind: str, x: Tensor, context: Tensor | None = None, above: Tensor | None = None) -> Tensor:
        """What a block is conditioned on: nothing (1, 0) for global latents, else x, context and the global latents."""
        if kind == "global":
            return x.new_zeros(1, 0)
        h = (_flat(x, context) - self.feature_loc) / self.feature_scale
        if above is None:
            return h
        block = self.block("global")
        return _side_by_side(h, (above - block.loc) / block.scale)

    def pieces(self, n: int, x: Tensor, context: Tensor | None = None) -> list[Piece]:
        """n draws of each block in unconstrained space, reparameterised."""
        found: list[Piece] = []
        for kind in self.blocks:
            h = self.given(kind, x, context, found[0].u if found else None)
            block = self.block(kind)
            noise = torch.randn(n, h.shape[-2], block.noise, dtype=h.dtype, device=h.device)
            found.append(Piece(kind, h, block(noise, h)))
        return found

    def forward(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> None:
        """Samples the latent sites, as any guide."""
        assert x is not None
        above = self._sample("global", x) if "global" in self.blocks else None
        if "local" in self.blocks:
            with self._plate(x, context, size):
                self._sample("local", x, context, above)

    def _sample(self, kind: str, x: Tensor, context: Tensor | None = None, above: Tensor | None = None) -> Tensor:
        block = self.block(kind)
        standard = dist.Normal(x.new_zeros(block.noise), 1.0).to_event(1)
        noise = pyro.sample(f"_{kind}_noise", standard, infer={"is_auxiliary": True})
        u = block(noise, self.given(kind, x, context, above))
        for name, value in block.coordinates.unpack(u)[0].items():
            event_shape = block.coordinates.sites[name].event_shape
            # Outside of all plates a global draw has no batch dimension, but coordinates have the one of units.
            pyro.sample(name, Implicit(value.reshape(noise.shape[:-1] + event_shape), len(event_shape)))
        return u


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
    """Estimates log q(u | h) of an implicit guide as log r(u | h) + T(h, w), a Gaussian and a learned log ratio.

    r has the guide's own moments given h (adaptive contrast), so that T sees whitened values w and has only the guide's
    departure from a Gaussian to learn. Mescheder et al. match variances; here covariances are matched too, shrunk
    towards the diagonal by D / (D + moments). Any r is valid, as long as T meets the same one every time: the moments
    are those of the guide at a fixed set of noise vectors, because fresh ones would blur what T sees.

    Args:
        guide: The guide.
        hidden: Units of each hidden layer of T.
        adaptive: False takes the Gaussian that the guide starts from, for all h: with a standard normal prior this is
            the prior, and T the log ratio log q(z | x) / p(z) of the paper's plain version.
        moments: Number of noise vectors behind the moments, by block.
    """

    def __init__(
        self, guide: ImplicitGuide, moments: Mapping[str, int], hidden: Sequence[int] = (64, 64), adaptive: bool = True
    ):
        super().__init__()
        self.adaptive = adaptive
        self.nets = nn.ModuleDict(
            {kind: mlp(guide.block(kind).dim + guide.block(kind).features, hidden, 1, "silu") for kind in guide.blocks}
        )
        for kind in guide.blocks:
            self.register_buffer(f"{kind}_noise", torch.randn(moments[kind], guide.block(kind).noise))
        self.to(guide.feature_loc)

    @torch.no_grad()
    def contrast(self, guide: ImplicitGuide, kind: str, h: Tensor) -> Contrast:
        """The Gaussian r( . | h); a constant, since with its gradient the guide would play to the moments' noise."""
        block = guide.block(kind)
        if not self.adaptive:
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
        """T: estimates log q(u | h) - log r(u | h), (S, U)."""
        return self.nets[kind](_side_by_side(whitened, h)).squeeze(-1)

    def log_density(self, guide: ImplicitGuide, piece: Piece) -> Tensor:
        """The estimate of log q(u | h), (S, U)."""
        r = self.contrast(guide, piece.kind, piece.h)
        whitened = r.whiten(piece.u)
        return r.log_prob(whitened) + self(piece.kind, whitened, piece.h)


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
    """
    above, n = None, max(v.shape[0] for v in values.values())
    parts = {"global": x.new_zeros(1, 1), "local": x.new_zeros(1, 1)}
    for kind in guide.blocks:
        coordinates = guide.block(kind).coordinates
        # Coordinates take the number of units from their batch when packing.
        units = Coordinates(coordinates.sites, 1 if kind == "global" else len(x), tied=False)
        u = units.pack({name: values[name] for name in units.sites})
        log_det = units.total(units.unpack(u)[1])
        piece = Piece(kind, guide.given(kind, x, context, above), u)
        parts[kind] = critic.log_density(guide, piece) - log_det
        above = u if kind == "global" else above
    return LogDensity(parts["local"].expand(n, len(x)), parts["global"].expand(n, 1)[:, 0], "global" in guide.blocks)


def unsuitable(program: Program) -> str | None:
    """Why a program can have no implicit guide, or None."""
    if isinstance(program, ImplicitProgram):
        return "it is implicit: without a density there is no posterior to approach"
    sites = program.sites()
    if all(site.is_discrete for site in sites.values()):
        return "it has no continuous latent sites" if sites else "it has no latent sites"
    finite = (type(constraints.boolean), constraints.integer_interval)
    for name, site in sites.items():
        if site.is_discrete and (site.is_global or len(site.event_shape) > 0 or not isinstance(site.support, finite)):
            return f"the discrete latent site {name!r} cannot be summed out: it is not local with finitely many values"
    return None


def _flat(x: Tensor, context: Tensor | None = None) -> Tensor:
    """Examples and contexts as rows, (B, F)."""
    parts = [v.reshape(len(v), -1) for v in (x, context) if v is not None]
    return torch.cat(parts, -1)


def _side_by_side(*parts: Tensor) -> Tensor:
    """Concatenates features after broadcasting the batch dimensions."""
    shapes = {part.shape[:-1] for part in parts}
    if len(shapes) > 1:
        batch = torch.broadcast_shapes(*shapes)
        parts = tuple(part.expand(batch + part.shape[-1:]) for part in parts)
    return torch.cat(parts, -1)


@torch.no_grad()
def _prior_draws(program: Program, data: Data) -> dict[str, Tensor]:
    few = data.rows(slice(0, 16))
    with pyro.plate("particles", PRIOR_DRAWS, dim=-2), pyro.validation_enabled(False):
        trace = poutine.trace(program.model).get_trace(*few, None)
    return {name: site["value"] for name, site in trace.nodes.items() if site["type"] == "sample"}
