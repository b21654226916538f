"""The truth for any program: exact answers are those of the truth set, chains are run once, draws fit the program."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from benchmarks import targets
from benchmarks.targets import asked
from benchmarks.targets.target import Reference, Target
from zoo import datasets
from zoo.bayes.coin import BetaBernoulli
from zoo.bayes.eight_schools import EightSchools
from zoo.datasets import ReferencePosterior
from zoo.errors import CapabilityError, DatasetError, OptionError, ShapeError, UnknownNameError


@pytest.mark.parametrize("name", ["coin", "banana", "old-faithful"])
def test_exact_answers_are_those_of_the_truth_set(name: str) -> None:
    known = targets.load(name)
    assert isinstance(known, Target)
    if name == "old-faithful":
        with pytest.raises(CapabilityError, match="No exact posterior"):
            asked.exactly(type(known.program()), known.program().config(), known.data)
        return
    found = asked.exactly(name, known.program().config(), known.data)
    torch.testing.assert_close(found.log_evidence, known.log_evidence, rtol=1e-6, atol=1e-6)
    assert found.how == {"coin": "closed form", "banana": "grid"}[name]
    for site, mean in known.mean.items():
        assert bool(((found.mean[site] - mean).abs() < 5 * known.sd[site] / math.sqrt(asked.DRAWS)).all())
        torch.testing.assert_close(found.sd[site], known.sd[site], rtol=0.1, atol=0.0)


def test_chains_are_run_once_and_agree_with_the_exact_answer(tmp_path: Path) -> None:
    data, few = datasets.load("coin").train, {"warmup": 100, "draws": 600, "chains": 2}
    found = asked.by_nuts("coin", {}, data, folder=tmp_path, **few)
    exact = targets.load("coin")
    assert abs(float(found.mean["p"] - exact.mean["p"])) < 0.2 * float(exact.sd["p"])
    assert found.chains["p"].shape == (2, 600)
    (kept,) = tmp_path.glob("*.npz")
    before = kept.stat().st_mtime_ns
    again = asked.by_nuts(BetaBernoulli, {}, data, folder=tmp_path, **few)
    assert torch.equal(again.chains["p"], found.chains["p"])
    assert kept.stat().st_mtime_ns == before


def test_other_options_data_or_samplers_are_other_chains() -> None:
    data, coin = datasets.load("coin").train, BetaBernoulli()
    keys = [
        asked._key(coin, data, asked.LONG), asked._key(BetaBernoulli(alpha=2.0), data, asked.LONG),
        asked._key(coin, data.rows(slice(0, 5)), asked.LONG), asked._key(coin, data, {**asked.LONG, "warmup": 5}),
    ]  # fmt: skip
    assert len(set(keys)) == 4
    assert asked._key(BetaBernoulli(), data, dict(asked.LONG)) == keys[0]


def test_chains_that_have_not_mixed_are_not_kept(tmp_path: Path) -> None:
    data = datasets.load("coin").train
    with pytest.raises(CapabilityError, match=r"NUTS gives no truth for BetaBernoulli: .*effective sample size"):
        asked.by_nuts("coin", {}, data, folder=tmp_path, warmup=20, draws=20, chains=2)
    assert not list(tmp_path.glob("*.npz"))


def weighed(y: Tensor, known: float) -> None:
    """A Gaussian mean, and its double."""
    mu = pyro.sample("mu", dist.Normal(torch.tensor(0.0), 1.0))
    pyro.deterministic("both", torch.stack([mu, 2 * mu], -1))
    pyro.sample("y", dist.Normal(mu[..., None], float(known)).to_event(1), obs=y)


def a_posterior(**draws: Any) -> ReferencePosterior:
    flat = {name: value.numpy() for name, value in draws.items()}
    moments = ({name: float(f(value)) for name, value in flat.items()} for f in (np.mean, np.std))
    data = {"y": np.array([1.0, 2.0]), "known": 0.5, "unused": 3}
    return ReferencePosterior("made", data, tuple(flat), flat, *moments)


def test_draws_are_of_what_the_program_samples_or_computes() -> None:
    mu = torch.randn(4, 400)
    found = asked.from_draws(weighed, a_posterior(**{"mu": mu, "both[1]": mu, "both[2]": 2 * mu}))
    assert found.chains["both"].shape == (4, 400, 2)
    torch.testing.assert_close(found.chains["both"][..., 1], 2 * mu)
    assert found.program().config() == {"known": 0.5}
    assert set(found.data.context) == {"y"}
    with pytest.raises(UnknownNameError, match=r"neither sampled nor pyro\.deterministic"):
        asked.from_draws(weighed, a_posterior(nu=mu))
    with pytest.raises(ShapeError, match=r"'mu' have shape \(2,\)"):
        asked.from_draws(weighed, a_posterior(**{"mu[1]": mu, "mu[2]": mu}))
    with pytest.raises(DatasetError, match="indices"):
        asked.from_draws(weighed, a_posterior(**{"both[1]": mu, "both[3]": mu}))
    with pytest.raises(DatasetError, match=r"'both\[1'"):
        asked.from_draws(weighed, a_posterior(**{"both[1": mu}))
    with pytest.raises(OptionError, match="no names for data"):
        asked.from_draws(EightSchools, a_posterior(mu=mu))
    with pytest.raises(OptionError, match="Pyro code"):
        asked.from_draws(3, a_posterior(mu=mu))  # type: ignore[arg-type]


def test_a_class_of_programs_takes_data_beside_the_draws(zoo_data: Path) -> None:
    data = datasets.load("eight_schools").train
    centred = {"centered": True}
    found = asked.from_draws("eight-schools", datasets.reference_posterior("eight_schools"), data, centred)
    exact = targets.load("eight-schools-centered")
    for site in ("mu", "theta"):
        assert bool(((found.mean[site] - exact.mean[site]).abs() < 0.05 * exact.sd[site]).all())


def test_a_suite_asks_by_a_word_or_a_folder(tmp_path: Path) -> None:
    data = datasets.load("coin").train
    assert isinstance(asked.truth("coin", {}, data, "exact"), Target)
    chains = torch.randn(2, 300)
    written = {"data": {"y": [1.0, 2.0]}, "chains": 2, "reference_draws": {"mu": chains.flatten().tolist()}}
    (tmp_path / "mine-normal.json").write_text(json.dumps(written))
    (tmp_path / "mine.py").write_text(
        "import pyro, pyro.distributions as dist, torch\n"
        "def model(y):\n"
        "    mu = pyro.sample('mu', dist.Normal(torch.tensor(0.0), 1.0))\n"
        "    pyro.sample('y', dist.Normal(mu[..., None], 1.0).to_event(1), obs=y)\n"
    )
    way = {"draws": str(tmp_path), "name": "mine-normal"}
    found = asked.truth(f"{tmp_path / 'mine.py'}:model", {}, data, way)
    assert isinstance(found, Reference)
    torch.testing.assert_close(found.chains["mu"], chains)
    with pytest.raises(UnknownNameError, match="guess"):
        asked.truth("coin", {}, data, "guess")
