"""A guide with samples but no density: noise through a network, and the critic that estimates the density it lacks.

Mescheder, Nowozin & Geiger, "Adversarial variational Bayes", ICML 2017; Huszar, "Variational inference using implicit
distributions", 2017 (the names of the contrasts).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn

from inference.particles import LogDensity, log_joint, prior_draws, simulate
from inference.requirements import why_no_implicit_guide
from inference.unconstrained import Coordinates
from zoo.arguments import Arguments
from zoo.datasets.data import Data
from zoo.errors import CapabilityError
from zoo.nets import mlp
from zoo.program import Implicit, Program, Site

__all__ = ["ImplicitGuide", "Piece"]

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

    Raises: CapabilityError, with the reason, for a program that `why_no_implicit_guide` names.
    """

    feature_loc: Tensor
    feature_scale: Tensor

    def __init__(self, program: Program, data: Data, hidden: Sequence[int] = (64, 64), extra_noise: int = 16):
        super().__init__()
        reason = why_no_implicit_guide(program)
        if reason is not None:
            raise CapabilityError(f"No implicit guide for {type(program).__name__}: {reason}.")
        raw = _flat(*data.beginning())
        scale = raw.std(0, correction=0)
        self.register_buffer("feature_loc", raw.mean(0))
        self.register_buffer("feature_scale", torch.where(scale > 0, scale, torch.ones_like(scale)))
        sites = {name: site for name, site in program.sites().items() if not site.is_discrete}
        prior = prior_draws(program.model, PRIOR_DRAWS, *data.rows(slice(0, 16)))
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
            self.blocks[kind] = Block(chosen, packed, features, hidden=hidden, extra_noise=extra_noise)
            features += packed.shape[-1]
        self._plate, self._model = program.plate, program.model
        self.to(data.x.device, data.x.dtype)
        self.prior_learns = False
        """Whether the program's own parameters move the density of its latents."""
        if why_no_implicit_guide(program, "prior") is None:
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
        blind: Any = SimpleNamespace(model=poutine.block(self._model, hide_fn=lambda msg: bool(msg["is_observed"])))
        return log_joint(blind, values, x, context)

    @torch.no_grad()
    def prior_pieces(self, pieces: Sequence[Piece], x: Tensor, context: Tensor | None = None) -> list[Piece]:
        """For each of the guide's pieces as many draws of the prior, given the same features and global latents."""
        found: list[Piece] = []
        above: dict[str, Tensor] = {}
        for piece in pieces:
            block, n = self.block(piece.kind), len(piece.u)
            values = prior_draws(self._model, n, x, context, above)
            found.append(Piece(piece.kind, piece.h, self._packed(piece.kind, values, len(x))))
            if piece.kind == "global":
                above = block.coordinates.unpack(piece.u)[0]
        return found

    @torch.no_grad()
    def joint_pieces(self, n: int, x: Tensor, context: Tensor | None = None) -> list[Piece]:
        """n B pairs of local latents and features of the x that the program makes of them, as a piece (n, B, ...)."""
        many = None if context is None else context.repeat(n, *[1] * (context.ndim - 1))
        with pyro.validation_enabled(False):
            program: Any = SimpleNamespace(model=self._model)
            made = simulate(program, n * len(x), many)
        values = {name: value[None] for name, value in made.latents.items()}
        h = self.given("local", made.x.to(x), many).unflatten(0, (n, len(x)))
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


def _flat(x: Tensor, context: Tensor | None = None) -> Tensor:
    """Examples and contexts as rows, (B, F)."""
    if isinstance(context, Arguments):
        context = None  # whose latents are all global, and see no features
    parts = [v.reshape(len(v), -1) for v in (x, context) if v is not None]
    return torch.cat(parts, -1)


def _side_by_side(*parts: Tensor) -> Tensor:
    """Concatenates features after broadcasting the batch dimensions."""
    shapes = {part.shape[:-1] for part in parts}
    if len(shapes) > 1:
        batch = torch.broadcast_shapes(*shapes)
        parts = tuple(part.expand(batch + part.shape[-1:]) for part in parts)
    return torch.cat(parts, -1)
