"""What topic models share: documents are rows of word counts, and a topic is a distribution over the vocabulary."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from pyro.nn import PyroParam
from torch import Tensor
from torch.distributions import constraints

from zoo.errors import ShapeError
from zoo.options import Count, Shape
from zoo.program import Program

__all__ = ["TopicModel"]


class TopicModel(Program):
    """The base: counts of V words, K topics, and the mean number of words of a document, the parameter `length`.

    A document has Poisson(length) words (Blei, Ng & Jordan 2003, section 3), each drawn from one distribution over the
    vocabulary. Its counts are then independent, Poisson(length p_v), which is how x is written.

    Args:
        event_shape: (V,), the size of the vocabulary.
        topics: Number K of topics.

    Raises: ShapeError for examples that are no rows of counts.
    """

    family = "topics"
    dataset = "unicode-names"
    support = constraints.nonnegative_integer
    length: Tensor

    def __init__(self, event_shape: Shape, topics: Count):
        super().__init__()
        self.event_shape, self.topics = torch.Size(event_shape), topics
        if len(self.event_shape) != 1:
            raise ShapeError(
                f"{type(self).__name__} takes documents as rows of word counts (N, vocabulary), got examples of shape "
                f"{tuple(event_shape)}."
            )
        self.length = PyroParam(torch.tensor(20.0), constraints.positive)

    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        """Sets the mean length of a document."""
        self.length = self.mean_length(x)

    def mean_length(self, x: Tensor) -> Tensor:
        """Words of a document on average, (); of documents without any it is a small number, as rates are positive."""
        return x.sum(-1).mean().clamp(min=1e-3)

    def counts(self, probabilities: Tensor) -> Any:
        """p(x | word probabilities): (*batch, V) -> batch shape (*batch), event shape (V,)."""
        return dist.Poisson(self.length * probabilities).to_event(1)

    def topic_words(self) -> Tensor:
        """The probability of each word under each topic, (K, V), at the fitted parameters."""
        raise NotImplementedError(f"{type(self).__name__} must define topic_words()")

    def next_word(self, x: Tensor) -> Tensor:
        """Which word comes next in documents of which the words x (B, V) are known: probabilities (B, V)."""
        raise NotImplementedError(f"{type(self).__name__} must define next_word(x)")
