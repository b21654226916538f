"""Letters of fonts: what is drawn, who is in which split, pairs."""

from __future__ import annotations

import unicodedata
from hashlib import sha256
from itertools import combinations

import numpy as np
import pytest
import torch
from PIL import ImageFont, features

from zoo import datasets
from zoo.datasets import glyphs
from zoo.datasets.captions import decode, vocabulary
from zoo.datasets.letter_names import WORDS, held_out
from zoo.datasets.letter_names import combinations as combinations_of
from zoo.datasets.registry import REGISTRY
from zoo.datasets.splits import SPLITS
from zoo.errors import UnknownNameError

NAMES = [name for name in REGISTRY if name.startswith("glyphs") and "64" not in name and "tags" not in name]
"""Those whose x is a letter of 32x32."""


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


def font_of(face: glyphs.Face) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(glyphs.font_file(face)), glyphs.EM, layout_engine=ImageFont.Layout.BASIC)


def test_nothing_is_cut_off():
    for face in glyphs.FACES:
        font = font_of(face)
        for letter in glyphs._letters():
            left, top, right, bottom = font.getbbox(letter, anchor="ls")
            origin = glyphs.CANVAS // 2 - round(font.getlength(letter) / 2)
            assert min(origin + left, glyphs.BASELINE + top) >= 0
            assert max(origin + right, glyphs.BASELINE + bottom) <= glyphs.CANVAS


def test_the_larger_form_is_the_same_letter():
    for letter, face in (("A", 0), ("ǘ", 7), ("g", 8)):
        font = font_of(glyphs.FACES[face])
        large = glyphs.draw(letter, font, 64).astype(float)
        small = glyphs.render(32)[glyphs._letters().index(letter), face]
        # Both are rounded to bytes.
        assert np.abs(large.reshape(32, 2, 32, 2).mean((1, 3)) - small).max() <= 1
    assert datasets.card("glyphs-64").splits == datasets.card("glyphs").splits


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
    letters, made = glyphs.characters(name.removesuffix("-unpaired")), glyphs.characters(name)
    for split in ("train", "valid"):
        # Letters that have one image are of one side, so an image tells its side where it does not tell its letter.
        of_image: dict[bytes, set[str]] = {}
        for image, letter in zip(paired.split(split).context, letters[split], strict=True):
            of_image.setdefault(image.numpy().tobytes(), set()).add(letter)
        given = {letter for image in torn.split(split).context for letter in of_image[image.numpy().tobytes()]}
        assert given & set(made[split]) == set()
        assert given | set(made[split]) == set(letters[split])
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


def test_captions_are_the_names():
    assert vocabulary(unicodedata.name(letter) for letter in glyphs._letters()) == WORDS
    dataset = datasets.load("glyphs-captions")
    assert dataset.card.context_names == WORDS
    for split in SPLITS:
        names = [unicodedata.name(letter).lower() for letter in glyphs.characters("glyphs-captions")[split]]
        assert decode(dataset.split(split).context.tolist(), WORDS) == names


def test_held_out_combinations_are_new_and_their_parts_are_not():
    letters = {split: set(some) for split, some in glyphs.characters("glyphs-combinations").items()}
    assert [len(letters[split]) for split in SPLITS] == [1211, 91, 212]
    seen = {split: {pair for letter in letters[split] for pair in combinations_of(letter)} for split in SPLITS}
    assert not seen["train"] & (seen["valid"] | seen["test"])
    assert not seen["valid"] & seen["test"]
    words = {word for letter in letters["train"] for word in unicodedata.name(letter).split()}
    modifiers = [modifier for letter in letters["train"] for _, modifier in combinations_of(letter)]
    for letter in letters["valid"] | letters["test"]:
        assert combinations_of(letter), "each is a combination"
        assert set(unicodedata.name(letter).split()) <= words
        assert all(modifiers.count(modifier) >= 3 for _, modifier in combinations_of(letter))
    group = glyphs._groups()
    by_split = [set(group[rows]) for rows in glyphs._by_combination().values()]
    assert all(not one & other for one, other in combinations(by_split, 2))


def test_combinations_of_a_name():
    assert combinations_of("\N{LATIN SMALL LETTER A WITH DOT ABOVE AND MACRON}") == [
        ("LATIN LETTER A", "DOT ABOVE"),
        ("LATIN LETTER A", "MACRON"),
    ]
    assert combinations_of("A") == []


