r"""Hierarchical regression: counts, labels or numbers whose groups have effects of their own, partially pooled.

Gelman & Hill, "Data analysis using regression and multilevel/hierarchical models", 2007, chapters 12 to 15; effects are
not centred, after Papaspiliopoulos, Roberts & Skold, "A general framework for the parametrization of hierarchical
models", Statistical Science 22, 2007; their correlations: Lewandowski, Kurowicka & Joe, "Generating random correlation
matrices based on vines and extended onion method", JMVA 100, 2009.

    b ~ N(0, bias_scale^2),   w ~ N(0, prior_scale^2 I_D),   tau_k ~ HalfNormal(effect_scale),   eta_g ~ N(0, I_V)
    effects_g = diag(tau) L eta_g,   L L' = I or ~ LKJ(2)
    x_i | ... ~ p(x | predictor),   predictor = b + w . c_i + effects_{g_i} . (1, c_i)_{1:V}

    b, w, tau, eta --> x_i <-- g_i, c_i      sites: b (), w (D,), tau (V,), eta (G, V), [corr (V, V)], [spread ()],
                                             global; x (); context (g, c) (1 + D,)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions.transforms import CorrCholeskyTransform
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.distributions import constraints

from zoo.bayes.covariates import Factor, Regression, columns, linear
from zoo.bayes.observations import OBSERVATIONS, SPREAD, link, observation
from zoo.errors import OptionError, ShapeError
from zoo.options import Count, OneOf, Positive, Values
from zoo.program import Preset
from zoo.units import units

__all__ = ["Grouped", "HierarchicalRegression"]


class Grouped(constraints.Constraint):
    """Rows of numbers whose first is the number of a group, 0, ..., groups - 1.

    Args:
        groups: How many there are.
    """

    event_dim = 1

    def __init__(self, groups: int):
        self.groups = groups
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        """(..., 1 + D) -> (...)."""
        group = value[..., 0]
        return torch.isfinite(value).all(-1) & (group >= 0) & (group < self.groups) & (group == group.floor())

    def __repr__(self) -> str:
        return f"rows that begin with a group, 0 to {self.groups - 1}"


SMALL = -1.0
"""Logarithm at which the guide of the effects' sizes starts: small ones."""


