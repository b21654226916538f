"""Which arguments a function takes as data, and in which forms."""

import inspect

import numpy as np
import pandas as pd
import pytest
import torch

from zoo.calls import Call
from zoo.errors import DatasetError, EmptyDataError, NonFiniteError, OptionError, ShapeError, UnknownNameError


def model(group, x, y=None, *, k=2, **rest):
    pass


def call(**static):
    return Call("model", list(inspect.signature(model).parameters.values()), static)


def test_parameters_are_free_unless_settled():
    assert call().free == ["group", "x", "y", "k"]
    assert call(k=3).needed == ["group", "x"]


def test_arguments_go_by_position_and_gaps_by_their_defaults():
    assert call(k=3).bind({"x": 1, "group": 0}) == ([0, 1], {"k": 3})
    assert call(x=5).bind({"group": 0, "y": 2}) == ([0, 5, 2], {})
    with pytest.raises(OptionError, match="needs the argument x"):
        call().bind({"group": 0})


def test_data_come_by_name_in_order_as_columns_or_alone():
    frame = pd.DataFrame({"x": [1.0, 2.0], "group": [0, 1], "name": ["a", "b"]})
    assert list(call().named({"x": 1, "group": 0})) == ["x", "group"]
    assert call().named((1, 2)) == {"group": 1, "x": 2}
    columns = call().named(frame)
    assert list(columns) == ["group", "x"]
    assert columns["group"].tolist() == [0, 1]
    assert call().named(None) == {}
    assert call().named([1, 2]) == {"group": [1, 2]}


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        ({"grup": 1}, UnknownNameError, "Did you mean 'group'"),
        ({"k": 1}, OptionError, "given when it was adopted"),
        ((1, 2, 3, 4, 5), OptionError, "takes 3 arguments"),
    ],
)
def test_data_for_no_argument_are_refused(data, error, words):
    with pytest.raises(error, match=words):
        call(k=3).named(data)


def test_numbers_keep_their_kind():
    of = call().tensor
    assert of("x", np.array([1, 2], dtype=np.int32), torch.float32).dtype == torch.int64
    assert of("x", [1, 2], torch.float32).dtype == torch.int64
    assert of("x", np.array([True]), torch.float32).dtype == torch.bool
    assert of("x", np.array([1.5]), torch.float32).dtype == torch.float32
    assert of("x", torch.tensor([1.5], dtype=torch.float64), torch.float32).dtype == torch.float32
    assert of("x", torch.tensor([1], dtype=torch.int32), torch.float32).dtype == torch.int32


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        (3, OptionError, r"zoo.adopt\(..., x=3\)"),
        ("three", OptionError, "is no data"),
        ([[1.0], [1.0, 2.0]], ShapeError, "equal length"),
        ([], EmptyDataError, "'x' is empty"),
        ([1.0, float("nan")], NonFiniteError, "argument 'x'"),
    ],
)
def test_what_is_no_data_is_refused(value, error, words):
    with pytest.raises(error, match=words):
        call().tensor("x", value, torch.float32)


def test_files_hold_arguments_by_name(tmp_path):
    table = tmp_path / "table.csv"
    table.write_text("name,group,x,y\nann,0,1,0.5\nbob,1,2.5,1\n")
    found = call().read(table)
    assert list(found) == ["group", "x", "y"]
    assert found["group"].dtype == np.int64
    assert found["x"].tolist() == [1.0, 2.5]
    np.savez(tmp_path / "arrays.npz", group=np.array([0]), x=np.array([[1.0, 2.0]]), other=np.array([1]))
    assert list(call().read(tmp_path / "arrays.npz")) == ["group", "x"]
    table.write_text("grp,x\n0,1\n")
    with pytest.raises(DatasetError, match="has no group, which model takes"):
        call().read(table)