def test_held_out_leaves_what_the_parts_are_learnt_from():
    # Of A, E, O with one of two marks each: a mark is left three letters, so with four letters one can go.
    letters = [*"AEOU", *"ÁÉÓÚ"]
    (held,) = held_out(letters, np.arange(8), [4])
    assert len(held) == 1
    assert letters[held[0]] in "ÁÉÓÚ"
    (none,) = held_out(letters, np.array([0, 1, 2, 3, 0, 1, 2, 3]), [4])  # each looks like what is no combination
    assert len(none) == 0


def test_characters_of_no_letters():
    with pytest.raises(UnknownNameError, match="digits"):
        glyphs.characters("digits")


FONTS = {
    "Sans": "3fdf69cabf06049ea70a00b5919340e2ce1e6d02b0cc3c4b44fb6801bd1e0d22",
    "Sans-Bold": "b184b89e3c1075f22f6b71575b6fc20d4972b3cfd3b23322ca6fd596dcaef167",
    "Sans-Oblique": "ccdf74b350f11fd3dd5774de50e5e6346a1a5da1f5b7d5fb83590665e97a5213",
    "Sans-BoldOblique": "6edf0283160186af451cbee71e7b845f2e4cabf264bb992ce668c83c25465e6f",
    "Serif": "107244956e9962b9e96faccdc551825e0ae0898ae13737133e1b921a2fd35ffa",
    "Serif-Bold": "c3753f2ed6bc673f15846dc45addbeb3b9c872f32fb18fd53a21f1bef1ed7676",
    "Serif-Italic": "3e7994fbc54fa10ce3352a42d548fadd7d9cadb69cb1109bc9d960f6dac57f04",
    "Serif-BoldItalic": "d93efec7a9d2e826768d1a2ee95b95870e15e29599a84f3484af1de1cec2e181",
    "SansMono": "602ec86b8948cfcd956482fe64f94c36c867770149ef2f791d4613f443bcecb3",
}
# Ink in pixels, and the row and column of its middle, as FreeType 2.14.3 drew them.
DRAWN = {
    ("A", "Sans"): (77.85, 17.22, 15.51),
    ("g", "Serif"): (78.89, 20.56, 15.48),
    ("\N{CYRILLIC CAPITAL LETTER ZHE}", "Serif-Bold"): (214.48, 17.21, 15.43),
    ("ǘ", "Serif-BoldItalic"): (118.44, 16.90, 15.86),
    ("W", "SansMono"): (91.11, 16.87, 15.50),
}
PIXELS = "e0ea74b371643c18a6456b11f6403c416498c35a10d3a513993cfae09dd57af2"


def test_the_fonts_are_those_that_the_scores_are_of():
    found = {face.file: sha256(glyphs.font_file(face).read_bytes()).hexdigest() for face in glyphs.FACES}
    changed = [file for file, digest in found.items() if digest != FONTS[file]]
    assert not changed, "matplotlib brings other fonts: new images, new splits; scores before and after do not compare"


@pytest.mark.parametrize(("letter", "file"), DRAWN)
def test_letters_are_drawn_where_they_were(letter, file):
    # Within what another FreeType changes: 1 % of the ink, an eighth of a pixel in place.
    face = [face.file for face in glyphs.FACES].index(file)
    image = glyphs.render(32)[glyphs._letters().index(letter), face] / 255
    total, middle, centre = image.sum(), *((np.arange(32) * image.sum(axis)).sum() / image.sum() for axis in (1, 0))
    assert abs(total / DRAWN[letter, file][0] - 1) < 0.01
    assert abs(middle - DRAWN[letter, file][1]) < 1 / 8
    assert abs(centre - DRAWN[letter, file][2]) < 1 / 8


@pytest.mark.skipif(features.version("freetype2") != "2.14.3", reason="pixels are pinned for one FreeType")
def test_every_pixel_is_as_it_was():
    assert sha256(glyphs.render(32).tobytes()).hexdigest() == PIXELS


def test_the_split_is_as_it_was():
    # The same for every rasteriser, since no two letters are near the threshold.
    assert "".join(glyphs.characters("glyphs-sans-to-serif")["test"][:12]) == "HIJKYkÆÓáæìý"
    assert "".join(glyphs.characters("glyphs-combinations")["test"][:: len(glyphs.FACES)][:8]) == "ÁÃÉÊÛÝáã"
    images = glyphs.render(32).reshape(-1, len(glyphs.FACES), 32 * 32).astype(np.float32) / 255
    nearest = np.min([glyphs._distances(images[:, face]) for face in range(len(glyphs.FACES))], axis=0)
    assert not ((nearest > glyphs.ALIKE - 0.04) & (nearest < glyphs.ALIKE + 0.04)).any()
