"""Posterior cells: a method beside a posterior that is known exactly (a target, or a trained VAE on a grid).

The program's parameters are fixed; only a guide or a chain is fitted. Numbers are per unit: per example where each has
a posterior of its own, of everything together where a global latent ties the examples.

Options of the evaluation: `particles` (1000) behind ELBO and KL; `classifier` ('mlp', or 'quadratic') of the C2ST;
`picture`, the site that is drawn (all, the first two coordinates of which are seen); `refit` (2000), the steps in which
an amortised flow is fitted to the examples alone, for its approximation gap, after a third as many of IWAE; `simulate`,
how many examples drawn from the program itself the amortised guides learn from instead of data, so that the posterior
is what every method's objective is least at (those that match joint distributions compare p(x) with the data as well).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from scipy.spatial import cKDTree
from torch import Tensor, nn

from benchmarks import targets
from benchmarks.cells.latents import history_arrays
from benchmarks.metrics import Measurement, how_the_game_ended
from benchmarks.suite import Cell, file_name
from benchmarks.targets import Target, trained
from inference import Fit, fit
from inference.environment import seeded
from inference.evaluation.calibration import psis_khat
from inference.evaluation.divergences import kl_divergences, moment_errors
from inference.evaluation.estimates import elbo, importance_log_weights
from inference.evaluation.gaps import posterior_gap
from inference.evaluation.two_samples import c2st
from inference.guides.named import AUTOGUIDES, guide_parameters
from inference.particles import flatten_draws, log_joint
from zoo import catalogue
from zoo.datasets import Data
from zoo.errors import CapabilityError, ImplicitDensityError
from zoo.nets import mlp
from zoo.program import Program

__all__ = ["AmortisedCategorical", "Problem", "measure"]

Array = np.ndarray[Any, Any]
Draws = Mapping[str, Tensor]

DRAWS = 4000
"""Draws of each posterior; they bring an error of 0.016 sd into each mean."""
C2ST_DRAWS = 500
"""Draws a side for the classifier (scikit-learn's MLP, five folds)."""
UNITS_SHOWN = 3
"""Units that are drawn in pictures and given to the classifier."""
NEIGHBOURS = 5
TRAINERS = ("svi", "avb", "ali", "aae")
"""Methods that would also train the program unless told not to."""
SIMULATED = 1000
"""Far from the seeds of fits and draws."""
NO_DENSITY = "n/a: the method gives draws but no density"


@dataclass(frozen=True)
class Problem:
    """A target and the data that amortised guides learn from (the target's own, unless there are more like them)."""

    target: Target
    train: Data


def load_problem(cell: Cell, artifacts: Path) -> Problem:
    """The target by its name; 'vae-*' is a VAE trained once for each seed and kept in the artifacts."""
    if cell.program.name in trained.TRAINED:
        target, train = trained.load(cell.program.name, cell.seed, artifacts, **cell.program.options)
        return Problem(target, train)
    target = targets.load(cell.program.name)
    if "simulate" not in cell.evaluation:
        return Problem(target, target.data)
    with seeded(cell.seed + SIMULATED):
        simulated = target.program().generate(int(cell.evaluation["simulate"]))
    return Problem(target, Data(simulated))


def measure(cell: Cell, artifacts: Path, device: str) -> list[Measurement]:
    """Fits the guide, then compares with the exact posterior; leaves draws for pictures."""
    with default_dtype(torch.float64):
        problem = load_problem(cell, artifacts)
        found = fit_method(cell, problem, device)
        target, program = problem.target, found.program
        n = count(found)
        draws, exact = found.draw(n, *target.data, seed=cell.seed + 1), target.draw(DRAWS, cell.seed + 2)
        discrete = {name for name, site in program.sites().items() if site.is_discrete and name in draws}
        continuous = {name for name in draws if name in target.mean} - discrete
        measured = [
            *evidence(cell, found, target),
            *approximation(cell, found, target),
            *moments(draws, target, continuous),
            *marginals(draws, exact, discrete),
        ]
        if "c2st" in cell.metrics:  # the one measurement that takes longer than some fits
            measured.append(classifier(draws, exact, target, cell))
        if cell.method.method != "exact":
            measured.append(Measurement("seconds", found.seconds, how="wall time of the fit"))
            measured.append(Measurement("gradient_evaluations", float(found.gradient_evaluations)))
        measured += how_the_game_ended(found.info)
        drawn = {str(cell.evaluation["picture"])} if "picture" in cell.evaluation else continuous
        path = artifacts / f"{file_name(cell.key)}.npz"
        save_artifact(path, program, target, draws, exact, drawn, history_arrays(found.history))
    return [m for m in measured if m.metric in cell.metrics]


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Targets are exact in float64, and made in the default dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def fit_method(cell: Cell, problem: Problem, device: str) -> Fit:
    """Fits a fresh guide to the target's program, whose own parameters stay as they are.

    Method 'exact' is the target's own posterior: the row that says what draws and classifiers make of the truth.
    """
    if cell.method.method == "exact":
        target = problem.target
        return Fit(program=target.program(), method="exact", data=target.name, seed=cell.seed, guide=target.posterior)
    options = dict(cell.method.options)
    with seeded(cell.seed):
        program = rebuilt(problem.target.program(), cell.method.program, problem.train)
        if options.get("guide") == "categorical":
            options["guide"] = AmortisedCategorical(program)
    # What belongs to single examples is fitted on the target's own data; an amortised guide learns from all there are.
    amortised = cell.method.method != "nuts" and options.get("guide") not in AUTOGUIDES
    data = problem.train if amortised else problem.target.data
    if cell.method.method in TRAINERS:
        options["train_program"] = False
    found = fit(program, data, cell.method.method, seed=cell.seed, device=device, initialise=False, **options)
    found.program.cpu()
    if isinstance(found.guide, nn.Module):
        found.guide.cpu()
    return found


def count(found: Fit) -> int:
    """How many draws to take: drawing more than a chain holds repeats some, which a classifier learns by heart."""
    return DRAWS if found.samples is None else min(DRAWS, len(next(iter(found.samples.values()))))


def rebuilt(program: Program, changes: Mapping[str, Any], data: Data) -> Program:
    """The same model with a fresh guide of its own, of other constructor options perhaps; the model's numbers stay."""
    config = program.config()
    new = catalogue.create(catalogue.name_of(program), **{**config, **changes})
    guided = {id(p) for p in guide_parameters(new.guide, new, data)}
    old = program.state_dict()
    with torch.no_grad():
        for name, value in new.state_dict(keep_vars=True).items():
            if id(value) not in guided and name in old:  # what is new belongs to the guide (a flow's permutation)
                value.copy_(old[name])
    return new


def evidence(cell: Cell, found: Fit, target: Target) -> list[Measurement]:
    """Log evidence, ELBO, both KL divergences and k-hat, where they exist."""
    units = target.log_evidence.numel()
    exact = Measurement("log_evidence", target.total_log_evidence / units, how=f"{target.how}, {_per(target)}")
    if found.guide is None:
        missing = [Measurement(metric, None, how=NO_DENSITY) for metric in ("elbo", "kl_forward", "k_hat")]
        return [exact, *missing, entropy_kl(found, target, cell.seed)]
    particles = int(cell.evaluation.get("particles", 1000))
    program, guide, data = found.program, found.guide, target.data
    try:
        bound = elbo(program, guide, data, particles, cell.seed)
        weights = importance_log_weights(program, guide, data, particles, seed=cell.seed)
    except ImplicitDensityError:
        missing = [Measurement(metric, None, how=NO_DENSITY) for metric in ("elbo", "kl_forward", "k_hat")]
        return [exact, *missing, entropy_kl(found, target, cell.seed)]
    # A guide over all examples at once (an autoguide) has one value for all; numbers are per unit all the same.
    share = len(bound.values) / units
    how = f"{particles} draws, {_per(target)}"
    error = bound.mean_error * share
    reverse = target.total_log_evidence / units - bound.mean * share
    return [
        exact,
        Measurement("elbo", bound.mean * share, error, how),
        Measurement("kl_reverse", reverse, error, f"log evidence less ELBO, {how}"),
        forward_kl(found, target, particles, share, cell.seed),
        k_hat(program, weights),
    ]


def approximation(cell: Cell, found: Fit, target: Target) -> list[Measurement]:
    """log p(x) less the ELBO of the best member of the guide's family, if the cell asks for it.

    An amortised flow has no parameters for each example to search; its encoder and flows are fitted to the examples
    alone instead, which they hold by heart. What that fit lacks counts as approximation: the gap is an upper bound.
    """
    name, guide, data = "approximation", found.guide, target.data
    if name not in cell.metrics or cell.method.method == "exact":
        return []
    if cell.method.method != "svi" or guide is None:
        return [Measurement(name, None, how="n/a: no family of densities to search")]
    units, log_evidence = target.log_evidence.numel(), target.log_evidence.reshape(-1)
    try:
        gap = posterior_gap(found.program, guide, data, log_evidence, seed=cell.seed)
        best, how = gap.best, "the best member searched for from the fitted one"
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
    return [Measurement(name, target.total_log_evidence / units - best.mean * share, best.mean_error * share, how)]


def k_hat(program: Program, log_weights: Tensor) -> Measurement:
    """The worst Pareto k-hat of any unit; n/a where the weights have no tail."""
    if all(site.is_discrete for site in program.sites().values()):
        return Measurement("k_hat", None, how="n/a: over discrete latents the weights take few values")
    worst = float(psis_khat(log_weights).max())
    if worst == -math.inf:
        return Measurement("k_hat", None, how="n/a: the weights of an exact guide are constant")
    return Measurement("k_hat", worst, how=f"the worst of {log_weights.shape[1]} unit(s), {len(log_weights)} draws")


def forward_kl(found: Fit, target: Target, particles: int, share: float, seed: int) -> Measurement:
    """KL(p || q); n/a for guides whose density at a given point cannot be had."""
    try:
        _, forward = kl_divergences(
            found.program, found.guide, target.posterior, *target.data, particles,
            log_evidence=target.log_evidence.reshape(-1), seed=seed,
        )  # fmt: skip
    except CapabilityError as error:
        return Measurement("kl_forward", None, how=f"n/a: {error}")
    how = f"{particles} exact draws, {_per(target)}"
    return Measurement("kl_forward", forward.mean * share, forward.mean_error * share, how)


def entropy_kl(found: Fit, target: Target, seed: int) -> Measurement:
    """KL(q || p) of draws alone, in two dimensions: the entropy from nearest neighbours, the density p exact.

    Kozachenko & Leonenko, "Sample estimate of the entropy of a random vector", 1987.
    """
    if found.samples is not None:
        return Measurement("kl_reverse", None, how="n/a: no density, and the draws of a chain are not independent")
    sizes = {name: mean.numel() // target.log_evidence.numel() for name, mean in target.mean.items()}
    if sum(sizes.values()) > 2 or any(site.is_discrete for site in found.program.sites().values()):
        return Measurement("kl_reverse", None, how="n/a: no density, and too many dimensions to estimate the entropy")
    draws = found.draw(DRAWS, *target.data, seed=seed + 3)
    log_p = log_posterior(found.program, target, draws)
    units = target.log_evidence.numel()
    z = torch.cat([value.reshape(DRAWS, units, -1) for value in draws.values()], -1).cpu().numpy()
    terms = np.stack([_entropy_terms(z[:, u]) + log_p[:, u].numpy() for u in range(units)], 1)
    value, error = -float(terms.mean()), float(np.sqrt((terms.var(0) / DRAWS).sum())) / units
    return Measurement("kl_reverse", value, error, f"entropy from {NEIGHBOURS} nearest neighbours of {DRAWS} draws")


def log_posterior(program: Program, target: Target, draws: Draws) -> Tensor:
    """log p(z | x) at draws, (S, U)."""
    sites = program.sites()
    values = {name: value[:, None] if sites[name].is_global else value for name, value in draws.items()}
    joint = log_joint(program, values, *target.data)
    log_p = joint.total[:, None] if target.log_evidence.ndim == 0 else joint.local
    return (log_p - target.log_evidence.reshape(1, -1)).detach()


def _entropy_terms(z: Array) -> Array:
    """-log q at independent draws (S, d) up to the noise of the estimate; their mean estimates the entropy."""
    n, d = z.shape
    radius = cKDTree(z).query(z, NEIGHBOURS + 1)[0][:, -1]
    ball = d / 2 * math.log(math.pi) - math.lgamma(d / 2 + 1)
    psi = torch.digamma(torch.tensor([float(n), float(NEIGHBOURS)], dtype=torch.float64))
    terms: Array = float(psi[0] - psi[1]) + ball + d * np.log(radius)
    return terms


def moments(draws: Draws, target: Target, sites: set[str]) -> list[Measurement]:
    """Root mean square errors of mean and sd over all continuous coordinates of all units."""
    if not sites:
        return []
    errors = moment_errors(
        {name: draws[name] for name in sites},
        mean=flatten_draws({name: target.mean[name][None] for name in sites})[0],
        sd=flatten_draws({name: target.sd[name][None] for name in sites})[0],
    )
    how = f"{len(draws[min(sites)])} draws, root mean square over coordinates"
    return [Measurement("mean_error", errors.mean_rms, how=how), Measurement("sd_error", errors.sd_rms, how=how)]


def marginals(draws: Draws, exact: Draws, sites: set[str]) -> list[Measurement]:
    """Total variation between the marginals of each discrete number, averaged."""
    if not sites:
        return []
    distances = []
    for name in sites:
        top = int(max(draws[name].max(), exact[name].max())) + 1
        both = [nn.functional.one_hot(d[name].long(), top).double().mean(0) for d in (draws, exact)]
        distances.append(((both[0] - both[1]).abs().sum(-1) / 2).flatten())
    how = "frequencies of the draws of each side"
    return [Measurement("marginal_error", float(torch.cat(distances).mean()), how=how)]


def classifier(draws: Draws, exact: Draws, target: Target, cell: Cell) -> Measurement:
    """C2ST of the joint draws; for local latents the mean over the first units."""
    names = sorted(set(draws) & set(exact))
    kind = str(cell.evaluation.get("classifier", "mlp"))

    def unit(values: Draws, u: int) -> Tensor:
        chosen = values if target.log_evidence.ndim == 0 else {name: values[name][:, u] for name in names}
        return flatten_draws({name: chosen[name] for name in names}).double()

    units = range(min(target.log_evidence.numel(), UNITS_SHOWN))
    found = [c2st(unit(exact, u), unit(draws, u), classifier=kind, max_draws=C2ST_DRAWS, seed=cell.seed) for u in units]
    value = sum(f.accuracy for f in found) / len(units)
    error = math.sqrt(sum(f.standard_error**2 for f in found)) / len(units)
    how = f"{kind} classifier, {C2ST_DRAWS} draws a side, mean over {len(units)} unit(s)"
    return Measurement("c2st", value, error, how)


def _per(target: Target) -> str:
    return "in total" if target.log_evidence.ndim == 0 else f"per example of {target.log_evidence.numel()}"


def save_artifact(
    path: Path,
    program: Program,
    target: Target,
    draws: Draws,
    exact: Draws,
    sites: set[str],
    history: Mapping[str, Array],
) -> None:
    """Draws of the first one or two coordinates, the exact density on a grid if there are no others; the history."""
    names = [name for name in target.mean if name in sites]
    if not names:
        return
    local = target.log_evidence.ndim > 0
    units = target.log_evidence.numel()
    sizes = [target.mean[name].numel() // units for name in names]
    labels = [
        f"{name}[{i}]" if size > 1 else name for name, size in zip(names, sizes, strict=True) for i in range(size)
    ]

    def first_two(values: Draws) -> Array:
        side_by_side = torch.cat([values[name].reshape(len(values[name]), units, -1) for name in names], -1)
        return side_by_side[:1000, :UNITS_SHOWN, :2].transpose(0, 1).cpu().numpy()

    columns: dict[str, Any] = {"names": np.array(labels[:2]), "draws": first_two(draws), "exact": first_two(exact)}
    columns |= history
    if len(labels) == 2 and len(names) == 1 and local:
        columns |= density_grid(program, target, names[0])
    if local and target.data.x.ndim == 3:
        columns["images"] = target.data.x[:UNITS_SHOWN].cpu().numpy()
    np.savez_compressed(path, **columns)


def density_grid(program: Program, target: Target, site: str, points: int = 100) -> dict[str, Array]:
    """The exact posterior density of a two-dimensional local site on a grid around its draws."""
    exact = target.draw(DRAWS)[site]
    low, high = exact.amin(0), exact.amax(0)
    pad = 0.15 * (high - low)
    ticks = torch.linspace(0, 1, points)
    axes = (low - pad) + ticks[:, None, None] * (high - low + 2 * pad)  # (G, U, 2)
    grid = torch.stack([axes[:, None, :, 0].expand(-1, points, -1), axes[None, :, :, 1].expand(points, -1, -1)], -1)
    with torch.no_grad():
        log_p = log_posterior(program, target, {site: grid.flatten(0, 1)}).unflatten(0, (points, points))
    density = log_p.exp().permute(2, 0, 1)[:UNITS_SHOWN].numpy()
    return {
        "axis0": axes[:, :UNITS_SHOWN, 0].T.numpy(),
        "axis1": axes[:, :UNITS_SHOWN, 1].T.numpy(),
        "density": density,
    }


class AmortisedCategorical(nn.Module):
    """q(z | x) = prod_t Categorical(net(x)_t): mean-field where z has steps, exact in form where it is one number.

    Args:
        program: Its one latent site is discrete and local, of event shape () or (T,).
        hidden: Width of the network.

    Raises: CapabilityError for other programs.
    """

    def __init__(self, program: Program, hidden: int = 64):
        super().__init__()
        sites = list(program.sites().values())
        if len(sites) != 1 or not sites[0].is_discrete or sites[0].is_global:
            raise CapabilityError(f"{type(program).__name__} has not exactly one latent site, discrete and local.")
        (self.site,) = sites
        base = getattr(self.site.support, "base_constraint", self.site.support)
        self.shape = (*self.site.event_shape, int(base.upper_bound) + 1)
        self.plate = program.plate
        self.net = mlp(program.event_shape.numel(), [hidden], math.prod(self.shape), "tanh")

    def forward(self, x: Tensor, context: Tensor | None = None, size: int | None = None) -> None:
        """Samples the site."""
        logits = self.net(x.flatten(1)).unflatten(-1, self.shape)
        with self.plate(x, context, size):
            pyro.sample(self.site.name, dist.Categorical(logits=logits).to_event(len(self.shape) - 1))
