"""Is a critic a log density ratio? The checks that need no ratio to compare with: a classifier's calibration.

A critic T of two sets of draws, half of each, that is the log ratio log p / q gives with its sigmoid the probability
that a draw is from p. Then, for "real" from p and "fake" from q,

    of the draws to which it gives the probability c a share c is real      (reliability: DeGroot & Fienberg 1983;
                                                                             its summary ECE: Naeini et al. 2015)
    E_q[exp(T)] = 1   and   E_p[exp(-T)] = 1                                (p and q are densities)

Both are necessary, not sufficient: T = 0 throughout is calibrated too, the ratio to a critic who sees nothing. What a
calibrated critic knows beyond that says `divergence`, its estimate of JSD(p, q) from below.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import softplus

from zoo.errors import EmptyDataError, NonFiniteError, OptionError, ShapeError

__all__ = ["MeanWeight", "RatioCalibration", "Reliability", "ratio_calibration"]


@dataclass(frozen=True)
class Reliability:
    """Do the critic's probabilities keep their word? Bins (bins,) of draws by the probability of "real"."""

    confidence: Tensor
    """Mean probability of each bin; NaN in an empty one."""
    share: Tensor
    """Share of real draws among those of the bin, each side weighing half; NaN in an empty one."""
    count: Tensor
    """Draws in the bin."""
    error: float
    """The expected calibration error: the mean over the draws of |share - confidence|."""
    if_calibrated: float
    """Its mean were T calibrated: not 0, as shares are of finitely many draws."""
    deviation: float
    """Its standard deviation were T calibrated."""


@dataclass(frozen=True)
class MeanWeight:
    """The mean of weights whose expectation is 1 if T is a log ratio."""

    mean: float
    standard_error: float
    size: float
    """On how many draws' worth it rests, (sum w)^2 / sum w^2."""

    LEAST_SIZE: ClassVar[float] = 100.0
    """Effective draws below which a mean is not believed."""

    @property
    def believed(self) -> bool:
        """Whether it rests on enough draws."""
        return self.size >= self.LEAST_SIZE


@dataclass(frozen=True)
class RatioCalibration:
    """What `ratio_calibration` found; compare every number with its error."""

    reliability: Reliability
    ratio: MeanWeight
    """exp(T) over fake draws."""
    inverse: MeanWeight
    """exp(-T) over real draws."""
    divergence: float
    """The Jensen-Shannon divergence by T, in nats."""

    def problems(self, errors: float = 4.0) -> list[str]:
        """What is further off than so many standard errors, in plain words; empty if nothing is."""
        found, bins = [], self.reliability
        if bins.error - bins.if_calibrated > errors * bins.deviation:
            sure = (bins.confidence - 0.5).sign() * (bins.confidence - bins.share)
            way = "too sure of itself" if float((bins.count * sure).nansum()) > 0 else "not sure enough"
            found.append(
                f"it is {way}: its probabilities are off by {bins.error:.3f} on average, where chance would make it "
                f"{bins.if_calibrated:.3f} +- {bins.deviation:.3f}"
            )
        for what, weight in (("exp(T) over fake draws", self.ratio), ("exp(-T) over real draws", self.inverse)):
            if weight.believed and abs(weight.mean - 1) > errors * weight.standard_error:
                found.append(
                    f"the mean of {what} is {weight.mean:.3f} +- {weight.standard_error:.3f}, and that of a ratio of "
                    "densities is 1"
                )
        return found

    @property
    def calibrated(self) -> bool:
        """Whether nothing is off by more than four standard errors."""
        return not self.problems()

    def verdict(self) -> str:
        """A sentence or two."""
        doubts = [
            f"the mean of {what} rests on {weight.size:.0f} draws and says nothing"
            for what, weight in (("exp(T)", self.ratio), ("exp(-T)", self.inverse))
            if not weight.believed
        ]
        tail = f" But {' and '.join(doubts)}: the two sets hardly overlap." if doubts else ""
        problems = self.problems()
        if problems:
            return f"Not a log ratio: {'; '.join(problems)}.{tail}"
        return (
            f"Calibrated as far as {int(self.reliability.count.sum())} draws can tell; it sees a Jensen-Shannon "
            f"divergence of {self.divergence:.3f} nats out of {math.log(2):.3f}.{tail}"
        )


