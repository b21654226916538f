"""How good topics are: the perplexity of words that were held out, and whether a topic's words occur together.

Perplexity by document completion: Wallach, Murray, Salakhutdinov & Mimno, "Evaluation methods for topic models", ICML
2009, section 5.1. Coherence by normalised pointwise mutual information: Bouma 2009; Lau, Newman & Baldwin, "Machine
reading tea leaves", EACL 2014.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from inference.environment import evaluating
from inference.evaluation.estimates import checked
from inference.fitted import Fit
from zoo.arrays import as_tensor
from zoo.errors import CapabilityError, EmptyDataError, ShapeError
from zoo.options import Count, check_value
from zoo.program import Program
from zoo.topics.base import TopicModel

__all__ = ["Perplexity", "coherence", "completed_perplexity", "perplexity", "thinned", "top_words"]


@dataclass(frozen=True)
class Perplexity:
    """How many equally likely words would be as hard to guess as those that were held out."""

    value: float
    standard_error: float | None
    """As an estimate for the population of documents; None for a single document."""
    words: int
    """How many words were scored."""


@torch.no_grad()
def perplexity(program: TopicModel | Fit, data: Any, *, seed: int = 0) -> Perplexity:
    """That of half of each document's words, given the other half.

    Args:
        program: A topic model, or a fit of one by its own guide.
        data: Documents that were held out, of any kind that `Data.of` takes.
        seed: Of the choice of words; the same for all programs that are compared.

    Raises: CapabilityError for another program, or a fit by another guide; what `Program.accept` raises;
        EmptyDataError where no word is held out.
    """
    model = _topic_model(program)
    x = checked(model, data).x
    with evaluating(model, None, seed, x.device):
        return completed_perplexity(model.next_word, x, seed=seed)


def _topic_model(program: Program | Fit) -> TopicModel:
    model = program.program if isinstance(program, Fit) else program
    if not isinstance(model, TopicModel):
        raise CapabilityError(
            f"{type(model).__name__} says nothing of the next word of a document; topic models do (zoo.topics)."
        )
    if isinstance(program, Fit) and (program.guide_spec or {}).get("kind") != "own":
        raise CapabilityError(
            f"{type(model).__name__} predicts words by its own guide, which this fit by {program.method!r} has not "
            "trained: fit by 'cavi', or 'svi' with guide='own'."
        )
    return model


def completed_perplexity(predict: Callable[[Tensor], Tensor], x: Tensor, *, seed: int = 0) -> Perplexity:
    """The same by any predictions, so that models of other libraries are judged alike.

    Args:
        predict: Word counts (N, V) to the probabilities (N, V) of another word of each document.
        x: Documents (N, V).
        seed: See `perplexity`.

    Raises: EmptyDataError.
    """
    known, hidden = thinned(x, seed)
    words = hidden.sum(-1)
    if not float(words.sum()) > 0:
        raise EmptyDataError(f"None of the {int(x.sum())} words of {len(x)} documents is held out; give more of them.")
    scores = -torch.special.xlogy(hidden, predict(known)).sum(-1)
    nats = float(scores.sum() / words.sum())
    error = None
    if len(x) > 1:  # of a ratio of two means
        rest = scores - nats * words
        error = math.exp(nats) * float(rest.std()) / math.sqrt(len(x)) / float(words.mean())
    return Perplexity(math.exp(nats), error, int(words.sum()))


def thinned(x: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Documents (N, V) divided in two, each word by the toss of a coin, the same for the same seed: (known, hidden)."""
    # On the CPU, wherever documents are: another device would toss other coins.
    counts, generator = x.detach().cpu().double(), torch.Generator().manual_seed(seed)
    known = torch.binomial(counts, torch.full_like(counts, 0.5), generator=generator).to(x)
    return known, x - known


def coherence(topics: Any, x: Any, *, top: Count = 10) -> Tensor:
    """Normalised pointwise mutual information of the `top` words of each topic, (K,), from -1 to 1.

    The mean over pairs of log(p(a, b) / p(a) p(b)) / -log p(a, b), where p counts the documents that have a word, or
    both; a pair that never occurs together has -1, one that is in every document has 1.

    Args:
        topics: Probabilities of words, (K, V).
        x: Word counts (N, V) of the documents of reference.
        top: How many words speak for a topic, two or more.

    Raises: ShapeError; OptionError.
    """
    check_value("top", top, Count)
    topics, x = as_tensor(topics), as_tensor(x)
    if topics.ndim != 2 or x.ndim != 2 or topics.shape[1] != x.shape[1] or not 2 <= top <= topics.shape[1]:
        raise ShapeError(
            f"coherence takes topics (K, V), documents (N, V) and from 2 to V words, got {tuple(topics.shape)}, "
            f"{tuple(x.shape)} and top={top}."
        )
    there = (x > 0).double()
    chosen = topics.topk(top, -1).indices
    having = there[:, chosen]  # (N, K, top)
    both = torch.einsum("nki,nkj->kij", having, having) / len(x)
    alone = having.mean(0)
    information = (both / (alone[:, :, None] * alone[:, None, :])).log() / -both.log()
    information = torch.where(both > 0, information, -1.0)
    information = torch.where(both >= 1, 1.0, information)
    upper = torch.ones(top, top, device=x.device).triu(1).bool()
    return information[:, upper].mean(-1)


def top_words(topics: Tensor, names: Sequence[str] = (), top: Count = 10) -> list[list[str]]:
    """The most probable words of each topic, the best first.

    Args:
        topics: Probabilities of words, (K, V).
        names: Of the V words (`Card.names`); without any their columns are named.
        top: How many.

    Raises: ShapeError for another number of names.
    """
    if names and len(names) != topics.shape[1]:
        raise ShapeError(f"There are {topics.shape[1]} words and {len(names)} names; give one for each column.")
    order = topics.topk(min(top, topics.shape[1]), -1).indices.tolist()
    return [[names[i] if names else f"word {i}" for i in row] for row in order]
