"""A user's folders of images: pairs, halves, two kinds, classes, captions; and the splits that they come in."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from zoo import catalogue, datasets
from zoo.datasets import loader
from zoo.datasets.data import Dataset
from zoo.datasets.given import ReadNotice
from zoo.datasets.splits import SPLITS, split_rows
from zoo.errors import DatasetError, EmptyDataError, ShapeError, SupportError


def put(folder: Path, levels: Iterable[int], size: tuple[int, int] = (4, 4), names: str = "{}.png") -> None:
    """Grey images of one level each, named by it."""
    folder.mkdir(parents=True, exist_ok=True)
    for level in levels:
        Image.fromarray(np.full(size[::-1], level, np.uint8)).save(folder / names.format(level))


def levels(images: torch.Tensor) -> list[int]:
    """The level of each, once its pixels are seen to be alike."""
    flat = (images.flatten(1) * 255).round()
    assert (flat == flat[:, :1]).all()
    return [int(level) for level in flat[:, 0]]


def both(dataset: Dataset, split: str) -> list[tuple[int, int]]:
    x, context = dataset.split(split)
    return list(zip(levels(context), levels(x), strict=True))


# Pairs


def test_pairs_are_those_of_one_name(tmp_path):
    for level in range(20):
        put(tmp_path / "A", [level], names=f"photo{level}.png")
        put(tmp_path / "B", [100 + level], names=f"photo{level}_B.png")
    dataset = datasets.load(tmp_path)
    seen = [pair for split in SPLITS for pair in both(dataset, split)]
    assert sorted(seen) == [(level, 100 + level) for level in range(20)]
    assert dataset.card.splits == {"train": 16, "valid": 2, "test": 2}
    assert (dataset.card.context_kind, dataset.card.unpaired) == ("image", ())
    # In the order of names, as a text: photo0, photo1, photo10.
    rows = split_rows(20)["test"]
    assert [level for level, _ in both(dataset, "test")] == [sorted(range(20), key=str)[row] for row in rows]


def test_the_given_side_of_pairs_is_said(tmp_path):
    put(tmp_path / "A", range(10))
    for level in range(10):
        put(tmp_path / "B", [100 + level], names=f"{level}.png")
    turned = datasets.load(tmp_path, context="B")
    assert turned.name == f"{tmp_path}?context=B"
    assert all(given == made + 100 for given, made in both(turned, "train"))
    again = datasets.load(turned.name)
    assert again.card == turned.card
    assert torch.equal(again.test.x, turned.test.x)
    assert datasets.load(tmp_path, context="A").train.x.equal(datasets.load(tmp_path).train.x)
    assert loader.named(tmp_path, context="B") == turned.name
    put(tmp_path / "more", [0])
    assert loader.like(turned.name, str(tmp_path / "more")) == f"{tmp_path / 'more'}?context=B"


def test_a_pair_may_be_grey_and_in_colour(tmp_path):
    put(tmp_path / "A", range(4))
    (tmp_path / "B").mkdir()
    for level in range(4):
        Image.new("RGB", (4, 4), (level, 50, 100)).save(tmp_path / "B" / f"{level}.png")
    dataset = datasets.load(tmp_path)
    assert dataset.card.shape == (3, 4, 4)
    assert dataset.train.context.shape == (2, 4, 4)


def test_pairs_in_two_folders_of_any_name(tmp_path, monkeypatch):
    put(tmp_path / "mine" / "photos", range(12))
    put(tmp_path / "mine" / "maps", range(100, 112))
    for level in range(100, 112):
        (tmp_path / "mine" / "maps" / f"{level}.png").rename(tmp_path / "mine" / "maps" / f"{level - 100}.png")
    monkeypatch.chdir(tmp_path)
    dataset = datasets.load("mine/maps", context="mine/photos")
    assert sorted(pair for split in SPLITS for pair in both(dataset, split)) == [(n, 100 + n) for n in range(12)]
    assert dataset.name == "mine/maps?context=photos"
    assert "x from mine/maps, its context from mine/photos" in dataset.card.description
    again = datasets.load(dataset.name)
    assert (again.card, both(again, "test")) == (dataset.card, both(dataset, "test"))
    assert catalogue.get("pix2pix").for_data(*dataset.train).context_shape == (4, 4)
    (tmp_path / "mine" / "photos" / "7.png").unlink()
    with pytest.raises(DatasetError, match=r"mine/maps has 1 images that mine/photos lacks \(7\.png\)"):
        datasets.load("mine/maps", context="mine/photos")
    np.save(tmp_path / "rows.npy", np.zeros((12, 3)))
    with pytest.raises(DatasetError, match="cannot be a context"):
        datasets.load("rows.npy", context="mine/photos")


def test_an_image_without_partner_is_named(tmp_path):
    put(tmp_path / "A", range(4))
    put(tmp_path / "B", range(6))
    with pytest.raises(DatasetError, match=r"B has 2 images that .*A lacks \(4\.png, 5\.png\)"):
        datasets.load(tmp_path)
    put(tmp_path / "A", [4], names="4.jpg")
    put(tmp_path / "A", [5], names="5_A.png")
    assert datasets.load(tmp_path).card.splits["train"] == 4
    put(tmp_path / "A", [5])
    with pytest.raises(DatasetError, match=r"A has 5\.png and 5_A\.png"):
        datasets.load(tmp_path)


def halves(folder: Path, numbers: Iterable[int]) -> None:
    """Pairs side by side: n left, 100 + n right."""
    folder.mkdir(parents=True)
    for number in numbers:
        both = np.repeat(np.array([[number, 100 + number]], np.uint8), 3, axis=1).repeat(3, axis=0)
        Image.fromarray(both).save(folder / f"{number:02}.png")


@pytest.mark.parametrize(("side", "offset"), [("A", 100), ("B", -100)])
def test_pairs_side_by_side_in_folders_of_splits(tmp_path, side, offset):
    halves(tmp_path / "train", range(7))
    halves(tmp_path / "val", range(20, 23))
    halves(tmp_path / "test", range(30, 34))
    dataset = datasets.load(f"{tmp_path}?context={side}")
    assert dataset.card.shape == (3, 3)
    assert dataset.card.splits == {"train": 7, "valid": 3, "test": 4}
    for split, start in (("train", 0), ("valid", 20), ("test", 30)):
        pairs = both(dataset, split)
        assert [made - given for given, made in pairs] == [offset] * len(pairs)
        assert min(min(pair) for pair in pairs) == start
    assert f"context {'the left half' if side == 'A' else 'the right half'}" in dataset.card.description


def test_halves_need_to_be_asked_for_and_of_one_width(tmp_path):
    halves(tmp_path / "wide", range(5))
    with pytest.warns(ReadNotice, match=r"not read as pairs. If they are, .* '.*wide\?context=A' \(left\)"):
        dataset = datasets.load(tmp_path / "wide")
    assert dataset.train.context is None
    assert dataset.card.shape == (3, 6)
    put(tmp_path / "odd", range(4), size=(5, 4))
    with pytest.raises(ShapeError, match="is 5 pixels wide"):
        datasets.load(tmp_path / "odd", context="A")


def test_a_single_held_out_folder_is_the_test_split(tmp_path):
    put(tmp_path / "train", range(20))
    put(tmp_path / "val", range(50, 55))
    dataset = datasets.load(tmp_path)
    assert levels(dataset.test.x) == list(range(50, 55))
    assert sorted(levels(dataset.train.x) + levels(dataset.valid.x)) == list(range(20))
    assert dataset.valid.size == 2
    assert "val is the test split, a tenth of train is valid" in dataset.card.description


def test_a_pix2pix_is_built_for_pairs(tmp_path):
    put(tmp_path / "A", range(8), size=(16, 16))
    put(tmp_path / "B", range(8), size=(16, 16))
    program = catalogue.create_for("pix2pix", datasets.load(tmp_path).train, preset="small")
    assert tuple(program.event_shape) == tuple(program.context_shape) == (16, 16)


# Two kinds


def test_two_kinds_without_pairs(tmp_path):
    put(tmp_path / "trainA", range(30))
    put(tmp_path / "trainB", range(100, 120))
    put(tmp_path / "testA", range(40, 44))
    put(tmp_path / "testB", range(140, 147))
    dataset = datasets.load(tmp_path)
    assert dataset.card.splits == {"train": 27, "valid": 3, "test": 7}
    assert dataset.card.unpaired == SPLITS
    given, made = (set(side) for side in zip(*(both(dataset, "train") + both(dataset, "valid")), strict=True))
    assert (given, made) == (set(range(30)), set(range(100, 120)))
    train, valid = (set(levels(dataset.split(split).x)) for split in ("train", "valid"))
    assert not train & valid
    assert sorted(levels(dataset.test.context)) == sorted([*range(40, 44), 40, 41, 42])
    assert sorted(levels(dataset.test.x)) == list(range(140, 147))
    turned = datasets.load(tmp_path, context="B")
    assert set(levels(turned.train.context)) == train
    assert torch.equal(turned.test.x.unique(), dataset.test.context.unique())


def test_two_kinds_do_not_stay_pairs_but_in_test(tmp_path):
    for split, start, count in (("train", 0, 40), ("test", 50, 6)):
        for level in range(start, start + count):
            put(tmp_path / f"{split}A", [level], names=f"{level}_A.png")
            put(tmp_path / f"{split}B", [100 + level], names=f"{level}_B.png")
    dataset = datasets.load(tmp_path)
    assert dataset.card.unpaired == ("train", "valid")
    assert both(dataset, "test") == [(level, 100 + level) for level in range(50, 56)]
    pairs = both(dataset, "train")
    # A random order keeps one of its places on average, and more than five of forty once in two thousand.
    assert sum(made == 100 + given for given, made in pairs) <= 5
    # What is given in one split is not made in the other.
    assert {made - 100 for _, made in pairs} == {given for given, _ in pairs}


def test_one_kind_alone_is_not_enough(tmp_path):
    put(tmp_path / "trainA", range(4))
    with pytest.raises(DatasetError, match="no folder trainB; images of two kinds need trainA and trainB"):
        datasets.load(tmp_path)


def test_two_kinds_without_a_training_split(tmp_path):
    put(tmp_path / "testA", range(4))
    put(tmp_path / "testB", range(4))
    with pytest.raises(DatasetError, match="a folder testA, but no trainA"):
        datasets.load(tmp_path)


# Classes


def test_classes_are_folders(tmp_path):
    put(tmp_path / "cats", range(10))
    put(tmp_path / "dogs", range(100, 120))
    put(tmp_path / ".hidden", [3])
    (tmp_path / "cats" / "._0.png").write_bytes(b"what a Mac leaves beside a file")
    dataset = datasets.load(tmp_path)
    assert dataset.card.classes == 2
    assert "0 cats, 1 dogs" in dataset.card.description
    for split in SPLITS:
        assert [level >= 100 for level in levels(dataset.split(split).x)] == [*dataset.labels[split].bool()]
    labelled = datasets.load(f"{tmp_path}-labelled")
    assert torch.equal(labelled.train.context.argmax(1), dataset.labels["train"])
    assert labelled.card.context_names == dataset.card.class_names == ("cats", "dogs")


def test_classes_that_are_numbers_are_in_their_order(tmp_path):
    for number in (0, 2, 10):
        put(tmp_path / str(number), range(10 * number, 10 * number + 4))
    dataset = datasets.load(tmp_path)
    assert "0 0, 1 2, 2 10" in dataset.card.description
    assert all(
        (dataset.labels[split] == 2).tolist() == [v >= 100 for v in levels(dataset.split(split).x)] for split in SPLITS
    )


def test_classes_in_folders_of_splits(tmp_path):
    for split, start in (("train", 0), ("validation", 20), ("test", 40)):
        put(tmp_path / split / "a", range(start, start + 3))
        if split != "test":
            put(tmp_path / split / "b", range(start + 100, start + 103))
    put(tmp_path / "test" / "b", [140])
    dataset = datasets.load(tmp_path)
    assert levels(dataset.valid.x) == [20, 21, 22, 120, 121, 122]
    assert dataset.labels["valid"].tolist() == [0, 0, 0, 1, 1, 1]
    assert dataset.labels["test"].tolist() == [0, 0, 0, 1]
    put(tmp_path / "test" / "c", [7])
    with pytest.raises(DatasetError, match="test split has a class 'c' that train does not have"):
        datasets.load(tmp_path)


def test_one_folder_of_images_is_no_class(tmp_path):
    put(tmp_path / "img", range(5))
    with pytest.raises(EmptyDataError, match=r"not read: 1 folder \(img\)\. Give one that does"):
        datasets.load(tmp_path)


def test_splits_of_two_forms_are_refused(tmp_path):
    put(tmp_path / "train" / "a", range(4))
    put(tmp_path / "train" / "b", range(4))
    put(tmp_path / "test", range(4))
    with pytest.raises(DatasetError, match="The test split is image folder, but train is images in 2 classes"):
        datasets.load(tmp_path)


def test_a_test_split_alone_is_refused(tmp_path):
    put(tmp_path / "test", range(4))
    put(tmp_path / "other", range(4))
    with pytest.raises(DatasetError, match="a folder test, but no train to learn from"):
        datasets.load(tmp_path)


# Captions


def captioned(folder: Path, captions: dict[int, list[str]]) -> None:
    put(folder, captions)
    rows = [f'{level}.png,"{text}"\n' for level, texts in captions.items() for text in texts]
    (folder / "captions.csv").write_text("".join(["file,caption\n", *rows]))


def test_captions_are_numbers_of_the_words_of_training(tmp_path):
    captioned(tmp_path / "train", {0: ["A red Circle, small"], 1: ["a blue circle"], 2: ["a red square"]})
    captioned(tmp_path / "valid", {3: ["a blue square"]})
    captioned(tmp_path / "test", {4: ["a green circle"], 5: ["purple"], 6: ["small square"]})
    with pytest.warns(ReadNotice, match=r"2 words that no training caption has \(green, purple\) and 1 examples"):
        dataset = datasets.load(tmp_path)
    card = dataset.card
    assert card.context_kind == "caption"
    assert card.context_names == ("", "a", "blue", "circle", "red", "small", "square")
    assert dataset.train.context.tolist() == [[1, 4, 3, 5], [1, 2, 3, 0], [1, 4, 6, 0]]
    assert dataset.valid.context.tolist() == [[1, 2, 6, 0]]
    assert dataset.test.context.tolist() == [[1, 3, 0, 0], [5, 6, 0, 0]]
    assert levels(dataset.test.x) == [4, 6]
    assert "green, purple" in card.description


def test_captions_of_one_image_are_in_one_split(tmp_path):
    captioned(tmp_path, {level: [f"image {level % 3}", "image"] for level in range(12)})
    dataset = datasets.load(tmp_path)
    assert dataset.card.splits == {"train": 20, "valid": 2, "test": 2}
    found = [set(levels(dataset.split(split).x)) for split in SPLITS]
    assert sum(map(len, found)) == len(set.union(*found)) == 12
    names = dataset.card.context_names
    for level, row in zip(levels(dataset.train.x), dataset.train.context.tolist(), strict=True):
        assert [names[int(number)] for number in row] in (["image", str(level % 3)], ["image", ""])


@pytest.mark.parametrize(
    ("table", "match"),
    [
        ("file,text\n0.png,a\n", r"0 columns 'caption' \(its first row is file, text\)"),
        ("file,caption\n0.png,a\n9.png,b\n", r"line 3: there is no image '9\.png'"),
        ("file,caption\n0.png,a\n1.png,...\n", r"line 3: 1\.png has no words"),
        ("file,caption\n0.png,a,b\n", r"line 2: 3 cells, but 2"),
        ("file,caption\n", r"names no images"),
    ],
)
def test_captions_that_cannot_be_read(tmp_path, table, match):
    put(tmp_path, range(3))
    (tmp_path / "captions.csv").write_text(table)
    with pytest.raises((DatasetError, EmptyDataError), match=match):
        datasets.load(tmp_path)


def test_images_without_a_caption_are_said(tmp_path):
    captioned(tmp_path, {level: ["a word"] for level in range(5)})
    put(tmp_path, [9])
    with pytest.warns(ReadNotice, match=r"5 images were read; not read: 1 \.png"):
        datasets.load(tmp_path)


# What does not fit


def test_a_context_that_a_folder_cannot_have(tmp_path):
    captioned(tmp_path / "words", {level: ["a word"] for level in range(4)})
    put(tmp_path / "kinds" / "a", range(4))
    put(tmp_path / "kinds" / "b", range(4))
    np.save(tmp_path / "angles.npy", np.zeros((8, 1)))
    for name in ("words", "kinds"):
        with pytest.raises(DatasetError, match="is a side of image pairs"):
            datasets.load(tmp_path / name, context="A")
        with pytest.raises(DatasetError, match="for a folder of images alone"):
            datasets.load(tmp_path / name, context=tmp_path / "angles.npy")
    with pytest.raises(SupportError, match="no class labels"):
        datasets.load(f"{tmp_path / 'words'}-labelled")
    with pytest.raises(DatasetError, match="No file or folder"):
        datasets.load(tmp_path / "nowhere", context="A")


def test_what_is_left_out_of_pairs_is_said(tmp_path):
    put(tmp_path / "A", range(4))
    put(tmp_path / "B", range(4))
    put(tmp_path / "C", range(4))
    with pytest.warns(ReadNotice, match=r"2 folders were read; not read: 1 folder \(C\)"):
        dataset = datasets.load(tmp_path)
    assert "1 folder (C)" in dataset.card.description
