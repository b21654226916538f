"""The names of characters as documents: what is counted, and that it is the same under every Python."""

from __future__ import annotations

import hashlib

import numpy as np

from zoo import datasets
from zoo.datasets.unicode_names import WORDS, documents


def test_the_corpus_is_the_same_everywhere():
    x = documents()
    assert x.shape == (852, 676)
    assert hashlib.sha256(x.astype("<i8").tobytes()).hexdigest()[:16] == "9de1691a9224c785"


def test_words_are_counted():
    card = datasets.card("unicode-names")
    assert card.names == WORDS == tuple(sorted(WORDS))
    x = documents()
    # A to O of the alphabet, after the sign @: 'LATIN CAPITAL LETTER A', ..., 'COMMERCIAL AT'.
    capitals = {name: x[:, WORDS.index(name)] for name in ("latin", "capital", "letter")}
    row = np.flatnonzero((capitals["latin"] == 15) & (capitals["capital"] == 15) & (capitals["letter"] == 15))[0]
    assert x[row].sum() in (45, 46)
    assert ((x > 0).sum(0) >= 1).all()
    assert (x.sum(1) >= 10).all()


def test_the_header_of_a_table_names_what_is_counted(tmp_path):
    path = tmp_path / "counts.csv"
    path.write_text("apple,pear,plum\n" + "1,0,2\n0,3,1\n" * 5)
    assert datasets.load(str(path)).card.names == ("apple", "pear", "plum")
    assert datasets.load(f"{path}?target=plum,apple&context=pear").card.names == ("plum", "apple")
    path.write_text("1,0,2\n0,3,1\n" * 5)
    assert datasets.load(str(path)).card.names == ()
