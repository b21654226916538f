"""The table of Pyro's examples: enough of them, and each makes a problem that Pyro itself can compute."""

from __future__ import annotations

import os

import pyro
import pytest
import torch

from benchmarks.scripts.pyro_cases import CASES
from benchmarks.scripts.pyro_checkout import Checkout
from tests.benchmarks.scripts.pyro_tree import grow

COUNTED = """
import pyro
import pyro.distributions as dist


def model_4(capture_history, sex):
    phi = pyro.sample("phi", dist.Uniform(0.0, 1.0))
    with pyro.plate("animals", len(sex)):
        pyro.sample("y", dist.Bernoulli(phi), obs=capture_history[:, 0])


models = {"4": model_4}
"""


def test_more_than_fifteen_of_pyros_files_are_in_it():
    sources = {case.source for case in CASES.values()}
    assert len(sources) > 15
    assert all(source.startswith(("examples/", "tutorial/source/")) for source in sources)


def test_a_notebook_makes_a_problem(tmp_path):
    problem = CASES["SVI part I"].build(Checkout(grow(tmp_path)))
    with pyro.get_param_store().scope():
        loss = problem.elbo.loss(problem.model, problem.guide, **problem.data, **problem.static)
    assert torch.isfinite(torch.tensor(loss))


def test_data_of_the_checkout_are_read(tmp_path):
    folder = grow(tmp_path) / "examples" / "capture_recapture"
    folder.mkdir()
    (folder / "cjs.py").write_text(COUNTED)
    (folder / "dipper_capture_history.csv").write_text("1,1,0\n2,0,1\n")
    (folder / "dipper_sex.csv").write_text("1,1\n2,0\n")
    problem = CASES["capture-recapture: model_4"].build(Checkout(tmp_path))
    assert problem.data["capture_history"].tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert problem.data["sex"].tolist() == [1.0, 0.0]
    assert problem.elbo.num_particles == 20


@pytest.mark.skipif("PYRO_CHECKOUT" not in os.environ, reason="PYRO_CHECKOUT names no checkout of Pyro")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CASES)
def test_pyro_computes_it(name):
    torch.set_default_dtype(torch.float32)  # some of the models count on it
    torch.manual_seed(0)
    with pyro.settings.context(module_local_params=False), pyro.get_param_store().scope():
        problem = CASES[name].build(Checkout(os.environ["PYRO_CHECKOUT"]))
        given = {**problem.data, **problem.static}
        with pyro.validation_enabled(problem.validated):
            loss = problem.elbo.loss(lambda: problem.model(**given), lambda: problem.guide(**given))
    assert torch.isfinite(torch.tensor(loss))