@torch.no_grad()
def ratio_calibration(real_logits: Tensor, fake_logits: Tensor, *, bins: int = 15) -> RatioCalibration:
    """Checks the outputs T of a critic on draws that it was not trained on, as an estimate of log p / q.

    Args:
        real_logits: T at draws of p (n,): data, or for a critic of an implicit guide the guide's draws.
        fake_logits: T at draws of q (m,).
        bins: Of the probability, with equally many draws in each (Nixon et al. 2019).

    Raises: OptionError, ShapeError, EmptyDataError (fewer than ten draws a bin and side), NonFiniteError.
    """
    _check(real_logits, fake_logits, bins)
    real, fake = real_logits.detach().cpu().double(), fake_logits.detach().cpu().double()
    value = -softplus(-real).mean() - softplus(fake).mean()
    return RatioCalibration(
        reliability=_reliability(real, fake, bins),
        ratio=_mean_weight(fake.exp()),
        inverse=_mean_weight((-real).exp()),
        divergence=float((value + math.log(4)) / 2),
    )


def _check(real: Tensor, fake: Tensor, bins: int) -> None:
    if bins < 2:
        raise OptionError(f"bins must be at least 2, got {bins}.")
    if real.ndim != 1 or fake.ndim != 1:
        raise ShapeError(
            f"Logits must be (n,) and (m,), one for each draw, got {tuple(real.shape)} and {tuple(fake.shape)}."
        )
    if min(len(real), len(fake)) < 10 * bins:
        raise EmptyDataError(f"{bins} bins need {10 * bins} draws a side, got {len(real)} and {len(fake)}.")
    if not bool(torch.isfinite(real).all() and torch.isfinite(fake).all()):
        raise NonFiniteError("Some logits are NaN or infinite: no ratio to check.")


def _reliability(real: Tensor, fake: Tensor, bins: int) -> Reliability:
    """Draws in bins of equal counts, and how far the shares in them are from the probabilities."""
    n, m, logits = len(real), len(fake), torch.cat([real, fake])
    # Each side weighs half, whatever the numbers of draws.
    weight = torch.cat([torch.full((n,), 0.5 / n), torch.full((m,), 0.5 / m)]).to(logits)
    label = torch.cat([torch.ones(n), torch.zeros(m)]).to(logits)
    probability = logits.sigmoid()
    edges = logits.sort().values[torch.linspace(0, n + m, bins + 1).long()[1:-1]]
    index = torch.bucketize(logits, edges, right=True)

    def total(values: Tensor) -> Tensor:
        return torch.zeros(bins, dtype=logits.dtype).index_add(0, index, values)

    mass = total(weight)
    gap = total(weight * (label - probability))
    # Were T calibrated, each bin's gap would be near normal with this variance, and |normal| has mean sqrt(2 / pi).
    spread = total(weight.square() * probability * (1 - probability)).sqrt()
    return Reliability(
        confidence=total(weight * probability) / mass,
        share=total(weight * label) / mass,
        count=total(torch.ones_like(weight)),
        error=float(gap.abs().sum()),
        if_calibrated=float(spread.sum()) * math.sqrt(2 / math.pi),
        deviation=float((spread.square().sum() * (1 - 2 / math.pi)).sqrt()),
    )


def _mean_weight(weights: Tensor) -> MeanWeight:
    """Of weights (n,)."""
    return MeanWeight(
        mean=float(weights.mean()),
        standard_error=float(weights.std() / math.sqrt(len(weights))),
        size=float(weights.sum().square() / weights.square().sum()),
    )
