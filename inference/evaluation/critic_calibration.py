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

__all__ = ["RatioCalibration", "ratio_calibration"]


@dataclass(frozen=True)
class RatioCalibration:
    """What `ratio_calibration` found; compare every number with its error.

    `confidence`, `share`, `count` (bins,): mean probability of "real", share of real draws (each side weighing half)
    and number of draws of each bin (NaN in an empty one). `ece` is the expected calibration error, the mean over the
    draws of |share - confidence|; `ece_if_calibrated` and `ece_error` its mean and standard deviation were T
    calibrated: never 0, as shares are of finitely many draws. `mean_ratio` is the mean of exp(T) over fake draws,
    `mean_inverse` that of exp(-T) over real ones, with standard errors `ratio_error` and `inverse_error`; on how many
    draws' worth they rest, (sum w)^2 / sum w^2 of the weights w, say `ratio_size` and `inverse_size`. `divergence` is
    the JSD by T, in nats.
    """

    confidence: Tensor
    share: Tensor
    count: Tensor
    ece: float
    ece_if_calibrated: float
    ece_error: float
    mean_ratio: float
    ratio_error: float
    ratio_size: float
    mean_inverse: float
    inverse_error: float
    inverse_size: float
    divergence: float

    LEAST_SIZE: ClassVar[float] = 100.0
    """Effective draws below which a mean of weights is not believed."""

    def problems(self, errors: float = 4.0) -> list[str]:
        """What is further off than so many standard errors, in plain words; empty if nothing is."""
        found = []
        if self.ece - self.ece_if_calibrated > errors * self.ece_error:
            sure = (self.confidence - 0.5).sign() * (self.confidence - self.share)
            way = "too sure of itself" if float((self.count * sure).nansum()) > 0 else "not sure enough"
            found.append(
                f"it is {way}: its probabilities are off by {self.ece:.3f} on average, where chance would make it "
                f"{self.ece_if_calibrated:.3f} +- {self.ece_error:.3f}"
            )
        for what, mean, error, size in (
            ("exp(T) over fake draws", self.mean_ratio, self.ratio_error, self.ratio_size),
            ("exp(-T) over real draws", self.mean_inverse, self.inverse_error, self.inverse_size),
        ):
            if size >= self.LEAST_SIZE and abs(mean - 1) > errors * error:
                found.append(f"the mean of {what} is {mean:.3f} +- {error:.3f}, and that of a ratio of densities is 1")
        return found

    @property
    def calibrated(self) -> bool:
        """Whether nothing is off by more than four standard errors."""
        return not self.problems()

    def verdict(self) -> str:
        """A sentence or two."""
        doubts = [
            f"the mean of {what} rests on {size:.0f} draws and says nothing"
            for what, size in (("exp(T)", self.ratio_size), ("exp(-T)", self.inverse_size))
            if size < self.LEAST_SIZE
        ]
        tail = f" But {' and '.join(doubts)}: the two sets hardly overlap." if doubts else ""
        problems = self.problems()
        if problems:
            return f"Not a log ratio: {'; '.join(problems)}.{tail}"
        return (
            f"Calibrated as far as {int(self.count.sum())} draws can tell; it sees a Jensen-Shannon divergence of "
            f"{self.divergence:.3f} nats out of {math.log(2):.3f}.{tail}"
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
    if bins < 2:
        raise OptionError(f"bins must be at least 2, got {bins}.")
    if real_logits.ndim != 1 or fake_logits.ndim != 1:
        raise ShapeError(
            f"Logits must be (n,) and (m,), one for each draw, got {tuple(real_logits.shape)} and "
            f"{tuple(fake_logits.shape)}."
        )
    if min(len(real_logits), len(fake_logits)) < 10 * bins:
        raise EmptyDataError(
            f"{bins} bins need {10 * bins} draws a side, got {len(real_logits)} and {len(fake_logits)}."
        )
    real, fake = real_logits.detach().cpu().double(), fake_logits.detach().cpu().double()
    logits = torch.cat([real, fake])
    if not bool(torch.isfinite(logits).all()):
        raise NonFiniteError("Some logits are NaN or infinite: no ratio to check.")
    n, m = len(real), len(fake)
    # Each side weighs half, whatever the numbers of draws.
    weight = torch.cat([torch.full((n,), 0.5 / n), torch.full((m,), 0.5 / m)]).to(logits)
    label = torch.cat([torch.ones(n), torch.zeros(m)]).to(logits)
    probability = logits.sigmoid()
    edges = logits.sort().values[torch.linspace(0, n + m, bins + 1).long()[1:-1]]
    index = torch.bucketize(logits, edges, right=True)

    def total(values: Tensor) -> Tensor:
        return torch.zeros(bins, dtype=logits.dtype).index_add(0, index, values)

    mass = total(weight)
    confidence, share = total(weight * probability) / mass, total(weight * label) / mass
    gap = total(weight * (label - probability))
    # Were T calibrated, each bin's gap would be near normal with this variance, and |normal| has mean sqrt(2 / pi).
    spread = total(weight.square() * probability * (1 - probability)).sqrt()
    ratio, inverse = fake.exp(), (-real).exp()
    value = -softplus(-real).mean() - softplus(fake).mean()
    return RatioCalibration(
        confidence=confidence,
        share=share,
        count=total(torch.ones_like(weight)),
        ece=float(gap.abs().sum()),
        ece_if_calibrated=float(spread.sum()) * math.sqrt(2 / math.pi),
        ece_error=float((spread.square().sum() * (1 - 2 / math.pi)).sqrt()),
        mean_ratio=float(ratio.mean()),
        ratio_error=float(ratio.std() / math.sqrt(m)),
        ratio_size=float(ratio.sum().square() / ratio.square().sum()),
        mean_inverse=float(inverse.mean()),
        inverse_error=float(inverse.std() / math.sqrt(n)),
        inverse_size=float(inverse.sum().square() / inverse.square().sum()),
        divergence=float((value + math.log(4)) / 2),
    )
