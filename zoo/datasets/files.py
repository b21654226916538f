"""Data of the user's own: `.npz`, `.npy`, `.csv`, or a folder of images.

Values are taken as they are, bytes included; only images, whose format says what a value means, are divided by 255.
The card's description says what was done, and a `ReadNotice` which images of a folder were left out.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from zoo.datasets.data import Card, Dataset
from zoo.datasets.sources import at_home
from zoo.datasets.splits import SPLITS, Splits, split_rows
from zoo.errors import DatasetError, EmptyDataError, ShapeError

__all__ = ["FORMS", "HEADERS", "ReadNotice", "is_path", "load", "path_of"]

Array = np.ndarray[Any, Any]

FORMS = ".npz, .npy, .csv, or a folder of .png or .jpg images"
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg"}
HEADERS = {"-with-header": True, "-without-header": False}
"""What may follow the path of a .csv, and whether its first row is then a header."""
BOMB_BYTES, BOMB_RATIO = 2**30, 100
"""An archive that unpacks to more bytes than the first, and to more than so many times its own, is refused."""


class ReadNotice(UserWarning):
    """Something of a folder was left out."""


def is_path(name: str) -> bool:
    """Whether a string means a file or folder rather than a name: it exists, has a folder in it, or a known ending."""
    path = path_of(name)[0]
    return bool(name) and (path.exists() or len(path.parts) > 1 or path.suffix.lower() in READERS)


def path_of(name: str) -> tuple[Path, bool | None]:
    """The path in a name, and whether the name says that its first row is a header: 'mine.csv-with-header'."""
    for ending, header in HEADERS.items():
        base = name.removesuffix(ending)
        if base != name and base.lower().endswith(".csv"):
            return Path(base), header
    return Path(name), None


def load(path: Path, header: bool | None = None) -> Dataset:
    """Reads a file or folder into a data set.

    Args:
        path: Where it is.
        header: Whether the first row of a .csv is a header; None is for where that can be seen.

    Raises: DatasetError for what is missing, damaged or of another form; EmptyDataError; ShapeError.

    Warns: ReadNotice for images of a folder that are not read.
    """
    path = at_home(path)
    name = str(path)
    if header is not None:
        if path.suffix.lower() != ".csv" or path.is_dir():
            raise DatasetError(f"header is of .csv files; {path} is none.")
        name += next(ending for ending, means in HEADERS.items() if means == header)
    if path.is_dir():
        images, left_out = _images(path)
        splits, how = _split(images, f"image folder, bytes divided by 255{left_out}", scale=255)
    elif not path.exists():
        raise DatasetError(f"No file or folder {str(path)!r} (looked at {path.absolute()}).")
    elif not path.is_file():
        raise DatasetError(f"{path} is a pipe or a device, which would be waited for; expected {FORMS}.")
    elif path.suffix.lower() in READERS:
        options = {} if header is None else {"header": header}
        splits, how = READERS[path.suffix.lower()](path, **options)
    else:
        raise DatasetError(f"Cannot tell the form of {path}; expected {FORMS}.")
    shape = _event_shape(splits, path)
    sizes = {name: len(splits.x[name]) for name in SPLITS}
    description, source = f"User data: {how}.", f"file {path.absolute()}"
    return splits.dataset(
        Card(
            name,
            description,
            shape=shape,
            support=_support(splits),
            splits=sizes,
            source=source,
            licence="not known (user data)",
        )
    )


def _split(x: Array, how: str, scale: float = 1.0) -> tuple[Splits, str]:
    splits = Splits({name: x[index] for name, index in split_rows(len(x)).items()}, scale=scale)
    return splits, f"{how}; random 80/10/10 split with seed 0"


def _npz(path: Path) -> tuple[Splits, str]:
    try:
        with path.open("rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as archive:
            assert archive.zip is not None
            unpacked, packed = sum(entry.file_size for entry in archive.zip.infolist()), path.stat().st_size
            if unpacked > max(BOMB_BYTES, BOMB_RATIO * packed):
                raise OSError(f"its {packed:,} bytes unpack to {unpacked:,}; if they are meant, save it uncompressed")
            arrays: dict[str, Array] = dict(archive)
    except Exception as error:  # a damaged archive can raise nearly anything, from zlib.error to NotImplementedError
        raise _unreadable(path, error) from error
    for key, array in arrays.items():
        _check(array, f"{path}[{key!r}]")
    if len(arrays) == 1:
        ((key, x),) = arrays.items()
        return _split(x, f"array {key!r} as in the file")
    contexts = [f"{name}_context" for name in SPLITS]
    if set(arrays) == set(SPLITS):
        return Splits(arrays), "arrays train, valid and test as in the file"
    if set(arrays) == {*SPLITS, *contexts}:
        x_by_split = {name: arrays[name] for name in SPLITS}
        context = {name: arrays[f"{name}_context"] for name in SPLITS}
        return Splits(x_by_split, context), "arrays train, valid and test and their contexts as in the file"
    raise DatasetError(
        f"{path} holds the arrays {', '.join(sorted(arrays)) or '(none)'}; expected train, valid and test, optionally "
        f"with {', '.join(contexts)} (all three), or one array under any name, which is then split."
    )


def _npy(path: Path) -> tuple[Splits, str]:
    try:
        with path.open("rb") as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
    except Exception as error:
        raise _unreadable(path, error) from error
    _check(array, str(path))
    return _split(array, "values as in the file")


def _unreadable(path: Path, error: Exception) -> DatasetError:
    return DatasetError(
        f"{path} cannot be read as {path.suffix}: {error}. It may be cut off, or hold objects; write it again."
    )


def _csv(path: Path, header: bool | None = None) -> tuple[Splits, str]:
    try:
        lines = list(enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1))
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error
    lines = [(number, line) for number, line in lines if line.strip()]
    first = lines[0][1].split(",") if lines else []
    if header is None and _counts_up(first):
        raise DatasetError(
            f"{path}, line {lines[0][0]}: the first row counts up ({', '.join(first[:3])}{', ...' * (len(first) > 3)}),"
            " which may be an example or a header as pandas writes it. Say which: load(..., header=True) or "
            f"header=False; by name, '{path}-with-header' or '{path}-without-header'."
        )
    headed = header if header is not None else not any(_is_number(field) for field in first)
    if lines and headed:
        del lines[0]
    if not lines:
        raise EmptyDataError(f"{path} holds no rows of numbers.")
    try:
        array = np.loadtxt([line for _, line in lines], delimiter=",", ndmin=2, comments=None)
    except ValueError as error:
        fault = _csv_fault(lines) or str(error)
        raise DatasetError(f"{path}, {fault}; expected numbers with commas between them.") from error
    return _split(array, f"a row an example, values as in the file{', without its first row' * headed}")


def _csv_fault(lines: list[tuple[int, str]]) -> str | None:
    """Where the first thing is that is not a table of numbers."""
    width = len(lines[0][1].split(","))
    for number, line in lines:
        fields = line.split(",")
        for field in fields:
            if not _is_number(field):
                return f"line {number}: {field!r} is not a number"
        if len(fields) != width:
            return f"line {number}: {len(fields)} numbers, but {width} in line {lines[0][0]}"
    return None


def _counts_up(fields: list[str]) -> bool:
    """Whether a first row is 0, 1, ..., or three and more whole numbers one after the other: what columns without names
    are called."""
    if not fields or not all(field.strip().isdecimal() for field in fields):
        return False
    numbers = [int(field) for field in fields]
    return numbers == list(range(numbers[0], numbers[0] + len(numbers))) and (numbers[0] == 0 or len(numbers) >= 3)


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _images(folder: Path) -> tuple[Array, str]:
    """The images (N, ...) of a folder itself, and what of it was left out, in words."""
    inside = sorted(folder.iterdir())
    paths = [path for path in inside if path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES]
    left_out = _left_out([path for path in inside if path not in set(paths)])
    if not paths:
        raise EmptyDataError(f"The folder {folder} holds no .png, .jpg or .jpeg images{left_out}.")
    first = _image(paths[0])
    images = np.empty((len(paths), *first.shape), np.uint8)
    for row, path in enumerate(paths):
        image = _image(path)
        if image.shape != first.shape:
            raise ShapeError(
                f"{path} has the shape {image.shape}, but {paths[0].name} has {first.shape}; all images must have the "
                "same size and be all grey or all colour."
            )
        images[row] = image
    if "folder" in left_out or any(ending in left_out for ending in Image.registered_extensions()):
        warnings.warn(f"Of {folder}, {len(paths)} images were read{left_out}.", ReadNotice, stacklevel=4)
    return images, left_out


def _left_out(others: list[Path]) -> str:
    """'; not read: 3 .bmp, folders a, b'; nothing where there are none."""
    kinds = Counter(path.suffix.lower() or "without an ending" for path in others if not path.is_dir())
    folders = [path.name for path in others if path.is_dir()]
    parts = [f"{count} {kind}" for kind, count in sorted(kinds.items())]
    if folders:
        parts.append(f"{len(folders)} folder{'s' * (len(folders) > 1)} ({', '.join(folders[:5])})")
    return f"; not read: {', '.join(parts)}" if parts else ""


def _image(path: Path) -> Array:
    """Grey (H, W), or colour (3, H, W), turned upright as its EXIF data say."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                mode = image.mode
                upright = ImageOps.exif_transpose(image) if mode in ("1", "L", "RGB") else image
                if mode in ("1", "L"):
                    return np.array(upright.convert("L"))
                if mode == "RGB":
                    return np.array(upright).transpose(2, 0, 1)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DatasetError(f"{path} is too large for an example: {error}") from error
    except (OSError, SyntaxError, ValueError) as error:  # SyntaxError: how Pillow reports a broken PNG
        raise DatasetError(f"{path} cannot be read as an image: {error}.") from error
    raise DatasetError(f"{path} is an image of mode {mode!r}; expected grey ('L') or colour ('RGB'). Convert it first.")


