r"""The semi-supervised variational autoencoder (M2): classes of most images unknown, and summed out.

Kingma, Rezende, Mohamed & Welling, "Semi-supervised learning with deep generative models", NIPS 2014, section 2.

    y ~ Categorical(1/K, ..., 1/K), or the class if it is known,   z ~ N(0, I_k),   x | y, z ~ prod_i p(x_i | f(y, z)_i)
    q(y | x) = Categorical(c(x)), or the class,   q(z | x, y) = N(m(x, y), S(x, y))

    y, z --> x      sites: y () local; z (k,) local; x (*event_shape); context (K,): the class one-hot, or zeros

In training a factor is added where the class is known: alpha log q(y | x), by which the classifier learns from it
(their equation 9). It is no part of p(x), and evaluation leaves it out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn.functional import log_softmax, one_hot

from zoo.arrays import fill
from zoo.errors import OptionError, ShapeError
from zoo.latent.heads import HEADS
from zoo.likelihoods import make_likelihood
from zoo.nets import mlp
from zoo.options import Count, Counts, NonNegative, Shape
from zoo.program import Preset, Program
from zoo.specs import Spec, make_part

__all__ = ["PartlyLabelled", "SemiSupervisedVAE", "hide_labels"]

NEVER = -1e4
"""Log-probability of what a known class rules out: its probability is zero, and zero times it is still a number."""


class PartlyLabelled(constraints.Constraint):
    """One-hot rows, and rows of zeros, whose class is not known."""

    is_discrete = True
    event_dim = 1

    def check(self, value: Tensor) -> Tensor:
        """(..., K) -> (...)."""
        return ((value == 0) | (value == 1)).all(-1) & (value.sum(-1) <= 1)

    def __repr__(self) -> str:
        return "one-hot rows, or zeros where the class is not known"


class SemiSupervisedVAE(Program):
    """A variational autoencoder with a class beside its code, which rows of zeros in the context leave open.

    Args:
        event_shape: Shape of one example; flattened.
        context_shape: Shape of one context, (classes,).
        latent_dim: Number k of latent dimensions.
        hidden: Widths of the hidden layers of the encoder, reversed in the decoder; empty for linear ones.
        classifier: Widths of the hidden layers of q(y | x).
        likelihood: What a number of x follows; see `zoo.latent.vae.VAE`.
        activation: A key of `zoo.nets.ACTIVATIONS`.
        alpha: Weight of log q(y | x) of each example whose class is known. The paper's is a tenth of the number of
            examples over that of the known ones, for thousands of epochs; in few steps the unknown ones then give the
            class a meaning of their own, and only a weight of a thousand or more keeps it from that.

    Raises: UnknownNameError, OptionError; ShapeError for a context that is no row of classes.
    """

    family = "latent"
    paper = "Kingma, Rezende, Mohamed & Welling, Semi-supervised learning with deep generative models, 2014"
    dataset = "mnist10k-binary-labelled"
    context_support = PartlyLabelled()

    def __init__(
        self,
        event_shape: Shape = (8, 8),
        context_shape: Shape = (10,),
        latent_dim: Count = 8,
        hidden: Counts = (128,),
        classifier: Counts = (128,),
        likelihood: Spec = "bernoulli",
        activation: str = "softplus",
        alpha: NonNegative = 2000.0,
    ):
        super().__init__()
        if len(context_shape) != 1:
            raise ShapeError(
                f"SemiSupervisedVAE takes classes one-hot (N, classes), got contexts of shape {tuple(context_shape)}: "
                "torch.nn.functional.one_hot(labels, classes) makes them."
            )
        self.event_shape, self.classes = torch.Size(event_shape), context_shape[0]
        self.latent_dim, self.alpha = latent_dim, alpha
        self.likelihood = make_likelihood(likelihood, self.event_shape)
        self.support = self.likelihood.support
        d = self.event_shape.numel()
        self.head = make_part("guide", "diagonal", HEADS, latent_dim=latent_dim)
        self.classifier = mlp(d, classifier, self.classes, activation)
        self.encoder = mlp(d + self.classes, hidden, self.head.size, activation)
        size = self.likelihood.size
        self.decoder = mlp(latent_dim + self.classes, hidden[::-1], size * d, activation, out_bias=False)
        self.bias = nn.Parameter(torch.zeros(size, *self.event_shape))
        # The class begins without a meaning, as the paper's weights begin near zero: the classifier gives it one.
        with torch.no_grad():
            for net in (self.encoder, self.decoder):
                net[0].get_parameter("weight")[:, -self.classes :].normal_(std=1e-3)

    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        """Sets the decoder's last bias to what fits each pixel on its own, and a scale to the spread around it."""
        self.bias.copy_(self.likelihood.initial(fill(x)).movedim(-1, 0))

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        """A class and a code, decoded."""
        assert context is not None
        with self.plate(x, context, size):
            y = pyro.sample("y", dist.Categorical(logits=self._known(context, torch.zeros_like(context))))
            z = pyro.sample("z", dist.Normal(self.bias.new_zeros(self.latent_dim), 1.0).to_event(1))
            if x is not None and self.training and self.alpha > 0:
                pyro.factor("classified", self.alpha * (context * self.log_classes(x)).sum(-1))
            return pyro.sample("x", self.decode(z, y), obs=x).to(self.bias.dtype)

    def guide(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> None:
        """q(y | x) q(z | x, y); y is summed out by elbo='enum', which `fit` takes."""
        assert x is not None
        assert context is not None
        with self.plate(x, context, size):
            q = dist.Categorical(logits=self._known(context, self.log_classes(x)))
            y = pyro.sample("y", q, infer={"enumerate": "parallel"})
            pyro.sample("z", self.head(self.encoder(self._beside(self._flat(x), y))))

    def log_classes(self, x: Tensor) -> Tensor:
        """log q(y | x), (B, *event_shape) to (B, K): the classifier."""
        return log_softmax(self.classifier(self._flat(x)), -1)

    def codes_of(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Probabilities of the classes and the mean of z over these, (B, K + k); what the context tells is not used,
        so that a code can be asked for the class."""
        classes, seen = self.log_classes(x).exp(), self._flat(x)
        each = torch.arange(self.classes, device=seen.device)[:, None]
        means = self.head(self.encoder(self._beside(seen, each))).mean
        return torch.cat([classes, torch.einsum("bk,kbd->bd", classes, means)], -1)

    def decode(self, z: Tensor, y: Tensor) -> Any:
        """p(x | y, z): z (*batch, k) and y (*batch) -> batch shape (*batch), event shape `event_shape`."""
        seen = self._beside(z, y)
        out = self.decoder(seen).reshape(*seen.shape[:-1], self.likelihood.size, *self.event_shape) + self.bias
        n = len(self.event_shape)
        return self.likelihood.distribution(out.movedim(-1 - n, -1)).to_event(n)

    def _flat(self, x: Tensor) -> Tensor:
        batch = x.shape[: x.ndim - len(self.event_shape)]
        return self.likelihood.embed(x.to(self.bias.dtype)).reshape(*batch, -1)

    def _known(self, context: Tensor, otherwise: Tensor) -> Tensor:
        """Log-probabilities (B, K): of the class where the context says it, else these."""
        return torch.where(context.sum(-1, keepdim=True) > 0, NEVER * (1 - context), otherwise)

    def _beside(self, vectors: Tensor, y: Tensor) -> Tensor:
        """Vectors (*batch, n) with the class (*batch) one-hot beside them; each may have dimensions of its own."""
        batch = torch.broadcast_shapes(vectors.shape[:-1], y.shape)
        classes = (y.unsqueeze(-1) == torch.arange(self.classes, device=y.device)).to(vectors)
        return torch.cat([part.expand(*batch, -1) for part in (vectors, classes)], -1)

    def example_context(self, n: int) -> Tensor:
        """Each class in turn, and every other row open, (n, K)."""
        known = torch.arange(n).to(self.bias.device)
        rows = one_hot(known % self.classes, self.classes) * (known % 2)[:, None]
        return rows.to(self.bias)

    presets: ClassVar[Mapping[str, Preset]] = {
        # A code of few numbers leaves it to the class to say which digit it is; chosen on validation digits.
        "small": Preset(
            {"latent_dim": 4, "activation": "relu", "alpha": 5000.0}, "svi",
            {"elbo": "enum", "epochs": 30, "batch_size": 200, "lr": 2e-3},
        ),
        "paper": Preset(
            {"latent_dim": 50, "hidden": [500], "classifier": [500], "alpha": 50.0}, "svi",
            {"elbo": "enum", "epochs": 3000, "batch_size": 200, "lr": 3e-4},
        ),
    }  # fmt: skip


def hide_labels(context: Tensor, keep: int, seed: int = 0) -> Tensor:
    """Classes one-hot (N, K) with zeros in all rows but `keep`, which are the same number of each class, at random.

    Args:
        context: One-hot rows.
        keep: How many stay known, a multiple of K.
        seed: Of the choice.

    Raises: OptionError for another number, or a class with fewer rows.
    """
    n, classes = context.shape
    each, rest = divmod(keep, classes)
    if rest or keep < 0 or int(context.sum(0).min()) < each:
        raise OptionError(
            f"keep must be a multiple of the {classes} classes, of which the rarest has {int(context.sum(0).min())} "
            f"rows; got {keep}."
        )
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).to(context.device)
    shuffled = context[order]
    shown = torch.zeros_like(context)
    shown[order] = shuffled * (shuffled.cumsum(0) <= each)
    return shown
