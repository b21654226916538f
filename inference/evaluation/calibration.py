"""Is a posterior calibrated? Pareto k-hat of its importance weights, and simulation-based calibration.

Yao, Vehtari, Simpson & Gelman, "Yes, but did it work? Evaluating variational inference", ICML 2018 (k-hat, VSBC);
Talts, Betancourt, Simpson, Vehtari & Gelman, "Validating Bayesian inference algorithms with SBC", 2018;
Vehtari, Simpson, Gelman, Yao & Gabry, "Pareto smoothed importance sampling", JMLR 2024.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
import torch
from torch import Tensor

from inference.chains import psis_khat
from inference.environment import evaluating
from inference.particles import draw, simulate
from inference.requirements import why_no_dreams
from zoo.errors import CapabilityError, OptionError, ShapeError
from zoo.options import Count, check_value
from zoo.program import Program

__all__ = ["Calibration", "Sampler", "guide_sampler", "psis_khat", "sbc", "vsbc"]

Sampler = Callable[[Tensor, Tensor | None, int], dict[str, Tensor]]
"""(x, context, n) -> independent posterior draws, local sites (n, B, *event), global sites (n, *event)."""


@dataclass(frozen=True)
class Calibration:
    """Ranks of the truth among posterior draws, over simulated data sets.

    `ranks` holds for each site (n_sims, d) whole numbers from 0 to n_draws; under a correct posterior each is uniform.
    `p_values` (d,) are those of the test named by `test`, one for each coordinate: small means miscalibrated.
    """

    ranks: dict[str, Tensor]
    n_draws: int
    p_values: dict[str, Tensor]
    test: str

    def histogram(self, site: str, bins: int = 10) -> Tensor:
        """Counts (bins, d) of the ranks of a site; flat if calibrated, a hump if too wide, a cup if too narrow."""
        edges = (self.ranks[site] * bins) // (self.n_draws + 1)
        return torch.stack([(edges == b).sum(0) for b in range(bins)])

    @property
    def worst(self) -> float:
        """The smallest p-value times the number of coordinates (Bonferroni), at most 1."""
        every = torch.cat(list(self.p_values.values()))
        return min(1.0, float(every.min()) * len(every))


def guide_sampler(guide: Callable[..., Any]) -> Sampler:
    """The sampler of an amortised guide or an exact posterior over local sites."""

    def sample(x: Tensor, context: Tensor | None, n: int) -> dict[str, Tensor]:
        return draw(guide, n, x, context, density=False).values

    return sample


def sbc(
    program: Program,
    sampler: Sampler,
    n_sims: int = 200,
    n_draws: int = 99,
    *,
    size: int = 10,
    context: Tensor | None = None,
    bins: int = 10,
    seed: int = 0,
) -> Calibration:
    """Simulation-based calibration: draws latents and data from the program, ranks the truth among posterior draws.

    A program with local latents alone is simulated in one batch of n_sims examples; one with global latents n_sims
    times with `size` examples, its sampler run on each. MCMC draws must be thinned until nearly independent.

    Args:
        program: A program that generates.
        sampler: Gives posterior draws for data; for a guide that is not amortised it must fit one.
        n_sims: Number of simulations.
        n_draws: Posterior draws for each.
        size: Examples in a simulated data set of a program with global latents.
        context: Rows to condition on: n_sims of them, or `size` of them if there are global latents.
        bins: Of the chi-square test; must divide n_draws + 1.
        seed: Everything random follows from it.
    """
    if bins < 2 or (n_draws + 1) % bins:
        raise OptionError(f"bins must divide n_draws + 1 = {n_draws + 1}, else the bins are unequal; got {bins}.")
    ranks = _ranks(program, sampler, n_sims, n_draws, size, context, seed)
    p_values = {}
    for name, found in ranks.items():
        counts = torch.stack([((found * bins) // (n_draws + 1) == b).sum(0) for b in range(bins)])
        p_values[name] = torch.as_tensor(scipy.stats.chisquare(counts.numpy(), axis=0).pvalue)
    return Calibration(ranks, n_draws, p_values, test=f"chi-square, {bins} bins")


def vsbc(
    program: Program,
    sampler: Sampler,
    n_sims: int = 200,
    n_draws: int = 200,
    *,
    size: int = 10,
    context: Tensor | None = None,
    flips: int = 999,
    seed: int = 0,
) -> Calibration:
    """Variational SBC: a guide may be too narrow and still be unbiased; tests that alone.

    p = P(draw < truth) is symmetric about 1/2 over simulations if the guide's centre is unbiased. The statistic is the
    Kolmogorov-Smirnov distance of p and 1 - p of Yao et al.; its p-value comes from random reflections about 1/2, which
    is exact where the two-sample test (of samples that mirror each other) is not.

    Args: as `sbc`; flips: number of random reflections.
    """
    ranks = _ranks(program, sampler, n_sims, n_draws, size, context, seed)
    generator = np.random.default_rng(seed)
    signs = np.concatenate([np.ones((1, n_sims)), generator.choice([-1.0, 1.0], (flips, n_sims))])
    p_values = {}
    for name, found in ranks.items():
        centred = found.double().numpy() / n_draws - 0.5
        tests = [_reflection_test(signs, centred[:, j]) for j in range(centred.shape[1])]
        p_values[name] = torch.tensor(tests, dtype=torch.float64)
    return Calibration(ranks, n_draws, p_values, test=f"symmetry, {flips} reflections")


def _reflection_test(signs: np.ndarray, centred: np.ndarray) -> float:
    """p-value of symmetry about zero: KS distance of a sample and its mirror image, among random reflections."""
    order = np.argsort(np.abs(centred), kind="stable")
    # Walking from the outside in, each point adds its sign to F(-t) + F(t) - 1; ties move together.
    size = np.abs(centred[order])[::-1]
    steps = (signs * np.sign(centred))[:, order][:, ::-1]
    walk = np.abs(np.cumsum(steps, 1))[:, np.append(size[1:] != size[:-1], True)]
    statistic = walk.max(1)
    return float((statistic >= statistic[0] - 1e-9).mean())


def _ranks(
    program: Program, sampler: Sampler, n_sims: int, n_draws: int, size: int, context: Tensor | None, seed: int
) -> dict[str, Tensor]:
    """Site -> (n_sims, d) number of draws below the truth."""
    for name, value in (("n_sims", n_sims), ("n_draws", n_draws), ("size", size)):
        check_value(name, value, Count)
    reason = why_no_dreams(program)
    if reason is not None:
        raise CapabilityError(f"{type(program).__name__} cannot be calibrated on what it generates: {reason}.")
    context = program.accept_context(context)
    sites = {name: site for name, site in program.sites().items() if not site.is_discrete}
    if not sites:
        raise CapabilityError(f"{type(program).__name__} has no continuous latents to rank.")
    tied = any(site.is_global for site in sites.values())
    rounds, batch = (n_sims, size) if tied else (1, n_sims)
    if context is not None and len(context) != batch:
        raise ShapeError(f"context must have {batch} rows here, got {len(context)}.")
    ranks: dict[str, list[Tensor]] = {name: [] for name in sites}
    device = next(iter(program.parameters()), torch.zeros(())).device
    with evaluating(program, None, seed, device):
        for _ in range(rounds):
            with torch.no_grad():
                made = simulate(program, batch, context)
            draws = sampler(made.x, context, n_draws)
            for name in sites:
                if name not in draws:
                    raise CapabilityError(f"The sampler gives no draws of the latent site {name!r}.")
                truth, found = made.latents[name], draws[name].detach()
                if sites[name].is_global and found.ndim == truth.ndim + 2:
                    found = found[:, 0]  # straight from a guide, with the plate's dimension
                if found.shape != (n_draws, *truth.shape):
                    raise ShapeError(
                        f"Draws of {name!r} must have shape {(n_draws, *truth.shape)}, got {tuple(found.shape)}."
                    )
                below = (found < truth).sum(0)
                ranks[name].append(below.reshape(1 if tied else batch, -1).cpu())
    return {name: torch.cat(found) for name, found in ranks.items()}
