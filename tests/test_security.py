"""docs/security.md, sentence by sentence."""

from __future__ import annotations

import json
import os
import pickle
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from benchmarks import commands
from benchmarks.cli import app
from inference import Fit, fit
from inference.checkpoint import CHECKPOINT, Checkpoint
from inference.training import runners
from tests.inference.factors import data, ppca
from tests.zoo.test_hub import Hub
from zoo import catalogue, datasets, errors, folders
from zoo.bayes.coin import BetaBernoulli
from zoo.datasets.sources import cache_folder

PAGE = Path(__file__).parents[1] / "docs" / "security.md"
TESTED: set[str] = set()


def says(sentence: str) -> Callable[[Callable], Callable]:
    """Marks the test of a sentence of the page."""
    TESTED.add(sentence)
    return lambda test: test


class Mine(BetaBernoulli):
    """A class of the user's own."""


class Bomb:
    """Pickled code: a file appears when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda number: None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    fit("coin", "coin", "exact", out=tmp_path / "fit")
    return tmp_path / "fit"


def changed(folder: Path, program: str = "", files: dict[str, bytes] | None = None, **record) -> None:
    """The folder as somebody could have made it, sums and all."""
    saved = folders.read(folder)
    said = json.loads(saved.files["fit.json"]) | record
    files = {**saved.files, "fit.json": folders.to_json(said), **(files or {})}
    folders.write(folder, saved.options, program or saved.record["program"], files)


def trap(tmp_path: Path) -> str:
    """A file with a program that leaves a trace when it is executed."""
    leave = f"open({str(tmp_path / 'ran')!r}, 'w').close()"
    (tmp_path / "trap.py").write_text(f"{leave}\nfrom zoo.bayes.coin import BetaBernoulli\nclass X(BetaBernoulli): 0\n")
    return f"{tmp_path / 'trap.py'}:X"


@says(
    "Loading a folder runs no code of it: its program is looked up among those of the zoo and of packages that you "
    "installed."
)
def test_loading_runs_nothing(folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(os.environ, "ZOO_DEBUG", "0")
    monkeypatch.syspath_prepend(tmp_path)
    for name in (trap(tmp_path), "../trap.py:X", "trap:X", "os:system"):
        changed(folder, name)
        for load in (catalogue.load, Fit.load, commands.has_density, commands.score_program):
            with pytest.raises(errors.CheckpointError, match="runs no code"):
                load(folder)
        result = CliRunner().invoke(app, ["sample", str(folder), "--out", str(tmp_path / "s.npz")])
        assert isinstance(result.exception, errors.CheckpointError)
    assert not (tmp_path / "ran").exists()


@says(
    "A class of your own, from a script, a file or a notebook, you give yourself: `Fit.load(folder, program=MyModel)`."
)
def test_a_class_is_given(tmp_path: Path) -> None:
    fit(Mine(), "coin", "exact", out=tmp_path)
    assert type(Fit.load(tmp_path, program=Mine).program) is Mine
    with pytest.raises(errors.CheckpointError, match="program=Mine"):
        Fit.load(tmp_path)


@says("A guide is built from its name and numbers, out of a fixed list.")
def test_a_guide_is_of_the_list(folder: Path) -> None:
    for spec in (
        {"kind": "auto", "name": "os:system"},
        {"kind": "os:system"},
        {"kind": "implicit", "options": {"x": 1}},
    ):
        changed(folder, guide=spec)
        with pytest.raises(errors.CheckpointError, match="not a whole fit"):
            Fit.load(folder)


@says("Tensors are read as safetensors and records as strict JSON, neither of which can hold code.")
def test_pickles_are_not_read(folder: Path, tmp_path: Path) -> None:
    bomb = pickle.dumps({"p": Bomb(tmp_path / "ran")})
    changed(folder, files={"model.safetensors": bomb})
    with pytest.raises(errors.CheckpointError, match=r"model\.safetensors is damaged"):
        Fit.load(folder)
    (folder / "config.json").write_bytes(bomb)
    with pytest.raises(errors.CheckpointError, match="not JSON"):
        Fit.load(folder)
    assert not (tmp_path / "ran").exists()


@says("A checkpoint is read by torch's loader for weights alone, which refuses other objects.")
def test_no_objects_in_a_checkpoint(tmp_path: Path) -> None:
    Checkpoint(tmp_path, {}).write({"bomb": Bomb(tmp_path / "ran")})
    with pytest.raises(errors.CheckpointError, match="Damaged checkpoint"):
        Checkpoint(tmp_path, {})
    assert (tmp_path / CHECKPOINT).exists()
    assert not (tmp_path / "ran").exists()


@says(
    "Only files with the names of a save are read, and only in the folder: links are not followed, pipes are not "
    "waited for."
)
def test_only_the_files_of_a_save_are_read(folder: Path, tmp_path: Path) -> None:
    whole = (folder / "fit.json").read_bytes()
    for make in (lambda path: os.mkfifo(path), lambda path: path.symlink_to(tmp_path / "elsewhere")):
        (tmp_path / "elsewhere").write_bytes(whole)
        (folder / "fit.json").unlink()
        make(folder / "fit.json")
        with pytest.raises(errors.CheckpointError, match=r"fit\.json"):
            Fit.load(folder)
    record = {"program": "coin", "version": folders.FORMAT, "files": {"../elsewhere": folders.sha256(whole)}}
    record["sha256"] = folders.sum_of({}, record)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_bytes(folders.to_json({"zoo": record}))
    with pytest.raises(errors.CheckpointError, match="files that no save has"):
        folders.read(tmp_path / "other")


@says("Every file is compared with its sha256, so damage is an error that names the file.")
def test_damage_is_seen(folder: Path) -> None:
    for name in ("fit.json", "model.safetensors", "config.json"):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:])
        with pytest.raises(errors.CheckpointError, match=name):
            Fit.load(folder)
        (folder / name).write_bytes(whole)
    Fit.load(folder)


@says("The sums are no signature: who can write into the folder can write sums that fit.")
def test_sums_can_be_written_by_anybody(folder: Path) -> None:
    changed(folder, method="something else")
    assert Fit.load(folder).method == "something else"


@says("Data files (`.npz`, `.npy`) with pickled objects are refused.")
def test_data_with_objects_are_refused(tmp_path: Path) -> None:
    objects = np.array([Bomb(tmp_path / "ran")], dtype=object)
    np.save(tmp_path / "d.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "d.npz", x=objects)
    for name in ("d.npy", "d.npz"):
        with pytest.raises(errors.DatasetError, match="objects"):
            datasets.load(tmp_path / name)
    assert not (tmp_path / "ran").exists()


@says(
    "`trust_code=True`, and `--trust-code` on the command line, import the file or module that the folder names: that "
    "executes it."
)
def test_trust_executes(folder: Path, tmp_path: Path) -> None:
    changed(folder, trap(tmp_path))
    assert type(Fit.load(folder, trust_code=True).program).__name__ == "X"
    assert (tmp_path / "ran").exists()
    result = CliRunner().invoke(app, ["sample", str(folder), "--trust-code", "--out", str(tmp_path / "s.npz")])
    assert result.exit_code == 0, result.output
    assert "--trust-code" in CliRunner().invoke(app, ["score", "--help"], env={"COLUMNS": "200"}).output


@says("`zoo show`, `zoo fit` and `create` execute a file or module that you name (`my_model.py:MyModel`).")
def test_what_is_named_by_hand_is_executed(tmp_path: Path) -> None:
    assert type(catalogue.create(trap(tmp_path))).__name__ == "X"
    assert (tmp_path / "ran").exists()


@says("Packages that you installed are trusted: an entry point `zoo.programs` is imported when its name is asked for.")
def test_entry_points_load(tmp_path: Path, monkeypatch) -> None:
    fit(Mine(), "coin", "exact", out=tmp_path)
    known = {**catalogue.BUILTIN, "theirs": f"{Mine.__module__}:Mine"}
    monkeypatch.setattr(catalogue, "_locations", lambda: known)
    fit(Mine(), "coin", "exact", out=tmp_path)
    assert folders.read(tmp_path).record["program"] == "theirs"
    assert type(Fit.load(tmp_path).program) is Mine


@says("The cache folder is trusted: compiled steps are kept there as libraries, and loading one runs it.")
def test_libraries_are_of_the_cache(tmp_path: Path, monkeypatch) -> None:
    assert cache_folder().name == "pyro-model-zoo"
    monkeypatch.setattr(runners, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(runners, "_whole", lambda path: True)
    monkeypatch.setattr(torch._inductor, "aoti_load_package", lambda path: path)
    loaded = runners._library(torch.fx.GraphModule({}, torch.fx.Graph()), "code", [], {})
    assert Path(str(loaded)).parent == tmp_path / "compiled"


@says(
    "A folder to write into: where `config.json` or the files of a save are somebody else's, it is refused, and no "
    "other file is touched."
)
def test_files_of_others_stay(tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        place = tmp_path / name.replace(".", "-")
        place.mkdir()
        (place / name).write_text('{"mine": 1}')
        with pytest.raises(errors.CheckpointError, match="another folder"):
            fit("coin", "coin", "exact", out=place)
        assert (place / name).read_text() == '{"mine": 1}'
    (tmp_path / "fit").mkdir()
    (tmp_path / "fit" / "notes.txt").write_text("mine")
    for _ in range(2):
        fit("coin", "coin", "exact", out=tmp_path / "fit")
    assert (tmp_path / "fit" / "notes.txt").read_text() == "mine"


@says(
    "A saved fit holds your training data where its draws are given them: global latents, samples, guides with tensors "
    "of their own."
)
def test_rows_of_the_data_are_saved(tmp_path: Path) -> None:
    fit(ppca(), data(10), "svi", guide="delta", steps=1, out=tmp_path / "autoguide")
    fit("normal", data(10)[:, 0], "exact", out=tmp_path / "global")
    for name, x in (("autoguide", data(10)), ("global", data(10)[:, 0])):
        kept = folders.unpack((tmp_path / name / "train.safetensors").read_bytes(), "it")
        assert torch.equal(kept["x"], x)
    fit(ppca(), data(10), "svi", steps=1, out=tmp_path / "amortised")
    assert not (tmp_path / "amortised" / "train.safetensors").exists()


@says("It holds the path of your data file, from the folder, and that of your program's file.")
def test_paths_are_from_the_folder(tmp_path: Path) -> None:
    np.save(tmp_path / "mine.npy", np.ones(10))
    fit(trap(tmp_path), str(tmp_path / "mine.npy"), "exact", out=tmp_path / "fit")
    assert json.loads((tmp_path / "fit" / "fit.json").read_text())["data"]["file"] == "../mine.npy"
    assert folders.read(tmp_path / "fit").record["program"] == "../trap.py:X"


@says("Who may read the files is decided by your umask, as for any file that you write.")
def test_the_umask_counts(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        fit("coin", "coin", "exact", out=tmp_path / "fit")
        Checkpoint(tmp_path / "fit", {}).write({})
    finally:
        os.umask(before)
    for path in (tmp_path / "fit").iterdir():
        assert path.name == folders.LOCK or stat.S_IMODE(path.stat().st_mode) == 0o640, path


@says(
    "A name `user/repository` that is no folder here is fetched from the hub, the files of a save and `source.py` "
    "alone; that is not executed."
)
@says("What goes to the hub has no paths: the source of your program's file goes along, and of a data file its name.")
def test_what_comes_from_the_hub_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(tmp_path, monkeypatch)
    np.save(tmp_path / "mine.npy", np.ones(4))
    fit(trap(tmp_path), str(tmp_path / "mine.npy"), "exact").push_to_hub("you/x")
    assert (tmp_path / "ran").exists()  # by naming it
    (tmp_path / "ran").unlink()
    (hub.root / "you" / "x" / "more.py").write_text("raise")
    with pytest.raises(errors.CheckpointError, match="trust_code=True"):
        Fit.load("you/x")
    assert not (tmp_path / "ran").exists()
    assert not list(hub.cache.rglob("more.py"))
    assert str(tmp_path).encode() not in (hub.root / "you" / "x" / "fit.json").read_bytes()
    assert str(tmp_path).encode() not in (hub.root / "you" / "x" / "config.json").read_bytes()


def test_every_point_of_the_page_has_its_test() -> None:
    points = [line.removeprefix("- ") for line in PAGE.read_text().splitlines() if line.startswith("- ")]
    assert set(points) == TESTED
    assert len(points) == len(TESTED) > 10
