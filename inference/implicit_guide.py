"""A guide with samples but no density: noise through a network, and the critic that estimates the density it lacks.

Mescheder, Nowozin & Geiger, "Adversarial variational Bayes", ICML 2017; Huszar, "Variational inference using implicit
distributions", 2017 (the names of the contrasts).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn
from torch.distributions import biject_to, constraints

from inference.coordinates import Coordinates
from inference.particles import LogDensity, log_joint
from zoo.datasets.data import Data
from zoo.errors import CapabilityError, UnknownNameError
from zoo.nets import mlp
from zoo.program import Implicit, ImplicitProgram, Program, Site

__all__ = ["CONTRASTS", "Contrast", "ImplicitGuide", "Piece", "RatioCritic", "estimated_log_prob", "unsuitable"]

PRIOR_DRAWS = 512
CONTRASTS = ("adaptive", "prior", "joint")
"""What a critic compares the guide's draws with: a Gaussian of their moments, the prior, or pairs of the program."""


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
        prior = _forward(program.model, PRIOR_DRAWS, *data.rows(slice(0, 16)))
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
        self._plate, self._model = program.plate, program.model
        self.to(data.x)
        self.prior_learns = False
        """Whether the program's own parameters move the density of its latents."""
        if unsuitable(program, "prior") is None:
            one = {name: prior[name][:1] for name in sites}
            with torch.enable_grad():
                self.prior_learns = self.log_prior(one, *data.rows(slice(0, 16))).total.requires_grad

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

    def log_prior(self, values: Mapping[str, Tensor], x: Tensor, context: Tensor | None = None) -> LogDensity:
        """The program's log p(latents) at given values (S, B or 1, *event), discrete ones summed out."""
        blind: Any = SimpleNamespace(model=poutine.block(self._model, hide=["x"]))
        return log_joint(blind, values, x, context)

    @torch.no_grad()
    def prior_pieces(self, pieces: Sequence[Piece], x: Tensor, context: Tensor | None = None) -> list[Piece]:
        """For each of the guide's pieces as many draws of the prior, given the same features and global latents."""
        found: list[Piece] = []
        above: dict[str, Tensor] = {}
        for piece in pieces:
            block, n = self.block(piece.kind), len(piece.u)
            values = _forward(self._model, n, x, context, above)
            found.append(Piece(piece.kind, piece.h, self._packed(piece.kind, values, len(x))))
            if piece.kind == "global":
                above = block.coordinates.unpack(piece.u)[0]
        return found

    @torch.no_grad()
    def joint_pieces(self, n: int, x: Tensor, context: Tensor | None = None) -> list[Piece]:
        """n B pairs of local latents and features of the x that the program makes of them, as a piece (n, B, ...)."""
        many = None if context is None else context.repeat(n, *[1] * (context.ndim - 1))
        with pyro.validation_enabled(False):
            trace = poutine.trace(self._model).get_trace(None, many, n * len(x))
        values = {name: site["value"][None] for name, site in trace.nodes.items() if site["type"] == "sample"}
        h = self.given("local", values["x"][0].to(x), many).unflatten(0, (n, len(x)))
        u = self._packed("local", values, n * len(x))[0].unflatten(0, (n, len(x)))
        return [Piece("local", h, u)]

    def _packed(self, kind: str, values: Mapping[str, Tensor], batch: int) -> Tensor:
        # Coordinates take the number of units from their batch when packing.
        sites = self.block(kind).coordinates.sites
        return Coordinates(sites, 1 if kind == "global" else batch, tied=False).pack(values)

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


def unsuitable(program: Program, contrast: str | None = None) -> str | None:
    """Why a program can have no implicit guide, or None; with a contrast, why it cannot be fitted by that one.

    Any program with continuous latents can have the guide. To fit it by the ELBO ('adaptive', 'prior') takes a density
    of x, and discrete latents that can be summed out; by pairs ('joint') latents that belong to the examples.
    """
    sites = program.sites()
    if all(site.is_discrete for site in sites.values()):
        return "it has no continuous latent sites" if sites else "it has no latent sites"
    for name, site in sites.items():
        try:
            if not site.is_discrete:
                biject_to(site.support)
        except NotImplementedError:
            return f"the support of its latent site {name!r}, {site.support}, maps to no unconstrained space"
    if contrast == "joint":
        for name, site in sites.items():
            if site.is_global:
                return f"its latent site {name!r} is global, and pairs are of an example and its own latents"
    elif contrast is not None:
        if isinstance(program, ImplicitProgram):
            return "it is implicit: x has no density for an ELBO (contrast='joint' needs none)"
        finite = (type(constraints.boolean), constraints.integer_interval)
        for name, site in sites.items():
            endless = site.is_global or len(site.event_shape) > 0 or not isinstance(site.support, finite)
            if site.is_discrete and endless:
                return (
                    f"the discrete latent site {name!r} cannot be summed out: it is not local with finitely many values"
                )
        if _exclusive(program):
            return "each x is possible under the latents it came from alone, so its posterior has no support of its own"
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
def _exclusive(program: Program) -> bool:
    """Whether latents drawn anew leave every x impossible, as where x is the latents rounded."""
    with torch.random.fork_rng(devices=[]), pyro.validation_enabled(False):
        context = program.example_context(4)
        x = program.model(None, context, 4)
        drawn = _forward(program.model, 8, x, context)
        values = {name: drawn[name] for name, site in program.sites().items() if not site.is_discrete}
        return bool((log_joint(program, values, x, context).total == -torch.inf).all())


@torch.no_grad()
def _forward(
    model: Callable[..., Any],
    n: int,
    x: Tensor,
    context: Tensor | None = None,
    given: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Site -> n draws of the model (n, B or 1, *event) that x does not inform, given values of some."""
    with pyro.plate("particles", n, dim=-2), pyro.validation_enabled(False):
        trace = poutine.trace(poutine.condition(model, data=dict(given or {}))).get_trace(x, context, None)
    return {name: site["value"] for name, site in trace.nodes.items() if site["type"] == "sample"}
