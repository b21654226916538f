"""The Unicode names of letters: the words they are made of, and which letters are a combination of which parts."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from zoo.datasets.splits import linked

__all__ = ["WORDS", "combinations", "held_out"]

Array = np.ndarray[Any, Any]

_WORDS = """
a abkhasian above accent acute ae african ain alpha alveolar an and angstrom apostrophe archaic armenian
arrow ayb b ban bar barred be below belt ben beta bidental bilabial bottom breve by byelorussian-ukrainian c
ca can capital caron cedilla cha char che cheh chi chin cil circumflex click closed co colon comma constant
crossed-tail curl cyrillic d da dasia db de delta dental descender dezh diaeresis diaeresized diagonal
dialytika digamma digraph dje don dot dotless dotted double down dz dze dzhe e ech ef eh el elifi em en eng
epsilon er es esh et eta eth exclamation ezh f feh feminine feng fi final fishhook fita five fl fricative g
gamma gan georgian ghad ghan ghe gim gje glottal grave greek h ha hae half har hard he heng hie ho hoe hook
horn hv hwair i ie ij in indicator ini inside inverted io iota j ja je jhan jheh jil k ka kai kan kappa keh
kelvin ken khakassian khar kje koppa kra l lambda lamda las lateral latin left leg letter lezh ligature line
liwn lje long loop low ls lunate lz m macron man mark masculine men micro middle modifier mu n nar nje now
nu numeral o oe ogonek oh ohm oi omega omicron on open ordinal over oxia p palatal palochka par pe peh
percussive perispomeni phar pharyngeal phi pi piwr planck preceded prime prosgegrammeni psi psili q qa qar
qp r ra rae raised rams reh retroflex reversed rho right ring s saltillo sampi san schwa script seh sha
sharp shcha shha shin sho short sideways sigma sign six small soft squat stigma stop straight stretched
stroke subscript superscript swash symbol t tail tailless tan tar tau tc te tesh theta thorn tilde tiwn to
tone tonos top topbar triangular ts tse tshe turned two u ukrainian un up upsilon upturn v varia ve vertical
vew vin vo voiced vrachy w we with wynn x xan xeh xi y ya yat yeru yi yiwn yn yogh yot ypogegrammeni yr yu z
za ze zen zeta zhar zhe
"""
# Written down, so that a word has one number whatever fonts there are.
WORDS = ("", *_WORDS.split())
"""Of the names of all letters of `zoo.datasets.glyphs`, by number; 0 is no word."""

LARGEST, LEFT = 12, 3
"""No more letters are held out for one combination; each modifier is left in so many other letters."""


def combinations(letter: str) -> list[tuple[str, str]]:
    """(letter, modifier) for each modifier of a letter's name; capital and small are one letter.

    'LATIN SMALL LETTER A WITH DOT ABOVE AND MACRON' is (LATIN LETTER A, DOT ABOVE) and (LATIN LETTER A, MACRON).
    """
    base, modifiers = _parts(letter)
    plain = base.replace("CAPITAL ", "").replace("SMALL ", "")
    return [(plain, modifier) for modifier in modifiers]


def held_out(letters: Sequence[str], alike: Array, sizes: Sequence[int]) -> list[Array]:
    """Disjoint sets of letters whose combinations no other letter has, though others have every part of them.

    Args:
        letters: All.
        alike: (N,) letters with one number are held out together.
        sizes: Of the sets; the last combination may make one somewhat larger.

    Returns: their places among all, for each set.
    """
    together = _together(letters, alike)
    parts = [_parts(letter) for letter in letters]
    bases = Counter(base for base, _ in parts)
    modifiers = Counter(modifier for _, some in parts for modifier in some)
    sets: list[list[int]] = [[]]
    for first in np.random.RandomState(0).permutation(len(letters)):
        members = [int(row) for row in np.flatnonzero(together == first)]
        if not 0 < len(members) <= LARGEST or not all(parts[row][1] for row in members):
            continue  # of another's number; or too many; or one of them is no combination
        fewer = Counter(parts[row][0] for row in members), Counter(part for row in members for part in parts[row][1])
        if all(bases[base] > count for base, count in fewer[0].items()) and all(
            modifiers[part] - count >= LEFT for part, count in fewer[1].items()
        ):
            bases.subtract(fewer[0])
            modifiers.subtract(fewer[1])
            sets[-1].extend(members)
            if len(sets[-1]) >= sizes[len(sets) - 1]:
                if len(sets) == len(sizes):
                    break
                sets.append([])
    return [np.sort(found) for found in sets]


def _together(letters: Sequence[str], alike: Array) -> Array:
    """Number of the first letter with which each shares a combination or its look, directly or through others."""
    first: dict[tuple[str, str], int] = {}
    pairs = [(row, first.setdefault(part, row)) for row, letter in enumerate(letters) for part in combinations(letter)]
    return linked(len(letters), np.array([*pairs, *enumerate(alike)]))


def _parts(letter: str) -> tuple[str, list[str]]:
    """'A WITH B AND C' -> 'A', ['B', 'C']."""
    base, _, modifiers = unicodedata.name(letter).partition(" WITH ")
    return base, modifiers.split(" AND ") if modifiers else []
