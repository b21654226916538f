"""The one loader: a data set by its name, or a file of your own; binarised, or with labels as context, on request."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch.nn.functional import one_hot

from zoo.datasets import binary, files
from zoo.datasets.arrow import has_columns
from zoo.datasets.data import Card, Data, Dataset
from zoo.datasets.given import Fields
from zoo.datasets.picture_folders import SIDES
from zoo.datasets.registry import REGISTRY
from zoo.datasets.sources import placed
from zoo.datasets.tables import Address, Form
from zoo.errors import DatasetError, OptionError, SupportError, UnknownNameError

__all__ = ["base_name", "card", "like", "load", "named", "names"]


def load(
    name_or_file: str | os.PathLike[str],
    *,
    binarise: str | None = None,
    header: bool | None = None,
    target: str | Sequence[str] | None = None,
    context: str | os.PathLike[str] | Sequence[str] | None = None,
    stored: bool | None = None,
) -> Dataset:
    """Loads a data set by its name, or a file of your own.

    Args:
        name_or_file: One of `names()`; or a path: `.npz` (arrays train, valid, test and optionally train_context, ...,
            train_labels, ...; or train alone, or one array, split 80/10/10), `.npy`, `.csv` (numbers, optionally a
            header row), `.parquet`, or a folder of images or of Hugging Face `datasets` (docs/data.md). A path is also
            looked for under `ZOO_DATA`, there without '.npz' too: 'debd/mine' is `debd/mine.npz`.
        binarise: 'threshold' or 'stochastic' (drawn once, with a fixed seed) for data in [0, 1]; binary data stay as
            they are. None leaves all data as they are. 'NAME-binary' and 'NAME-stochastic' are short for it, also after
            the path of a file.
        header: Whether the first row of a .csv is a header; must be said where it counts 0, 1, 2, ..., and is seen
            elsewhere. 'mine.csv-with-header' and 'mine.csv-without-header' are short for it.
        target: Which columns of a table with a header are x: a name, x is then (N,); or a list, x is (N, columns).
            None, or '*', is all that are not the context. Other columns are not read, and may hold text.
        context: Which columns are the context, (N, columns), '*' for all that are not the target; of a folder of image
            pairs, the side that is given, 'A' or 'B'; of what has no columns, another file (.npy, .csv, .npz of one
            array) with a row for each example. A name may say both: 'mine.csv?target=y&context=a,b'.
        stored: Whether rows of .npy, Parquet or `datasets` stay in their file (`zoo.stored`); None: from 1 GiB on.

    'NAME-labelled' (or 'NAME-binary-labelled') has the class labels as context, one-hot (N, classes), for programs that
    are conditional on them.

    Shapes: x is (N, *card.shape) in every split, of torch's default dtype.

    Raises: UnknownNameError (with the nearest names, of columns too), DatasetError for a missing, damaged or unreadable
        file, EmptyDataError, ShapeError, OptionError; SupportError when data outside [0, 1] shall be binarised.
    """
    if binarise is not None and binarise not in binary.HOWS:
        raise OptionError(f"binarise is {binarise!r}; expected {' or '.join(map(repr, binary.HOWS))}, or None.")
    said = Form(header, Fields(target, context))
    if isinstance(name_or_file, os.PathLike):  # a Path is never a name
        return _binarised(files.load(Path(name_or_file), _from_here(Path(name_or_file), said), stored), binarise)
    if _is_labelled(name_or_file):
        base = _with_labels(name_or_file)
        return _labelled(load(base, binarise=binarise, header=header, target=target, context=context, stored=stored))
    base, how = _parse(name_or_file)
    if how and binarise and how != binarise:
        raise OptionError(f"{name_or_file!r} is binarised by {how}, but binarise is {binarise!r}; give one of them.")
    if base in REGISTRY:
        if said or stored:
            raise OptionError(f"header, target, context and stored are of files; {base!r} is a data set of the zoo.")
        entry = REGISTRY[base]
        return _binarised(entry.read().dataset(entry.card), how or binarise)
    path, of_name = Address.of(base)
    if said and of_name and said != of_name:
        raise OptionError(f"{name_or_file!r} says how it is read, and the options say otherwise; give one of them.")
    if not os.path.exists(path) and (own := placed(str(path))) is not None:
        path = own
    elif not files.is_path(base):
        raise UnknownNameError("data set", name_or_file, names())
    return _binarised(files.load(path, of_name or _from_here(path, said), stored), how or binarise)


def like(name: str, other: str) -> str:
    """The name of another file read as the one that `name` is of: a table without a word of its own gets its columns,
    a folder its side."""
    path, form = Address.of(other)
    of_name = Address.of(_without_suffixes(name))
    tables = all(has_columns(p) for p in (path, of_name.path))
    sided = os.path.isdir(path) and of_name.form.fields.context in SIDES
    return other + of_name.form.ending() if of_name.form.fields and not form and (tables or sided) else other


def named(
    file: str | os.PathLike[str],
    target: str | Sequence[str] | None = None,
    context: str | os.PathLike[str] | Sequence[str] | None = None,
) -> str:
    """The name by which `load` reads a file with this target and context.

    Raises: OptionError for a data set of the zoo, DatasetError for columns of what has none.
    """
    if _without_suffixes(str(file)) in REGISTRY:
        raise OptionError(f"Target and context are chosen in files; {str(file)!r} is a data set of the zoo.")
    return str(file) + _from_here(Path(file), Form(fields=Fields(target, context))).ending()


def _from_here(path: Path, form: Form) -> Form:
    """A form given as options: a context in another file is named by its way from the data."""
    context = form.fields.context
    if context is not None and not has_columns(path) and not (os.path.isdir(path) and context in SIDES):
        if not isinstance(context, str | os.PathLike):
            raise DatasetError(
                f"context={context!r} names columns of a .csv or .parquet; {path} is none. Give a file with its rows."
            )
        way = os.path.relpath(context, path.parent)
        return form._replace(fields=replace(form.fields, context=way))
    return form


def names() -> list[str]:
    """The names that `load` knows; those in [0, 1] also binarised, those with labels also with these as context."""
    return [
        name + suffix + labelled
        for name, entry in REGISTRY.items()
        for labelled in (("", LABELLED) if entry.card.classes else ("",))
        for suffix in (("", *SUFFIXES) if entry.card.support == "unit" else ("",))
    ]


def card(name: str) -> Card:
    """What is known of a data set, without reading it.

    Raises: UnknownNameError; SupportError for a binarised form that does not exist.
    """
    if _is_labelled(name):
        return _labelled_card(card(name.removesuffix(LABELLED)))
    base, how = _parse(name)
    if base not in REGISTRY:
        raise UnknownNameError("data set", name, names())
    found = REGISTRY[base].card
    return found if how is None else _binarised_card(found, how)


def base_name(name: str) -> str:
    """The data behind a name: 'mnist10k-binary-labelled' -> 'mnist10k'."""
    name = _without_suffixes(name)
    path, form = Address.of(name)
    return name[: -len(form.ending())] if form and os.path.exists(path) else name


def _without_suffixes(name: str) -> str:
    for suffix in (LABELLED, *SUFFIXES):
        name = name.removesuffix(suffix)
    return name


SUFFIXES = {"-binary": "threshold", "-stochastic": "stochastic"}
LABELLED = "-labelled"


def _is_labelled(name: str) -> bool:
    return name.endswith(LABELLED) and not os.path.exists(name)


def _with_labels(name: str) -> str:
    """The name without its ending; data of the zoo that have no labels are refused before they are fetched."""
    base = name.removesuffix(LABELLED)
    if _parse(base)[0] in REGISTRY:
        card(name)
    return base


def _labelled_card(card: Card) -> Card:
    if not card.classes:
        raise SupportError(f"There is no {card.name + LABELLED!r}: {card.name!r} has no class labels.")
    description = f"{card.description} The context is the class, one-hot, of {card.classes}."
    names = card.class_names or tuple(map(str, range(card.classes)))
    return replace(card, name=card.name + LABELLED, description=description, context_kind="class", context_names=names)


def _labelled(dataset: Dataset) -> Dataset:
    card = _labelled_card(dataset.card)

    def split(name: str) -> Data:
        x = dataset.split(name).x
        return Data(x, one_hot(dataset.labels[name].long(), card.classes).to(x))

    return Dataset(card, train=split("train"), valid=split("valid"), test=split("test"), labels=dataset.labels)


def _parse(name: str) -> tuple[str, str | None]:
    """'digits-binary' -> ('digits', 'threshold'); other names as they are."""
    for suffix, how in SUFFIXES.items():
        base = name.removesuffix(suffix)
        if base != name and os.path.exists(Address.of(base).path) and not os.path.exists(name):
            return base, how  # a file of your own, under the name that its binarised form carries
        if base != name and base in REGISTRY:
            support = REGISTRY[base].card.support
            if support != "unit":
                raise SupportError(
                    f"There is no {name!r}: only data in [0, 1] are binarised, and {base!r} is {support}."
                )
            return base, how
    return name, None


def _binarised_card(card: Card, how: str) -> Card:
    suffix = next(suffix for suffix, meaning in SUFFIXES.items() if meaning == how)
    drawn = ", drawn once with seed 0" if how == "stochastic" else ""
    description = f"{card.description} Binarised: {binary.HOWS[how]}{drawn}."
    return replace(card, name=card.name + suffix, description=description, support="binary")


def _binarised(dataset: Dataset, how: str | None) -> Dataset:
    if how is None or dataset.card.support == "binary":
        return dataset
    generator = torch.Generator().manual_seed(0)

    def split(data: Data) -> Data:
        # Drawn in float64 whatever the default dtype, so that every dtype gets the same images.
        return Data(binary.binarise(data.x.double(), how, generator).to(data.x.dtype), data.context)

    train, valid, test = split(dataset.train), split(dataset.valid), split(dataset.test)
    return Dataset(_binarised_card(dataset.card, how), train=train, valid=valid, test=test, labels=dataset.labels)
