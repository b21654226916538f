r"""Leave-one-out prediction without fitting again: PSIS-LOO and WAIC, from one posterior and the training data alone.

Vehtari, Gelman & Gabry, "Practical Bayesian model evaluation using leave-one-out cross-validation and WAIC", 2017;
Watanabe, "Asymptotic equivalence of Bayes cross validation and widely applicable information criterion", 2010; weights
of a guide's draws: Magnusson, Andersen, Jonasson & Vehtari, "Bayesian leave-one-out cross-validation for large data",
2019.

    1 / p(x_n | all others)  =  E[1 / p(x_n | theta)],  theta ~ p(theta | all)

so draws of the one posterior, weighted by 1 / p(x_n | theta), are draws of the one without x_n. Pareto smoothing makes
the weights bearable, and its k-hat says where nothing does: above 0.7 the value of that example is not to be trusted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from inference.chains import psis
from inference.environment import evaluating
from inference.evaluation.estimates import Estimate
from inference.evaluation.predictive import pointwise
from inference.fitted import Fit
from inference.guides.named import refuse_point
from inference.particles import draw, log_joint
from zoo.errors import CapabilityError, ImplicitDensityError
from zoo.options import Count, Range, Seed, check_value
from zoo.program import ImplicitProgram

__all__ = ["LeaveOneOut", "loo", "waic"]

ROUNDING = 1e-6
"""Nats by which the weights of an exact posterior may differ."""


@dataclass(frozen=True)
class LeaveOneOut:
    """Expected log predictive density of the training examples, each predicted by the others."""

    estimate: Estimate
    """log p(x_n | all others), (N,); its sum is ArviZ's `elpd`."""
    parameters: float
    """Effective number of parameters: what is lost, in all, against predicting each example by itself as well."""
    draws: int
    """How many the estimate is made of."""
    khat: Tensor | None = None
    """Pareto k-hat of each example (N,); None of WAIC, which has no such warning."""

    @property
    def unreliable(self) -> int:
        """How many examples have weights of too heavy a tail for so many draws (Vehtari et al. 2024)."""
        limit = min(1 - 1 / math.log10(max(self.draws, 2)), 0.7)
        return 0 if self.khat is None else int((self.khat > limit).sum())


def loo(found: Fit, *, draws: Count = 4000, seed: Seed = 0) -> LeaveOneOut:
    """PSIS-LOO: log p(x_n | all others) of each training example, by ArviZ's Pareto smoothed importance sampling.

    Draws of a guide with a density also carry their weight against the posterior (Magnusson et al. 2019), so that k-hat
    sees a guide that is too far from it. Samples of a chain, and draws of a guide without density, are taken for the
    posterior's; `estimate.how` says which.

    A local latent that the fit draws is left out along with its example: weights are 1 / p(x_n | theta, z_n), of heavy
    tails where z_n is free to follow x_n. Discrete ones that the fit leaves out are summed out.

    Args:
        found: A fit with its training data, of a program with global latents.
        draws: From a guide; samples of a chain are taken as they are.
        seed: Of the draws.

    Raises: CapabilityError for a program without global latents, whose examples tell nothing of each other; for fits
        without posterior or training data, or whose posterior is a point; ImplicitDensityError; OptionError.
    """
    found_draws = _Drawn.of(found, draws, seed, "PSIS-LOO")
    densities, weights = found_draws.densities, found_draws.log_weights
    smoothed, khat = psis(found_draws.log_ratios[:, None] - densities)
    smoothed = smoothed.to(densities)
    values = (smoothed + densities).logsumexp(0)
    # Variance of a mean under normalised weights w, relative to it: sum of w^2 (p / mean - 1)^2.
    spread = ((2 * smoothed).exp() * ((densities - values).exp() - 1).square()).sum(0)
    estimate = Estimate(values, found_draws.how, False, monte_carlo_error=spread.sqrt())
    parameters = float(((weights[:, None] + densities).logsumexp(0) - values).sum())
    return LeaveOneOut(estimate, parameters, len(densities), khat=khat.to(densities))


def waic(found: Fit, *, draws: Count = 4000, seed: Seed = 0) -> LeaveOneOut:
    """WAIC: the log predictive density of each training example less the variance of its log density over draws.

    Asymptotically the same as `loo`, which has a warning where it fails; ArviZ 1 has no WAIC any more.

    Args: as for `loo`.

    Raises: as `loo`.
    """
    drawn = _Drawn.of(found, draws, seed, "WAIC")
    weights = drawn.log_weights.exp()[:, None]
    variances = (weights * (drawn.densities - (weights * drawn.densities).sum(0)).square()).sum(0)
    values = (drawn.log_weights[:, None] + drawn.densities).logsumexp(0) - variances
    return LeaveOneOut(Estimate(values, drawn.how, False), float(variances.sum()), len(weights))


@dataclass(frozen=True)
class _Drawn:
    """Posterior draws as the training examples see them."""

    densities: Tensor
    """log p(x_n | latents), (S, N)."""
    log_ratios: Tensor
    """log p(latents, x) - log q(latents), (S,); zeros where draws are taken for the posterior's."""
    how: str

    @property
    def log_weights(self) -> Tensor:
        """The ratios smoothed and normalised, (S,)."""
        ratios = self.log_ratios
        if float(ratios.max() - ratios.min()) < ROUNDING:
            return torch.full_like(ratios, -math.log(len(ratios)))
        return psis(ratios[:, None])[0][:, 0].to(ratios)

    @classmethod
    @torch.no_grad()
    def of(cls, found: Fit, draws: int, seed: int, what: str) -> _Drawn:
        """Checks the fit and draws.

        Raises: see `loo`.
        """
        check_value("draws", draws, Annotated[int, Range(least=2)])
        program = found.program
        if isinstance(program, ImplicitProgram):
            raise ImplicitDensityError(f"{type(program).__name__} is implicit: it has no density to predict with.")
        if not any(site.is_global for site in program.sites().values()):
            raise CapabilityError(
                f"{type(program).__name__} has no global latents, so an example is predicted alike with the others and "
                "without; use log_likelihood on examples that were held out."
            )
        data = found.posterior.training()
        with evaluating(program, found.guide, seed, data.x.device):
            if found.guide is None:
                n = draws if found.samples is None else len(next(iter(found.samples.values())))
                densities = pointwise(program, found.posterior.draws(n, *data), *data)
                return cls(densities, densities.new_zeros(n), f"{what}-{n}")
            refuse_point(found.guide, program, data, what)
            try:
                drawn = draw(found.guide, draws, *data)
            except ImplicitDensityError:
                densities = pointwise(program, found.posterior.draws(draws, *data), *data)
                return cls(densities, densities.new_zeros(draws), f"{what}-{draws}, draws as they are")
            ratios = log_joint(program, drawn.values, *data).total - drawn.log_prob.total
            return cls(pointwise(program, drawn.values, *data), ratios, f"{what}-{draws}, draws weighted")
