"""Both sides of a comparison: equal where they are, unequal where they are not, and a failure is a row."""

from __future__ import annotations

import math
import re

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, TraceGraph_ELBO
from pyro.infer.autoguide import AutoNormal
from torch.distributions import constraints

from benchmarks.scripts.pyro_cases import Problem
from benchmarks.scripts.pyro_examples import Row, compare, main, table
from tests.benchmarks.scripts.pyro_tree import grow
from zoo.errors import UnknownNameError

Y = torch.tensor([1.0, 2.0, 4.0])


def model(y, scale=1.0):
    noise = pyro.param("noise", torch.tensor(2.0), constraint=constraints.positive)
    loc = pyro.sample("loc", dist.Normal(0.0, scale))
    with pyro.plate("rows", len(y)):
        side = pyro.sample("side", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
        pyro.sample("y", dist.Normal(loc + side, noise), obs=y)


def guide(y, scale=1.0):
    pyro.sample("loc", dist.Normal(pyro.param("q", lambda: torch.randn(())), 0.5))


def mixture(scale=1.0):
    return Problem(model, guide, TraceEnum_ELBO(max_plate_nesting=1), {"y": Y}, {"scale": scale})


def normal(y):
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(loc, 1.0), obs=y)


def test_the_same_on_both_sides():
    row = compare("mixture", mixture, rounds=2)
    assert row.same, row
    assert row.error == ""
    assert row.parameters == 2
    assert row.outline == "2 latent, 1 observed; plates rows 3"
    assert min(row.seconds) > 0


def test_an_autoguide_starts_where_pyros_does():
    row = compare("normal", lambda: Problem(normal, AutoNormal(normal), Trace_ELBO(), {"y": Y}), rounds=2)
    assert row.same, row
    assert row.parameters == 2


def test_a_difference_is_seen():
    scales = iter([1.0, 1.001])
    row = compare("mixture", lambda: mixture(next(scales)), rounds=1)
    assert not row.same
    assert row.loss[0] != row.loss[1]
    assert row.gradient > 1e-5


@pytest.mark.parametrize(
    ("second", "error"),
    [
        (lambda: 1 / 0, "ZeroDivisionError"),
        (lambda: Problem(normal, AutoNormal(normal), Trace_ELBO(), {"y": Y}), r"Parameters are \['AutoNormal.locs.loc"),
        (lambda: Problem(model, guide, TraceGraph_ELBO(), {"y": Y}), "TraceGraph_ELBO has no counterpart"),
    ],
)
def test_a_failure_is_a_row(second, error):
    builds = iter([mixture, second])
    row = compare("broken", lambda: next(builds)(), rounds=1)
    assert not row.same
    assert math.isfinite(row.loss[0])
    assert re.search(error, row.error)
    assert f"- broken: {row.error}" in table([row])


def test_pyros_store_and_settings_are_as_they_were():
    with pyro.get_param_store().scope():
        pyro.param("kept", torch.tensor(1.0))
        compare("mixture", mixture, rounds=1)
        assert list(pyro.get_param_store().keys()) == ["kept"]
    assert pyro.settings.get("module_local_params")


def test_the_table_has_a_line_for_each():
    row = Row("coin", "1 latent", (12.5, 12.5), 2e-7, 1234, (0.001, 0.002))
    assert table([row]).splitlines()[-1] == "| coin | 1 latent | 1,234 | 12.5 | 12.5 | 2e-07 | 1.00 | 2.00 | yes |"


def test_the_command_prints_the_record(tmp_path, capsys):
    main([str(grow(tmp_path)), "--only", "SVI part", "--rounds", "1"])
    out = capsys.readouterr().out
    assert "**1 of 1 agree.**" in out
    assert "1 models and guides from 1 of" in out
    assert "| SVI part I | `tutorial/source/svi_part_i.ipynb` |" in out


def test_an_unknown_example_is_named(tmp_path):
    with pytest.raises(UnknownNameError, match="SVI part I"):
        main([str(grow(tmp_path)), "--only", "SVI part Y"])
