"""Examples are taken from their files as they are, and the process stays as it was."""

from __future__ import annotations

import logging
import sys

import pyro
import pytest
import torch
from pyro import poutine

from benchmarks.scripts.pyro_checkout import Checkout
from tests.benchmarks.scripts.pyro_tree import grow
from zoo.errors import OptionError

NOTEBOOK = "tutorial/source/svi_part_i.ipynb"


@pytest.fixture
def checkout(tmp_path):
    return Checkout(grow(tmp_path))


def test_a_file_is_imported_with_its_neighbours_and_without_what_is_not_installed(checkout):
    first, second = (checkout.file("examples/tiny/svi.py") for _ in range(2))
    assert first.NUMBER == 3.0
    assert first is not second
    assert isinstance(first.Images, type)


def test_the_process_is_as_it_was(checkout):
    before = set(sys.modules), sys.path[:], logging.getLogger().level, logging.getLogger().handlers[:]
    torch.manual_seed(5)
    state = torch.get_rng_state()
    checkout.file("examples/tiny/svi.py")
    assert (set(sys.modules), sys.path, logging.getLogger().level, logging.getLogger().handlers) == before
    assert torch.get_default_dtype() is torch.float64
    assert torch.equal(torch.get_rng_state(), state)


def test_a_notebook_gives_the_statements_that_are_asked_for(checkout):
    found = checkout.notebook(
        NOTEBOOK, "def model(", "def guide(", "def shifted(", given={"K": 4, "twice": lambda f: f}
    )
    assert found["shifted"](1) == 5
    assert "__version__" not in found
    trace = poutine.trace(found["model"]).get_trace(torch.ones(2))
    assert [name for name in trace.nodes if name.startswith("obs")] == ["obs_0", "obs_1"]
    with pyro.get_param_store().scope():
        found["guide"](None)  # the first of this name


def test_decorators_belong_to_their_function(checkout):
    found = checkout.notebook(NOTEBOOK, "def twice(", "def shifted(", given={"K": 4})
    assert found["shifted"](1) == 10


def test_what_is_not_there_is_named(tmp_path, checkout):
    with pytest.raises(OptionError, match="no checkout of Pyro"):
        Checkout(tmp_path / "elsewhere")
    with pytest.raises(OptionError, match=r"examples/gone\.py is not in"):
        checkout.file("examples/gone.py")
    with pytest.raises(OptionError, match="begins with 'def mode1"):
        checkout.notebook(NOTEBOOK, "def mode1(")
