"""How far an answer is from the true posterior: evidence and divergences, moments, marginals, a classifier's eye.

What needs the exact density is n/a where the truth is reference draws.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.metrics import Measurement
from benchmarks.suite import Cell
from benchmarks.targets import Target, Truth
from inference import Fit, fit
from inference.evaluation.calibration import psis_khat
from inference.evaluation.divergences import kl_divergences, moment_errors
from inference.evaluation.estimates import elbo, importance_log_weights
from inference.evaluation.gaps import posterior_gap
from inference.evaluation.two_samples import c2st, sliced_wasserstein
from inference.particles import flatten_draws, log_joint
from zoo.errors import CapabilityError, ImplicitDensityError
from zoo.process import guest
from zoo.program import Program

__all__ = [
    "Answer", "approximation", "classifier", "evidence", "log_posterior", "marginals", "moments", "transport",
]  # fmt: skip

Array = np.ndarray[Any, Any]
Draws = Mapping[str, Tensor]

DRAWS = 4000
"""Draws of each posterior; they bring an error of 0.016 sd into each mean."""
C2ST_DRAWS = 500
"""Draws a side for the classifier (scikit-learn's MLP, five folds)."""
UNITS_SHOWN = 3
"""Units that are drawn in pictures and given to the classifier."""
NEIGHBOURS = 5
NO_DENSITY = "n/a: the method gives draws but no density"
NO_EVIDENCE = "n/a: the truth is draws, which have no evidence and no density"


@dataclass(frozen=True)
class Answer:
    """What a method found beside the truth; `draws` of its answer and `exact` ones, by site."""

    fit: Fit
    target: Truth
    draws: Draws
    exact: Draws

    @property
    def discrete(self) -> set[str]:
        """Sites whose marginals are compared."""
        if not isinstance(self.target, Target):
            return set()  # references are of continuous parameters
        sites = self.fit.program.sites()
        return {name for name, site in sites.items() if site.is_discrete and name in self.draws and name in self.exact}

    @property
    def continuous(self) -> set[str]:
        """Sites whose moments are compared."""
        return {name for name in self.draws if name in self.target.mean} - self.discrete


def evidence(cell: Cell, answer: Answer) -> list[Measurement]:
    """Log evidence, ELBO, both KL divergences and k-hat, where they exist."""
    found, target = answer.fit, answer.target
    exact = _exact_evidence(target)
    missing = [Measurement(metric, None, how=NO_DENSITY) for metric in ("elbo", "kl_forward", "k_hat")]
    without = [exact, *missing, entropy_kl(found, target, cell.seed)]
    if found.guide is None:
        return without
    particles = int(cell.evaluation.get("particles", 1000))
    program, guide, data = found.program, found.guide, target.data
    try:
        bound = elbo(program, guide, data, particles, cell.seed)
        weights = importance_log_weights(program, guide, data, particles, seed=cell.seed)
    except ImplicitDensityError:
        return without
    except CapabilityError as why_not:  # a point has no weights
        metrics = ("elbo", "kl_reverse", "kl_forward", "k_hat")
        return [exact, *(Measurement(metric, None, how=f"n/a: {why_not}") for metric in metrics)]
    # A guide over all examples at once (an autoguide) has one value for all; numbers are per unit all the same.
    share = len(bound.values) / target.units
    how = f"{particles} draws, {_per(target)}"
    spread = bound.mean_error * share
    shared = [exact, Measurement("elbo", bound.mean * share, spread, how=how), k_hat(program, weights)]
    if not isinstance(target, Target):
        return [*shared, *(Measurement(metric, None, how=NO_EVIDENCE) for metric in ("kl_reverse", "kl_forward"))]
    reverse = target.total_log_evidence / target.units - bound.mean * share
    return [
        *shared,
        Measurement("kl_reverse", reverse, spread, how=f"log evidence less ELBO, {how}"),
        forward_kl(found, target, particles=particles, seed=cell.seed),
    ]


def _exact_evidence(target: Truth) -> Measurement:
    if not isinstance(target, Target):
        return Measurement("log_evidence", None, how=NO_EVIDENCE)
    return Measurement("log_evidence", target.total_log_evidence / target.units, how=f"{target.how}, {_per(target)}")


def approximation(cell: Cell, answer: Answer) -> list[Measurement]:
    """log p(x) less the ELBO of the best member of the guide's family, if the cell asks for it.

    An amortised flow has no parameters for each example to search; its encoder and flows are fitted to the examples
    alone instead, which they hold by heart. What that fit lacks counts as approximation: the gap is an upper bound.
    """
    found, target = answer.fit, answer.target
    name, guide, data = "approximation", found.guide, target.data
    if name not in cell.metrics or cell.method.method == "exact":
        return []
    if cell.method.method != "svi" or guide is None:
        return [Measurement(name, None, how="n/a: no family of densities to search")]
    if not isinstance(target, Target):
        return [Measurement(name, None, how=NO_EVIDENCE)]
    units, log_evidence = target.units, target.log_evidence.reshape(-1)
    try:
        best = posterior_gap(found.program, guide, data, log_evidence, seed=cell.seed).best
        how = "the best member searched for from the fitted one"
    except CapabilityError:
        steps, kind = int(cell.evaluation.get("refit", 2000)), cell.method.options.get("guide", "own")
        alone: dict[str, Any] = {
            "seed": cell.seed, "device": "cpu", "initialise": False, "train_program": False, "guide": kind,
            "lr": 3e-3, "batch_size": data.size,
        }  # fmt: skip
        program = copy.deepcopy(found.program)
        if kind == "own":
            # The bound of many particles first: it looks for all of the mass, the ELBO for the nearest mode.
            fit(program, data, "svi", elbo="iwae", particles=64, steps=steps // 3, **alone)
        again = fit(program, data, "svi", particles=8, steps=steps, **alone)
        best = elbo(again.program, again.guide, data, 10_000, cell.seed + 4)
        how = f"the flow fitted to the {data.size} examples alone, {steps} steps: an upper bound"
    share = len(best.values) / units
    gap = target.total_log_evidence / units - best.mean * share
    return [Measurement(name, gap, best.mean_error * share, how=how)]


def k_hat(program: Program, log_weights: Tensor) -> Measurement:
    """The worst Pareto k-hat of any unit; n/a where the weights have no tail."""
    if all(site.is_discrete for site in program.sites().values()):
        return Measurement("k_hat", None, how="n/a: over discrete latents the weights take few values")
    worst = float(psis_khat(log_weights).max())
    if worst == -math.inf:
        return Measurement("k_hat", None, how="n/a: the weights of an exact guide are constant")
    return Measurement("k_hat", worst, how=f"the worst of {log_weights.shape[1]} unit(s), {len(log_weights)} draws")


def forward_kl(found: Fit, target: Target, *, particles: int, seed: int) -> Measurement:
    """KL(p || q); n/a for guides whose density at a given point cannot be had."""
    try:
        _, forward = kl_divergences(
            found.program, found.guide, target.posterior, *target.data, particles,
            log_evidence=target.log_evidence.reshape(-1), seed=seed,
        )  # fmt: skip
    except CapabilityError as error:
        return Measurement("kl_forward", None, how=f"n/a: {error}")
    how = f"{particles} exact draws, {_per(target)}"
    share = len(forward.values) / target.units
    return Measurement("kl_forward", forward.mean * share, forward.mean_error * share, how=how)


def entropy_kl(found: Fit, target: Truth, seed: int) -> Measurement:
    """KL(q || p) of draws alone, in two dimensions: the entropy from nearest neighbours, the density p exact.

    Kozachenko & Leonenko, "Sample estimate of the entropy of a random vector", 1987.
    """
    if not isinstance(target, Target):
        return Measurement("kl_reverse", None, how=NO_EVIDENCE)
    if found.samples is not None:
        return Measurement("kl_reverse", None, how="n/a: no density, and the draws of a chain are not independent")
    sizes = {name: mean.numel() // target.units for name, mean in target.mean.items()}
    if sum(sizes.values()) > 2 or any(site.is_discrete for site in found.program.sites().values()):
        return Measurement("kl_reverse", None, how="n/a: no density, and too many dimensions to estimate the entropy")
    draws = found.draw(DRAWS, *target.data, seed=seed + 3)
    log_p = log_posterior(found.program, target, draws)
    units = target.units
    z = torch.cat([value.reshape(DRAWS, units, -1) for value in draws.values()], -1).cpu().numpy()
    terms = np.stack([_entropy_terms(z[:, u]) + log_p[:, u].numpy() for u in range(units)], 1)
    value, error = -float(terms.mean()), float(np.sqrt((terms.var(0) / DRAWS).sum())) / units
    return Measurement("kl_reverse", value, error, how=f"entropy from {NEIGHBOURS} nearest neighbours of {DRAWS} draws")


def log_posterior(program: Program, target: Target, draws: Draws) -> Tensor:
    """log p(z | x) at draws, (S, U)."""
    sites = program.sites()
    values = {name: value[:, None] if sites[name].is_global else value for name, value in draws.items()}
    joint = log_joint(program, values, *target.data)
    log_p = joint.local if target.is_local else joint.total[:, None]
    return (log_p - target.log_evidence.reshape(1, -1)).detach()


def _entropy_terms(z: Array) -> Array:
    """-log q at independent draws (S, d) up to the noise of the estimate; their mean estimates the entropy."""
    n, d = z.shape
    radius = guest("scipy.spatial").cKDTree(z).query(z, NEIGHBOURS + 1)[0][:, -1]
    ball = d / 2 * math.log(math.pi) - math.lgamma(d / 2 + 1)
    psi = torch.digamma(torch.tensor([float(n), float(NEIGHBOURS)], dtype=torch.float64))
    terms: Array = float(psi[0] - psi[1]) + ball + d * np.log(radius)
    return terms


def moments(answer: Answer) -> list[Measurement]:
    """Errors of mean and sd over all continuous coordinates of all units: root mean squares, and the worst."""
    draws, target, sites = answer.draws, answer.target, answer.continuous
    if not sites:
        return []
    errors = moment_errors(
        {name: draws[name] for name in sites},
        mean=flatten_draws({name: target.mean[name][None] for name in sites})[0],
        sd=flatten_draws({name: target.sd[name][None] for name in sites})[0],
    )
    count = f"{len(draws[min(sites)])} draws"
    how, worst = f"{count}, root mean square over coordinates", f"{count}, the worst coordinate"
    return [
        Measurement("mean_error", errors.mean_rms, how=how),
        Measurement("sd_error", errors.sd_rms, how=how),
        Measurement("mean_worst", errors.mean_max, how=worst),
        Measurement("sd_worst", errors.sd_ratio, how=worst),
    ]


def marginals(answer: Answer) -> list[Measurement]:
    """Total variation between the marginals of each discrete number, averaged."""
    draws, exact, sites = answer.draws, answer.exact, answer.discrete
    if not sites:
        return []
    distances = []
    for name in sites:
        top = int(max(draws[name].max(), exact[name].max())) + 1
        both = [nn.functional.one_hot(d[name].long(), top).double().mean(0) for d in (draws, exact)]
        distances.append(((both[0] - both[1]).abs().sum(-1) / 2).flatten())
    how = "frequencies of the draws of each side"
    return [Measurement("marginal_error", float(torch.cat(distances).mean()), how=how)]


def _sides(answer: Answer, standardised: bool = False) -> list[tuple[Tensor, Tensor]]:
    """The joint draws of both sides, exact first, (n, d) each; for local latents those of the first units."""
    target = answer.target
    names = sorted(set(answer.draws) & set(answer.exact) & (answer.continuous if standardised else set(answer.exact)))

    def side(values: Draws, unit: int) -> Tensor:
        chosen = {name: values[name] for name in names}
        if standardised:
            chosen = {name: (v - target.mean[name]) / target.sd[name] for name, v in chosen.items()}
        return flatten_draws({name: v[:, unit] for name, v in chosen.items()} if target.is_local else chosen).double()

    units = range(min(target.units, UNITS_SHOWN))
    return [(side(answer.exact, unit), side(answer.draws, unit)) for unit in units]


def classifier(cell: Cell, answer: Answer) -> Measurement:
    """C2ST of the joint draws; for local latents the mean over the first units."""
    sides, kind = _sides(answer), str(cell.evaluation.get("classifier", "mlp"))
    found = [c2st(*both, classifier=kind, max_draws=C2ST_DRAWS, seed=cell.seed) for both in sides]
    value = sum(f.accuracy for f in found) / len(sides)
    error = math.sqrt(sum(f.standard_error**2 for f in found)) / len(sides)
    how = f"{kind} classifier, {C2ST_DRAWS} draws a side, mean over {len(sides)} unit(s)"
    return Measurement("c2st", value, error, how=how)


def transport(cell: Cell, answer: Answer) -> Measurement:
    """Sliced Wasserstein distance of the joint draws, in true standard deviations, likewise."""
    sides = _sides(answer, standardised=True)
    value = sum(sliced_wasserstein(*both, seed=cell.seed) for both in sides) / len(sides)
    how = f"{len(sides[0][1])} draws, each coordinate in true sds, mean over {len(sides)} unit(s)"
    return Measurement("sliced_wasserstein", value, how=how)


def _per(target: Truth) -> str:
    return f"per example of {target.units}" if target.is_local else "in total"
