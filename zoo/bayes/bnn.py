r"""A Bayesian neural network: a perceptron whose weights are latent, for numbers, labels and classes.

Neal, "Bayesian learning for neural networks", 1996 (the prior: its scale falls with the square root of a layer's width,
so that wide networks have a limit, a Gaussian process); the guide: Blundell, Cornebise, Kavukcuoglu & Wierstra, "Weight
uncertainty in neural networks", ICML 2015.

    W_l ~ N(0, prior_scale^2 / width_l),   b_l ~ N(0, prior_scale^2),   x_i | W, b, c_i ~ p(x | net(c_i))

    W_l, b_l --> x_i <-- c_i      sites: w0 (D, H), b0 (H,), w1, b1, ... global; x (); context c (D,)
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import ClassVar

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from zoo.bayes.covariates import Covariates, Factor
from zoo.likelihoods import make_likelihood
from zoo.nets import activation as make_activation
from zoo.options import Count, Counts, Positive
from zoo.program import Preset
from zoo.specs import Spec
from zoo.units import Standard

__all__ = ["BayesianNeuralNetwork"]


class BayesianNeuralNetwork(Covariates):
    """A multilayer perceptron with latent weights; the guide is mean-field.

    The prior is of a network from and to numbers of about size one: columns, and normal x, that are far from it are
    standardised by `initialise`, as `fit` calls it.

    Of few rows such a guide may find nothing better than the prior and a constant network: 'nuts' is the reference.

    Args:
        features: Number D of columns of the context.
        hidden: Widths of the hidden layers; empty for a linear model.
        likelihood: What x follows, given what the network puts out: 'normal' (with learned noise), 'bernoulli' (labels
            0 and 1), {"name": "categorical", "values": 3} (classes), or any other of `zoo.likelihoods.LIKELIHOODS`.
        activation: A key of `zoo.nets.ACTIVATIONS`.
        prior_scale: Standard deviation of biases beforehand, and of weights times the square root of their number.
        guide_scale: Standard deviations of the guide at the start, in units of those of the prior.

    Raises: UnknownNameError, OptionError.
    """

    paper = "Neal, Bayesian learning for neural networks, 1996; the guide: Blundell et al. 2015"
    dataset = "diabetes"
    zero: Tensor

    def __init__(
        self,
        features: Count = 2,
        hidden: Counts = (16,),
        likelihood: Spec = "normal",
        activation: str = "tanh",
        prior_scale: Positive = 1.0,
        guide_scale: Positive = 0.1,
    ):
        super().__init__(features)
        self.likelihood = make_likelihood(likelihood, ())
        self.support = self.likelihood.support
        self.activation = make_activation(activation)
        self.register_buffer("zero", torch.tensor(0.0))
        self.rows = Standard([features])
        self.layers = list(pairwise([features, *hidden, self.likelihood.size]))
        self.scales: dict[str, float] = {}
        factors = {}
        for i, (before, after) in enumerate(self.layers):
            for name, shape, sd in ((f"w{i}", [before, after], before**-0.5), (f"b{i}", [after], 1.0)):
                self.scales[name] = prior_scale * sd
                # Hidden units are alike beforehand, and mean-field Gaussians at one place would stay alike.
                factors[name] = Factor(shape, guide_scale * self.scales[name], spread=self.scales[name])
        self.factors = PyroModule[nn.ModuleDict](factors)

    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        """Takes the units of the data; starts the last bias at what fits x alone, and the weights before it small."""
        assert context is not None
        self.rows.take(context)
        last = len(self.layers) - 1
        self.factors[f"b{last}"].loc.copy_(self.likelihood.initial(x))
        self.factors[f"w{last}"].loc.mul_(0.1)

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        """One network for all rows."""
        assert context is not None
        values = {}
        for name, factor in self.factors.items():
            prior = dist.Normal(self.zero, self.scales[name]).expand(factor.loc.shape)
            values[name] = pyro.sample(name, prior.to_event(factor.loc.ndim))
        outputs = self.outputs(context, values)
        with self.plate(x, context, size):
            return pyro.sample("x", self.likelihood.distribution(outputs), obs=x).to(self.zero.dtype)

    def guide(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> None:
        """Independent Gaussians."""
        for name, factor in self.factors.items():
            pyro.sample(name, factor())

    def outputs(self, context: Tensor, values: Mapping[str, Tensor]) -> Tensor:
        """What networks put out for rows (B, D): (B, K), and with particles (S, B, K).

        Args:
            context: The rows.
            values: Site -> (D, H) or (H,), with particles (S, 1, D, H) or (S, 1, H).
        """
        found = self.rows(context)
        for i in range(len(self.layers)):
            found = (self.activation(found) if i else found) @ values[f"w{i}"] + values[f"b{i}"].unsqueeze(-2)
        return found if found.ndim == 2 else found.squeeze(-3)

    presets: ClassVar[Mapping[str, Preset]] = {
        "small": Preset({}, "svi", {"elbo": "mean_field", "steps": 3000, "lr": 0.01, "batch_size": 512}),
        "paper": Preset(
            {"hidden": [400, 400], "activation": "relu"}, "svi",
            {"elbo": "mean_field", "epochs": 300, "lr": 1e-3, "batch_size": 128},
        ),
    }  # fmt: skip
