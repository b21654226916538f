"""`zoo encode`: the codes of a saved fit, as Python has them, in files that others read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference import Fit, fit
from zoo import datasets


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fits") / "ppca"
    fit("ppca", "digits", "em", latent_dim=3, iterations=3, out=folder)
    return folder


def test_codes_are_those_of_the_fit(zoo: Any, fitted: Path, tmp_path: Path) -> None:
    expected = Fit.load(fitted).encode(datasets.load("digits").valid.x).numpy()
    code, out, _ = zoo("encode", fitted, "--split", "valid", "--out", tmp_path / "c.npy", "--json")
    assert code == 0
    said = json.loads(out)
    assert (said["program"], said["n"], said["numbers"]) == ("ppca", 250, 3)
    np.testing.assert_array_equal(np.load(tmp_path / "c.npy"), expected)
    code, out, _ = zoo("encode", fitted, "--data", "digits", "--split", "valid", "--out", tmp_path / "sub" / "c.csv")
    assert "codes of 250 examples of digits (valid) by ppca, 3 numbers each" in out
    written = np.genfromtxt(tmp_path / "sub" / "c.csv", delimiter=",", names=True)
    assert written.dtype.names == ("code0", "code1", "code2")
    np.testing.assert_allclose(np.column_stack([written[name] for name in written.dtype.names]), expected, rtol=1e-8)


def test_what_has_no_codes_or_no_file_is_refused(zoo: Any, fitted: Path, tmp_path: Path) -> None:
    code, _, err = zoo("encode", fitted, "--out", tmp_path / "c.txt")
    assert (code, "give a .npy or a .csv file" in err) == (2, True)
    fit("independent", "digits-binary", "em", out=tmp_path / "none")
    code, _, err = zoo("encode", tmp_path / "none", "--out", tmp_path / "c.npy")
    assert (code, "has no codes" in err, "Programs that encode: " in err) == (2, True, True)
    assert not (tmp_path / "c.npy").exists()
