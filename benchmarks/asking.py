"""What a conditional program is asked for on the command line: words, classes, images to translate, patches to keep."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.distributions import constraints

from inference.fitted import Fit
from zoo import catalogue, datasets
from zoo.datasets.asked import read_context
from zoo.errors import DatasetError, OptionError
from zoo.guards import same_support
from zoo.implicit.puzzle import PuzzleGAN
from zoo.implicit.translators import Translates, TranslatesBack
from zoo.nets import image_shape
from zoo.program import Program
from zoo.puzzles import puzzle_from_boxes

__all__ = ["asked_context", "images_of", "translate_images"]

IMAGES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"}


def asked_context(found: Fit, text: str, n: int, keep: Sequence[str] = ()) -> Tensor:
    """n rows of the context that was asked for in words, (n, ...).

    Args:
        found: A fit of a conditional program, whose data set says what its contexts are.
        text: Attributes ('bold serif', 'bold=1,serif=1'), a caption, a class by its name or number; an image file, or a
            folder of images, where a context is an image or a puzzle.
        n: Rows; what was asked for is repeated.
        keep: Of a puzzle, the boxes 'top,left,height,width' that are given.

    Raises: OptionError for a program without a context, or what cannot be read as one; UnknownNameError for a word that
        is not known; DatasetError for images that cannot be read.
    """
    program, name = found.program, catalogue.name_of(found.program)
    example = program.example_context(1)
    if example is None:
        raise OptionError(f"{name} takes no context: leave out --context.")
    card = datasets.load(found.data).card
    if isinstance(program, PuzzleGAN):
        rows = puzzle_from_boxes(images_of(Path(text), program.event_shape)[0], [_box(each) for each in keep])
    elif keep:
        raise OptionError(f"--keep says which patches of a puzzle are given, and {name} makes no puzzles.")
    elif card.context_kind == "image":
        rows = images_of(Path(text), example.shape[1:])[0]
    elif card.context_kind:
        rows = read_context(card, text, example.shape[-1])[None]
    elif same_support(program.context_support, constraints.one_hot):
        rows = _class(text, example.flatten(1).shape[1]).reshape(example.shape)
    else:
        raise OptionError(
            f"The contexts of {found.data} are plain numbers, which words cannot say: give rows of them by --data."
        )
    return rows.to(example)[torch.arange(n) % len(rows)]


def _class(text: str, classes: int) -> Tensor:
    if not text.isdecimal() or int(text) >= classes:
        raise OptionError(f"The class {text!r} is none of 0 to {classes - 1}.")
    return torch.nn.functional.one_hot(torch.tensor([int(text)]), classes)


def _box(text: str) -> list[int]:
    parts = text.split(",")
    if len(parts) != 4 or not all(part.strip().isdecimal() for part in parts):
        raise OptionError(f"--keep {text!r} is no box: write top,left,height,width in pixels, as in 0,0,16,16.")
    return [int(part) for part in parts]


def images_of(path: Path, shape: Sequence[int]) -> tuple[Tensor, list[str]]:
    """The image of a file, or all of a folder, as a program of that shape takes them, (N, *shape), and their names.

    Made grey or coloured and scaled to the size, values in [0, 1].

    Raises: DatasetError where there are none, or one cannot be read.
    """
    channels, height, width = image_shape(shape)
    paths = _inside(path) if path.is_dir() else [path]
    if not paths or not path.exists():
        raise DatasetError(f"No image at {str(path)!r}; give an image file, or a folder of images.")
    rows = []
    for each in paths:
        try:
            with Image.open(each) as image:
                fitted = image.convert("L" if channels == 1 else "RGB").resize((width, height), Image.Resampling.BOX)
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            raise DatasetError(f"{each} cannot be read as an image: {error}.") from error
        array = np.asarray(fitted, np.float64) / 255
        rows.append(torch.tensor(array if channels == 1 else array.transpose(2, 0, 1)).reshape(tuple(shape)))
    return torch.stack(rows).to(torch.get_default_dtype()), [each.stem for each in paths]


def translate_images(
    folder: Path, source: str, out: Path, *, to: str | None = None, back: bool = False, n: int = 24,
    trust_code: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Translates images by a saved fit, and writes them.

    Args:
        folder: What `zoo fit` wrote.
        source: An image file, a folder of images, or a data set of image pairs (a folder with such in it, too), whose
            test images are translated and whose answers, where they are known, stand beside them.
        out: A .png (input, output and true answer side by side), an .npz (arrays `given`, `made`, `true`), or a folder,
            which gets one .png an image.
        to: Attributes or the class to change to, for a program that changes attributes.
        back: Translates from the target's look to the source's.
        n: Images of a data set, at most.
        trust_code: See `inference.fitted.Fit.load`.

    Raises: OptionError for a program that does not translate, or not that way; what `images_of` raises.
    """
    found = Fit.load(folder, trust_code=trust_code)
    program, name = found.program, catalogue.name_of(found.program)
    if not isinstance(program, Translates):
        raise OptionError(f"{name} does not translate images; those that do: pix2pix, cyclegan, stargan.")
    if back and not isinstance(program, TranslatesBack):
        raise OptionError(f"{name} translates one way; leave out --back.")
    kinds = datasets.load(found.data).card
    if to is None and kinds.context_kind in ("attributes", "class"):
        raise OptionError(f"{name} changes attributes: say which by --to, of {', '.join(kinds.context_names)}.")
    given, true, names = _given(found, program, source, n, back)
    target = None
    if to is not None:
        target = read_context(kinds, to).to(given).expand(len(given), -1)
    made = program.back(given) if back and isinstance(program, TranslatesBack) else program.translate(given, target)
    arrays = {"given": given, "made": made} | ({} if true is None else {"true": true})
    _write(out, {key: value.cpu().numpy() for key, value in arrays.items()}, names)
    return {"program": name, "n": len(given), "from": source, "to": to, "back": back, "out": str(out)}


def _given(found: Fit, program: Program, source: str, n: int, back: bool) -> tuple[Tensor, Tensor | None, list[str]]:
    """Images, their true answers where these are known, and names for them."""
    path = Path(source)
    if path.suffix.lower() in IMAGES or (path.is_dir() and _inside(path)):
        example = program.example_context(1)
        shape = program.event_shape if back or example is None or example.ndim < 3 else example.shape[1:]
        images, names = images_of(path, shape)
        return images, None, names
    dataset = datasets.load(source)
    rows = dataset.test.rows(slice(0, n))
    names = [f"{i:04d}" for i in range(rows.size)]
    if not dataset.translates:
        return rows.x, None, names
    given, true = (rows.x, rows.context) if back else (rows.context, rows.x)
    return given, None if "test" in dataset.card.unpaired else true, names


def _inside(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGES)


def _write(out: Path, arrays: dict[str, np.ndarray[Any, Any]], names: Sequence[str]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".npz":
        np.savez_compressed(out, **arrays)  # type: ignore[arg-type]
    elif out.suffix == ".png":
        from benchmarks.report.pictures import beside_picture  # matplotlib takes seconds to import

        beside_picture(list(arrays.items())).savefig(out, dpi=150)
    elif out.suffix:
        raise OptionError(f"Cannot write images to {out.name!r}; give a .png, an .npz, or a folder.")
    else:
        out.mkdir(exist_ok=True)
        for name, image in zip(names, arrays["made"], strict=True):
            levels = np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8)
            Image.fromarray(levels if levels.ndim == 2 else levels.transpose(1, 2, 0)).save(out / f"{name}.png")
