"""Targets with conjugate priors: posterior and evidence in closed form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.targets.target import Target, moments
from zoo import datasets
from zoo.bayes.coin import BetaBernoulli
from zoo.bayes.dirichlet_categorical import DirichletCategorical
from zoo.bayes.normal import NormalUnknown
from zoo.bayes.regression import BayesianLinearRegression
from zoo.datasets import Data

__all__ = ["coin", "diabetes", "earth_density", "horse_kicks", "kidiq"]

# Deaths by horse kick in a Prussian army corps in a year: number of corps-years (of 200) with 0, 1, 2, 3, 4 deaths.
HORSE_KICKS = (109, 65, 22, 3, 1)
# The density of the earth in units of water, 29 measurements.
EARTH_DENSITY = (
    5.50, 5.61, 4.88, 5.07, 5.26, 5.55, 5.36, 5.29, 5.58, 5.65, 5.57, 5.53, 5.62, 5.29, 5.44, 5.34, 5.79, 5.10, 5.27,
    5.39, 5.42, 5.47, 5.63, 5.34, 5.46, 5.30, 5.75, 5.68, 5.85,
)  # fmt: skip


def coin() -> Target:
    """Beta posterior of twelve tosses."""
    what = "Probability that a drawing pin lands point up, after 12 tosses of which 9 did; uniform prior."
    return _independent("coin", what, BetaBernoulli, datasets.load("coin").train)


def horse_kicks() -> Target:
    """Dirichlet posterior of the probabilities of 0 to 4 deaths."""
    what = (
        "Probabilities of 0, 1, 2, 3, 4 deaths by horse kick in an army corps in a year, from 200 corps-years "
        "(von Bortkiewicz, Das Gesetz der kleinen Zahlen, 1898); uniform Dirichlet prior."
    )
    x = torch.repeat_interleave(torch.arange(5), torch.tensor(HORSE_KICKS)).to(torch.get_default_dtype())
    return _independent("horse-kicks", what, lambda: DirichletCategorical(values=5), Data(x))


def earth_density() -> Target:
    """Normal-Gamma posterior of the density of the earth and the precision of its measurement."""
    what = (
        "Density of the earth and precision of one measurement, from the 29 measurements of Cavendish (1798); "
        "Normal-Gamma prior around 5 with the weight of a tenth of a measurement."
    )
    data = Data(torch.tensor(EARTH_DENSITY))

    def build() -> NormalUnknown:
        return NormalUnknown(prior_mean=5.0, prior_weight=0.1, concentration=1.0, rate=0.1)

    program = build()
    p = program.updated(data.x)
    # The mean alone is Student t with 2 a degrees of freedom, location l and squared scale b / (a k).
    mean = {"precision": p.concentration / p.rate, "mean": p.loc}
    sd = {
        "precision": p.concentration.sqrt() / p.rate,
        "mean": (p.rate / (p.weight * (p.concentration - 1))).sqrt(),
    }
    evidence = program.log_evidence(*data)
    return Target(
        "earth-density",
        what,
        "conjugate",
        program=build,
        data=data,
        log_evidence=evidence,
        posterior=program.posterior,
        mean=mean,
        sd=sd,
    )


def diabetes() -> Target:
    """Gaussian posterior of eleven regression weights, strongly correlated."""
    what = (
        "Weights of a linear regression of disease progression on ten covariates and an intercept, all standardised "
        "(Efron et al., Least angle regression, 2004; scikit-learn's load_diabetes, 354 training rows); known noise."
    )
    data = datasets.load("diabetes").train
    return _regression("diabetes", what, data, prior_scale=1.0, noise_scale=0.7)


def kidiq() -> Target:
    """Gaussian posterior of an intercept and a slope."""
    what = (
        "Test score of 434 children given whether the mother finished high school (Gelman & Hill 2006; data of "
        "posteriordb's kidiq, with its noise of about 20 taken as known)."
    )
    return _regression("kidiq", what, datasets.load("kidiq").train, prior_scale=100.0, noise_scale=20.0)


def _regression(name: str, what: str, data: Data, **options: float) -> Target:
    assert data.context is not None
    features = data.context.shape[1]
    return _independent(name, what, lambda: BayesianLinearRegression(features, **options), data)


def _independent(name: str, what: str, build: Callable[[], Any], data: Data) -> Target:
    """A target whose posterior is one distribution, whose moments are its marginal moments."""
    program = build()
    with torch.no_grad():
        evidence = program.log_evidence(*data)
    mean, sd = moments(program.posterior, data)
    return Target(
        name,
        what,
        "conjugate",
        program=build,
        data=data,
        log_evidence=evidence,
        posterior=program.posterior,
        mean=mean,
        sd=sd,
    )
