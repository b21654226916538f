"""What is asked for in words or images, and `zoo translate`: what was given stands beside what was made of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import asking
from benchmarks.asking import asked_context, images_of
from inference import Fit, fit
from zoo import datasets
from zoo.datasets import Dataset
from zoo.errors import DatasetError, OptionError, UnknownNameError

PAIRS = "glyphs-sans-to-serif"
QUICK = {"steps": 2, "batch_size": 4, "compile": "never"}


@pytest.fixture(scope="module")
def translator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved pix2pix that has learnt next to nothing."""
    folder = tmp_path_factory.mktemp("pix2pix")
    options = {"channels": [4, 8], "program.critic": {"channels": [4]}, "reconstruction": 1.0}
    fit("pix2pix", PAIRS, "gan", out=folder, **QUICK, **options)
    return folder


@pytest.fixture(scope="module")
def both_ways(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved CycleGAN that has learnt next to nothing."""
    folder = tmp_path_factory.mktemp("cyclegan")
    options = {"channels": [2, 4, 4], "blocks": 1, "program.critic": {"channels": [4]}}
    fit("cyclegan", f"{PAIRS}-unpaired", "cycle", out=folder, **QUICK, **options)
    return folder


def picture(path: Path, size: tuple[int, int] = (50, 40), mode: str = "RGB") -> Path:
    rng = np.random.RandomState(0)
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    Image.fromarray(rng.randint(0, 256, shape, np.uint8), mode).save(path)
    return path


def test_images_are_fitted_to_the_program(tmp_path: Path) -> None:
    grey = np.kron(np.array([[0, 255], [255, 0]], np.uint8), np.ones((8, 8), np.uint8))
    Image.fromarray(grey).save(tmp_path / "a.png")
    images, names = images_of(tmp_path / "a.png", (2, 2))
    assert (images.tolist(), names) == ([[[0.0, 1.0], [1.0, 0.0]]], ["a"])
    picture(tmp_path / "b.jpg")
    (tmp_path / "notes.txt").write_text("no image")
    images, names = images_of(tmp_path, (3, 4, 5))
    assert (tuple(images.shape), names) == ((2, 3, 4, 5), ["a", "b"])
    assert torch.equal(images[0, 0], images[0, 1])  # grey in three channels
    with pytest.raises(DatasetError, match=r"notes\.txt cannot be read"):
        images_of(tmp_path / "notes.txt", (2, 2))
    with pytest.raises(DatasetError, match="No image"):
        images_of(tmp_path / "none.png", (2, 2))


def test_translate_sets_the_true_answer_beside(zoo: Any, translator: Path, tmp_path: Path) -> None:
    code, out, _ = zoo("translate", translator, PAIRS, "--out", tmp_path / "t.npz", "-n", 5, "--json")
    assert (code, json.loads(out)["n"]) == (0, 5)
    found, test = np.load(tmp_path / "t.npz"), datasets.load(PAIRS).test
    assert np.allclose(found["given"], test.context[:5])
    assert np.allclose(found["true"], test.x[:5])
    assert found["made"].shape == (5, 32, 32)
    assert zoo("translate", translator, PAIRS, "--out", tmp_path / "t.png")[0] == 0
    with Image.open(tmp_path / "t.png") as sheet:
        assert sheet.size[0] > 200


def test_translate_pictures_of_ones_own(zoo: Any, translator: Path, tmp_path: Path) -> None:
    mine = picture(tmp_path / "mine.png")
    code, out, _ = zoo("translate", translator, mine, "--out", tmp_path / "made")
    assert code == 0
    assert "1 image of" in out
    with Image.open(tmp_path / "made" / "mine.png") as made:
        assert made.size == (32, 32)


def test_pictures_are_written_grey_or_in_colour(tmp_path: Path) -> None:
    draw = np.random.default_rng(0).random
    for made in (draw((2, 4, 5)), draw((2, 3, 4, 5))):
        asking._write(tmp_path / str(made.ndim), {"made": made}, ["a", "b"])
        for name, expected in zip(("a.png", "b.png"), made, strict=True):
            with Image.open(tmp_path / str(made.ndim) / name) as found:
                levels = np.asarray(found) if made.ndim == 3 else np.moveaxis(np.asarray(found), -1, 0)
            np.testing.assert_array_equal(levels, np.rint(255 * expected))


@pytest.mark.parametrize("paired", [True, False])
def test_translate_a_folder_of_two_sides(zoo: Any, translator: Path, tmp_path: Path, paired: bool) -> None:
    mine = tmp_path / "mine"
    for number, side in enumerate("AB" if paired else ["trainA", "trainB", "testA", "testB"]):
        (mine / side).mkdir(parents=True)
        for image in range(3):
            name = f"{image if paired else f'{side}{image}'}.png"
            Image.fromarray(np.full((32, 32), 10 * image + number, np.uint8)).save(mine / side / name)
    assert zoo("translate", translator, mine, "--out", tmp_path / "t.npz")[0] == 0
    found, test = np.load(tmp_path / "t.npz"), datasets.load(mine).test
    assert np.allclose(found["given"], test.context)
    assert ("true" in found) == paired
    if paired:
        assert np.allclose(found["true"], test.x)


def test_translate_back(zoo: Any, translator: Path, both_ways: Path, tmp_path: Path) -> None:
    assert zoo("translate", both_ways, PAIRS, "--back", "-n", 3, "--out", tmp_path / "b.npz")[0] == 0
    found, test = np.load(tmp_path / "b.npz"), datasets.load(PAIRS).test
    assert np.allclose(found["given"], test.x[:3])
    assert np.allclose(found["true"], test.context[:3])
    expected = Fit.load(both_ways).program.back(test.x[:3])
    assert np.allclose(found["made"], expected.numpy(), atol=1e-6)
    code, _, err = zoo("translate", translator, PAIRS, "--back", "--out", tmp_path / "c.npz")
    assert (code, "one way" in err) == (2, True)


def test_attributes_are_asked_for_by_name(zoo: Any, tmp_path: Path) -> None:
    options = {"channels": [2, 4, 4], "blocks": 1, "gallery": 4, "program.critic": {"channels": [4]}}
    fit("stargan", "glyphs-attributes", "star", out=tmp_path / "star", **QUICK, **options)
    code, _, err = zoo("translate", tmp_path / "star", "glyphs", "--out", tmp_path / "t.npz")
    assert (code, "say which by --to, of sans, serif, mono, bold, oblique" in err) == (2, True)
    bold = ("--to", "bold serif", "-n", 3, "--out", tmp_path / "t.npz")
    assert zoo("translate", tmp_path / "star", "glyphs", *bold)[0] == 0
    asked = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0])
    expected = Fit.load(tmp_path / "star").program.translate(datasets.load("glyphs").test.x[:3], asked)
    assert np.allclose(np.load(tmp_path / "t.npz")["made"], expected.numpy(), atol=1e-6)


def test_what_does_not_translate_is_refused(zoo: Any, fitted: Path, tmp_path: Path) -> None:
    code, _, err = zoo("translate", fitted, "digits", "--out", tmp_path / "t.png")
    assert (code, "does not translate" in err) == (2, True)


def test_a_saved_translator_is_scored_beside_copying(zoo: Any, translator: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("benchmarks.commands.classifiers_for", lambda *_, **__: {})
    code, out, _ = zoo("score", translator, "--json")
    assert code == 0
    scores = json.loads(out)["scores"]
    assert 0 <= scores["recognition"]["value"] <= 1
    test = datasets.load(PAIRS).test
    assert scores["pixel_error"]["copying"] == pytest.approx(float((test.context - test.x).abs().mean()), rel=1e-5)
    assert "copying" in zoo("score", translator)[1]


def test_sample_what_is_asked_for(zoo: Any, translator: Path, tmp_path: Path) -> None:
    mine = picture(tmp_path / "mine.png")
    assert zoo("sample", translator, "--context", mine, "-n", 3, "--out", tmp_path / "s.npz")[0] == 0
    assert np.load(tmp_path / "s.npz")["samples"].shape == (3, 32, 32)
    code, _, err = zoo("sample", translator, "--context", mine, "--data", PAIRS, "--out", tmp_path / "s.npz")
    assert (code, "--context or by --data" in err) == (2, True)
    code, _, err = zoo("sample", translator, "--keep", "0,0,2,2", "--out", tmp_path / "s.npz")
    assert (code, "of which image" in err) == (2, True)


def test_a_class_by_the_name_of_its_folder(zoo: Any, tmp_path: Path) -> None:
    for name in ("cats", "golden retrievers"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for i in range(10):
            picture(tmp_path / "pets" / name / f"{i}.png", (16, 16), "L")
    options = {"channels": [2, 4], "blocks": 1, "program.critic": {"channels": [4, 4]}}
    fit("stargan", f"{tmp_path / 'pets'}-labelled", "star", out=tmp_path / "fit", **QUICK, **options)
    mine, out = tmp_path / "pets/cats/0.png", tmp_path / "t.npz"
    for to in ("golden retrievers", "Golden Retrievers", "1"):
        code, said, err = zoo("translate", tmp_path / "fit", mine, "--to", to, "--out", out, "--json")
        assert code == 0, err
        assert (json.loads(said)["to"], np.load(out)["made"].shape) == (to, (1, 16, 16))
    assert np.abs(np.load(out)["made"] - np.load(out)["given"]).max() > 0
    code, _, err = zoo("translate", tmp_path / "fit", mine, "--out", out)
    assert (code, "say which by --to, of cats, golden retrievers" in err) == (2, True)
    code, _, err = zoo("translate", tmp_path / "fit", mine, "--to", "cat", "--out", out)
    assert (code, "cats" in err) == (2, True)


def test_a_class_by_its_number_and_patches_by_box(tmp_path: Path) -> None:
    cgan = fit("cgan", "digits-labelled", "gan", hidden=[4, 4, 4], **QUICK)
    asked = asked_context(cgan, "3", 2)
    assert asked.argmax(1).tolist() == [3, 3]
    for text in ("10", "three"):
        with pytest.raises(UnknownNameError, match="class of digits-labelled"):
            asked_context(cgan, text, 1)
    nameless = {"": np.random.rand(9, 4), "_context": np.tile(np.eye(3), (3, 1))}
    np.savez(tmp_path / "mine.npz", **{s + k: v for s in ("train", "valid", "test") for k, v in nameless.items()})
    mine = fit("cgan", str(tmp_path / "mine.npz"), "gan", hidden=[4, 4, 4], **QUICK)
    assert asked_context(mine, "2", 1).tolist() == [[0, 0, 1]]
    with pytest.raises(OptionError, match="none of 0 to 2"):
        asked_context(mine, "3", 1)
    with pytest.raises(OptionError, match="makes no puzzles"):
        asked_context(cgan, "3", 1, ["0,0,2,2"])
    gan = fit("gan", datasets.load("digits"), "gan", hidden=[4], **QUICK)
    with pytest.raises(OptionError, match="takes no context"):
        asked_context(gan, "3", 1)


def test_patches_of_a_puzzle_are_given_by_box(tmp_path: Path) -> None:
    faces = Dataset.of(*(torch.rand(8, 12, 12) for _ in range(3)), name="digits")
    puzzle = fit("puzzle-gan", faces, "gan", latent_dim=2, hidden=4, channels=[4, 4], **QUICK)
    mine = picture(tmp_path / "mine.png", mode="L")
    asked = asked_context(puzzle, str(mine), 2, ["0,0,6,12"])
    assert asked.shape == (2, 2, 12, 12)
    assert asked[0, 1].sum() == 6 * 12
    made = puzzle.program.generate(context=asked)
    assert torch.equal(made[:, :6], asked[:, 0, :6])
    for box in ("0,0,6", "a,0,6,6"):
        with pytest.raises(OptionError, match="is no box"):
            asked_context(puzzle, str(mine), 1, [box])
