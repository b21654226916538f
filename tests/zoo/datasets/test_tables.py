"""Files of columns: which of them are x and context, under which name they load again, and what cannot be read."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from inference import Fit, fit
from zoo import catalogue, datasets
from zoo.datasets.given import Fields
from zoo.datasets.splits import SPLITS
from zoo.datasets.tables import Address, Form
from zoo.errors import (
    CheckpointError,
    DatasetError,
    EmptyDataError,
    OptionError,
    ShapeError,
    SupportError,
    UnknownNameError,
)

ROWS = [(f"name {i}", i + 0.5, -i, i % 2) for i in range(10)]


def write(path: Path, rows=ROWS, header=("who", "y", "x-1", "x2")) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def whole(dataset: datasets.Dataset, what: str = "x") -> list:
    """All rows of all splits, in the order of the first column of x."""
    x = torch.cat([dataset.split(split).x for split in SPLITS])
    values = torch.cat([getattr(dataset.split(split), what) for split in SPLITS])
    return values[x.reshape(len(x), -1)[:, 0].argsort()].tolist()


def test_columns_by_name(tmp_path):
    path = write(tmp_path / "f.csv")
    found = datasets.load(path, target="y", context=["x2", "x-1"])
    assert whole(found) == [row[1] for row in ROWS]
    assert whole(found, "context") == [[row[3], row[2]] for row in ROWS]
    assert "the column y given x2, x-1" in found.card.description
    for target, shape in (("y", ()), (["y"], (1,)), (["y", "x2"], (2,))):
        alone = datasets.load(path, target=target)
        assert (alone.card.shape, alone.train.context) == (shape, None)


def test_the_rest_of_the_columns(tmp_path):
    path = write(tmp_path / "f.csv", [row[1:] for row in ROWS], ("y", "a", "b"))
    rest = datasets.load(path, target="y", context="*")
    assert whole(rest, "context") == [list(row[2:]) for row in ROWS]
    without = datasets.load(path, context="y")
    assert without.card.shape == (2,)
    for same in (datasets.load(path, target="*", context=["y"]), datasets.load(f"{path}?context=y")):
        assert torch.equal(same.train.x, without.train.x)
        assert torch.equal(same.train.context, without.train.context)


NAMES = st.lists(st.text(st.characters(codec="utf-8"), min_size=1).filter(lambda n: n != "*"), min_size=1, unique=True)


@given(target=NAMES | st.just("*") | st.none(), context=NAMES | st.just("*") | st.none())
@settings(max_examples=200, deadline=None)
def test_a_name_says_its_columns_whatever_they_are_called(target, context):
    form = Form(fields=Fields(target, context))
    for suffix in ("", "-binary", "-labelled"):
        name = f"some/folder/f.csv{form.ending()}"
        assert datasets.base_name(name + suffix).startswith("some/folder/f.csv")
        assert not form.ending().endswith(suffix or "?")
        found = Address.of(name)
        assert found == Address(Path("some/folder/f.csv"), form)
    single = Form(fields=Fields("only one"))
    assert Address.of("f.csv" + single.ending()).form.fields.target == "only one"


@pytest.mark.parametrize("chosen", ["target", "context"])
def test_columns_whose_names_are_longer_than_a_path_may_be(tmp_path, chosen):
    names = [f"expression of gene {i}" for i in range(300)]
    rows = np.arange(3010.0).reshape(10, 301)
    lines = [",".join([*names, "y"]), *(",".join(map(str, row)) for row in rows.tolist())]
    (tmp_path / "genes.csv").write_text("\n".join(lines))
    columns = {"target": names} if chosen == "target" else {"target": "y", "context": names}
    data = datasets.load(tmp_path / "genes.csv", **columns)
    assert len(data.name) > 4096
    again = datasets.load(data.name)
    for mine, theirs in zip(again.train.tensors(), data.train.tensors(), strict=True):
        assert torch.equal(mine, theirs)
    assert datasets.base_name(data.name) == str(tmp_path / "genes.csv")


@pytest.mark.parametrize(
    "name", ["x" * 300, "x" * 300 + ".csv", "a/" * 3000, "x" * 300 + "-binary", "y" * 300 + "-labelled"]
)
def test_a_name_that_is_too_long_for_a_file_is_of_none(name):
    with pytest.raises((DatasetError, UnknownNameError)):
        datasets.load(name)
    with pytest.raises(DatasetError):
        datasets.load(Path(name))
    with pytest.raises(CheckpointError):
        Fit.load(name)
    with pytest.raises(UnknownNameError):
        catalogue.get(f"{name}.py:Model")


def test_a_fit_remembers_its_columns(tmp_path):
    path = write(tmp_path / "f.csv")
    data = datasets.load(path, target="y", context=["x-1", "x2"])
    assert torch.equal(datasets.load(data.name).test.context, data.test.context)
    fit("linear-regression", data, "exact", out=tmp_path / "runs" / "f")
    (tmp_path / "runs" / "f").rename(tmp_path / "moved")
    with pytest.raises(DatasetError):
        datasets.load(Fit.load(tmp_path / "moved").data)
    (tmp_path / "moved").rename(tmp_path / "runs" / "f")
    again = datasets.load(Fit.load(tmp_path / "runs" / "f").data)
    assert again.card.description == data.card.description
    assert torch.equal(again.train.context, data.train.context)
    assert datasets.base_name(data.name) == str(path)


def test_a_name_and_binarising_go_together(tmp_path):
    path = write(tmp_path / "f.csv", [(0.2, 0.7, i) for i in range(5)], ("a-binary", "b", "c"))
    first = datasets.load(path, target=["a-binary", "b"], binarise="threshold")
    assert torch.equal(datasets.load(first.name).train.x, first.train.x)
    assert first.train.x[0].tolist() == [0, 1]
    assert datasets.base_name(first.name) == str(path)


def test_quotes_commas_and_empty_cells(tmp_path):
    path = tmp_path / "f.csv"
    path.write_text('"a, or b",c\n1,\n"2",4\n\n , 5\n,\n')
    torch.testing.assert_close(
        torch.tensor(sorted(whole(datasets.load(path)), key=str)),
        torch.tensor(sorted([[1, torch.nan], [2, 4], [torch.nan, 5], [torch.nan, torch.nan]], key=str)),
        equal_nan=True,
    )
    assert datasets.load(path, target="a, or b").card.shape == ()


def test_a_header_of_numbers_is_one_where_columns_are_named(tmp_path):
    path = write(tmp_path / "f.csv", [(i, 2 * i) for i in range(4)], ("0", "1"))
    assert whole(datasets.load(path, target="1")) == [0, 2, 4, 6]
    with pytest.raises(DatasetError, match=r"has no header \(its first row is 0, 1\).*Write their names"):
        datasets.load(path, target="y")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"target": "Y"}, UnknownNameError, r"Unknown column of .*f\.csv 'Y'"),
        ({"target": "y", "context": ["x1"]}, UnknownNameError, r"'x1'\. Did you mean 'x-1'"),
        ({"target": "y", "context": "*"}, DatasetError, "line 2, column 'who': 'name 0' is not a number"),
        ({"target": "who"}, DatasetError, "line 2, column 'who': 'name 0' is not a number"),
        ({"target": "y", "context": "y"}, OptionError, "asked for twice"),
        ({"target": "y", "header": False}, DatasetError, "has no header"),
    ],
)
def test_columns_that_cannot_be_read(tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        datasets.load(write(tmp_path / "f.csv"), **options)


def test_what_has_no_columns(tmp_path):
    path = write(tmp_path / "f.csv")
    np.save(tmp_path / "f.npy", np.zeros((4, 2)))
    with pytest.raises(OptionError, match="'digits' is a data set of the zoo"):
        datasets.load("digits", target="y")
    with pytest.raises(DatasetError, match=r"target names columns of \.csv"):
        datasets.load(tmp_path / "f.npy", target="y")
    with pytest.raises(DatasetError, match=r"names columns of a \.csv"):
        datasets.load(tmp_path / "f.npy", context=["y", "z"])
    with pytest.raises(OptionError, match="give one of them"):
        datasets.load(f"{path}?target=y", target="x2")
    with pytest.raises(EmptyDataError, match="no rows"):
        datasets.load(write(path, []), target="y")
    path.write_text('a,b\n"1,2\n3,4\n')
    with pytest.raises(DatasetError, match="cut off"):
        datasets.load(path)


def test_other_data_of_the_same_columns(tmp_path):
    path, other = write(tmp_path / "f.csv"), write(tmp_path / "g.csv", ROWS[:5])
    name = datasets.load(path, target="y", context=["x2"]).name
    assert datasets.like(name, str(other)) == f"{other}?target=y&context=x2,"
    assert datasets.load(datasets.like(f"{name}-binary", str(other))).card.shape == ()
    for as_it_is in ("digits", f"{other}?target=x2", str(tmp_path / "f.npy"), "g.csv-with-header"):
        assert datasets.like(name, as_it_is) == as_it_is
    assert datasets.like("digits", str(other)) == str(other)


# A context in another file


@pytest.mark.parametrize("ending", [".npy", ".csv", ".npz"])
@pytest.mark.parametrize("of", ["f.npy", "f.npz", "images"])
def test_a_context_in_another_file(tmp_path, monkeypatch, of, ending):
    context = np.arange(20.0).reshape(10, 2) + 0.5
    (tmp_path / "data").mkdir()
    other = tmp_path / f"context{ending}"
    if ending == ".csv":
        np.savetxt(other, context, delimiter=",")
    else:
        np.save(other, context) if ending == ".npy" else np.savez(other, context)
    path = tmp_path / "data" / of
    if of == "images":
        path.mkdir()
        for i in range(10):
            Image.new("L", (2, 2), i).save(path / f"{i}.png")
    else:
        np.save(path, np.arange(10)) if of == "f.npy" else np.savez(path, np.arange(10))
    found = datasets.load(path, context=other)
    assert whole(found, "context") == context.tolist()
    assert torch.equal(datasets.load(found.name).test.context, found.test.context)
    monkeypatch.chdir(tmp_path)
    assert whole(datasets.load(f"data/{of}", context=f"context{ending}"), "context") == context.tolist()


def test_a_context_of_other_rows(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((5, 2)))
    np.save(tmp_path / "c.npy", np.zeros((4, 2)))
    np.savez(tmp_path / "two.npz", a=np.zeros(5), b=np.zeros(5))
    np.savez(tmp_path / "three.npz", **dict.fromkeys(SPLITS, np.zeros((5, 2))))
    with pytest.raises(ShapeError, match="5 examples but 4 rows of context"):
        datasets.load(tmp_path / "x.npy", context=tmp_path / "c.npy")
    with pytest.raises(DatasetError, match="cannot be a context"):
        datasets.load(tmp_path / "x.npy", context=tmp_path / "two.npz")
    with pytest.raises(DatasetError, match="No file"):
        datasets.load(tmp_path / "x.npy", context="none.npy")
    with pytest.raises(DatasetError, match="'train_context'"):
        datasets.load(tmp_path / "three.npz", context=tmp_path / "c.npy")


# Archives


def test_train_alone_is_split_with_its_context_and_labels(tmp_path):
    x = np.arange(20)
    np.savez(tmp_path / "mine.npz", train=x, train_context=2 * x, train_labels=x % 3)
    found = datasets.load(tmp_path / "mine.npz")
    assert whole(found, "context") == (2 * x).tolist()
    assert found.card.classes == 3
    assert "array train and its contexts and its labels" in found.card.description
    for split in SPLITS:
        assert torch.equal(found.labels[split], found.split(split).x.long() % 3)


def test_labels_of_a_file_are_contexts_on_request(tmp_path):
    path = tmp_path / "mine.npz"
    arrays = {split: np.random.rand(6, 2) for split in SPLITS}
    np.savez(path, **arrays, **{f"{split}_labels": np.array([0, 1, 2, 0, 1, 3]) for split in SPLITS})
    named = datasets.load(f"{path}-labelled")
    assert named.test.context.argmax(-1).tolist() == [0, 1, 2, 0, 1, 3]
    assert named.test.context.shape == (6, 4)
    assert datasets.base_name(named.name) == str(path)
    assert torch.equal(datasets.load(named.name).train.context, named.train.context)
    np.savez(path, **arrays)
    with pytest.raises(SupportError, match="has no class labels"):
        datasets.load(f"{path}-labelled")


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (np.array([0, 1, -1, 0]), DatasetError, "the labels of .* are no numbers of classes"),
        (np.array([0, 1, 0.5, 0]), DatasetError, "no numbers of classes"),
        (np.eye(4), DatasetError, "no numbers of classes"),
        (np.array([0, 1, 2]), ShapeError, "4 examples but 3 labels"),
        (np.array([0, 1, 2, 10**9]), DatasetError, "number the classes"),
    ],
)
def test_labels_that_are_none(tmp_path, labels, error, message):
    np.savez(tmp_path / "mine.npz", train=np.zeros((4, 2)), train_labels=labels)
    with pytest.raises(error, match=message):
        datasets.load(tmp_path / "mine.npz")
