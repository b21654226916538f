"""What a truth is: a program with fixed parameters, data, and what is known about its posterior.

A `Target` is known exactly: evidence, density, independent draws. Of a `Reference` there are draws that others made by
long chains, so that moments and distances can be judged by it, and no evidence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from pyro import poutine
from pyro.distributions import Categorical
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from inference.chains import ess, rhat
from inference.environment import seeded
from inference.methods.nuts import ESS_PER_CHAIN, RHAT_LIMIT
from inference.particles import draw
from inference.prediction import predicted
from zoo.datasets import Data
from zoo.errors import CapabilityError
from zoo.program import Program

__all__ = ["Reference", "Target", "Truth", "check_chains", "moments"]


@dataclass(frozen=True)
class Truth:
    """A problem, and the moments of its posterior."""

    name: str
    description: str
    """The problem in words, and where its data come from."""
    how: str
    """How the answer was obtained: 'conjugate', 'quadrature', 'enumeration', 'linear-Gaussian', 'grid', 'draws', ..."""
    program: Callable[[], Program]
    """Builds the program anew, its parameters set; a method may do with it what it likes."""
    data: Data
    mean: Mapping[str, Tensor]
    """Site -> posterior mean, global (*event), local (N, *event); of the category's number for discrete sites."""
    sd: Mapping[str, Tensor]
    """Site -> posterior standard deviation, likewise."""

    @property
    def units(self) -> int:
        """How many independent posteriors there are."""
        return 1

    @property
    def is_local(self) -> bool:
        """Whether each example has one of its own."""
        return False

    def draw(self, n: int, seed: int = 0) -> dict[str, Tensor]:
        """n draws from the posterior: site -> (n, *shape), in the shape of `mean`."""
        raise NotImplementedError


@dataclass(frozen=True)
class Target(Truth):
    """A problem whose answer is known exactly.

    The posterior of N examples either ties them all together (there is a global latent: `log_evidence` is one number)
    or falls apart into one for each example (`log_evidence` (N,)).
    """

    log_evidence: Tensor
    """log p(x), () or (N,)."""
    posterior: Callable[..., Any]
    """The exact posterior as a guide: log p(x, z) - log q(z) under it is the log evidence at every draw."""

    @property
    def units(self) -> int:
        """How many independent posteriors there are."""
        return self.log_evidence.numel()

    @property
    def is_local(self) -> bool:
        """Whether each example has one of its own."""
        return self.log_evidence.ndim > 0

    @property
    def total_log_evidence(self) -> float:
        """log p(x_1, ..., x_N)."""
        return float(self.log_evidence.sum())

    @torch.no_grad()
    def draw(self, n: int, seed: int = 0) -> dict[str, Tensor]:
        """n independent draws from the exact posterior: site -> (n, *shape), in the shape of `mean`."""
        with seeded(seed, self.data.x.device):
            values = draw(self.posterior, n, *self.data, density=False).values
        return {site: values[site].reshape(n, *self.mean[site].shape) for site in self.mean}


@dataclass(frozen=True)
class Reference(Truth):
    """A problem for whose answer there are draws of long Markov chains, of sites or of what is computed from them.

    A mean is known to about (effective draws)^-1/2 of a standard deviation.
    """

    chains: Mapping[str, Tensor]
    """Site, latent or deterministic -> (chains, draws, *shape)."""

    @classmethod
    def of(cls, chains: Mapping[str, Tensor], **known: Any) -> Reference:
        """A reference with the moments of its draws.

        Args:
            chains: Site -> (chains, draws, *shape).
            known: The other fields.

        Raises: CapabilityError where R-hat or the effective sample size says that the chains are no truth.
        """
        check_chains(known["name"], chains)
        return cls(chains=chains, **_moments_of(chains), **known)

    def halves(self) -> tuple[Reference, Reference]:
        """Every other chain and the rest, as if either were the truth: what chance alone does; one chain is cut."""
        if len(next(iter(self.chains.values()))) > 1:
            parts = [{site: value[i::2] for site, value in self.chains.items()} for i in (0, 1)]
        else:
            parts = [{site: value.chunk(2, 1)[i] for site, value in self.chains.items()} for i in (0, 1)]
        even, odd = (replace(self, chains=chains, **_moments_of(chains)) for chains in parts)
        return even, odd

    def draw(self, n: int, seed: int = 0) -> dict[str, Tensor]:
        """n of the draws, each once; all of them where there are no more than n."""
        flat = {site: value.flatten(0, 1) for site, value in self.chains.items()}
        chosen = torch.randperm(len(next(iter(flat.values()))), generator=torch.Generator().manual_seed(seed))[:n]
        return {site: value[chosen] for site, value in flat.items()}

    def of_answer(self, program: Program, draws: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Draws of a method in the sites that the reference has: those that the program computes are computed.

        Args:
            program: That met the data.
            draws: Latent site -> (n, *event), local (n, N, *event), as `Fit.draw` gives them.
        """
        if set(self.mean) <= set(draws):
            return {site: draws[site] for site in self.mean}
        sites, n = program.sites(), len(next(iter(draws.values())))
        latents = {site: value[:, None] if sites[site].is_global else value for site, value in draws.items()}
        found = {**draws, **predicted(program, latents, n, self.data.size, self.data.context)}
        return {site: found[site].reshape(n, *self.mean[site].shape) for site in self.mean}


def check_chains(name: str, chains: Mapping[str, Tensor]) -> None:
    """Chains that stand for the truth must have mixed: R-hat and effective sample size of every number.

    Raises: CapabilityError.
    """
    count = len(next(iter(chains.values())))
    for site, value in chains.items():
        worst, least = float(rhat(value).max()), float(ess(value).min())
        if not (worst <= RHAT_LIMIT and least >= ESS_PER_CHAIN * count):
            raise CapabilityError(
                f"The draws of {site!r} of {name!r} are no truth: R-hat is {worst:.3f} (at most {RHAT_LIMIT}), the "
                f"effective sample size {least:.0f} (at least {ESS_PER_CHAIN * count}); run the chains longer."
            )


def _moments_of(chains: Mapping[str, Tensor]) -> dict[str, Any]:
    """mean and sd of each site over all chains."""
    flat = {site: value.flatten(0, 1) for site, value in chains.items()}
    mean, sd = ({site: getattr(value, of)(0) for site, value in flat.items()} for of in ("mean", "std"))
    return {"mean": mean, "sd": sd}


@torch.no_grad()
def moments(guide: Callable[..., Any], data: Data) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Mean and standard deviation of each site of a guide whose sites are independent given the data."""
    trace = poutine.trace(guide).get_trace(*data, None)
    mean, sd = {}, {}
    for name, site in trace.nodes.items():
        if site["type"] != "sample" or site_is_subsample(site):
            continue
        fn = site["fn"]
        if isinstance(fn, Categorical):
            number = torch.arange(fn.probs.shape[-1]).to(fn.probs)
            mean[name] = (fn.probs * number).sum(-1)
            sd[name] = (fn.probs * (number - mean[name][..., None]) ** 2).sum(-1).sqrt()
        else:
            mean[name], sd[name] = fn.mean.clone(), fn.variance.sqrt()
    return mean, sd
