"""Contexts in words: attributes and classes by name, a caption by its words, as a data set's card numbers them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from zoo.datasets import captions
from zoo.datasets.data import Card
from zoo.errors import OptionError, UnknownNameError

__all__ = ["in_words", "read_context"]

ON, OFF = {"1", "true", "yes", "on"}, {"0", "false", "no", "off"}


def read_context(card: Card, text: str, length: int | None = None) -> Tensor:
    """One row of context, as somebody asks for it.

    Args:
        card: Of the data set; it has `context_kind` and `context_names`.
        text: Attributes, 'bold serif' or 'bold=1, serif=0' (those that are not named are 0); a class, by its name or
            number; or a caption. Capitals do not matter.
        length: Places of a caption; None is as many as it has words.

    Returns: attributes (K,) of 0 and 1; a class (K,), one-hot; a caption (L,) of word numbers, 0 after the last.

    Raises: OptionError for a data set whose contexts have no words, an empty text, a caption that is too long or an
        attribute that is neither 0 nor 1; UnknownNameError for a word that is not known, with the nearest.
    """
    if not card.context_names:
        raise OptionError(f"Contexts of {card.name} have no words; give rows of numbers.")
    words = captions.words(text) if card.context_kind == "caption" else text.replace(",", " ").split()
    if not words:
        raise OptionError("Nothing was asked for; give attributes, a class, or the words of a caption.")
    if card.context_kind == "attributes":
        return _attributes(card, words)
    if card.context_kind == "class":
        return one_hot(torch.tensor(_class(card, text.strip())), len(card.context_names)).to(torch.get_default_dtype())
    (row,) = captions.encode([text], card.context_names)
    length = len(row) if length is None else length
    if len(row) > length:
        raise OptionError(f"The caption {text!r} has {len(row)} words, more than the {length} of {card.name}.")
    return torch.from_numpy(np.pad(row, (0, length - len(row)))).to(torch.get_default_dtype())


def _attributes(card: Card, words: list[str]) -> Tensor:
    known = {name.casefold(): number for number, name in enumerate(card.context_names)}
    row = torch.zeros(len(known))
    for word in words:
        name, equals, value = word.partition("=")
        if equals and value.casefold() not in ON | OFF:
            raise OptionError(f"The attribute {name!r} is 0 or 1, got {value!r}.")
        row[_number(known, name, f"attribute of {card.name}")] = float(not equals or value.casefold() in ON)
    return row


def _class(card: Card, name: str) -> int:
    """By its name; by its number where no class is called so."""
    names = card.context_names
    if name in names:
        return names.index(name)
    if name.isdecimal() and int(name) < len(names):
        return int(name)
    return _number({name.casefold(): number for number, name in enumerate(names)}, name, f"class of {card.name}")


def _number(known: dict[str, int], word: str, what: str) -> int:
    if not word or word.casefold() not in known:
        raise UnknownNameError(what, word, [name for name in known if name])
    return known[word.casefold()]


def in_words(card: Card, row: Tensor) -> str:
    """What a row of context says: the inverse of `read_context`.

    Raises: OptionError for a data set whose contexts have no words.
    """
    if not card.context_names:
        raise OptionError(f"Contexts of {card.name} have no words.")
    if card.context_kind in ("attributes", "class"):
        return " ".join(name for name, value in zip(card.context_names, row.tolist(), strict=True) if value)
    return captions.decode([row.tolist()], card.context_names)[0]
