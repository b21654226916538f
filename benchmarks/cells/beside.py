"""One method beside the truth: its fit, its numbers, how far it is off in each of them, its gap, its predictions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from pyro.infer.autoguide import AutoDelta
from torch import Tensor

from benchmarks.cells.coordinates import Columns, distances
from benchmarks.cells.posterior_scores import DRAWS, Answer, classifier, evidence, marginals, moments
from benchmarks.cells.truths import Yardstick
from benchmarks.metrics import Measurement, how_the_fit_ended
from benchmarks.suite import Cell
from benchmarks.targets import Reference, Target
from inference import Fit, make_method
from inference.evaluation.checks import PredictiveCheck, predictive_check
from inference.evaluation.gaps import Gap, posterior_gap
from inference.prediction import observed
from zoo.adopted import Adopted
from zoo.errors import CapabilityError, ImplicitDensityError, ZooError

__all__ = ["Beside", "bounds_of", "chains_of", "gap_of", "judged", "predictions_of"]

REFERENCE = "n/a: it is the reference itself"
GAP_STEPS = 200
ADOPTED_DRAWS = 1000
"""Of guides of adopted code, which is run once for each."""
PREDICTED = 20_000_000
"""Numbers that are generated for a predictive check, at most."""
STATISTICS: dict[str, Any] = {
    "mean": lambda x: x.double().mean(),
    "sd": lambda x: x.double().std(correction=0),
    "least": lambda x: x.double().min(),
    "largest": lambda x: x.double().max(),
}
"""Of all numbers of a data set; what predictive checks look at."""


@dataclass(frozen=True)
class Beside:
    """A method and what was found of it."""

    label: str
    cell: Cell
    answer: Answer
    measured: tuple[Measurement, ...]
    is_reference: bool = False
    """Whether the truth is this very fit."""
    gap: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """`Gap.summary()` per unit; empty where there is none, and `gap_note` says why."""
    gap_note: str = ""
    checks: Mapping[str, PredictiveCheck] = field(default_factory=dict)

    @property
    def fit(self) -> Fit:
        """The fit."""
        return self.answer.fit

    @property
    def is_exact(self) -> bool:
        """Whether its distance from the truth is nothing but the noise of draws."""
        return self.fit.method == "exact"

    def columns(self, sites: list[str]) -> Columns:
        """Its draws, a column for each number."""
        return Columns.of(self.answer.draws, sites, self.answer.discrete)

    def off(self, sites: list[str]) -> np.ndarray[Any, Any]:
        """How far each number is off, (D,)."""
        return distances(self.columns(sites), Columns.of(self.answer.exact, sites, self.answer.discrete))


def judged(label: str, cell: Cell, found: Fit, yardstick: Yardstick) -> Beside:
    """Draws and numbers of a fit, those that the truth allows."""
    found.program.cpu()
    answer, itself = _asked(found, yardstick, cell.seed), found is yardstick.reference
    measured = evidence(cell, answer)
    if itself:
        measured += [Measurement(metric, None, how=REFERENCE) for metric in ("mean_error", "sd_error")]
    else:
        measured += [*moments(answer), *marginals(answer)]
        if "c2st" in cell.metrics:
            measured.append(classifier(cell, answer))
    if found.method != "exact":
        measured.append(Measurement("seconds", found.seconds, how="wall time of the fit"))
        measured.append(Measurement("gradient_evaluations", float(found.gradient_evaluations)))
        measured += [m for m in how_the_fit_ended(found.info) if m.metric == "under_way"]
    return Beside(label, cell, answer, measured=tuple(measured), is_reference=itself)


def _asked(found: Fit, yardstick: Yardstick, seed: int) -> Answer:
    """Draws of a fit in the sites of the truth; of a chain no more than it holds, so that few come twice."""
    truth = yardstick.truth
    most = ADOPTED_DRAWS if isinstance(found.program, Adopted) else DRAWS
    n = most if found.samples is None else min(DRAWS, len(next(iter(found.samples.values()))))
    draws = found.draw(n, *truth.data, seed=seed + 1)
    if isinstance(truth, Reference):
        draws = truth.of_answer(found.program, draws)
    return Answer(found, truth, draws=draws, exact=yardstick.draws)


def gap_of(row: Beside, yardstick: Yardstick) -> Beside:
    """The row with its gap in three parts, or with the reason why there is none."""
    found, target = row.fit, yardstick.truth
    if not isinstance(target, Target):
        return replace(row, gap_note="the evidence is not known")
    if row.is_exact or found.guide is None:
        return replace(row, gap_note="it is exact" if row.is_exact else "it gives draws but no density")
    draws = 500 if isinstance(found.program, Adopted) else 2000
    try:
        gap = posterior_gap(
            found.program, found.guide, target.data, target.log_evidence.reshape(-1), steps=GAP_STEPS,
            eval_particles=draws, seed=row.cell.seed,
        )  # fmt: skip
    except (CapabilityError, ImplicitDensityError) as error:
        return replace(row, gap_note=str(error))
    return replace(row, gap=_per_unit(gap, target.units))


def _per_unit(gap: Gap, units: int) -> dict[str, tuple[float, float]]:
    """A guide over all examples at once has one value for all."""
    share = len(gap.elbo.values) / units
    return {part: (value * share, error * share) for part, (value, error) in gap.summary().items()}


def predictions_of(row: Beside, seed: int) -> Beside:
    """The row with a p-value for each statistic of each observed site, where the fit can generate the data again."""
    target = row.answer.target
    found = replace(row.fit, train=target.data)
    try:
        sites = observed(found.program, *target.data)
    except ZooError:
        return row
    checks = {}
    for site, seen in list(sites.items())[:2]:
        if bool(seen.isnan().any()):
            continue
        most = 100 if isinstance(found.program, Adopted) else 500
        n = max(50, min(most, PREDICTED // max(seen.numel(), 1)))
        for name, statistic in STATISTICS.items():
            said = name if site == "x" else f"{name} of {site}"
            try:
                checks[said] = predictive_check(found, statistic, site=site, n=n, seed=seed)
            except ZooError:
                break
    return replace(row, checks=checks)


def bounds_of(row: Beside) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]] | None:
    """Steps and the bound that was climbed, nats per example; None for a method whose loss is no bound."""
    found = row.fit
    if isinstance(found.guide, AutoDelta):  # its loss is minus a density, which no evidence bounds
        return None
    if "loss" not in type(make_method(found.method)).NATS or "loss" not in found.history.metrics:
        return None
    steps, losses = found.history.series("loss")
    return np.array(steps), -np.array(losses)


def chains_of(row: Beside, sites: list[str]) -> Iterator[tuple[str, Tensor]]:
    """Name of a number and its draws (chains, n), those of chains that agree least first; none of a guide."""
    from inference.chains import rhat

    found = row.fit
    chains = int(found.info.get("chains", 0))
    if found.samples is None or chains < 1 or len(next(iter(found.samples.values()))) % chains:
        return
    columns = Columns.of(found.samples, [site for site in sites if site in found.samples], set())
    values = torch.as_tensor(columns.values).unflatten(0, (chains, -1))
    worst = rhat(values).nan_to_num(torch.inf)
    for i in worst.argsort(descending=True, stable=True).tolist():
        yield columns.names[i], values[:, :, i]
