"""Captions as numbers: the words of a text, a vocabulary, rows of word numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from zoo.errors import UnknownNameError

__all__ = ["decode", "encode", "vocabulary", "words"]

Array = np.ndarray[Any, Any]


def words(text: str) -> list[str]:
    """In small letters, without punctuation; a hyphen and an apostrophe inside a word are of it."""
    return re.findall(r"\w+(?:[-']\w+)*", text.casefold())


def vocabulary(captions: Iterable[str]) -> tuple[str, ...]:
    """The words of the captions by the alphabet, after '', which is number 0 and no word."""
    return ("", *sorted({word for caption in captions for word in words(caption)}))


def encode(captions: Sequence[str], known: Sequence[str]) -> Array:
    """Numbers of the words of each caption, 0 after the last, (N, length of the longest).

    Args:
        captions: Any texts.
        known: What `vocabulary` gave.

    Raises: UnknownNameError for a word that is not in it.
    """
    number = {word: place for place, word in enumerate(known)}
    texts = [words(caption) for caption in captions]
    rows = np.zeros((len(texts), max(map(len, texts), default=0)), np.int64)
    for row, text in zip(rows, texts, strict=True):
        for place, word in enumerate(text):
            if word not in number:
                raise UnknownNameError("word", word, (word for word in known if word))
            row[place] = number[word]
    return rows


def decode(rows: Iterable[Sequence[float]], known: Sequence[str]) -> list[str]:
    """The words of rows of numbers, a space between them."""
    return [" ".join(known[int(number)] for number in row if number) for row in rows]
