"""Contexts in words: what is asked for is what the numbers say, and back."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from zoo import datasets
from zoo.datasets.asked import in_words, read_context
from zoo.errors import OptionError, UnknownNameError

LOOKS = datasets.card("glyphs-attributes")
CAPTIONS = replace(LOOKS, context_kind="caption", context_names=("", "letter", "small", "a", "with", "ring"))


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ("bold serif", [0, 1, 0, 1, 0]),
        ("Serif, BOLD", [0, 1, 0, 1, 0]),
        ("sans=1,oblique=yes,bold=0", [1, 0, 0, 0, 1]),
        ("mono", [0, 0, 1, 0, 0]),
    ],
)
def test_attributes_by_name(text: str, row: list[int]) -> None:
    assert read_context(LOOKS, text).tolist() == row


def test_attributes_of_the_data_are_said_and_read_again() -> None:
    rows = datasets.load("glyphs-attributes").valid.context[:9]
    assert {in_words(LOOKS, row) for row in rows} >= {"sans", "sans bold", "serif bold oblique", "mono"}
    for row in rows:
        assert torch.equal(read_context(LOOKS, in_words(LOOKS, row)).to(row), row)


def test_a_class_by_name_or_number() -> None:
    card = replace(LOOKS, context_kind="class", context_names=("Cat", "cat", "golden retriever", "7"))
    for text, place in {"Cat": 0, "cat": 1, " Golden Retriever": 2, "7": 3, "2": 2}.items():
        assert read_context(card, text).tolist() == torch.eye(4)[place].tolist(), text
    for text in ("4", "golden", "-1"):
        with pytest.raises(UnknownNameError, match="class of"):
            read_context(card, text)
    assert in_words(card, torch.eye(4)[2]) == "golden retriever"
    faces = datasets.card("glyphs-labelled")
    assert read_context(faces, "serif-bold").argmax() == 5
    assert datasets.card("digits-labelled").context_names == tuple("0123456789")


def test_captions_by_their_words() -> None:
    row = read_context(CAPTIONS, "Small letter A with RING", length=7)
    assert row.tolist() == [2, 1, 3, 4, 5, 0, 0]
    assert in_words(CAPTIONS, row) == "small letter a with ring"
    assert read_context(CAPTIONS, "ring").tolist() == [5]


def test_a_caption_is_the_row_of_its_letter() -> None:
    dataset = datasets.load("glyphs-captions")
    row = read_context(dataset.card, '"Latin capital letter H"', length=dataset.test.context.shape[1])
    assert bool((dataset.test.context == row).all(1).any())


def test_what_cannot_be_read_says_why() -> None:
    with pytest.raises(UnknownNameError, match="serif"):
        read_context(LOOKS, "bold seriff")
    with pytest.raises(UnknownNameError, match="ring"):
        read_context(CAPTIONS, "letter a with rings")
    with pytest.raises(OptionError, match="0 or 1, got '2'"):
        read_context(LOOKS, "bold=2")
    with pytest.raises(OptionError, match="6 words, more than the 5"):
        read_context(CAPTIONS, "a a a a a a", length=5)
    with pytest.raises(OptionError, match="Nothing"):
        read_context(LOOKS, " , ")
    for call in (lambda card: read_context(card, "3"), lambda card: in_words(card, torch.zeros(3))):
        with pytest.raises(OptionError, match="no words"):
            call(datasets.card("iris"))
