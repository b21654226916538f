r"""The variational autoencoder.

Kingma & Welling, "Auto-encoding variational Bayes", ICLR 2014; Rezende, Mohamed & Wierstra, "Stochastic
backpropagation and approximate inference in deep generative models", ICML 2014. The flow guide: Kingma et al.,
"Improving variational inference with inverse autoregressive flow", NIPS 2016; of splines: Durkan et al., "Neural spline
flows", NeurIPS 2019.

    z ~ N(0, I_k),   x | z ~ prod_i p(x_i | f(z)_i),   q(z | x) = N(m(x), S(x)) or a flow from it

    z --> x      sites: z (k,) local; x (*event_shape)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroParam
from torch import Tensor, nn
from torch.distributions import constraints

from zoo.distributions import DiscretizedLogistic, Grid
from zoo.errors import OptionError, UnknownNameError
from zoo.guide_flows import FLOWS, BatchedAffine, flow_layers
from zoo.nets import activation as make_activation
from zoo.nets import conv_decoder, conv_encoder, image_shape, mlp
from zoo.program import Preset, Program

__all__ = ["GUIDE_FAMILIES", "LIKELIHOODS", "NETWORKS", "VAE"]

LIKELIHOODS = ("bernoulli", "categorical", "normal", "logistic")
NETWORKS = ("mlp", "conv")
SMALL = {"elbo": "mean_field", "epochs": 150, "batch_size": 64, "lr": 3e-3}
GUIDE_FAMILIES = ("diagonal", "full", *FLOWS)


class VAE(Program):
    """A deep latent Gaussian model with an amortised guide.

    Args:
        event_shape: Shape of one example; any for MLPs, (height, width) or (channels, height, width) for convolutions.
        latent_dim: Number k of latent dimensions.
        hidden: Widths of the encoder's hidden layers, reversed in the decoder; channels when convolutional. Empty for a
            linear decoder and encoder.
        likelihood: 'bernoulli' (x in {0, 1}), 'categorical' (x in {0, ..., values - 1}), 'normal' (x real), 'logistic'
            (discretised; x on a grid of `values` levels in [0, 1]).
        values: Number of levels of the categorical and the discretised logistic.
        scale: Of the normal and the logistic: 'global' (one number) or 'pixel' (one for each); learned.
        network: 'mlp' or 'conv'.
        activation: A key of `zoo.nets.ACTIVATIONS`.
        guide_family: 'diagonal' or 'full' Gaussian; 'iaf', a diagonal Gaussian through inverse autoregressive flows;
            'spline', a full Gaussian whose standard normal goes through spline flows first, as they act on a box.
        flow_steps: Number of flows of 'iaf' and 'spline'.
        flow_hidden: Hidden units of each flow, which sees as many features of x; at least `latent_dim`.

    Raises: UnknownNameError, OptionError, ShapeError (convolutions over what is no image).
    """

    family = "latent"
    paper = "Kingma & Welling, Auto-encoding variational Bayes, 2014"
    dataset = "digits-binary"
    presets: ClassVar[Mapping[str, Preset]] = {
        "small": Preset({"latent_dim": 8, "hidden": [128]}, "svi", SMALL),
        "plane": Preset(  # two latents, for posteriors that can be drawn and put on a grid
            {"latent_dim": 2, "hidden": [128], "activation": "tanh"},
            "svi",
            SMALL,
        ),
        "paper": Preset(
            {"latent_dim": 20, "hidden": [500], "activation": "tanh"},
            "svi",
            {
                "elbo": "mean_field",
                "epochs": 1000,
                "batch_size": 100,
                "optimizer": "adagrad",
                "lr": 2e-2,
                "decay": "constant",
            },
        ),
    }

    def __init__(
        self,
        event_shape: list[int] = [8, 8],  # noqa: B006 (JSON-like, never changed)
        latent_dim: int = 2,
        hidden: list[int] = [128],  # noqa: B006
        likelihood: str = "bernoulli",
        values: int = 256,
        scale: str = "global",
        network: str = "mlp",
        activation: str = "softplus",
        guide_family: str = "diagonal",
        flow_steps: int = 2,
        flow_hidden: int = 64,
    ):
        super().__init__()
        for what, name, known in (
            ("likelihood", likelihood, LIKELIHOODS),
            ("scale", scale, ("global", "pixel")),
            ("network", network, NETWORKS),
            ("guide family", guide_family, GUIDE_FAMILIES),
        ):
            if name not in known:
                raise UnknownNameError(what, name, known)
        if min([latent_dim, *hidden]) < 1:
            raise OptionError(f"latent_dim and hidden must be at least 1, got {latent_dim} and {hidden}.")
        if values < 2:
            raise OptionError(f"values (the number of levels) must be at least 2, got {values}.")
        if guide_family in FLOWS and not (latent_dim >= 2 and flow_hidden >= latent_dim and flow_steps >= 1):
            raise OptionError(
                "An autoregressive flow needs latent_dim >= 2 (there must be a coordinate to look at), "
                f"flow_hidden >= latent_dim and flow_steps >= 1; got {latent_dim}, {flow_hidden} and {flow_steps}."
            )
        self.event_shape = torch.Size(event_shape)
        self.latent_dim, self.likelihood, self.values, self.guide_family = latent_dim, likelihood, values, guide_family
        self.support = {
            "bernoulli": constraints.boolean,
            "categorical": constraints.integer_interval(0, values - 1),
            "normal": constraints.real,
            "logistic": Grid(values),
        }[likelihood]
        self.parts = values if likelihood == "categorical" else 1  # numbers that the decoder puts out for each pixel
        self.below = latent_dim * (latent_dim - 1) // 2 if guide_family in ("full", "spline") else 0  # the diagonal
        encoded = 2 * latent_dim + self.below + (flow_hidden if guide_family in FLOWS else 0)
        self.encoder: nn.Module
        self.decoder: nn.Module
        if network == "mlp":
            d = self.event_shape.numel()
            self.network_shape: tuple[int, ...] = (d,)
            self.encoder = mlp(d, hidden, encoded, activation)
            self.decoder = mlp(latent_dim, hidden[::-1], self.parts * d, activation, out_bias=False)
        else:
            channels, *size = self.network_shape = image_shape(event_shape)
            out = (self.parts * channels, size[0], size[1])
            self.encoder = conv_encoder(self.network_shape, hidden, encoded, activation)
            self.decoder = conv_decoder(latent_dim, hidden[::-1], out, activation, out_bias=False)
        # The decoder's last bias, one for each pixel also when convolutional: data can set it.
        self.bias = nn.Parameter(torch.zeros(self.parts, *self.event_shape))
        if likelihood in ("normal", "logistic"):
            shape = self.event_shape if scale == "pixel" else torch.Size()
            self.scale = PyroParam(torch.ones(shape), constraint=constraints.positive)
        if guide_family in FLOWS:
            self.flows = flow_layers(
                guide_family, latent_dim, flow_steps, flow_hidden, flow_hidden, make_activation(activation)
            )

    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        """Sets the decoder's last bias to what fits each pixel on its own, and the scale to the spread around it."""
        n = len(x)
        if self.likelihood == "bernoulli":
            self.bias.copy_(torch.logit((x.sum(0) + 0.5) / (n + 1)))
        elif self.likelihood == "categorical":
            counts = torch.stack([(x == value).sum(0) for value in range(self.values)])
            self.bias.copy_(torch.log((counts + 1 / self.values) / (n + 1)))
        else:
            mean = x.mean(0)
            self.bias.copy_(mean)
            variance = (x - mean).square().mean(0)
            # Pixels that never change have no spread of their own.
            spread = variance.clamp(min=1e-4 * variance.mean()) if self.scale.shape else variance.mean()
            # A logistic variable of scale s has standard deviation pi s / sqrt(3).
            scale = spread.sqrt() * (3**0.5 / torch.pi if self.likelihood == "logistic" else 1.0)
            self.scale = scale.clamp(min=1 / self.values if self.likelihood == "logistic" else 1e-6)

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        """A standard normal latent, decoded."""
        with self.plate(x, context, size):
            z = pyro.sample("z", dist.Normal(self.bias.new_zeros(self.latent_dim), 1.0).to_event(1))
            # Categories are drawn as integers; data are float tensors.
            return pyro.sample("x", self.decode(z), obs=x).to(self.bias.dtype)

    def guide(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> None:
        """q(z | x) from the encoder."""
        assert x is not None
        with self.plate(x, context, size):
            pyro.sample("z", self.encode(x))

    def decode(self, z: Tensor) -> Any:
        """p(x | z), a distribution: z (*batch, k) -> batch shape (*batch), event shape `event_shape`."""
        out = self.decoder(z).reshape(*z.shape[:-1], self.parts, *self.event_shape) + self.bias
        n = len(self.event_shape)
        if self.likelihood == "categorical":
            return dist.Categorical(logits=out.movedim(-1 - n, -1)).to_event(n)
        out = out.squeeze(-1 - n)
        if self.likelihood == "bernoulli":
            return dist.Bernoulli(logits=out).to_event(n)
        if self.likelihood == "normal":
            return dist.Normal(out, self.scale).to_event(n)
        return DiscretizedLogistic(out, self.scale, self.values).to_event(n)

    def encoded(self, x: Tensor) -> Tensor:
        """What the encoder puts out: x (*batch, *event_shape) -> (*batch, features)."""
        pixels = x.to(self.bias.dtype).reshape(*x.shape[: x.ndim - len(self.event_shape)], *self.network_shape)
        return self.encoder(pixels / (self.values - 1) if self.likelihood == "categorical" else pixels)

    def encode(self, x: Tensor) -> Any:
        """q(z | x), a distribution: x (*batch, *event_shape) -> batch shape (*batch), event shape (k,)."""
        k, out = self.latent_dim, self.encoded(x)
        loc, log_scale, below, features = out.split([k, k, self.below, out.shape[-1] - 2 * k - self.below], -1)
        normal = dist.Normal(loc, log_scale.exp()).to_event(1)
        if self.guide_family == "diagonal":
            return normal
        flows: Any = self.flows if self.guide_family in FLOWS else ()
        conditioned = [flow.condition(features) for flow in flows]
        if self.guide_family == "iaf":
            return dist.TransformedDistribution(normal, conditioned)
        scale_tril = torch.diag_embed(log_scale.exp())
        row, column = torch.tril_indices(k, k, -1)
        scale_tril[..., row, column] = below
        if self.guide_family == "full":
            return dist.MultivariateNormal(loc, scale_tril=scale_tril)
        standard = dist.Normal(torch.zeros_like(loc), 1.0).to_event(1)
        # The cache keeps what was drawn, so that its density needs no inversion.
        affine = BatchedAffine(loc, scale_tril, cache_size=1)
        return dist.TransformedDistribution(standard, [*conditioned, affine])
