"""Vectors of words are correlations; each letter has one word of its name, over its faces all of them."""

from __future__ import annotations

import numpy as np

from zoo import datasets
from zoo.datasets import glyphs
from zoo.datasets.letter_names import WORDS
from zoo.datasets.tags import DIM, glyph_tags, glyph_vectors, named, word_vectors

CAPTIONS = np.array([[1, 2, 0], [1, 3, 0], [2, 2, 3], [1, 2, 0], [4, 0, 0]])


def test_which_words_a_caption_has() -> None:
    assert named(CAPTIONS, 6).astype(int).tolist() == [
        [0, 1, 1, 0, 0, 0], [0, 1, 0, 1, 0, 0], [0, 0, 1, 1, 0, 0], [0, 1, 1, 0, 0, 0], [0, 0, 0, 0, 1, 0],
    ]  # fmt: skip


def test_cosines_are_correlations() -> None:
    vectors = word_vectors(CAPTIONS, 6, 6)
    correlations = np.corrcoef(named(CAPTIONS, 6)[:, 1:5].T)
    assert np.allclose(vectors[1:5] @ vectors[1:5].T, correlations)
    assert not vectors[[0, 5]].any()  # no word, and a word of no caption


def test_vectors_come_from_the_names_of_training_letters_alone() -> None:
    vectors, read = glyph_vectors(), glyphs.captions()
    trained = named(read.context["train"], len(WORDS)).any(0)
    length = np.linalg.norm(vectors, axis=1)
    assert vectors.shape == (len(WORDS), DIM)
    assert np.allclose(length[trained], 1)
    assert not length[~trained].any()


def test_each_letter_has_a_word_of_its_name_and_its_faces_have_all() -> None:
    found, read, vectors = glyph_tags(), glyphs.captions(), glyph_vectors()
    faces = len(glyphs.FACES)
    for split in ("train", "valid", "test"):
        x, captions = found.x[split], read.context[split]
        has = named(captions, len(WORDS)) & (np.linalg.norm(vectors, axis=1) > 0)
        for row in range(0, len(x), faces):
            # Words that always go together have one vector.
            mine = {vector.tobytes() for vector in vectors[has[row]]}
            found_here = {vector.tobytes() for vector in x[row : row + faces]}
            assert found_here <= mine
            assert found_here == mine or has[row].sum() > faces
        assert np.array_equal(found.context[split] * 255, read.x[split])


def test_it_is_a_data_set() -> None:
    data = datasets.load("glyphs-tags")
    assert data.test.x.shape == (1836, DIM)
    assert data.test.context.shape == (1836, 32, 32)
    assert float(data.train.context.max()) == 1.0
