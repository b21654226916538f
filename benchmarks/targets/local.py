"""Targets with a latent of its own for each example: enumerated, linear-Gaussian, or on a grid."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.targets.target import Target, moments
from inference.environment import seeded
from inference.guides.grid import GridGuide
from zoo import datasets
from zoo.bayes.banana import Banana
from zoo.bayes.two_modes import TwoModes
from zoo.chains.hmm import HMM
from zoo.datasets import Data
from zoo.latent.ppca import PPCA
from zoo.mixtures.gaussian import GaussianMixture
from zoo.program import Program

__all__ = ["banana", "casino", "iris_species", "ppca_digits", "two_modes"]

GRID_POINTS = 160
"""Per dimension; the midpoint rule is then exact to rounding for both grid targets."""


def iris_species() -> Target:
    """Which species each of 30 flowers belongs to, the three components known."""
    what = (
        "Species (0, 1, 2) of 30 iris flowers from four measurements (Fisher 1936): a Gaussian mixture with equal "
        "weights whose components have the mean and covariance of the labelled training flowers."
    )
    dataset = datasets.load("iris")
    labels = dataset.labels["train"]

    def build() -> GaussianMixture:
        program = GaussianMixture([4], components=3, covariance="full")
        groups = [dataset.train.x[labels == label] for label in range(3)]
        with torch.no_grad():
            program.means.copy_(torch.stack([group.mean(0) for group in groups]))
            program.scale = torch.stack([torch.linalg.cholesky(group.T.cov()) for group in groups])
        return program

    return _by_example("iris-species", what, "enumeration", build, dataset.test)


def ppca_digits() -> Target:
    """Two principal components of 20 digits."""
    what = (
        "Two latent components of 20 test digits (8x8) under probabilistic PCA, its parameters at the maximum of the "
        "likelihood of the training digits (Tipping & Bishop 1999, section 3.2)."
    )
    dataset = datasets.load("digits")

    def build() -> PPCA:
        program = PPCA([8, 8], latent_dim=2)
        program.maximum_likelihood(dataset.train.x)
        # Eigenvectors have no sign of their own; the largest entry is made positive.
        weight = program.weight.detach()
        weight *= weight.gather(0, weight.abs().argmax(0, keepdim=True)).sign()
        return program

    return _by_example("ppca-digits", what, "linear-Gaussian", build, dataset.test.rows(slice(0, 20)))


def casino() -> Target:
    """When the loaded die was used."""
    what = (
        "State (0 fair, 1 loaded) at each of 40 rolls, in 8 sequences, in the occasionally dishonest casino (Durbin, "
        "Eddy, Krogh & Mitchison, Biological Sequence Analysis, 1998, section 3.2); simulated with seed 0."
    )

    def build() -> HMM:
        program = HMM([40], states=2, emission="categorical", values=6)
        loaded = [0.1] * 5 + [0.5]
        with torch.no_grad():
            program.initial_logits.copy_(torch.tensor([0.5, 0.5]).log())
            program.transition_logits.copy_(torch.tensor([[0.95, 0.05], [0.1, 0.9]]).log())
            program.emission.logits.copy_(torch.tensor([[[1 / 6] * 6], [loaded]]).log())
        return program

    program = build()
    with seeded(0), torch.no_grad():
        data = Data(program.generate(8))
        evidence, chance = program.log_prob(*data), program.marginals(*data)[..., 1]
    mean, sd = {"z": chance}, {"z": (chance * (1 - chance)).sqrt()}
    return Target(
        "casino",
        what,
        "forward-backward",
        program=build,
        data=data,
        log_evidence=evidence,
        posterior=program.posterior,
        mean=mean,
        sd=sd,
    )


def banana() -> Target:
    """Curved posteriors."""
    what = "Position z of a point on the plane from a vague reading of z_1 and a sharp one of z_2 + z_1^2."
    x = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.5], [-1.5, 2.0], [0.5, -1.0], [0.0, 3.0]])
    return _grid("banana", what, Banana, Data(x))


def two_modes() -> Target:
    """Posteriors that are two islands."""
    what = "Complex number z from a noisy reading of its square; z and -z are equally probable."
    x = torch.tensor([[1.0, 0.0], [2.0, 0.0], [-1.5, 1.0], [0.0, -2.5], [3.0, 3.0], [0.0, 0.0]])
    return _grid("two-modes", what, TwoModes, Data(x))


def _by_example(name: str, what: str, how: str, build: Callable[[], Any], data: Data) -> Target:
    """From a program that has its own posterior and density, with one latent site."""
    program = build()
    with torch.no_grad():
        evidence = program.log_prob(*data)
    mean, sd = moments(program.posterior, data)
    return Target(
        name, what, how, program=build, data=data, log_evidence=evidence, posterior=program.posterior, mean=mean, sd=sd
    )


def _grid(name: str, what: str, build: Callable[[], Program], data: Data) -> Target:
    """From a program whose latent z is two-dimensional."""
    guide = GridGuide(build(), GRID_POINTS)
    grid = guide.grid(*data)
    return Target(
        name,
        what,
        "grid",
        program=build,
        data=data,
        log_evidence=grid.log_evidence,
        posterior=guide,
        mean={"z": grid.mean},
        sd={"z": grid.sd},
    )
