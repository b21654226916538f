"""Folders of images: alone, in classes, with captions, in pairs, or of two kinds without pairs.

What a folder is shows in what it holds. Images are read as bytes, and divided by 255 on their way to a data set.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from zoo.datasets import captions, pictures
from zoo.datasets.given import ReadNotice
from zoo.datasets.splits import SPLITS, Splits, split_rows
from zoo.datasets.tables import read_texts
from zoo.errors import DatasetError, EmptyDataError, ShapeError

__all__ = ["CAPTIONS", "SIDES", "Pictures", "read"]

Array = np.ndarray[Any, Any]

SIDES = ("A", "B")
"""Names of the two folders of pairs, the endings of those without pairs, the left and the right half of one image."""
CAPTIONS = "captions.csv"
FOLDERS = {"train": ("train",), "valid": ("valid", "val", "validation"), "test": ("test",)}
"""What the folder of a split may be called."""
BYTES = "bytes divided by 255"
AT_RANDOM = "random 80/10/10 split with seed 0"


class Pictures(NamedTuple):
    """What a folder holds: its splits, in words how they were read, and what its card says beyond any card."""

    splits: Splits
    how: str
    card: dict[str, Any]


@dataclass(frozen=True)
class Part:
    """The examples of one folder; `context` are bytes of images, texts, or numbers, as `kind` says."""

    x: Array
    how: str
    context: Array | None = None
    kind: str = ""
    labels: Array | None = None
    classes: tuple[str, ...] = ()
    left_out: str = ""
    image: Array | None = None
    """Numbers of the images that rows show, where several rows may show one."""

    def rows(self, index: Array) -> Part:
        """The chosen examples."""
        context, labels, image = (None if a is None else a[index] for a in (self.context, self.labels, self.image))
        return replace(self, x=self.x[index], context=context, labels=labels, image=image)


def read(folder: Path, side: str | None = None, beside: Array | Path | None = None) -> Pictures:
    """Reads a folder: of two kinds (trainA, trainB, ...), or of folders train, valid or val, and test, or one alone.

    Args:
        folder: What is looked into.
        side: 'A' or 'B': which image of a pair is given, the other is x; None is 'A' where there are pairs to be seen.
            Images that stand in no folders A and B are cut into halves for it, A left and B right.
        beside: A context from elsewhere for images alone: (N, ...), or a folder with images of the same names.

    Raises: DatasetError, EmptyDataError, ShapeError.

    Warns: ReadNotice for images and words that are not read.
    """
    there = set(pictures.folders(folder))
    if there & {name + end for names in FOLDERS.values() for name in names for end in SIDES}:
        _check_no_context(beside, folder)
        return _two_kinds(folder, side or "A")
    if not there & {name for names in FOLDERS.values() for name in names}:
        whole = _part(folder, side, beside)
        _hint_at_halves(whole, folder)
        rows = _split_images(whole, alone=True)
        return _pictures({split: whole.rows(index) for split, index in rows.items()}, AT_RANDOM)
    _check_no_context(beside, folder)
    names, how = _names_of_splits(folder, [""])
    left_out = pictures.left_out(folder, names.values())
    parts = {split: _part(folder / name, side, None) for split, name in names.items()}
    train = parts.pop("train")
    _hint_at_halves(train, folder)
    rows = _split_images(train, alone=not parts) if len(parts) < 2 else {"train": np.arange(len(train.x))}
    shared = {split: train.rows(index) for split, index in rows.items()}
    return _pictures(shared | parts, how + left_out)


def _hint_at_halves(part: Part, folder: Path) -> None:
    """Warns: ReadNotice for images twice as wide as high, which may be pairs."""
    height, width = part.x.shape[-2:]
    if width == 2 * height and part.context is None and not part.classes:
        warnings.warn(
            f"The images of {folder} are twice as wide as high, and were not read as pairs. If they are, say which "
            f"half is given: '{folder}?context=A' (left) or '{folder}?context=B'.",
            ReadNotice,
            stacklevel=5,
        )


def _check_no_context(beside: Array | Path | None, folder: Path) -> None:
    if beside is not None:
        raise DatasetError(
            f"{folder} holds more than images; a context from elsewhere is for a folder of images alone. Pairs that "
            "are split go into train/A, train/B, test/A and test/B."
        )


def _split_images(part: Part, alone: bool) -> dict[str, Array]:
    """Rows of each split, those of one image in one.

    Args:
        part: What is shared out.
        alone: Otherwise there is a test split elsewhere, and a tenth is valid.
    """
    if part.image is None:
        return _shares(len(part.x), alone)
    shares = _shares(int(part.image.max()) + 1, alone)
    return {split: np.flatnonzero(np.isin(part.image, some)) for split, some in shares.items()}


def _shares(n: int, alone: bool) -> dict[str, Array]:
    rows = split_rows(n)
    return rows if alone else {"train": np.concatenate([rows["train"], rows["test"]]), "valid": rows["valid"]}


def _names_of_splits(folder: Path, ends: Sequence[str]) -> tuple[dict[str, str], str]:
    """What the folder of each split is called, without its end, and how the splits come about, in words.

    Raises: DatasetError without one of train, or where of two ends one is not there.
    """
    there = set(pictures.folders(folder))
    named = {
        split: next((name for name in names if there & {name + end for end in ends}), None)
        for split, names in FOLDERS.items()
    }
    found = {split: name for split, name in named.items() if name is not None}
    for name in found.values():
        for end in ends:
            if name + end not in there:
                raise DatasetError(
                    f"{folder} has no folder {name + end}; images of two kinds need {name}A and {name}B."
                )
    if "train" not in found:
        raise DatasetError(
            f"{folder} has a folder {next(iter(found.values())) + ends[0]}, but no {'train' + ends[0]} to learn from; "
            "name one of its folders so, or rename those that are classes."
        )
    if len(found) == 1:
        return found, AT_RANDOM
    if len(found) == len(SPLITS):
        return found, "splits as in its folders"
    other = found[next(split for split in found if split != "train")]
    how = f"the folder {other} is the test split, a tenth of train is valid (seed 0)"
    return {"train": "train", "test": other}, how


def _pictures(parts: Mapping[str, Part], how: str, unpaired: Sequence[str] = ()) -> Pictures:
    """The splits as one data set.

    Raises: DatasetError where they are of different kinds or classes.
    """
    train = parts["train"]
    for split, part in parts.items():
        if (part.kind, bool(part.classes)) != (train.kind, bool(train.classes)):
            raise DatasetError(f"The {split} split is {part.how}, but train is {train.how}; give all in one form.")
    labels = _labels(parts) if train.classes else {}
    context = {split: part.context for split, part in parts.items() if part.context is not None}
    x = {split: part.x for split, part in parts.items()}
    card: dict[str, Any] = {"context_kind": train.kind, "class_names": train.classes, "unpaired": tuple(unpaired)}
    lost = ""
    if train.kind == "caption":
        known = captions.vocabulary(context["train"])
        card["context_names"] = known
        kept, context, lost = _encoded(context, known)
        x = {split: array[kept[split]] for split, array in x.items()}
    left_out = "".join(dict.fromkeys(part.left_out for part in parts.values()))
    context_scale = 255 if train.kind == "image" else 1
    splits = Splits({split: x[split] for split in SPLITS}, context, labels, scale=255, context_scale=context_scale)
    return Pictures(splits, f"{train.how}, {BYTES}{left_out}{lost}; {how}", card)


def _labels(parts: Mapping[str, Part]) -> dict[str, Array]:
    """Numbers of classes as train counts them.

    Raises: DatasetError for a class that train does not have.
    """
    known, found = parts["train"].classes, {}
    for split, part in parts.items():
        for name in part.classes:
            if name not in known:
                raise DatasetError(
                    f"The {split} split has a class {name!r} that train does not have; add or remove it."
                )
        numbers = np.array([known.index(name) for name in part.classes])
        found[split] = numbers[part.labels]
    return found


def _encoded(texts: Mapping[str, Array], known: Sequence[str]) -> tuple[dict[str, Array], dict[str, Array], str]:
    """Captions as numbers of known words, padded alike in all splits: rows with any, their numbers, what was left out.

    Held-out captions hold words that training lacks as a matter of course, and no network has learnt anything of them;
    so they are left out, and said.

    Warns: ReadNotice.
    """
    among = set(known)
    words = {split: [captions.words(text) for text in some] for split, some in texts.items()}
    kept = {split: np.flatnonzero([not among.isdisjoint(row) for row in some]) for split, some in words.items()}
    plain = {split: [" ".join(w for w in words[split][row] if w in among) for row in kept[split]] for split in words}
    rows = {split: captions.encode(some, known) for split, some in plain.items()}
    longest = max(each.shape[1] for each in rows.values())
    padded = {split: np.pad(each, ((0, 0), (0, longest - each.shape[1]))) for split, each in rows.items()}
    new = sorted({word for some in words.values() for row in some for word in row} - among)
    if not new:
        return kept, padded, ""
    gone = sum(map(len, words.values())) - sum(map(len, kept.values()))
    said = f"not read: {len(new)} words that no training caption has ({', '.join(new[:5])}{', ...' * (len(new) > 5)})"
    said += f" and {gone} examples that have no other" * (gone > 0)
    warnings.warn(f"Of the captions, {said}.", ReadNotice, stacklevel=6)
    return kept, padded, f"; {said}"


# One folder


def _part(folder: Path, side: str | None, beside: Array | Path | None) -> Part:
    """What one folder holds itself.

    Raises: DatasetError for a side of what are no pairs; EmptyDataError, ShapeError.
    """
    if set(SIDES) <= set(pictures.folders(folder)):
        _check_no_context(beside, folder)
        return _pairs(folder, side or "A")
    paths = pictures.listed(folder)
    if (folder / CAPTIONS).is_file():
        _check_no_side(side, folder, "captions")
        _check_no_context(beside, folder)
        return _captioned(folder)
    if paths:
        if isinstance(beside, Path):
            return _paired({"A": beside, "B": folder}, "A")
        left_out = pictures.left_out(folder, [path.name for path in paths])
        plain = Part(pictures.stacked(paths), "image folder", left_out=left_out)
        if side is not None:
            return _halved(plain, paths[0], side)
        if beside is not None and len(beside) != len(paths):
            raise ShapeError(f"There are {len(paths)} examples but {len(beside)} rows of context; they must match.")
        return replace(plain, context=beside)
    classes = [name for name in pictures.folders(folder) if pictures.listed(folder / name)]
    if len(classes) < 2:
        others = pictures.left_out(folder, [], quiet=True)
        raise EmptyDataError(
            f"The folder {folder} holds no .png, .jpg or .jpeg images{others}. Give one that does, or that has a "
            "folder of them for each of several classes."
        )
    _check_no_side(side, folder, "classes")
    _check_no_context(beside, folder)
    return _classes(folder, sorted(classes, key=int) if all(name.isdecimal() for name in classes) else classes)


def _check_no_side(side: str | None, folder: Path, what: str) -> None:
    if side is not None:
        raise DatasetError(f"context={side!r} is a side of image pairs, and {folder} has {what}; leave it out.")


def _classes(folder: Path, names: Sequence[str]) -> Part:
    listed = {name: pictures.listed(folder / name) for name in names}
    left_out = pictures.left_out(folder, names)
    left_out += "".join(pictures.left_out(folder / name, [path.name for path in listed[name]]) for name in names)
    x = pictures.stacked([path for paths in listed.values() for path in paths])
    labels = np.repeat(np.arange(len(names)), [len(paths) for paths in listed.values()])
    said = ", ".join(f"{number} {name}" for number, name in enumerate(names))
    how = f"images in {len(names)} classes, a folder each ({said})"
    return Part(x, how, labels=labels, classes=tuple(names), left_out=left_out)


def _captioned(folder: Path) -> Part:
    """A row of the table is an example.

    Raises: DatasetError, with its line, for a file that is not there, or no words.
    """
    files, texts = [], []
    table = folder / CAPTIONS
    for line, (name, text) in read_texts(table, ("file", "caption")):
        if not (folder / name).is_file():
            raise DatasetError(f"{table}, line {line}: there is no image {name!r} in {folder}; correct the name.")
        if not captions.words(text):
            raise DatasetError(f"{table}, line {line}: {name} has no words; write some, or remove the line.")
        files.append(name)
        texts.append(text)
    if not files:
        raise EmptyDataError(f"{table} names no images; expected rows of file and caption below the header.")
    names = list(dict.fromkeys(files))
    number = {name: place for place, name in enumerate(names)}
    image = np.array([number[name] for name in files]) if len(names) < len(files) else None
    x = pictures.stacked([folder / name for name in names])
    return Part(
        x if image is None else x[image],
        f"images with captions ({CAPTIONS})",
        context=np.array(texts, object),
        kind="caption",
        left_out=pictures.left_out(folder, [*(Path(name).parts[0] for name in names), CAPTIONS]),
        image=image,
    )


def _pairs(folder: Path, side: str) -> Part:
    """Of the folders A and B."""
    part = _paired({end: folder / end for end in SIDES}, side)
    how = f"pairs of images (x from {_other(side)}, its context from {side})"
    return replace(part, how=how, left_out=pictures.left_out(folder, SIDES) + part.left_out)


def _paired(folders: Mapping[str, Path], side: str) -> Part:
    """Of two folders, by the names of their images.

    Raises: DatasetError for an image without a partner.
    """
    by_key = {end: pictures.by_key(folder, end) for end, folder in folders.items()}
    for end, other in (SIDES, SIDES[::-1]):
        alone = [path.name for key, path in by_key[end].items() if key not in by_key[other]]
        if alone:
            raise DatasetError(
                f"{folders[end]} has {len(alone)} images that {folders[other]} lacks ({', '.join(alone[:3])}"
                f"{', ...' * (len(alone) > 3)}); pairs have one name in both, so add or remove them."
            )
    found = {end: pictures.stacked([by_key[end][key] for key in by_key["A"]]) for end in SIDES}
    left_out = "".join(
        pictures.left_out(folder, [path.name for path in by_key[end].values()]) for end, folder in folders.items()
    )
    how = f"pairs of images (x from {folders[_other(side)]}, its context from {folders[side]})"
    return Part(found[_other(side)], how, context=found[side], kind="image", left_out=left_out)


def _halved(whole: Part, first: Path, side: str) -> Part:
    """Raises: ShapeError for images of odd width."""
    width = whole.x.shape[-1]
    if width % 2:
        raise ShapeError(
            f"{first} is {width} pixels wide, and has no halves; expected pairs side by side, of one width."
        )
    halves = dict(zip(SIDES, np.split(whole.x, 2, axis=-1), strict=True))
    words = {"A": "the left half", "B": "the right half"}
    how = f"pairs of images side by side (x is {words[_other(side)]}, its context {words[side]})"
    return replace(whole, x=halves[_other(side)], context=halves[side], kind="image", how=how)


def _two_kinds(folder: Path, side: str) -> Pictures:
    """Of trainA, trainB, and so on: each side is shared out by itself, and beside each other they stand by chance.

    The first images of a side that is shorter are repeated. Held-out folders whose images have one name in both hold
    pairs, and are read so.
    """
    names, how = _names_of_splits(folder, SIDES)
    by_key = {
        end: {split: pictures.by_key(folder / (name + end), end) for split, name in names.items()} for end in SIDES
    }
    paths: dict[str, dict[str, list[Path]]] = {}
    for end, found in by_key.items():
        paths[end] = {split: list(some.values()) for split, some in found.items()}
        if len(names) < len(SPLITS):
            train = paths[end].pop("train")
            rows = _shares(len(train), alone=len(names) == 1)
            paths[end] |= {split: [train[row] for row in index] for split, index in rows.items()}
    paired = [split for split in names if split != "train" and by_key["A"][split].keys() == by_key["B"][split].keys()]
    parts = {}
    for split in SPLITS:
        given, made = paths[side][split], paths[_other(side)][split]
        if split in paired:
            given, made = ([by_key[end][split][key] for key in by_key["A"][split]] for end in (side, _other(side)))
        else:
            size, order = max(len(given), len(made)), np.random.RandomState(0).permutation(len(made))
            given = [given[row] for row in np.resize(np.arange(len(given)), size)]
            made = [made[row] for row in np.resize(order, size)]
        what = f"images of two kinds without pairs (x from {_other(side)}, context from {side})"
        parts[split] = Part(pictures.stacked(made), what, context=pictures.stacked(given), kind="image")
    if paired:
        how += f"; in {' and '.join(paired)} names pair them"
    left_out = pictures.left_out(folder, [name + end for name in names.values() for end in SIDES])
    for end in SIDES:
        for split, images in by_key[end].items():
            left_out += pictures.left_out(folder / (names[split] + end), [path.name for path in images.values()])
    return _pictures(parts, how + left_out, unpaired=[split for split in SPLITS if split not in paired])


def _other(side: str) -> str:
    return "B" if side == "A" else "A"
