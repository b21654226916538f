"""Letters of the DejaVu fonts that come with matplotlib, as grey images: one character in several faces, and its name.

Every letter that the nine faces share is drawn with its baseline in one place and its advance width centred, in all
faces alike, at a size at which none is cut off. White ink is 1.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from zoo.datasets.captions import encode
from zoo.datasets.letter_names import WORDS, held_out
from zoo.datasets.splits import SPLITS, Splits, linked
from zoo.errors import UnknownNameError
from zoo.process import guest

__all__ = [
    "ATTRIBUTES", "BOLD_SERIF", "FACES", "SANS", "SERIF", "Face",
    "attributes", "captions", "characters", "draw", "faces", "font_file", "pairs", "render",
]  # fmt: skip

Array = np.ndarray[Any, Any]


class Face(NamedTuple):
    """One font file and what its letters look like."""

    file: str
    """Without 'DejaVu' before it and '.ttf' after."""
    family: str
    """'sans', 'serif' or 'mono'."""
    bold: bool = False
    oblique: bool = False


FACES = (
    Face("Sans", "sans"),
    Face("Sans-Bold", "sans", bold=True),
    Face("Sans-Oblique", "sans", oblique=True),
    Face("Sans-BoldOblique", "sans", bold=True, oblique=True),
    Face("Serif", "serif"),
    Face("Serif-Bold", "serif", bold=True),
    Face("Serif-Italic", "serif", oblique=True),
    Face("Serif-BoldItalic", "serif", bold=True, oblique=True),
    Face("SansMono", "mono"),
)
"""The label of an image is the place of its face here."""
FAMILIES = ("sans", "serif", "mono")
ATTRIBUTES = (*FAMILIES, "bold", "oblique")
SANS, SERIF, BOLD_SERIF = 0, 4, 5

CANVAS, EM, BASELINE = 256, 176, 200
"""Drawn at 256x256 and averaged over squares. At this em the tallest, the deepest and the widest letter just fit."""
ALIKE = 0.64
"""Two characters look alike whose 32x32 images differ by less than this in some face, in squared distance: less than
the ink of one pixel. Copies of a letter in other alphabets differ by less than 0.6 (a breve and a caron by that), other
letters by more than 0.68, so that another rasteriser does not move one across."""
TEST, VALID = 0.14, 0.06
"""Shares of the characters."""


def faces(size: int = 32) -> Splits:
    """Every letter in every face; the label is the face."""
    return _in_each_face(_by_character(), size)


def attributes() -> Splits:
    """The same; the context is what the face looks like, in the order of `ATTRIBUTES`."""
    found = faces()
    looks = np.array([[f.family == name for name in FAMILIES] + [f.bold, f.oblique] for f in FACES], np.uint8)
    return Splits(found.x, {split: looks[face] for split, face in found.labels.items()}, found.labels, scale=255)


def pairs(target: int, paired: bool = True) -> Splits:
    """Letters in one face given the same in `Sans`.

    Args:
        target: Place of the face in `FACES`.
        paired: Otherwise x and the context of the training and the valid split are of different characters, a half
            each; where the halves differ in size, the first rows of the smaller are repeated.
    """
    images = render(32)
    x, context = {}, {}
    for split, rows in _by_character().items():
        given, made = (rows, rows) if paired or split == "test" else _halves(rows)
        x[split], context[split] = images[made, target], images[given, SANS]
    return Splits(x, context, scale=255, context_scale=255)


def captions(combinations: bool = False) -> Splits:
    """Every letter in every face; the context is the words of its Unicode name, numbers in `WORDS`.

    Args:
        combinations: Whether the letters of the validation and the test split are combinations that training lacks,
            though it has their parts.
    """
    rows = _by_combination() if combinations else _by_character()
    found = _in_each_face(rows, 32)
    names = encode([unicodedata.name(letter) for letter in _letters()], WORDS)
    context = {split: np.repeat(names[index], len(FACES), 0) for split, index in rows.items()}
    return Splits(found.x, context, found.labels, scale=255)


def characters(name: str) -> dict[str, list[str]]:
    """Split -> the character of each row of x.

    Args:
        name: Of a data set of `zoo.datasets` that starts with 'glyphs'.

    Raises: UnknownNameError for another name.
    """
    if not name.startswith("glyphs"):
        raise UnknownNameError("data set of letters", name, ("glyphs", "glyphs-captions", "glyphs-combinations"))
    rows: Mapping[str, Array] = _by_combination() if "-combinations" in name else _by_character()
    letters = _letters()
    if name.endswith("-unpaired"):
        rows = {split: index if split == "test" else _halves(index)[1] for split, index in rows.items()}
    copies = 1 if "-to-" in name else len(FACES)
    return {split: [letters[row] for row in np.repeat(index, copies)] for split, index in rows.items()}


def _in_each_face(rows: Mapping[str, Array], size: int) -> Splits:
    x = render(size)
    labels = {split: np.tile(np.arange(len(FACES)), len(index)) for split, index in rows.items()}
    return Splits({split: x[index].reshape(-1, size, size) for split, index in rows.items()}, labels=labels, scale=255)


@cache
def _by_character() -> dict[str, Array]:
    """About 80/6/14 of the characters by a permutation with seed 0, those that look alike where the first of them is.

    The place of a group depends on no other group.
    """
    group = _groups()
    n = len(group)
    place = np.random.RandomState(0).permutation(n)[group] / n
    split = np.where(place < TEST, "test", np.where(place < TEST + VALID, "valid", "train"))
    return {name: np.flatnonzero(split == name) for name in SPLITS}


@cache
def _by_combination() -> dict[str, Array]:
    """As many characters as in `_by_character`, held out by combinations of letter and modifier."""
    letters = _letters()
    test, valid = held_out(letters, _groups(), [round(TEST * len(letters)), round(VALID * len(letters))])
    train = np.setdiff1d(np.arange(len(letters)), np.concatenate([test, valid]))
    return {"train": train, "valid": valid, "test": test}


def _halves(rows: Array) -> tuple[Array, Array]:
    """Two halves of some characters, those that look alike in one, of equal length by repetition."""
    group = _groups()
    order = np.random.RandomState(0).permutation(len(group))[group[rows]]
    first = order < np.median(order)
    one, other = rows[first], rows[~first]
    size = max(len(one), len(other))
    return np.resize(one, size), np.resize(other, size)


@cache
def _groups() -> Array:
    """Number of the first character that looks like it, in some face, or looks like one that does, and so on; (N,)."""
    images = render(32).reshape(-1, len(FACES), 32 * 32).astype(np.float32) / 255
    nearest = np.min([_distances(images[:, face]) for face in range(len(FACES))], axis=0)
    return linked(len(images), np.argwhere(nearest < ALIKE))


def _distances(rows: Array) -> Array:
    """Squared distances between rows (N, pixels) -> (N, N)."""
    squares = (rows * rows).sum(1)
    return squares[:, None] + squares - 2 * rows @ rows.T


@cache
def render(size: int) -> Array:
    """All letters in all faces, bytes (characters, faces, size, size).

    Pillow draws them, whose interface lasts; drawn large and averaged, what a version of FreeType fits to the grid of
    pixels moves an edge by an eighth of a pixel at most.
    """
    letters = _letters()
    images = np.empty((len(letters), len(FACES), size, size), np.uint8)
    for column, face in enumerate(FACES):
        font = ImageFont.truetype(str(font_file(face)), EM, layout_engine=ImageFont.Layout.BASIC)
        for row, letter in enumerate(letters):
            images[row, column] = draw(letter, font, size)
    images.flags.writeable = False
    return images


def draw(letter: str, font: ImageFont.FreeTypeFont, size: int) -> Array:
    """One letter, bytes (size, size).

    Args:
        letter: A character that the font has.
        font: Of `EM` pixels.
        size: A divisor of `CANVAS`.
    """
    image = Image.new("L", (CANVAS, CANVAS))
    left = CANVAS // 2 - round(font.getlength(letter) / 2)
    ImageDraw.Draw(image).text((left, BASELINE), letter, fill=255, font=font, anchor="ls")
    return np.asarray(image.reduce(CANVAS // size))


@cache
def _letters() -> Sequence[str]:
    """Those of all faces, by code point."""
    ft2font = guest("matplotlib.ft2font")
    shared = set.intersection(*({*ft2font.FT2Font(str(font_file(face))).get_charmap()} for face in FACES))
    return tuple(chr(code) for code in sorted(shared) if unicodedata.category(chr(code)).startswith("L"))


def font_file(face: Face) -> Path:
    """Where matplotlib keeps it."""
    return Path(guest("matplotlib").get_data_path()) / "fonts" / "ttf" / f"DejaVu{face.file}.ttf"
