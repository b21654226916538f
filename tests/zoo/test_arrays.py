"""Numbers of any kind become tensors, and what are no numbers is refused with a sentence."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_matrix

from zoo.arrays import RoundingNotice, as_tensor, check_finite, check_rows, count_rounded, count_values
from zoo.errors import EmptyDataError, NonFiniteError, OptionError, ShapeError, SupportError

TABLE = np.arange(12.0).reshape(4, 3)


def read_only() -> np.ndarray:
    array = TABLE.copy()
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    "values",
    [
        torch.as_tensor(TABLE), torch.as_tensor(TABLE).float(), torch.as_tensor(TABLE).half(),
        torch.as_tensor(TABLE).bfloat16(), torch.as_tensor(TABLE).long(), torch.as_tensor(TABLE).to(torch.uint8),
        TABLE, TABLE.astype(">f8"), TABLE.astype(">i4"), TABLE.astype(np.float16), TABLE.astype(np.longdouble),
        TABLE.astype(np.uint64), TABLE.astype(np.uint16), TABLE[::-1][::-1], np.asfortranarray(TABLE), read_only(),
        TABLE.tolist(), [list(map(int, row)) for row in TABLE], tuple(map(tuple, TABLE)), pd.DataFrame(TABLE),
        list(TABLE), list(torch.as_tensor(TABLE)),
    ],
    ids=lambda v: f"{type(v).__name__}-{getattr(v, 'dtype', '')}",
)  # fmt: skip
def test_real_numbers_of_any_kind_are_taken(values):
    for dtype in (torch.float32, torch.float64):
        found = as_tensor(values, dtype=dtype)
        assert found.dtype == dtype
        assert torch.equal(found, torch.as_tensor(TABLE, dtype=dtype))


def test_precision_is_kept_unless_asked():
    assert as_tensor(torch.zeros(2, dtype=torch.float32)).dtype == torch.float32
    assert as_tensor(torch.zeros(2, dtype=torch.float16)).dtype == torch.float64  # torch's default here
    assert as_tensor(np.array([True, False])).tolist() == [1.0, 0.0]
    x = torch.zeros(2)
    assert as_tensor(x) is x
    backwards = np.arange(3.0)[::-1]
    assert as_tensor(backwards).tolist() == [2, 1, 0]
    as_tensor(backwards).zero_()
    assert backwards[0] == 2  # a copy


@pytest.mark.parametrize(
    ("values", "error", "says"),
    [
        (torch.zeros(2, dtype=torch.complex64), SupportError, "complex64"),
        (np.zeros(2, complex), SupportError, "complex128"),
        (np.array(["a", "b"]), SupportError, "<U1"),
        (["a", "b"], SupportError, "<U1"),
        ([Decimal(1), Decimal(2)], SupportError, "object"),
        ([None, 1.0], SupportError, "object"),
        ([2**70, 1], SupportError, "object"),
        (np.array(["2020-01-01"], "datetime64[D]"), SupportError, "datetime64"),
        (np.zeros(2, dtype=[("a", float)]), SupportError, "expected numbers"),
        (pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}), SupportError, "object"),
        ([[1.0, 2.0], [3.0]], ShapeError, "equal length"),
        (torch.eye(3).to_sparse(), ShapeError, "sparse"),
        (csr_matrix(np.eye(3)), ShapeError, r"csr_matrix.*\.toarray\(\)"),
        (torch.zeros(2, device="meta"), ShapeError, "meta"),
        (np.ma.masked_array([1.0, 2.0], [True, False]), ShapeError, "masked"),
        ("text", OptionError, "str"), (3.0, OptionError, "float"), (None, OptionError, "NoneType"),
        ({"x": 1}, OptionError, "dict"), (iter([1.0]), OptionError, "iterator"), (object(), OptionError, "object"),
    ],
    ids=lambda v: type(v).__name__,
)  # fmt: skip
def test_what_are_no_real_numbers_is_refused(values, error, says):
    with pytest.raises(error, match=says):
        as_tensor(values, "data")


def test_rounded_whole_numbers_are_said():
    ids = torch.tensor([2**24, 2**24 + 1, -(2**24) - 1, 7])
    with pytest.warns(RoundingNotice, match=r"2 whole numbers of the data .* up to 16,777,216"):
        as_tensor(ids, dtype=torch.float32)
    with pytest.warns(RoundingNotice, match="2 whole"):
        as_tensor(ids.double(), dtype=torch.float32)
    assert as_tensor(ids, dtype=torch.float64).tolist() == ids.tolist()
    large = torch.tensor([2**53 + 1, 2**62])
    assert count_rounded(large, large.double()) == 1
    assert count_rounded(torch.tensor([0.1]), torch.tensor([0.1]).float()) == 0  # reals are rounded, and nobody minds


def test_categories_are_counted_within_reason():
    assert count_values(torch.tensor([0.0, 4.0])) == 5
    assert [count_values(x) for x in (torch.zeros(3), torch.tensor([0.5]), torch.tensor([-1.0]), torch.zeros(0))] == [
        2
    ] * 4
    assert count_values(torch.tensor([65535.0])) == 2**16
    with pytest.raises(OptionError, match=r"300,001 categories.*values=300001"):
        count_values(torch.tensor([0.0, 3e5]))


def test_a_missing_value_is_no_category():
    assert count_values(torch.tensor([0.0, torch.nan, 3.0])) == 4
    assert count_values(torch.tensor([torch.nan])) == 2


def test_missing_values_pass_where_they_are_asked_for():
    x = torch.tensor([[1.0, torch.nan], [2.0, 3.0]])
    check_finite("It", x, missing=True)
    with pytest.raises(NonFiniteError, match=r"It: 1 of 4 data values.*integrate it out: bernoulli-mixture"):
        check_finite("It", x)
    with pytest.raises(NonFiniteError, match="context"):
        check_finite("It", x, x, missing=True)
    with pytest.raises(NonFiniteError, match=r"1 of 4 data values are NaN or infinite; clean them\.$"):
        check_finite("It", torch.where(x == 3, torch.inf, x), missing=True)


def test_rows_and_finiteness():
    for empty in (torch.zeros(0, 3), torch.zeros(3, 0), torch.tensor(1.0)):
        with pytest.raises(EmptyDataError, match="no examples"):
            check_rows(empty)
    with pytest.raises(NonFiniteError, match="1 of 2 context"):
        check_finite("P", torch.zeros(2), torch.tensor([1.0, torch.inf]))
