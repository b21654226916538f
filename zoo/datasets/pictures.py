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

CLEAR = (
    "is transparent in places, where you have to choose what shows; on white, say, with PIL: "
    "ground = Image.new('RGBA', image.size, 'white'); ground.alpha_composite(image.convert('RGBA')); "
    "ground.convert('RGB').save(path)."
)
DEEP = "is an image of mode {!r}, not of bytes in grey ('L') or colour ('RGB'); save such images as an array, a .npy."
PRINTED = "is an image of mode 'CMYK', of printers' colours; Image.open(path).convert('RGB').save(path) of PIL."
OTHERWISE = {"CMYK": PRINTED, **dict.fromkeys(("P", "LA", "PA", "RGBA"), CLEAR)}
"""What is said of an image that cannot be read, by its mode."""


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
    """The images, bytes (N, H, W) where all are grey, or (N, 3, H, W), in which a grey one has its level three times.

    Raises: ShapeError for one of another size than the first; DatasetError.
    """
    first = _image(paths[0])
    height, width = first.shape[-2:]
    images, colours = np.empty((len(paths), *first.shape), np.uint8), 0
    for row, path in enumerate(paths):
        image = _image(path)
        if image.shape[-2:] != (height, width):
            beside = paths[0].name if paths[0].parent == path.parent else paths[0]
            raise ShapeError(
                f"{path} is {image.shape[-1]} pixels wide and {image.shape[-2]} high, but {beside} {width} and "
                f"{height}; all must have one size: Image.open(path).resize(({width}, {height})).save(path) of PIL "
                "makes it so."
            )
        if image.ndim == images.ndim:  # in colour, after grey ones
            images = np.repeat(images[:, None], 3, axis=1)
        images[row] = image
        colours += image.ndim == 3
    if 0 < colours < len(paths):
        said = (
            f"{colours} of the {len(paths)} images of {paths[0].parent} are in colour, so the others, which are grey, "
        )
        warnings.warn(said + "were read as colours too.", ReadNotice, stacklevel=7)
    return images


def _image(path: Path) -> Array:
    """Grey (H, W), or colour (3, H, W), turned upright as its EXIF data say."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                mode, shown = image.mode, _shown(ImageOps.exif_transpose(image))
                if shown is not None:
                    array = np.array(shown)
                    return array if array.ndim == 2 else array.transpose(2, 0, 1)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DatasetError(f"{path} is too large for an example: {error}") from error
    except (OSError, SyntaxError, ValueError) as error:  # SyntaxError: how Pillow reports a broken PNG
        raise DatasetError(f"{path} cannot be read as an image: {error}.") from error
    raise DatasetError(f"{path} {OTHERWISE.get(mode, DEEP.format(mode))}")


def _shown(image: Image.Image) -> Image.Image | None:
    """What is seen of an image, in grey ('L') or colour ('RGB'); None where that is not one byte a pixel and colour."""
    if image.mode in ("1", "L"):
        return image.convert("L")
    if image.mode == "RGB":
        return image
    if image.mode not in ("P", "LA", "PA", "RGBA"):
        return None
    whole = image.convert("RGBA")
    red, green, blue, opacity = whole.split()
    if np.array(opacity).min() < 255:
        return None
    grey = image.mode != "RGBA" and red.tobytes() == green.tobytes() == blue.tobytes()
    return red if grey else whole.convert("RGB")
