"""How far a guide's bound is from the evidence, and why: approximation, amortisation and optimisation gaps.

Cremer, Li & Duvenaud, "Inference suboptimality in variational autoencoders", ICML 2018.

    log p(x) - ELBO(q)  =  [log p(x) - ELBO(q*)]  +  [ELBO(q*) - ELBO(q)]
                            approximation            amortisation, or optimisation if the guide is not amortised

q* is the best member of the guide's family, found by optimising it for each data point on its own.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoGuide
from torch import Tensor, nn

from inference.environment import evaluating
from inference.evaluation.estimates import Estimate, checked, elbo
from inference.guides.named import guide_parameters, guided_sites
from inference.methods.settling import best_of_family
from inference.particles import draw, log_joint, log_weights, unit_log_weights
from inference.unconstrained import Coordinates
from zoo.datasets.data import Data
from zoo.errors import CapabilityError, OptionError, ShapeError
from zoo.program import Program, Site

__all__ = ["Gap", "LocalGaussian", "posterior_gap"]

GuideFn = Callable[..., Any]
BATCH = 256


@dataclass(frozen=True)
class Gap:
    """The gap log p(x) - ELBO(q) of U units, in nats, and its parts; `total` is their sum."""

    log_evidence: Tensor
    """(U,)."""
    elbo: Estimate
    """Of the guide as it is."""
    best: Estimate
    """Of q*, on noise that neither chose nor trained it."""
    amortised: bool
    """Whether the guide computes its parameters from x, so that each example can do better on its own."""
    settling: Tensor
    """(U,) how much ELBO(q*) still gained in the last quarter of its optimisation: what q* may still lack."""
    evidence_error: float = 0.0
    """Monte Carlo standard error of the mean of `log_evidence`; 0 where it is exact."""
    caveat: str | None = None
    """What to know where log p(x) is itself a bound: then `total` and `approximation` are bounds, maybe negative."""

    @property
    def total(self) -> Tensor:
        """log p(x) - ELBO(q), which is KL(q || p(z | x)); (U,)."""
        return self.log_evidence - self.elbo.values

    @property
    def approximation(self) -> Tensor:
        """log p(x) - ELBO(q*): what the family cannot express; (U,)."""
        return self.log_evidence - self.best.values

    @property
    def amortisation(self) -> Tensor:
        """ELBO(q*) - ELBO(q) of an amortised guide, else zero; (U,)."""
        gain = self.best.values - self.elbo.values
        return gain if self.amortised else torch.zeros_like(gain)

    @property
    def optimisation(self) -> Tensor:
        """ELBO(q*) - ELBO(q) of a guide that is not amortised: what a longer fit still gains, else zero; (U,)."""
        gain = self.best.values - self.elbo.values
        return torch.zeros_like(gain) if self.amortised else gain

    def summary(self) -> dict[str, tuple[float, float]]:
        """Part -> (mean over units, its Monte Carlo standard error; for 'settling' an upper bound of it)."""
        start, best = self.elbo.mean_error, self.best.mean_error
        both = math.hypot(start, best)
        return {
            "total": (float(self.total.mean()), math.hypot(start, self.evidence_error)),
            "approximation": (float(self.approximation.mean()), math.hypot(best, self.evidence_error)),
            "amortisation": (float(self.amortisation.mean()), both if self.amortised else 0.0),
            "optimisation": (float(self.optimisation.mean()), 0.0 if self.amortised else both),
            "settling": (float(self.settling.mean()), best),
        }


class LocalGaussian(nn.Module):
    """A guide with a Gaussian of its own for each of B examples, in the unconstrained space of all its local sites.

    Args:
        sites: The latent sites, all local and continuous.
        loc: (B, D) means, D the unconstrained numbers of one example.
        scale_tril: (B, D, D) lower Cholesky factors.
        full: Whether the covariance is free, or only its diagonal.
    """

    def __init__(self, sites: Mapping[str, Site], loc: Tensor, scale_tril: Tensor, full: bool):
        super().__init__()
        self.coordinates, self.full = Coordinates(sites, len(loc), tied=False), full
        # The factor is diag(s) (I + lower): scale and shape are learnt apart.
        scale = scale_tril.diagonal(dim1=-2, dim2=-1) if full else scale_tril.square().sum(-1).sqrt()
        self.loc = nn.Parameter(loc.detach().clone())
        self.log_scale = nn.Parameter(scale.detach().log())
        self.lower = nn.Parameter((scale_tril / scale[..., None]).detach().tril(-1), requires_grad=full)

    def forward(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> None:
        """Samples every site for the B examples the guide was made for."""
        with pyro.plate("data", len(self.loc), subsample=torch.arange(len(self.loc)), dim=-1):
            base = self._gaussian(self.loc, self.log_scale, self.lower)
            free = pyro.sample("_local_gaussian", base, infer={"is_auxiliary": True})
            values, log_dets = self.coordinates.unpack(free)
            for name, value in values.items():
                event_dim = len(self.coordinates.sites[name].event_shape)
                pyro.sample(name, dist.Delta(value, -log_dets[name], event_dim=event_dim))

    def _gaussian(self, loc: Tensor, log_scale: Tensor, lower: Tensor) -> Any:
        if not self.full:
            return dist.Normal(loc, log_scale.exp()).to_event(1)
        factor = lower.tril(-1) + torch.eye(loc.shape[-1]).to(loc)
        return dist.MultivariateNormal(loc, scale_tril=log_scale.exp()[..., None] * factor)

    def path_log_prob(self, values: Mapping[str, Tensor]) -> Tensor:
        """Log density (S, B) as a function of the values alone, the parameters held fixed.

        Its gradient through reparameterised draws is that of the ELBO without the score term, which has mean zero and
        is pure noise at the optimum (Roeder, Wu & Duvenaud 2017).
        """
        z = self.coordinates.pack(values)
        fixed = self._gaussian(self.loc.detach(), self.log_scale.detach(), self.lower.detach())
        return fixed.log_prob(z) - self.coordinates.total(self.coordinates.unpack(z)[1])

    @torch.no_grad()
    def keep(self, better: Tensor, other: LocalGaussian) -> None:
        """Takes the parameters of `other` for the examples where `better` (B,) is False."""
        for mine, theirs in zip(self.parameters(), other.parameters(), strict=True):
            mine[~better] = theirs[~better]


def posterior_gap(
    program: Program,
    guide: GuideFn | None,
    data: Any,
    log_evidence: Tensor | Estimate,
    *,
    family: str | None = None,
    steps: int = 400,
    lr: float = 0.05,
    particles: int = 8,
    eval_particles: int = 2000,
    seed: int = 0,
) -> Gap:
    """Splits log p(x) - ELBO(q) into its parts.

    For an amortised guide over local latents, q* has free Gaussian parameters for each example and starts from the
    guide's own; for a guide of global latents or an autoguide, q* is the guide itself, optimised further. The better of
    start and end is kept, judged on fresh noise, and then reported on yet other noise.

    Args:
        program: A program with a density; its parameters stay as they are.
        guide: The guide q; None is the program's own.
        data: Examples, of any kind that `Data.of` takes.
        log_evidence: (U,) log p(x) of each unit, or of each example where they are tied (then summed). An estimate of
            it (AIS, IWAE) brings its error and, where it is a lower bound, the caveat that the gaps are lower bounds.
        family: 'diagonal' or 'full' covariance of q*; None recognises it from a Gaussian guide. It must be given for
            any other guide (flows, hierarchies), and q* is then the best of *that* family.
        steps: Optimisation steps (Adam, cosine schedule).
        lr: Its first learning rate.
        particles: Draws a step for each unit.
        eval_particles: Draws for each reported ELBO.
        seed: Everything random follows from it.

    Raises: CapabilityError for a guide that is not Gaussian and no family; OptionError; ShapeError.
    """
    if family not in (None, "diagonal", "full"):
        raise OptionError(f"family must be 'diagonal' or 'full', got {family!r}.")
    guide, data = guide if guide is not None else program.guide, checked(program, data)
    before = elbo(program, guide, data, eval_particles, seed)
    truth = log_evidence if isinstance(log_evidence, Estimate) else Estimate(log_evidence, "exact", False)
    evidence = _by_unit(truth.values, len(before.values))
    sites = _guided(program, guide, data)
    search = _Search(program, steps=steps, lr=lr, particles=particles, eval_particles=eval_particles, seed=seed)
    amortised = not isinstance(guide, AutoGuide) and not any(site.is_global for site in program.sites().values())
    if amortised:
        parts = [search.local(guide, batch, sites, family) for batch in data.batches(BATCH)]
    else:
        parts = [search.whole(guide, data)]
    errors = [best.monte_carlo_error for best, _ in parts if best.monte_carlo_error is not None]
    best = Estimate(torch.cat([b.values for b, _ in parts]), before.how, True, monte_carlo_error=torch.cat(errors))
    # Summed over examples where all are one unit, error and all.
    error = truth.mean_error * truth.values.numel() / len(evidence)
    return Gap(
        evidence, before, best, amortised=amortised, settling=torch.cat([s for _, s in parts]), evidence_error=error,
        caveat=_caveat(truth),
    )  # fmt: skip


def _caveat(evidence: Estimate) -> str | None:
    if not evidence.bound:
        return None
    return (
        f"log p(x) is by {evidence.how}, a lower bound, and an ELBO may be nearer to the truth than it: total and "
        "approximation are at least what they say, and below zero where that happens."
    )


def _by_unit(log_evidence: Tensor, units: int) -> Tensor:
    """(U,); summed where all examples are one unit."""
    if units == 1:
        log_evidence = log_evidence.sum().reshape(1)
    if log_evidence.shape != (units,):
        raise ShapeError(f"log_evidence must have shape {(units,)}, got {tuple(log_evidence.shape)}.")
    return log_evidence


def _guided(program: Program, guide: GuideFn, data: Data) -> dict[str, Site]:
    """The sites that the guide samples; all must be continuous."""
    names = guided_sites(guide, data)
    found = {name: site for name, site in program.sites().items() if name in names}
    discrete = sorted(name for name, site in found.items() if site.is_discrete)
    if discrete:
        raise CapabilityError(
            f"posterior_gap cannot optimise the guide over the discrete sites {discrete}; sum them out."
        )
    return found


@dataclass(frozen=True)
class _Search:
    """The search for q*; each method returns (ELBO(q*), what the last quarter of the search still gained)."""

    program: Program
    steps: int
    lr: float
    particles: int
    eval_particles: int
    seed: int

    def local(
        self, guide: GuideFn, batch: Data, sites: Mapping[str, Site], family: str | None
    ) -> tuple[Estimate, Tensor]:
        """One Gaussian for each example."""
        with torch.no_grad(), evaluating(self.program, guide, self.seed, batch.x.device):
            loc, scale_tril, full = _gaussian_of(guide, batch, sites, family)
        start = LocalGaussian(sites, loc, scale_tril, full=full)
        found = copy.deepcopy(start)
        late = self._optimise(found, [p for p in found.parameters() if p.requires_grad], batch)
        end = self._elbo(found, batch, 2)
        settling = end.values - self._elbo(late, batch, 2).values
        found.keep(end.values >= self._elbo(start, batch, 2).values, start)
        return self._elbo(found, batch, 3), settling

    def whole(self, guide: GuideFn, data: Data) -> tuple[Estimate, Tensor]:
        """The guide itself, optimised further; a copy, with a copy of the program if the guide is its method.

        A Gaussian autoguide of global latents is settled as SVI settles it, whatever the units of its latents.
        """
        found = copy.deepcopy(guide)
        best = best_of_family(found, self.program, data, self.seed)
        if best is not None:
            return self._elbo(found, data, 3), torch.tensor([best.gain])
        owner = getattr(found, "__self__", found)
        parameters = guide_parameters(found, owner if isinstance(owner, Program) else self.program, data)
        late = self._optimise(found, parameters, data)
        end = self._elbo(found, data, 2)
        settling = end.values - self._elbo(late, data, 2).values
        improved = end.values.sum() >= self._elbo(guide, data, 2).values.sum()
        return self._elbo(found if improved else guide, data, 3), settling

    def _elbo(self, guide: GuideFn, data: Data, stream: int) -> Estimate:
        return elbo(self.program, guide, data, self.eval_particles, self.seed + stream)

    def _optimise(self, guide: GuideFn, parameters: list[nn.Parameter], data: Data) -> GuideFn:
        """Maximises the ELBO of every unit in place; returns the guide as it was after three quarters of the steps."""
        if not parameters:
            return guide
        optimizer = torch.optim.Adam(parameters, lr=self.lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
        late = guide
        with evaluating(self.program, guide, self.seed + 1, data.x.device):
            for step in range(self.steps):
                if step == 3 * self.steps // 4:
                    with torch.no_grad():  # flows cache their last value, and a value with a graph cannot be copied
                        draw(guide, 1, *data)
                    late = copy.deepcopy(guide)
                loss = -self._bound(guide, data).sum()
                for parameter, grad in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
                    parameter.grad = grad
                optimizer.step()
                schedule.step()
        return late

    def _bound(self, guide: GuideFn, data: Data) -> Tensor:
        if not isinstance(guide, LocalGaussian):
            return unit_log_weights(log_weights(self.program, guide, self.particles, *data)[1]).mean(0)
        values = draw(guide, self.particles, *data, density=False).values
        return (log_joint(self.program, values, *data).local - guide.path_log_prob(values)).mean(0)


def _gaussian_of(
    guide: GuideFn, batch: Data, sites: Mapping[str, Site], family: str | None
) -> tuple[Tensor, Tensor, bool]:
    """Mean (B, D) and Cholesky factor (B, D, D) of a guide for each example, and whether the family is full.

    Exact for a guide of independent Gaussian sites; else, given a family, from the moments of its draws.
    """
    with pyro.plate("particles", 2, dim=-2):
        trace = poutine.trace(guide).get_trace(*batch, None)
    locs, covariances, full = [], [], family == "full"
    for name in sites:
        base = trace.nodes[name]["fn"]
        while isinstance(base, torch.distributions.Independent):
            base = base.base_dist
        if isinstance(base, dist.Normal):
            loc = base.loc.reshape(2, batch.size, -1)
            covariance = base.scale.reshape(2, batch.size, -1).square().diag_embed()
        elif isinstance(base, (dist.MultivariateNormal, dist.LowRankMultivariateNormal)):
            loc, covariance = base.loc, base.covariance_matrix
            full = full or family is None
        else:
            break
        # A site whose parameters follow another site's draw is Gaussian only given that draw.
        if not (torch.equal(loc[0], loc[1]) and torch.equal(covariance[0], covariance[1])):
            break
        locs.append(loc[0])
        covariances.append(covariance[0])
    else:
        covariance = torch.stack([torch.block_diag(*parts) for parts in zip(*covariances, strict=True)])
        return torch.cat(locs, -1), torch.linalg.cholesky(covariance), full
    if family is None:
        raise CapabilityError(
            f"The guide is not a Gaussian with parameters for each example (site {name!r}: {type(base).__name__}), so "
            "the best member of its family cannot be searched for; give family='diagonal' or 'full'."
        )
    z = Coordinates(sites, batch.size, tied=False).pack(draw(guide, 500, *batch, density=False).values)
    centred = z - z.mean(0)
    covariance = torch.einsum("sbi,sbj->bij", centred, centred) / (len(z) - 1)
    return z.mean(0), torch.linalg.cholesky(covariance), full
