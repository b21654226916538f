"""Captions as numbers."""

from __future__ import annotations

import pytest

from zoo.datasets.captions import decode, encode, vocabulary, words
from zoo.errors import UnknownNameError


def test_words_are_small_and_without_punctuation():
    assert words('"A well-known bird\'s nest, RED." 2') == ["a", "well-known", "bird's", "nest", "red", "2"]
    assert words(" -, ") == []


def test_numbers_and_back():
    texts = ["a red bird", "A bird!", ""]
    known = vocabulary(texts)
    assert known == ("", "a", "bird", "red")
    rows = encode(texts, known)
    assert rows.tolist() == [[1, 3, 2], [1, 2, 0], [0, 0, 0]]
    assert decode(rows.tolist(), known) == ["a red bird", "a bird", ""]


def test_an_unknown_word_gives_the_nearest():
    with pytest.raises(UnknownNameError, match=r"Unknown word 'birds'\. Did you mean 'bird'"):
        encode(["birds"], ("", "bird"))
