"""Parquet files and folders of `datasets`: columns of numbers become arrays, whatever their size."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from inference import fit
from zoo import datasets
from zoo.datasets import arrow
from zoo.errors import DatasetError, OptionError, ShapeError, SupportError, UnknownNameError
from zoo.stored import Stored

N = 40


@pytest.fixture(autouse=True)
def _cache(monkeypatch, tmp_path):
    monkeypatch.setattr(arrow, "cache_folder", lambda: tmp_path / "cache")


@pytest.fixture
def people(tmp_path):
    """A table of 40 people, and its Parquet file in groups of seven rows."""
    pytest.importorskip("pyarrow", reason="of the extra 'tables'")
    generator = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"height": generator.normal(170, 9, N).astype(np.float32), "age": generator.integers(0, 90, N),
         "here": generator.random(N) < 0.5, "name": "somebody"}
    )  # fmt: skip
    frame.to_parquet(tmp_path / "people.parquet", row_group_size=7, index=False)
    return frame, tmp_path / "people.parquet"


def all_rows(data, part: str = "x") -> torch.Tensor:
    """In the order of a file whose rows are all different."""
    parts = [getattr(data.split(name), part) for name in ("train", "valid", "test")]
    return torch.cat([part[:] for part in parts])


@pytest.mark.parametrize("stored", [True, False])
def test_columns_of_a_parquet_file_are_chosen_by_name(people, stored, monkeypatch):
    monkeypatch.setattr(arrow, "ROWS", 9)
    frame, path = people
    mine = datasets.load(path, target="height", context=["age", "here"], stored=stored)
    same = datasets.Data.of(frame, target="height", context=["age", "here"])
    assert isinstance(mine.train.x, Stored) == stored
    assert (mine.card.shape, mine.card.support, mine.card.splits) == ((), "real", {"train": 32, "valid": 4, "test": 4})
    order = all_rows(mine).argsort()
    expected = same.x.double().argsort()
    torch.testing.assert_close(all_rows(mine)[order], same.x.double()[expected])
    torch.testing.assert_close(all_rows(mine, "context")[order], same.context[expected])
    again = datasets.load(mine.name, stored=stored)  # the name says the columns
    assert torch.equal(all_rows(again), all_rows(mine))
    both = datasets.load(path, target=["height", "age"], stored=stored)
    assert both.train.x.shape == (32, 2)
    assert both.card.names == ("height", "age")


def test_rows_are_the_same_in_memory_and_in_the_file(people):
    _, path = people
    whole, kept = (datasets.load(path, target=["age", "height"], context=["here"], stored=s) for s in (False, True))
    for name in ("train", "valid", "test"):
        assert torch.equal(whole.split(name).x, kept.split(name).x[:])
        assert torch.equal(whole.split(name).context, kept.split(name).context[:])
    assert whole.card.support == kept.card.support
    assert whole.card.names == kept.card.names
    found = fit("linear-regression", datasets.load(path, target="height", context=["age"]), "exact")
    assert found.data == f"{path}?target=height&context=age,"


def test_a_table_is_converted_once_until_it_changes(people, monkeypatch):
    frame, path = people
    datasets.load(path, target="age")
    written, write = [], arrow._write
    monkeypatch.setattr(arrow, "_write", lambda *what: written.append(what) or write(*what))
    datasets.load(path, target="age")
    assert not written
    frame.head(20).to_parquet(path, index=False)
    assert sum(datasets.load(path, target="age").card.splits.values()) == 20
    assert len(written) == 1


def test_lists_of_one_shape_are_an_example(tmp_path):
    pa = pytest.importorskip("pyarrow", reason="of the extra 'tables'")
    parquet = pytest.importorskip("pyarrow.parquet")
    images = np.random.default_rng(0).normal(size=(N, 2, 3))
    table = pa.table({"image": images.tolist(), "uneven": [[0.0] * (1 + i % 2) for i in range(N)], "more": range(N)})
    parquet.write_table(table, tmp_path / "images.parquet")
    found = datasets.load(tmp_path / "images.parquet", target="image")
    assert found.card.shape == (2, 3)
    torch.testing.assert_close(all_rows(found).sum(), torch.as_tensor(images).sum())
    with pytest.raises(ShapeError, match="lists of unequal length"):
        datasets.load(tmp_path / "images.parquet", target="uneven")
    with pytest.raises(ShapeError, match="columns of lists beside others"):
        datasets.load(tmp_path / "images.parquet", target=["image", "more"])


def test_columns_that_cannot_be_read_say_why(people, tmp_path):
    frame, path = people
    with pytest.raises(SupportError, match=r"column 'name' of .* is of type (large_)?string.*Choose other columns"):
        datasets.load(path)
    with pytest.raises(UnknownNameError, match="height"):
        datasets.load(path, target="heigt")
    with pytest.raises(OptionError, match="asked for twice"):
        datasets.load(path, target="age", context=["age"])
    gaps = tmp_path / "gaps.parquet"
    frame.assign(age=pd.array([None, *range(1, N)], dtype="Int64")).to_parquet(gaps, index=False)
    gone = datasets.load(gaps, target="age")
    assert all_rows(gone).isnan().sum() == 1
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DatasetError, match=r"cannot be read as Parquet.*write it again"):
        datasets.load(cut)
    assert not list((tmp_path / "cache" / "tables").glob("tmp*"))


def test_gaps_that_come_late_are_not_zeros(tmp_path, monkeypatch):
    pytest.importorskip("pyarrow", reason="of the extra 'tables'")
    monkeypatch.setattr(arrow, "ROWS", 10)
    path = tmp_path / "late.parquet"
    pd.DataFrame({"age": pd.array([*range(N - 1), None], dtype="Int64")}).to_parquet(path, index=False)
    with pytest.raises(SupportError, match=r"gaps among whole numbers \(row 30 on\); store them as floats"):
        datasets.load(path)


def test_folders_of_datasets_are_read(tmp_path):
    library = pytest.importorskip("datasets", reason="of the extra 'tables'")
    rows = np.random.default_rng(0).normal(size=(N, 3))
    whole = library.Dataset.from_dict({"x": rows.tolist(), "label": list(range(N))})
    chosen = whole.select(range(N - 1, -1, -1))  # rows that are chosen are those that are read
    chosen.save_to_disk(tmp_path / "one")
    found = datasets.load(tmp_path / "one", target="x", context=["label"])
    assert found.card.splits == {"train": 32, "valid": 4, "test": 4}
    labels = all_rows(found, "context")[:, 0].long()
    torch.testing.assert_close(all_rows(found), torch.as_tensor(rows)[labels])
    splits = library.DatasetDict({"train": whole, "validation": whole.select(range(5)), "test": whole.select([7])})
    splits.save_to_disk(tmp_path / "three")
    for stored in (True, False):
        three = datasets.load(tmp_path / "three", target="x", stored=stored)
        assert three.card.splits == {"train": N, "valid": 5, "test": 1}
        torch.testing.assert_close(three.test.x[:], torch.as_tensor(rows)[7:8])
    library.DatasetDict({"train": whole, "test": whole}).save_to_disk(tmp_path / "two")
    with pytest.raises(DatasetError, match="the splits 'train', 'test'; expected train, validation and test"):
        datasets.load(tmp_path / "two", target="x")


@pytest.mark.parametrize(("name", "package"), [("t.parquet", "pyarrow"), ("folder", "datasets")])
def test_without_the_package_it_says_what_to_install(tmp_path, monkeypatch, name, package):
    def absent(module: str):
        raise ModuleNotFoundError(f"No module named {module!r}")

    monkeypatch.setattr(arrow, "guest", absent)
    (tmp_path / name).mkdir() if name == "folder" else (tmp_path / name).write_bytes(b"PAR1")
    (tmp_path / "folder" / "state.json").write_text("{}") if name == "folder" else None
    with pytest.raises(DatasetError, match=rf"read by {package}, which is not installed.*\[tables\].*\.npy"):
        datasets.load(tmp_path / name)
