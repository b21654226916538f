r"""Mixture of multivariate Bernoullis, for binary data.

Bishop, "Pattern Recognition and Machine Learning", section 9.3.3, 2006.

    p(x) = sum_k pi_k prod_d mu_kd^x_d (1 - mu_kd)^(1 - x_d)

    z --> x      sites: z () local, discrete, summed out; x (*event)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn.functional import logsigmoid, softplus

from zoo.distributions import bernoulli_logs, certain, impossible, observed
from zoo.mixtures.mixture import Mixture
from zoo.options import Count, NonNegative, Shape
from zoo.program import Preset

__all__ = ["BernoulliMixture"]


class BernoulliMixture(Mixture):
    """Mixture of independent Bernoullis; fitted by EM in closed form, or by gradient with z enumerated.

    Args:
        event_shape: Shape of one example.
        components: Number K of components.
        smoothing: Pseudo-count s of the M-step. EM then climbs log-likelihood + `log_prior()`, the density up to a
            constant of Dirichlet(1 + s) weights and Beta(1 + s, 1 + s) probabilities; 0 is plain maximum likelihood,
            which gives probability zero to whatever a component has not seen.
    """

    paper = "Bishop, Pattern Recognition and Machine Learning, section 9.3.3, 2006"
    dataset = "digits-binary"
    presets: ClassVar[Mapping[str, Preset]] = {"small": Preset({"components": 40}, "em", {"iterations": 200})}
    support = constraints.boolean
    takes_missing = True

    def __init__(
        self,
        event_shape: Shape = (8, 8),
        components: Count = 10,
        smoothing: NonNegative = 0.1,
    ):
        super().__init__(event_shape, components)
        self.smoothing = smoothing
        self.logits = nn.Parameter(torch.randn(components, *event_shape))

    def component(self, z: Tensor, present: Tensor | None = None) -> dist.TorchDistribution:
        """Independent Bernoullis."""
        return observed(dist.Bernoulli(logits=certain(self.logits)[z]), present, len(self.event_shape))

    def component_log_prob(self, x: Tensor) -> Tensor:
        """x . logits - sum softplus(logits), as one matrix product: (B, K) without a (B, K, D) in between.

        Two products with log p(1) and log p(0) where some are log 0: the one would make infinity less infinity.
        """
        logits, (rows, present) = self.logits.reshape(self.components, -1), self.seen(x.reshape(len(x), -1))
        # A traced step cannot look at values, and takes two.
        if present is None and not torch.is_grad_enabled() and bool(torch.isfinite(logits).all()):
            return rows @ logits.T - softplus(logits).sum(-1)
        one, zero = bernoulli_logs(logits)
        zeros = 1 - rows if present is None else present.to(rows) - rows
        return rows @ one.T + zeros @ zero.T

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """log p(x), minus infinity where every component excludes x."""
        return impossible(super().log_prob(x, context))

    def log_prior(self) -> Tensor:
        """What smoothing adds to the objective of EM, ()."""
        each = logsigmoid(self.logits) + logsigmoid(-self.logits)
        return self.smoothing * (each.sum() + self.weight_logits.log_softmax(-1).sum())

    def statistics(self, x: Tensor, responsibilities: Tensor) -> dict[str, Tensor]:
        """'ones' and 'seen' (K, *event_shape): expected number of ones, and of bits that are there."""
        rows, present = self.seen(x.reshape(len(x), -1))
        ones = responsibilities.T @ rows
        if present is None:
            seen = responsibilities.sum(0)[:, None].expand_as(ones).clone()
        else:
            seen = responsibilities.T @ present.to(rows)
        return {"ones": ones.reshape(self.logits.shape), "seen": seen.reshape(self.logits.shape)}

    @torch.no_grad()
    def m_step(self, statistics: Mapping[str, Tensor]) -> None:
        """Smoothed frequencies (Bishop, eq. 9.59 and 9.60 for smoothing = 0)."""
        counts, info = statistics["counts"], torch.finfo(self.logits.dtype)
        self.weights = counts + self.smoothing
        trials = (statistics["seen"] + 2 * self.smoothing).clamp(min=info.tiny)
        probs = (statistics["ones"] + self.smoothing) / trials
        # The logits of 0 and 1 are infinite; the nearest finite ones change a log-likelihood by rounding alone.
        self.logits.copy_(probs.clamp(info.eps, 1 - info.eps).logit())
