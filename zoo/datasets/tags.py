"""Words as vectors, and letters with one word of their name each: what a program that tags images learns from."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from zoo.datasets import glyphs
from zoo.datasets.letter_names import WORDS
from zoo.datasets.splits import Splits

__all__ = ["DIM", "glyph_tags", "glyph_vectors", "named", "word_vectors"]

Array = np.ndarray[Any, Any]

DIM = 200
"""Numbers of the vector of a word, as many as in Mirza & Osindero (2014)."""


def named(captions: Array, words: int) -> Array:
    """Which words a caption has, booleans (N, words); number 0 is no word.

    Args:
        captions: Word numbers (N, L), 0 after the last.
        words: How many numbers there are.
    """
    found = np.zeros((len(captions), words), bool)
    np.put_along_axis(found, captions, True, axis=1)
    found[:, 0] = False
    return found


def word_vectors(captions: Array, words: int, dim: int) -> Array:
    """Vectors of length 1, near for words that go together, (words, dim); 0 for words of no caption, or of all.

    The cosine of two words is the correlation, over captions, of having the one and having the other, as nearly as so
    few numbers can say: principal components of the correlations, as in latent semantic analysis (Deerwester et al.
    1990). Vectors of mutual information put words in like company together, as 'dasia' and 'psili', two breathings of
    which a letter has one: a tag must say which. The sign of each component is that of its largest number.

    Args:
        captions: Word numbers (N, L), 0 after the last.
        words: How many numbers there are, 0 among them.
        dim: At most the number of words.
    """
    has = named(captions, words).astype(np.float64)
    apart = has - has.mean(0)
    length = np.linalg.norm(apart, axis=0)
    apart /= np.where(length > 0, length, 1)
    values, vectors = np.linalg.eigh(apart.T @ apart)
    vectors = vectors[:, ::-1][:, :dim]
    vectors *= np.sign(vectors[np.abs(vectors).argmax(0), np.arange(dim)])
    found = np.where(length[:, None] > 0, vectors * np.sqrt(values[::-1][:dim].clip(0)), 0)
    norm = np.linalg.norm(found, axis=1, keepdims=True)
    return found / np.where(norm > 0, norm, 1)


@cache
def glyph_vectors() -> Array:
    """Of `WORDS`, from the names of the training letters."""
    found = word_vectors(glyphs.captions().context["train"], len(WORDS), DIM)
    found.flags.writeable = False
    return found


def glyph_tags() -> Splits:
    """Every letter in every face as the context; x is the vector of one word of its name, in each face the next one.

    Words without a vector, which no training letter has, are left out; the rows are those of `glyphs.captions`.
    """
    read, vectors = glyphs.captions(), glyph_vectors()
    known = np.linalg.norm(vectors, axis=1) > 0
    x, context = {}, {}
    for split, captions in read.context.items():
        has = named(captions, len(WORDS)) & known
        # The (row // faces + row)-th of each, counted around.
        rows = np.arange(len(has))
        count = has.sum(1)
        turn = (rows // len(glyphs.FACES) + rows) % count
        word = (np.cumsum(has, 1) == (turn + 1)[:, None]).argmax(1)
        x[split], context[split] = vectors[word], read.x[split] / read.scale
    return Splits(x, context)
