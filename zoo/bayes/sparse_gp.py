r"""A sparse Gaussian process: a function by its values at few inducing inputs, for many rows and any likelihood.

Titsias, "Variational learning of inducing variables in sparse Gaussian processes", AISTATS 2009; by minibatches:
Hensman, Fusi & Lawrence, "Gaussian processes for big data", UAI 2013; of classes, whitened: Hensman, Matthews &
Ghahramani, "Scalable variational Gaussian process classification", AISTATS 2015.

    v ~ N(0, I_M),   f_i | v, c_i ~ N(mean + a(c_i) . v, r(c_i)),   x_i | f_i ~ p(x_i | f_i)

    v --> f_i --> x_i      sites: v (M,) global; f () local; x (); context c (D,); a and r as in `zoo.bayes.gp`

The guide is q(v) p(f | v): the bound then is E_q[log p(x | f)] - KL(q(v) || p(v)), which is theirs, and lies below the
evidence of the Gaussian process itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from zoo.bayes.covariates import linear
from zoo.bayes.gp import FunctionProgram
from zoo.errors import OptionError
from zoo.likelihoods import make_likelihood
from zoo.options import Count
from zoo.program import Preset
from zoo.specs import Spec

__all__ = ["SparseGaussianProcess"]


class SparseGaussianProcess(FunctionProgram):
    """A Gaussian process by M inducing inputs, which are learned; the guide is a full Gaussian over their values.

    Args:
        features: Number D of columns of the context.
        points: Number M of inducing inputs.
        kernel: See `zoo.bayes.gp.GaussianProcess`.
        likelihood: What x follows, given the function: 'normal' or 'bernoulli' (labels 0 and 1), or another of
            `zoo.likelihoods.LIKELIHOODS` that takes one number.

    Raises: UnknownNameError, OptionError.
    """

    paper = "Titsias, Variational learning of inducing variables in sparse Gaussian processes, 2009"
    dataset = "diabetes"

    def __init__(self, features: Count = 2, points: Count = 16, kernel: Spec = "rbf", likelihood: Spec = "normal"):
        super().__init__(features, points, kernel)
        self.inputs = nn.Parameter(torch.randn(points, features))
        self.likelihood = make_likelihood(likelihood, ())
        if self.likelihood.size != 1:
            raise OptionError(f"A function has one number a row, and likelihood={likelihood!r} takes more.")
        self.support = self.likelihood.support

    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        """Inducing inputs are some of the data's at random; the mean (and noise) fit x alone."""
        assert context is not None
        self.take_inputs(context[torch.randperm(len(context))[: self.points].to(context.device)])
        self.mean.copy_(self.likelihood.initial(x).squeeze(-1))
        self.take_scales(context)

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        """Whitened values, the function at each row given them, and x given that."""
        assert context is not None
        v = pyro.sample("v", self.prior())
        with self.plate(x, context, size):
            f = pyro.sample("f", self._function(v, context))
            return pyro.sample("x", self.likelihood.distribution(f[..., None]), obs=x).to(self.mean.dtype)

    def guide(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> None:
        """q(v) p(f | v)."""
        assert context is not None
        v = self.draw_v()
        with self.plate(x, context, size):
            pyro.sample("f", self._function(v, context))

    def _function(self, v: Tensor, context: Tensor) -> Any:
        """p(f | v) at rows (B, D)."""
        a, rest = self.weights(context)
        return dist.Normal(self.mean + linear(v, a.to(self.mean)), rest.sqrt().to(self.mean))

    presets: ClassVar[Mapping[str, Preset]] = {
        "small": Preset({"points": 32}, "svi", {"elbo": "mean_field", "steps": 2000, "lr": 0.02, "batch_size": 512}),
        "paper": Preset({"points": 512}, "svi", {"elbo": "mean_field", "epochs": 300, "lr": 0.01, "batch_size": 1024}),
    }
