"""Image files of every kind that Pillow writes: read as they look, or refused with what to do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from zoo import datasets
from zoo.datasets.given import ReadNotice
from zoo.datasets.pictures import stacked
from zoo.errors import DatasetError

GREYS = np.arange(0, 240, 12, dtype=np.uint8).reshape(4, 5)
COLOURS = np.random.RandomState(0).randint(256, size=(4, 5, 3), dtype=np.uint8)


def saved(folder: Path, image: Image.Image, name: str = "0.png", **options: object) -> Path:
    image.save(folder / name, **options)
    return folder / name


@pytest.mark.parametrize("mode", ["L", "LA", "P"])
def test_greys_are_grey_however_they_are_kept(tmp_path, mode):
    path = saved(tmp_path, Image.fromarray(GREYS).convert(mode))
    with Image.open(path) as image:
        assert image.mode == mode
    assert np.array_equal(stacked([path]), GREYS[None])


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_colours_are_colours_however_they_are_kept(tmp_path, mode):
    image = Image.fromarray(COLOURS)
    path = saved(tmp_path, image.quantize(20) if mode == "P" else image.convert(mode))
    with Image.open(path) as found:
        assert found.mode == mode
        shown = np.array(found.convert("RGB"))
    assert np.array_equal(stacked([path]), shown.transpose(2, 0, 1)[None])
    assert mode == "P" or np.array_equal(shown, COLOURS)


def test_grey_with_opacity_but_in_colour_stays_colour(tmp_path):
    """As a grey one of mode RGB does: what a folder's programs expect does not hang on one image."""
    path = saved(tmp_path, Image.fromarray(GREYS).convert("RGBA"))
    assert stacked([path]).shape == (1, 3, 4, 5)


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P"])
def test_transparent_ones_are_refused_with_what_to_do(tmp_path, mode):
    if mode == "P":
        path = saved(tmp_path, Image.fromarray(COLOURS).quantize(20), transparency=3)
    else:
        image = Image.fromarray(COLOURS).convert(mode)
        image.putalpha(Image.fromarray(GREYS))
        path = saved(tmp_path, image)
    with pytest.raises(DatasetError, match=r"0\.png is transparent in places") as refused:
        datasets.load(tmp_path)
    advice = str(refused.value).split("PIL: ")[1].rstrip(".")
    with Image.open(path) as image:
        image.load()
    exec(advice, {"Image": Image, "image": image, "path": path})
    assert stacked([path]).shape == (1, 3, 4, 5)


def test_printers_colours_are_refused_with_what_to_do(tmp_path):
    path = saved(tmp_path, Image.fromarray(COLOURS).convert("CMYK"), "0.jpg")
    with pytest.raises(DatasetError, match="mode 'CMYK'") as refused:
        datasets.load(tmp_path)
    exec(str(refused.value).split("; ")[1].removesuffix(" of PIL."), {"Image": Image, "path": path})
    assert stacked([path]).shape == (1, 3, 4, 5)


def test_more_than_bytes_are_refused(tmp_path):
    """They would have to be cut to 255."""
    saved(tmp_path, Image.fromarray(GREYS.astype(np.uint16) * 200))
    with pytest.raises(DatasetError, match=r"mode 'I;16', not of bytes .* as an array, a \.npy"):
        datasets.load(tmp_path)


@pytest.mark.parametrize("first", ["grey", "colour"])
def test_grey_and_colour_in_one_folder_are_colour_and_said(tmp_path, first):
    for row in range(6):
        grey = (row % 2 == 0) == (first == "grey")
        saved(tmp_path, Image.fromarray(GREYS if grey else COLOURS), f"{row}.png")
    with pytest.warns(ReadNotice, match="3 of the 6 images of .* are in colour"):
        x = datasets.load(tmp_path).train.x
    kinds = {tuple((image * 255).round().flatten().tolist()) for image in x}
    both = (np.stack([GREYS] * 3), COLOURS.transpose(2, 0, 1))
    assert kinds == {tuple(torch.as_tensor(image).double().flatten().tolist()) for image in both}


@pytest.mark.parametrize("mode", ["L", "P", "RGBA"])
def test_any_is_turned_upright(tmp_path, mode):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned to the right
    path = saved(tmp_path, Image.fromarray(GREYS).convert(mode), exif=exif)
    assert stacked([path]).shape[-2:] == (5, 4)
    assert np.array_equal(np.atleast_3d(stacked([path])[0].T)[..., 0].T, np.rot90(GREYS, -1))