class HierarchicalRegression(Regression):
    """Regression with varying effects of the groups that rows belong to; the guide is mean-field.

    The first column of the context is the group of each row, a whole number; the others are covariates. The intercept
    is the site b: no column of ones is needed.

    Args:
        features: Number D of covariates.
        groups: Number G of groups.
        likelihood: What x follows: 'poisson' or 'negative-binomial' (counts, with log link), 'logistic' (0 or 1),
            'normal'; see `zoo.bayes.observations`.
        varying: What each group has of its own: the 'intercept' (V = 1), or 'all' weights too (V = 1 + D).
        correlated: Whether a group's effects are correlated, by an LKJ prior; with varying='all' only.
        prior_scale: Standard deviation of each weight beforehand.
        bias_scale: Standard deviation of the intercept beforehand.
        effect_scale: Scale of the standard deviations tau of the effects beforehand.

    Raises: OptionError for effects that have nothing to be correlated with.
    """

    paper = "Gelman & Hill, Data analysis using regression and multilevel/hierarchical models, 2007"
    dataset = "horse_kicks"
    bias_scale: Tensor
    effect_scale: Tensor
    concentration: Tensor

    def __init__(
        self,
        features: Count = 1,
        groups: Values = 14,
        likelihood: Annotated[str, OneOf(tuple(OBSERVATIONS))] = "poisson",
        varying: Literal["intercept", "all"] = "intercept",
        correlated: bool = False,
        prior_scale: Positive = 1.0,
        bias_scale: Positive = 2.0,
        effect_scale: Positive = 1.0,
    ):
        super().__init__(features, prior_scale, bias_scale=bias_scale, effect_scale=effect_scale, concentration=2.0)
        if correlated and varying != "all":
            raise OptionError("correlated=True needs varying='all': a single effect is correlated with nothing.")
        self.groups, self.likelihood = groups, likelihood
        self.effects = 1 + features if varying == "all" else 1
        self.support, self.context_support = OBSERVATIONS[likelihood], Grouped(groups)
        v = self.effects
        factors = {
            "b": Factor([], 0.5), "w": Factor([features], 0.5), "tau": Factor([v], 0.5), "eta": Factor([groups, v], 0.5)
        }  # fmt: skip
        if correlated:
            factors["corr"] = Factor([v * (v - 1) // 2], 0.5)
        if likelihood in SPREAD:
            factors["spread"] = Factor([], 0.5)
        self.factors = PyroModule[nn.ModuleDict](factors)
        self.factors["tau"].loc.data.fill_(SMALL)

    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        """Starts the guide's intercept at the mean of all rows, and takes units from the sizes of the columns."""
        assert context is not None
        self.unit.copy_(units(context[:, 1:]))
        self.factors["b"].loc.copy_(link(self.likelihood, x.mean()))
        self.factors["tau"].loc.copy_(SMALL + torch.cat([self.unit.new_ones(1), self.unit])[: self.effects].log())

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        """Weights of all rows, effects of each group."""
        assert context is not None
        zero, groups, rows = torch.zeros_like(self.bias_scale), context[:, 0].long(), context[:, 1:]
        b = pyro.sample("b", dist.Normal(zero, self.bias_scale))
        w = pyro.sample("w", dist.Normal(torch.zeros_like(self.prior_scale), self.prior_scale).to_event(1))
        tau = pyro.sample("tau", dist.HalfNormal(self.effect_scale).expand([self.effects]).to_event(1))
        effects = pyro.sample("eta", dist.Normal(zero, 1.0).expand([self.groups, self.effects]).to_event(2))
        if "corr" in self.factors:
            effects = effects @ pyro.sample("corr", dist.LKJCholesky(self.effects, self.concentration)).mT
        spread = pyro.sample("spread", dist.LogNormal(zero, 1.0)) if "spread" in self.factors else None
        own = (tau[..., None, :] * effects)[..., groups, :]
        design = torch.cat([torch.ones_like(rows[:, :1]), rows], -1)[:, : self.effects]
        varied = (own * design).sum(-1)
        # Particles leave (S, 1, B), as their groups have a dimension of their own.
        predictor = b + linear(w, rows) + (varied.squeeze(-2) if varied.ndim > 1 else varied)
        with self.plate(x, context, size):
            return pyro.sample("x", observation(self.likelihood, predictor, spread), obs=x)

    def guide(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> None:
        """Independent Gaussians, of the logarithm of what is positive and of the correlations' free numbers."""
        for name, factor in self.factors.items():
            q: Any = factor()
            if name in ("tau", "spread"):
                q = dist.LogNormal(factor.loc, factor.scale).to_event(factor.loc.ndim)
            elif name == "w":
                q = dist.Normal(self.unit * factor.loc, self.unit * factor.scale).to_event(1)
            elif name == "corr":
                q = dist.TransformedDistribution(q, [CorrCholeskyTransform()])
            pyro.sample(name, q)

    def transformed(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The groups' effects {'effects'} (S, 1, G, V) from latent values.

        Args:
            values: Sites as `inference.particles.draw` gives them, (S, 1, *event).
        """
        eta = values["eta"] @ values["corr"].mT if "corr" in self.factors else values["eta"]
        return {"effects": values["tau"][..., None, :] * eta}

    @classmethod
    def for_data(cls, x: Tensor, context: Tensor | None = None, **options: Any) -> Self:
        """A weight for each column of the context but the first, and as many groups as that one counts.

        Raises: ShapeError.
        """
        if columns(cls, context) < 2:
            raise ShapeError(f"{cls.__name__} needs a group and at least one covariate in each row of the context.")
        assert context is not None
        options.setdefault("features", context.shape[1] - 1)
        options.setdefault("groups", max(2, int(context[:, 0].max()) + 1))
        return cls(**options)

    def example_context(self, n: int) -> Tensor:
        """Groups in turn, and standard normal covariates, (n, 1 + D)."""
        rows = super().example_context(n)
        return torch.cat([(torch.arange(n).to(rows) % self.groups)[:, None], rows], -1)

    presets: ClassVar[Mapping[str, Preset]] = {
        "small": Preset({}, "svi", {"steps": 2000, "lr": 0.02, "particles": 4, "batch_size": 10_000}),
        "paper": Preset({"varying": "all", "correlated": True}, "nuts", {"warmup": 1000, "draws": 1000}),
    }
