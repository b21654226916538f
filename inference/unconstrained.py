"""Latent values as one unconstrained vector a unit, and back: the space in which Gaussians and HMC live."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pyro.distributions.util import sum_rightmost
from torch import Tensor
from torch.distributions import biject_to

from zoo.errors import CapabilityError
from zoo.program import Site

__all__ = ["Coordinates"]


class Coordinates:
    """Packs continuous latent sites into (..., U, D): U examples, or U = 1 when a global site ties all B of them.

    Args:
        sites: Latent sites, continuous.
        batch: Number of examples B.
        tied: Whether the examples share one vector; None means that a global site decides.

    Raises: CapabilityError for a discrete site.
    """

    def __init__(self, sites: Mapping[str, Site], batch: int, tied: bool | None = None):
        for name, site in sites.items():
            if site.is_discrete:
                raise CapabilityError(f"Site {name!r} is discrete and has no unconstrained coordinates; sum it out.")
        self.sites, self.batch = dict(sites), batch
        self.tied = any(site.is_global for site in sites.values()) if tied is None else tied
        self.units = 1 if self.tied else batch
        self.rows = {n: batch if self.tied and not s.is_global else 1 for n, s in sites.items()}
        # Bounds may be of each row, so rows come first and are left out then.
        self.shapes = {
            n: torch.Size(biject_to(s.support).inverse_shape((self.rows[n], *s.event_shape)))[1:]
            for n, s in sites.items()
        }
        self.size = sum(self.shapes[n].numel() * self.rows[n] for n in sites)

    def pack(self, values: Mapping[str, Tensor]) -> Tensor:
        """Site -> (S, B or 1, *event)  =>  (S, U, D)."""
        n = max(values[name].shape[0] for name in self.sites)
        parts = [biject_to(site.support).inv(values[name]) for name, site in self.sites.items()]
        return torch.cat([part.expand(n, *part.shape[1:]).reshape(n, self.units, -1) for part in parts], -1)

    def unpack(self, z: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """(..., U, D)  =>  site -> (..., B or 1, *event), and site -> log |d value / d z| of shape (..., B or 1)."""
        values, log_dets, start = {}, {}, 0
        for name, site in self.sites.items():
            shape, rows = self.shapes[name], self.rows[name]
            stop = start + rows * shape.numel()
            free = z[..., start:stop].reshape(*z.shape[:-2], rows if self.tied else z.shape[-2], *shape)
            transform = biject_to(site.support)
            values[name] = transform(free)
            log_det = transform.log_abs_det_jacobian(free, values[name])
            log_dets[name] = sum_rightmost(log_det, log_det.ndim - values[name].ndim + len(site.event_shape))
            start = stop
        return values, log_dets

    def total(self, log_dets: Mapping[str, Tensor]) -> Tensor:
        """Log determinants summed over sites, (..., U)."""
        parts = [d.sum(-1, keepdim=True) if self.tied else d for d in log_dets.values()]
        return torch.stack(torch.broadcast_tensors(*parts)).sum(0)