def _check(array: Array, what: str) -> None:
    if array.dtype.kind not in "buif":
        raise DatasetError(f"{what} has the type {array.dtype}; expected numbers (bool, integer or float).")
    if array.ndim == 0 or array.size == 0:
        raise EmptyDataError(f"{what} of shape {array.shape} holds no examples; expected (N, ...) with N >= 1.")


def _event_shape(splits: Splits, path: Path) -> tuple[int, ...]:
    for what, arrays in (("examples", splits.x), ("context", splits.context)):
        shapes = {name: array.shape[1:] for name, array in arrays.items()}
        if len(set(shapes.values())) > 1:
            raise ShapeError(f"{path}: the splits differ in the shape of their {what}: {shapes}.")
    for name, context in splits.context.items():
        if len(context) != len(splits.x[name]):
            raise ShapeError(f"{path}: {name} has {len(splits.x[name])} examples but {len(context)} rows of context.")
    return tuple(splits.x["train"].shape[1:])


def _support(splits: Splits) -> str:
    """The narrowest kind that holds all values; NaN and infinity are left for the programs to find."""
    arrays, top = list(splits.x.values()), splits.scale
    if all(bool(np.isin(array, (0, top)).all()) for array in arrays):
        return "binary"
    if all(bool(((array >= 0) & (array <= top)).all()) for array in arrays):
        return "unit"
    return "integer" if all(bool((array == np.rint(array)).all()) for array in arrays) else "real"


READERS: dict[str, Callable[..., tuple[Splits, str]]] = {".npz": _npz, ".npy": _npy, ".csv": _csv}
