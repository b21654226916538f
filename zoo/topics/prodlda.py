r"""Topics by a variational autoencoder: a logistic normal instead of a Dirichlet, and one network for all documents.

Srivastava & Sutton, "Autoencoding variational inference for topic models", ICLR 2017.

    h ~ N(mu, S), the Laplace approximation of Dirichlet(alpha, ..., alpha) (their equation 6),   theta = softmax(h)
    p = softmax(B(theta beta)) ('product', ProdLDA)   or   theta softmax(B(beta)) ('mixture', LDA)
    n ~ Poisson(length),   each of the n words ~ Categorical(p),   x = their counts

    h --> x      sites: h (K,) local; x (V,)

B is batch normalisation; with it, and dropout of theta, topics do not all become the same early in training
(section 3.4). Both act in training alone: afterwards the density of a document is its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from zoo.nets import BatchNorm1d, OverBatch, mlp
from zoo.options import Counts, Positive, Shape, Share, Values
from zoo.program import Preset
from zoo.topics.base import TopicModel

__all__ = ["ProdLDA", "laplace"]

DRAWS = 100
"""Draws of a document's mixture that predict its next word."""


class ProdLDA(TopicModel):
    """Topics as a product of experts, or mixed as in LDA, with an encoder instead of an inference for each document.

    Args:
        event_shape: (V,), the size of the vocabulary.
        topics: Number K of topics, two or more.
        decoder: 'product' (topics add up before the softmax) or 'mixture' (LDA).
        mixing: alpha of the Dirichlet that the prior approximates; None is 1 / K.
        hidden: Widths of the encoder's layers, softplus after each.
        dropout: Probability of dropping a unit of the encoder's last layer, and a topic of a document, in training.
    """

    paper = "Srivastava & Sutton, Autoencoding variational inference for topic models, 2017"
    prior_loc: Tensor
    prior_scale: Tensor

    def __init__(
        self,
        event_shape: Shape = (12,),
        topics: Values = 3,
        decoder: Literal["product", "mixture"] = "product",
        mixing: Positive | None = None,
        hidden: Counts = (100, 100),
        dropout: Share = 0.2,
    ):
        super().__init__(event_shape, topics)
        (v,) = self.event_shape
        self.decoder = decoder
        loc, scale = laplace(torch.full((topics,), 1 / topics if mixing is None else float(mixing)))
        self.register_buffer("prior_loc", loc)
        self.register_buffer("prior_scale", scale)
        self.dropout = nn.Dropout(dropout)
        *layers, width = (v, *hidden)
        body = mlp(v, layers[1:], width, "softplus") if hidden else nn.Identity()
        self.body = nn.Sequential(body, *([nn.Softplus()] if hidden else []), nn.Dropout(dropout))
        # A bias before the normalisation would change nothing, and have the optimizer follow rounding errors.
        self.loc, self.log_scale = (
            nn.Sequential(nn.Linear(width, topics, bias=False), Normalised(topics)) for _ in range(2)
        )
        self.beta = nn.Parameter(torch.randn(topics, v) * math.sqrt(2 / (topics + v)))
        self.norm = Normalised(v)

    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        """Sets the mean length of a document, and the bias of each word to its frequency in all."""
        super().initialise(x)
        counts = x.sum(0) + 0.5
        self.norm.bias.copy_((counts / counts.sum()).log())

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        """A mixture of topics, and the words that it makes likely."""
        with self.plate(x, context, size):
            h = pyro.sample("h", dist.Normal(self.prior_loc, self.prior_scale).to_event(1))
            return pyro.sample("x", self.counts(self.decode(self._dropped(h.softmax(-1)))), obs=x)

    def guide(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> None:
        """q(h | x), a diagonal Gaussian of the encoder."""
        assert x is not None
        with self.plate(x, context, size):
            pyro.sample("h", self.encode(x).to_event(1))

    def _dropped(self, theta: Tensor) -> Tensor:
        """Mixtures without some topics while training; never without all, and those that are mixed still sum to one."""
        kept: Tensor = self.dropout(theta)
        kept = torch.where(kept.sum(-1, keepdim=True) > 0, kept, theta)
        return kept if self.decoder == "product" else kept / kept.sum(-1, keepdim=True)

    def encode(self, x: Tensor) -> Any:
        """q(h | x), documents (B, V) to batch shape (B, K)."""
        hidden = self.body(x)
        return dist.Normal(self.loc(hidden), (self.log_scale(hidden) / 2).exp())

    def decode(self, theta: Tensor) -> Tensor:
        """Probabilities of words (*batch, V) for mixtures (*batch, K)."""
        if self.decoder == "product":
            return self.norm(theta @ self.beta).softmax(-1)
        return theta @ self.norm(self.beta).softmax(-1)

    @torch.no_grad()
    def topic_words(self) -> Tensor:
        """What documents of one topic alone say, (K, V)."""
        return self.decode(torch.eye(self.topics).to(self.beta))

    @torch.no_grad()
    def next_word(self, x: Tensor) -> Tensor:
        """The mean over draws of q(h | x), (B, V); from torch's global generator."""
        q = self.encode(x)
        return torch.stack([self.decode(q.sample().softmax(-1)) for _ in range(DRAWS)]).mean(0)

    presets: ClassVar[Mapping[str, Preset]] = {
        "small": Preset({"topics": 20}, "svi", {"elbo": "mean_field", "epochs": 80, "batch_size": 64, "lr": 2e-3}),
        "paper": Preset(
            {"topics": 50, "mixing": 0.02}, "svi",
            {"elbo": "mean_field", "epochs": 100, "batch_size": 200, "lr": 2e-3, "decay": "constant"},
        ),
    }  # fmt: skip


class Normalised(nn.Module):
    """Batch normalisation and a bias, without a scale, as in the paper's code.

    Args:
        features: Numbers of an input.
    """

    def __init__(self, features: int):
        super().__init__()
        self.norm = OverBatch(BatchNorm1d(features, affine=False), 1)
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        """(*batch, features), all batch dimensions normalised together."""
        normalised: Tensor = self.norm(x)
        return normalised + self.bias


def laplace(alpha: Tensor) -> tuple[Tensor, Tensor]:
    """The logistic normal at the mode of a Dirichlet's density of h, theta = softmax(h) (MacKay 1998; equation 6).

    Args:
        alpha: (K,), positive.

    Returns: mean and standard deviation of each h, (K,).
    """
    k = len(alpha)
    variance = (1 - 2 / k) / alpha + (1 / alpha).sum() / k**2
    return alpha.log() - alpha.log().mean(), variance.sqrt()
