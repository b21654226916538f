"""Letters of fonts: what is drawn, who is in which split, pairs."""

from __future__ import annotations

import unicodedata
from itertools import combinations

import numpy as np
import pytest
import torch

from zoo import datasets
from zoo.datasets import glyphs
from zoo.datasets.splits import SPLITS

NAMES = [
    name
    for name in datasets.names()
    if name.startswith("glyphs") and "64" not in name and not name.endswith(("-binary", "-stochastic"))
]


@pytest.mark.parametrize("name", NAMES)
def test_glyphs_are_as_their_card_says(name):
    dataset = datasets.load(name)
    card = datasets.card(name)
    assert dataset.card == card
    for split in SPLITS:
        x, context = dataset.split(split)
        assert x.shape == (card.splits[split], *card.shape)
        assert x.min() == 0
        assert x.max() == 1
        assert bool((x.flatten(1).amax(1) > 0.25).all()), "every letter has ink"
        assert len(glyphs.characters(name)[split]) == len(x)
        if card.context_kind == "image":
            assert context is not None
            assert context.shape == x.shape
            assert context.min() == 0
            assert context.max() == 1


def test_nothing_is_cut_off():
    images = glyphs.render(32)
    border = np.concatenate([images[..., 0, :], images[..., -1, :], images[..., 0], images[..., -1]], -1)
    # The border may be touched, since the largest letter just fits; one that is cut off would show a thick line there.
    assert (border > 0).mean() < 0.001


def test_no_letter_nor_one_that_looks_like_it_is_in_two_splits():
    images = glyphs.render(32).astype(np.float64).reshape(-1, len(glyphs.FACES), 32 * 32) / 255
    rows = glyphs._by_character()
    assert sorted(np.concatenate([*rows.values()])) == [*range(len(images))]
    for one, other in combinations(SPLITS, 2):
        for face in range(len(glyphs.FACES)):
            a, b = images[rows[one], face], images[rows[other], face]
            squared = ((a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T).min()
            assert squared >= glyphs.ALIKE - 1e-9


def test_known_look_alikes_are_together():
    split = {letter: name for name, letters in glyphs.characters("glyphs-sans-to-serif").items() for letter in letters}
    for alike in (
        "A\N{GREEK CAPITAL LETTER ALPHA}\N{CYRILLIC CAPITAL LETTER A}",
        "o\N{GREEK SMALL LETTER OMICRON}",
        "ǍĂӐ",
    ):
        assert len({split[letter] for letter in alike}) == 1, alike


def test_pairs_are_of_one_letter():
    every, pairs = datasets.load("glyphs"), datasets.load("glyphs-sans-to-bold-serif")
    for split in SPLITS:
        by_face = every.split(split).x.unflatten(0, (-1, len(glyphs.FACES)))
        assert torch.equal(pairs.split(split).x, by_face[:, glyphs.BOLD_SERIF])
        torch.testing.assert_close(pairs.split(split).context, by_face[:, glyphs.SANS])
        assert (
            glyphs.characters("glyphs")[split][:: len(glyphs.FACES)]
            == (glyphs.characters("glyphs-sans-to-bold-serif")[split])
        )


def test_unpaired_sides_share_no_letter():
    name = "glyphs-sans-to-serif-unpaired"
    paired, torn = datasets.load(name.removesuffix("-unpaired")), datasets.load(name)
    for split in ("train", "valid"):
        letters = np.array(glyphs.characters(name.removesuffix("-unpaired"))[split])
        given = [
            letters[(paired.split(split).context == image).flatten(1).all(1)] for image in torn.split(split).context
        ]
        made = glyphs.characters(name)[split]
        # A look-alike is of one side too, so an image tells its side even where it does not tell its letter.
        assert not {letter for some in given for letter in some} & set(made)
        assert {letter for some in given for letter in some} | set(made) == set(letters)
    assert torch.equal(torn.test.x, paired.test.x)
    assert torch.equal(torn.test.context, paired.test.context)


def test_attributes_say_what_the_face_is():
    dataset = datasets.load("glyphs-attributes")
    assert dataset.card.context_names == ("sans", "serif", "mono", "bold", "oblique")
    bold_italic_serif = dataset.test.context[dataset.labels["test"] == 7].unique(dim=0)
    assert bold_italic_serif.tolist() == [[0, 1, 0, 1, 1]]
    assert len(dataset.train.context.unique(dim=0)) == len(glyphs.FACES)


def test_labels_are_faces_and_bold_has_more_ink():
    dataset = datasets.load("glyphs")
    ink = [dataset.train.x[dataset.labels["train"] == face].sum().item() for face in range(len(glyphs.FACES))]
    for face in (0, 2, 4, 6):
        assert ink[face + 1] > 1.2 * ink[face]


def test_a_name_is_of_a_letter():
    letters = glyphs.characters("glyphs-sans-to-serif")
    assert sum(map(len, letters.values())) == 1514
    assert all(unicodedata.category(letter).startswith("L") for letter in letters["test"])
