"""Data in memory: frames, pairs, data sets and loaders of torch are the rows that they hold, in their order."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from torch.utils.data import Dataset as TorchDataset

from inference import fit
from inference.intake import as_dataset
from zoo import datasets
from zoo.datasets import Data, Dataset, given
from zoo.datasets.given import ReadNotice, support_of
from zoo.errors import DatasetError, EmptyDataError, OptionError, ShapeError, SupportError, UnknownNameError

X, C = torch.arange(12.0).reshape(6, 2), torch.arange(6.0)


class Listed(TorchDataset):
    """Items by number."""

    def __init__(self, items: list):
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, row: int) -> object:
        return self.items[row]


class Streamed(IterableDataset):
    """Items one after the other."""

    def __init__(self, items):
        self.items = items

    def __iter__(self) -> Iterator:
        return iter(self.items)


def loaded(items: list) -> DataLoader:
    return DataLoader(Listed(items), batch_size=2)


def same(found: Data, x: torch.Tensor, context: torch.Tensor | None = None) -> None:
    assert found.x.is_floating_point()
    torch.testing.assert_close(found.x, x, check_dtype=False)
    assert (found.context is None) == (context is None)
    if context is not None:
        torch.testing.assert_close(found.context, context, check_dtype=False)


KINDS = {
    "listed": Listed,
    "streamed": Streamed,
    "loader": loaded,
    "loader of a stream": lambda items: DataLoader(Streamed(items), batch_size=4),
    "loader without batches": lambda items: DataLoader(Listed(items), batch_size=None),
}


@pytest.mark.parametrize("kind", KINDS)
def test_items_of_torch_are_rows(kind):
    make = KINDS[kind]
    same(Data.of(make(list(X))), X)
    same(Data.of(make([x.numpy() for x in X])), X)
    same(Data.of(make([1.0, 2.0, 4.0])), torch.tensor([1.0, 2.0, 4.0]))
    same(Data.of(make([(x,) for x in X])), X)
    pairs = [(x, int(c)) for x, c in zip(X, C, strict=True)]
    same(Data.of(make(pairs)), X, C)
    same(Data.of(make(pairs), target=1, context=0), C, X)
    same(Data.of(make(pairs), context=0), C, X)
    same(Data.of(make(pairs), target=0), X)
    named = [{"pixels": x, "label": int(c), "file": "a.png"} for x, c in pairs]
    same(Data.of(make(named), target="pixels", context="label"), X, C)
    same(Data.of(make(named), target="label"), C)


def test_tensor_data_sets():
    same(Data.of(TensorDataset(X)), X)
    same(Data.of(TensorDataset(X, C.long())), X, C)
    same(Data.of(TensorDataset(X, C), target=1, context=0), C, X)
    same(Data.of(torch.utils.data.Subset(TensorDataset(X, C), [4, 1])), X[[4, 1]], C[[4, 1]])


def test_a_loader_is_read_once_in_its_order():
    loader = DataLoader(TensorDataset(X), batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(3))
    order = torch.randperm(6, generator=torch.Generator().manual_seed(3))
    found = Data.of(loader).x
    assert sorted(found[:, 0].tolist()) == X[:, 0].tolist()
    assert not torch.equal(found, X)
    assert len(order) == len(found)
    with pytest.warns(ReadNotice, match="left out the last 2 of 6 rows"):
        same(Data.of(DataLoader(TensorDataset(X), batch_size=4, drop_last=True)), X[:4])


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_torch_that_cannot_be_data(kind):
    make = KINDS[kind]
    with pytest.raises(EmptyDataError, match="gives no rows"):
        Data.of(make([]))
    ragged = [torch.zeros(3), torch.zeros(3), torch.zeros(3), torch.zeros(3), torch.zeros(4)]
    with pytest.raises(ShapeError, match=r"[Rr]ow 4 .*has examples of shape \(4,\), those before .*\(3,\)"):
        Data.of(make(ragged))
    with pytest.raises(OptionError, match=r"[Rr]ow 0.*the parts 0, 1, 2: say which is x, Data\.of\(data, target=0"):
        Data.of(make([(X[0], 2.0, 3.0)]))
    with pytest.raises(OptionError, match=r"[Rr]ow 0.*the parts 'a', 'b': say which is x, Data\.of\(data, target=KEY"):
        Data.of(make([{"a": 1.0, "b": 2.0}]))
    with pytest.raises(UnknownNameError, match=r"'image'\. Did you mean 'images'"):
        Data.of(make([{"images": 1.0, "b": 2.0}]), target="image")
    with pytest.raises(UnknownNameError, match=r"part of .*row 0.* '2'"):
        Data.of(make([(X[0], 2.0)]), target=2)
    with pytest.raises((SupportError, DatasetError), match=r"[Rr]ow 0|Item 0"):
        Data.of(make(["cat", "dog"]))
    with pytest.raises((SupportError, DatasetError), match=r"[Rr]ow 0|Item 0.*None"):
        Data.of(make([None]))


def test_what_a_loader_or_data_set_does_wrong_is_said_with_its_number():
    with pytest.raises(DatasetError, match=r"Item 1 \(from 0\) of the loader .*stack expects"):
        Data.of(loaded([torch.zeros(2)] * 2 + [torch.zeros(2), torch.zeros(3)]))
    with pytest.raises(EmptyDataError, match="do not fill one batch of 7"):
        Data.of(DataLoader(TensorDataset(X), batch_size=7, drop_last=True))
    missing = Listed([1.0])
    missing.__class__ = type("Missing", (Listed,), {"__len__": lambda self: 3})
    with pytest.raises(DatasetError, match=r"Item 1 \(from 0\) of the data set .*IndexError"):
        Data.of(missing)
    with pytest.raises(OptionError, match="has no length"):
        Data.of(type("Endless", (TorchDataset,), {"__getitem__": lambda self, row: 0.0})())
    with pytest.raises(SupportError, match="transform that makes tensors"):
        Data.of(Listed([(Image.new("L", (2, 2)), 1)]))
    with pytest.raises(ShapeError, match="2 examples and 1 rows of context"):
        Data.of(DataLoader(Listed([1, 2]), batch_size=2, collate_fn=lambda rows: (torch.zeros(2), torch.zeros(1))))
    with pytest.raises(ShapeError, match="contexts of shape"):
        Data.of(Streamed([(1.0, 2.0), 3.0]))


def test_an_endless_stream_ends_in_an_error(monkeypatch):
    monkeypatch.setattr(given, "MOST_NUMBERS", 1000)
    with pytest.raises(DatasetError, match=r"endless.*islice"):
        Data.of(Streamed(itertools.repeat(torch.zeros(10))))


# Data frames


def frame() -> pd.DataFrame:
    return pd.DataFrame({"y": [1.5, 2.5, 3.5], "a": [1, 2, 3], "b": [True, False, True], "name": ["u", "v", "w"]})


def test_frames_and_series_are_their_numbers():
    numbers = torch.tensor([[1.5, 1, 1], [2.5, 2, 0], [3.5, 3, 1]])
    same(Data.of(frame().drop(columns="name")), numbers)
    same(Data.of(frame()["a"]), numbers[:, 1])
    same(Data.of(frame()["b"]), numbers[:, 2])
    same(Data.of((frame()["y"], frame()[["a", "b"]])), numbers[:, 0], numbers[:, 1:])
    same(Data.of(frame(), target="y", context=["b", "a"]), numbers[:, 0], numbers[:, [2, 1]])
    same(Data.of(frame(), target=["y"], context="a"), numbers[:, :1], numbers[:, 1:2])
    same(Data.of(frame().drop(columns="name"), target="y", context="*"), numbers[:, 0], numbers[:, 1:])
    same(Data.of(frame().drop(columns="name"), context="y"), numbers[:, 1:], numbers[:, :1])


def test_gaps_of_a_frame_are_nan():
    gappy = pd.DataFrame({"a": pd.array([1, None, 3], dtype="Int64"), "b": [0.5, np.nan, 1.5], "c": [1, None, 2]})
    gappy["d"] = pd.array([True, None, False], dtype="boolean")
    expected = torch.tensor([[1, 0.5, 1, 1], [torch.nan] * 4, [3, 1.5, 2, 0]])
    torch.testing.assert_close(Data.of(gappy).x, expected, equal_nan=True, check_dtype=False)
    torch.testing.assert_close(Data.of(gappy.astype(object)).x, expected, equal_nan=True, check_dtype=False)


def test_a_frame_keeps_the_dtype_of_its_floats():
    assert Data.of(frame()[["y"]].astype(np.float32)).x.dtype == torch.float32
    assert Data.of(frame()[["y", "a"]]).x.dtype == torch.float64


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Data.of(frame()), SupportError, "column 'name' .*row 0 holds 'u'.*drop"),
        (lambda: Data.of(frame(), target="y", context="*"), SupportError, "column 'name' of the context"),
        (lambda: Data.of(frame(), target="yy"), UnknownNameError, "column of the data frame 'yy'. Did you mean 'y'"),
        (lambda: Data.of(frame(), target="y", context=["y", "a"]), OptionError, "'y' .*asked for twice"),
        (lambda: Data.of(frame(), target="*", context="*"), OptionError, "left for"),
        (lambda: Data.of(frame(), target=[], context="a"), OptionError, "left for x"),
        (lambda: Data.of((frame()["y"], frame()[["a"]][::-1])), ShapeError, "different indexes.*loc"),
        (lambda: Data.of(X, target=0), OptionError, "Tensor has none"),
        (lambda: Data.of({"a": X}), OptionError, "dict"),
        (lambda: Data.of(frame().assign(t=pd.Timestamp("2026-01-01"))[["y", "t"]]), SupportError, "column 't'"),
    ],
)
def test_frames_that_cannot_be_data(make, error, message):
    with pytest.raises(error, match=message):
        make()


# Data sets of your own


def test_a_data_set_in_one_line():
    whole = Dataset.of((X, C), valid=TensorDataset(X[:2], C[:2]), test=(X[:1].numpy(), C[:1].tolist()), name="mine")
    assert whole.card.splits == {"train": 6, "valid": 2, "test": 1}
    assert (whole.name, whole.card.shape, whole.card.support) == ("mine", (2,), "integer")
    same(whole.test, X[:1], C[:1])
    assert as_dataset(whole)[2].size == 2


def test_a_split_that_is_not_given_is_refused_when_asked_for():
    alone = Dataset.of(X)
    assert as_dataset(alone)[2] is None
    assert fit("ppca", alone, "em", latent_dim=1, iterations=2).data == "tensor"
    assert alone.to(dtype=torch.float64).test.size == 0
    for split in ("valid", "test"):
        with pytest.raises(EmptyDataError, match=f"has no {split} split.*Dataset.of"):
            alone.split(split)


def test_a_split_that_is_given_has_rows():
    for splits in ((X[:0],), (X, X[:0]), (X, X, X[:0])):
        with pytest.raises(EmptyDataError, match="split got no examples"):
            Dataset.of(*splits)


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ((X, X[:, :1]), r"one row of their x: .*'valid': \(1,\)"),
        (((X, C), X), r"one row of their context: .*'valid': None"),
    ],
)
def test_splits_of_one_data_set_are_alike(splits, message):
    with pytest.raises(ShapeError, match=message):
        Dataset.of(*splits)


def test_support_sees_past_gaps():
    assert support_of([np.array([0.0, np.nan, 1.0])]) == "binary"
    assert support_of([np.array([0.5, np.nan])]) == "unit"
    assert support_of([np.array([2.0, np.nan])]) == "integer"
    assert support_of([np.array([2.0, np.inf])]) == "real"
    assert support_of([np.array([0, 255], np.uint8)], top=255) == "binary"


# Fits


def test_fit_takes_them_all_and_finds_the_same():
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    forms = [x, x.numpy(), x.tolist(), pd.DataFrame(x.numpy()), TensorDataset(x), Listed(list(x)), Streamed(list(x))]
    forms += [DataLoader(TensorDataset(x), batch_size=6), Dataset.of(x), (x, None)]
    found = [fit("ppca", form, "em", latent_dim=1, iterations=3).program.weight for form in forms]
    assert all(torch.allclose(weight, found[0], rtol=1e-5) for weight in found)


def test_inputs_and_targets_for_a_regression():
    data = TensorDataset(torch.randn(30, 2), torch.randn(30))
    found = fit("linear-regression", Data.of(data, target=1, context=0), "exact")
    assert found.program.prior_scale.shape == (2,)
    with pytest.raises(ShapeError, match="target=0"):
        fit("ppca", data, "em", latent_dim=1)
    assert datasets.Data is Data


def test_sequences_are_padded_and_their_lengths_are_the_context() -> None:
    table = pd.DataFrame({"who": [7, 7, 7, 3], "a": [1.0, 2.0, 3.0, 4.0], "b": [0.5, np.nan, 1.5, 2.5]})
    found = Data.sequences(part for _, part in table.groupby("who", sort=False)[["a", "b"]])
    assert found.x.tolist()[1] == [[4.0, 2.5], [0.0, 0.0], [0.0, 0.0]]
    np.testing.assert_array_equal(found.x[0], [[1.0, 0.5], [2.0, np.nan], [3.0, 1.5]])
    assert found.context.tolist() == [3.0, 1.0]
    flat = Data.sequences([[1, 0], torch.tensor([1.0, 1.0, 1.0])])
    assert flat.x.tolist() == [[1.0, 0.0, 0.0], [1.0, 1.0, 1.0]]
    hmm = fit("hmm", flat, "em", states=1, iterations=1, smoothing=0.0).program
    each = flat.x.sum() / 5  # what is behind an end counts nothing
    np.testing.assert_allclose(hmm.emission.logits.detach().sigmoid().item(), each, rtol=1e-6)


@pytest.mark.parametrize(
    ("parts", "error", "message"),
    [
        ([], EmptyDataError, "no sequences"),
        ([[1.0], []], EmptyDataError, "Sequence 1 has no steps"),
        ([[1.0], [[1.0, 2.0]]], ShapeError, r"Sequence 1 has steps of shape \(2,\), the first one of \(\)"),
        (["ab"], OptionError, "type str"),
    ],
)
def test_bad_sequences_are_named(parts: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Data.sequences(parts)
