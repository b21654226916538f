"""Common ground of the tests: float64, one thread, a fixed seed (`--seed` varies it), the real data where they lie."""

from __future__ import annotations

import gc
import os
import random
from pathlib import Path

import numpy as np
import pyro
import pytest
import torch

from zoo.process import set_seed

# The one failure probability of a statistical test: with about a hundred of them, a false alarm once in 500 runs.
FAILURE_RATE = 2e-5


# Where the real data lie, unless the caller says otherwise; tests that need them skip where there are none.
_BESIDE = Path(__file__).parents[2] / "shared" / "data"
if "ZOO_DATA" not in os.environ and _BESIDE.is_dir():
    os.environ["ZOO_DATA"] = str(_BESIDE)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, default=0, help="seed of every test, 0 unless given")


def pytest_collectstart(collector: pytest.Collector) -> None:
    """Programs in a list of parameters are made when a module is imported: nothing before may change their weights."""
    if isinstance(collector, pytest.Module):
        pyro.set_rng_seed(0)


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that share a fixture of their module run on one worker, so that it is made once."""
    for item in items:
        fixtures = item._fixtureinfo.name2fixturedefs.values() if isinstance(item, pytest.Function) else ()
        if any(made[-1].scope == "module" for made in fixtures) and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))


def pytest_collection_finish() -> None:
    """What was imported stays, a million objects: the garbage collector need not look at them again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _settings(request: pytest.FixtureRequest):
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    seed = request.config.getoption("--seed")
    random.seed(seed)
    np.random.seed(seed)
    set_seed(seed)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="session")
def zoo_data() -> Path:
    """The folder with the real data; the test is skipped where there is none."""
    folder = os.environ.get("ZOO_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("ZOO_DATA names no folder with the real data")
    return Path(folder)
