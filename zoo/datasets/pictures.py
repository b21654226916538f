"""Image files of a folder: which there are, which are left out, and their bytes."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from zoo.datasets.given import ReadNotice
from zoo.errors import DatasetError, EmptyDataError, ShapeError

__all__ = ["by_key", "folders", "left_out", "listed", "stacked"]

Array = np.ndarray[Any, Any]

ENDINGS = {".png", ".jpg", ".jpeg"}


def folders(folder: Path) -> list[str]:
    """Names of those inside, but hidden ones."""
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not _is_hidden(path))


def _is_hidden(path: Path) -> bool:
    return path.name.startswith(".") or path.name == "__MACOSX"  # what systems put beside files


def listed(folder: Path) -> list[Path]:
    """Its images, by name."""
    images = (path for path in folder.iterdir() if path.is_file() and path.suffix.lower() in ENDINGS)
    return sorted(path for path in images if not _is_hidden(path))


def by_key(folder: Path, end: str) -> dict[str, Path]:
    """The images of one side by what a pair's names share: without the ending, and without '_A' or '_B'.

    Raises: EmptyDataError without images, DatasetError for two of one name.
    """
    found: dict[str, Path] = {}
    for path in listed(folder):
        key = path.stem.removesuffix(f"_{end}")
        if key in found:
            raise DatasetError(
                f"{folder} has {found[key].name} and {path.name}, which would be one pair's; rename one."
            )
        found[key] = path
    if not found:
        raise EmptyDataError(f"The folder {folder} holds no .png, .jpg or .jpeg images; put one side's there.")
    return found


def left_out(folder: Path, used: Iterable[str], quiet: bool = False) -> str:
    """'; not read: 3 .bmp, folders a, b'; nothing where there are none.

    Args:
        folder: Whose content is read in part.
        used: Names of what is read.
        quiet: Only says it.

    Warns: ReadNotice, unless what is left out cannot be meant as data.
    """
    used = set(used)
    others = sorted(path for path in folder.iterdir() if path.name not in used and not _is_hidden(path))
    kinds = Counter(path.suffix.lower() or "without an ending" for path in others if not path.is_dir())
    folders = [path.name for path in others if path.is_dir()]
    parts = [f"{count} {kind}" for kind, count in sorted(kinds.items())]
    if folders:
        parts.append(f"{len(folders)} folder{'s' * (len(folders) > 1)} ({', '.join(folders[:5])})")
    if not parts:
        return ""
    if not quiet and (folders or kinds.keys() & Image.registered_extensions().keys()):
        read = sum((folder / name).suffix.lower() in ENDINGS for name in used)
        what = f"{read} images" if read else f"{len(used)} folders"
        warnings.warn(f"Of {folder}, {what} were read; not read: {', '.join(parts)}.", ReadNotice, stacklevel=6)
    return f"; not read: {', '.join(parts)}"


def stacked(paths: Sequence[Path]) -> Array:
    """The images, bytes (N, ...).

    Raises: ShapeError for one of another shape than the first; DatasetError.
    """
    first = _image(paths[0])
    images = np.empty((len(paths), *first.shape), np.uint8)
    for row, path in enumerate(paths):
        image = _image(path)
        if image.shape != first.shape:
            beside = paths[0].name if paths[0].parent == path.parent else paths[0]
            raise ShapeError(
                f"{path} has the shape {image.shape}, but {beside} has {first.shape}; all images must have the "
                "same size and be all grey or all colour."
            )
        images[row] = image
    return images


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
