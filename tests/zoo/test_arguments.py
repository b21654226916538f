"""The arguments of a user's own model keep their names, their dtypes and their rows."""

import torch

from zoo.arguments import Arguments
from zoo.datasets.data import Data


def two() -> Arguments:
    axes = {"group": "last", "y": "first"}
    return Arguments({"group": torch.tensor([[0, 1], [1, 0]]), "y": torch.tensor([[1.0], [2.0]])}, "rows", axes)


def test_rows_are_taken_of_every_argument():
    taken = Data(torch.zeros(2), two()).rows(slice(1, 2))
    assert taken.size == 1
    assert taken.context["group"].tolist() == [[1, 0]]
    assert taken.context["y"].tolist() == [[2.0]]
    assert taken.context.examples == "rows"


def test_only_floating_point_changes_its_dtype():
    moved = two().to(dtype=torch.float64)
    assert moved["group"].dtype == torch.int64
    assert moved["y"].dtype == torch.float64


def test_tensors_and_names_give_the_same_data_again():
    data = Data(torch.zeros(2), two())
    again = data.like([value + 1 for value in data.tensors()])
    assert list(again.context) == ["group", "y"]
    assert torch.equal(again.context["y"], data.context["y"] + 1)
    assert again.context.examples == "rows"
    loaded = Data.from_named(data.named(), arguments=True, examples="rows")
    assert torch.equal(loaded.context["group"], data.context["group"])
    assert loaded.context.examples == "rows"
    assert loaded.context.axes == {"group": "last", "y": "first"}


def test_the_model_gets_its_arguments_as_it_wants_them():
    rows = torch.arange(6.0).reshape(3, 2)
    given = Arguments({"a": rows, "b": rows, "c": rows}, "plate", {"a": "first", "b": "last", "c": "none"}).plain()
    assert torch.equal(given["a"], rows)
    assert torch.equal(given["b"], rows.T)
    assert torch.equal(given["c"], rows[0])
    assert torch.equal(Arguments({"a": rows}).plain()["a"], rows[0])


def test_other_data_have_their_own_names():
    pair = Data(torch.zeros(2, 3), torch.ones(2, 1))
    assert list(pair.named()) == ["x", "context"]
    assert Data.from_named(pair.named()).context.shape == (2, 1)
    assert Data.from_named(Data(torch.zeros(2)).named()).context is None
