r"""The variational autoencoder.

Kingma & Welling, "Auto-encoding variational Bayes", ICLR 2014; Rezende, Mohamed & Wierstra, "Stochastic
backpropagation and approximate inference in deep generative models", ICML 2014. The flow guide: Kingma et al.,
"Improving variational inference with inverse autoregressive flow", NIPS 2016; of splines: Durkan et al., "Neural spline
flows", NeurIPS 2019. Priors that are learned: Tomczak & Welling, "VAE with a VampPrior", AISTATS 2018.

    z ~ N(0, I_k),   x | z ~ prod_i p(x_i | f(z)_i),   q(z | x) = N(m(x), S(x)) or a flow from it

    z --> x      sites: z (k,) local; x (*event_shape)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pyro
import torch
from torch import Tensor, nn

from zoo.arrays import fill
from zoo.distributions import observed
from zoo.latent.coders import Coders
from zoo.latent.heads import HEADS
from zoo.latent.priors import LEARNED, Gaussian, Prior
from zoo.likelihoods import make_likelihood
from zoo.options import Count, Counts, Shape
from zoo.program import Preset, Program
from zoo.specs import Spec, make_part

__all__ = ["VAE"]

SMALL = {"elbo": "mean_field", "epochs": 150, "batch_size": 64, "lr": 3e-3}


class VAE(Program):
    """A deep latent Gaussian model with an amortised guide.

    Args:
        event_shape: Shape of one example; any for MLPs, (height, width) or (channels, height, width) for convolutions.
        latent_dim: Number k of latent dimensions.
        hidden: Widths of the encoder's hidden layers, reversed in the decoder; channels when convolutional. Empty for a
            linear decoder and encoder; None is [128], or channels [16, 32].
        likelihood: What a number of x follows: 'bernoulli' (x in {0, 1}), 'categorical' (x in {0, ..., values - 1}),
            'normal' (x real), 'logistic' (discretised; x on a grid of `values` levels in [0, 1]), or any other of
            `zoo.likelihoods.LIKELIHOODS`; with options: {"name": "logistic", "values": 256, "scale": "pixel"}.
        network: 'mlp' or 'conv'.
        activation: A key of `zoo.nets.ACTIVATIONS`; None is 'softplus', or 'silu' for convolutions. Theirs are
            thousands of features of one sign where softplus is: a step of Adam that moves each weight by `lr` would
            then move log scales by hundreds.
        guide: What q(z | x) is, one of `zoo.latent.heads.HEADS`: 'diagonal' or 'full' Gaussian; 'iaf', a diagonal
            Gaussian through inverse autoregressive flows; 'spline', a full Gaussian whose standard normal goes through
            spline flows first. Flows have options: {"name": "iaf", "steps": 2, "hidden": 64}.
        prior: What p(z) is: 'gaussian', N(0, I); 'learned-mixture', Gaussians that are learned; 'vamp', the guide's
            posteriors of examples that are learned, {"name": "vamp", "components": 200}. See `zoo.latent.priors`.

    Raises: UnknownNameError, OptionError, ShapeError (convolutions over what is no image).
    """

    family = "latent"
    paper = "Kingma & Welling, Auto-encoding variational Bayes, 2014"
    dataset = "digits-binary"
    takes_missing = True

    def __init__(
        self,
        event_shape: Shape = (8, 8),
        latent_dim: Count = 2,
        hidden: Counts | None = None,
        likelihood: Spec = "bernoulli",
        network: str = "mlp",
        activation: str | None = None,
        guide: Spec = "diagonal",
        prior: Spec = "gaussian",
    ):
        super().__init__()
        self.event_shape, self.latent_dim = torch.Size(event_shape), latent_dim
        self.likelihood = make_likelihood(likelihood, self.event_shape)
        self.support = self.likelihood.support
        conv = network == "conv"
        hidden = ((16, 32) if conv else (128,)) if hidden is None else hidden
        activation = ("silu" if conv else "softplus") if activation is None else activation
        self.coders = Coders(network, self.event_shape, hidden=hidden, activation=activation)
        head = make_part("guide", guide, HEADS, latent_dim=latent_dim)
        self.encoder = self.coders.encoder(head.size)
        self.decoder = self.coders.decoder(latent_dim, self.likelihood.size)
        # The decoder's last bias, one for each pixel also when convolutional: data can set it.
        self.bias = nn.Parameter(torch.zeros(self.likelihood.size, *self.event_shape))
        head.build(activation)
        self.head = head
        known: dict[str, type[Prior]] = {"gaussian": Gaussian, **LEARNED}
        self.code_prior: Prior = make_part("prior", prior, known, latent_dim=latent_dim, event_shape=self.event_shape)

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        """A latent from the prior, decoded."""
        with self.plate(x, context, size):
            z = pyro.sample("z", self.prior())
            x, present = self.seen(x)
            # Categories are drawn as integers; data are float tensors.
            return pyro.sample("x", self.decode(z, present), obs=x).to(self.bias.dtype)

    def guide(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> None:
        """q(z | x) from the encoder, which sees zeros for missing numbers."""
        assert x is not None
        with self.plate(x, context, size):
            pyro.sample("z", self.encode(self.seen(x)[0]))

    def prior(self) -> Any:
        """p(z), a distribution of event shape (k,)."""
        return self.code_prior(self.encode)

    def decode(self, z: Tensor, present: Tensor | None = None) -> Any:
        """p(x | z), a distribution: z (*batch, k) -> batch shape (*batch), event shape `event_shape`.

        Args:
            z: Codes.
            present: Which numbers of x are there, (B, *event_shape), where some are missing.
        """
        out = self.decoder(z).reshape(*z.shape[:-1], self.likelihood.size, *self.event_shape) + self.bias
        n = len(self.event_shape)
        return observed(self.likelihood.distribution(out.movedim(-1 - n, -1)), present, n)

    def encode(self, x: Tensor) -> Any:
        """q(z | x), a distribution: x (*batch, *event_shape) -> batch shape (*batch), event shape (k,)."""
        batch = x.shape[: x.ndim - len(self.event_shape)]
        seen = self.likelihood.embed(x.to(self.bias.dtype)).reshape(*batch, *self.coders.shape)
        return self.head(self.encoder(seen))

    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        """Sets the decoder's last bias to what fits each pixel on its own, and a scale to the spread around it.

        A prior that is learned starts at the data.
        """
        filled = fill(x)
        self.bias.copy_(self.likelihood.initial(filled).movedim(-1, 0))
        self.code_prior.initialise(filled)

    presets: ClassVar[Mapping[str, Preset]] = {
        "small": Preset({"latent_dim": 8, "hidden": [128]}, "svi", SMALL),
        "plane": Preset(  # two latents, for posteriors that can be drawn and put on a grid
            {"latent_dim": 2, "hidden": [128], "activation": "tanh"}, "svi", SMALL
        ),
        "vamp": Preset(  # the prior of Tomczak & Welling
            {"latent_dim": 20, "hidden": [300], "prior": {"name": "vamp", "components": 100}}, "svi",
            {"elbo": "mean_field", "epochs": 40, "batch_size": 100, "lr": 2e-3, "patience": 4},
            data="mnist10k-binary",
        ),
        "paper": Preset(
            {"latent_dim": 20, "hidden": [500], "activation": "tanh"}, "svi",
            {"elbo": "mean_field", "epochs": 1000, "batch_size": 100, "optimizer": "adagrad", "lr": 2e-2,
             "decay": "constant"},
        ),
    }  # fmt: skip
