"""Pyro's latent examples beside ours: the judge of both, and the page; the examples themselves need a checkout."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats

from benchmarks.scripts import pyro_latent
from benchmarks.scripts.pyro_latent import Row, Task, importance
from zoo import datasets
from zoo.errors import OptionError, UnknownNameError


@pytest.mark.parametrize("sites", ["one", "a step each"])
def test_both_sides_are_judged_by_the_likelihood(sites):
    """z ~ N(0, I), x | z ~ N(z, I), by a guide that is somewhat off; sites of two kinds of writing."""
    x = torch.tensor([[0.3, -1.2], [2.0, 0.1], [-0.5, 0.4]])

    def model():
        with pyro.plate("data", 3):
            if sites == "one":
                z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)
                return
            for t in range(2):
                z = pyro.sample(f"z_{t}", dist.Normal(0.0, 1.0))
                pyro.sample(f"x_{t}", dist.Normal(z, 1.0), obs=x[:, t])

    def guide():
        with pyro.plate("data", 3):
            if sites == "one":
                pyro.sample("z", dist.Normal(x / 2 + 0.1, 0.8).to_event(1))
                return
            for t in range(2):
                pyro.sample(f"z_{t}", dist.Normal(x[:, t] / 2 + 0.1, 0.8))

    exact = torch.tensor(stats.norm.logpdf(x.numpy(), 0, math.sqrt(2)).sum(1))
    found = importance(model, guide, 2000)
    assert found.shape == (3,)
    assert torch.allclose(found, exact, atol=0.03)  # the weights' relative deviation is below 0.3
    assert not torch.allclose(importance(model, guide, 1), exact, atol=1e-3)


def test_the_page_has_a_line_for_each_side():
    rows = [Row("cvae, 1 given", side, -60.25, error=0.5, seconds=7.0, parameters=1234) for side in ("Pyro", "zoo")]
    page = pyro_latent.record(rows, Task(epochs=3), "abc")
    assert "| cvae, 1 given | zoo | -60.250 | 0.500 | 7 | 1,234 |" in page
    assert "3 epochs" in page
    assert "Pyro's files abc" in page
    assert "pyro_latent CHECKOUT --epochs 3 --draws 100`" in page
    assert "CHECKOUT --only ssvae --epochs 3" in pyro_latent.record(rows, Task(epochs=3), "abc", "ssvae")


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(OptionError, match="no checkout"):
        pyro_latent.main([str(tmp_path)])
    (tmp_path / "examples").mkdir()
    with pytest.raises(UnknownNameError, match="cvae-1"):
        pyro_latent.main([str(tmp_path), "--only", "cvae-4"])


class Checkout:
    """Files of a checkout, by name."""

    def __init__(self, **files):
        self.files = files

    def file(self, name):
        return SimpleNamespace(**self.files[name.rsplit("/", 1)[-1].removesuffix(".py")])


@pytest.fixture
def seen():
    """What the examples' code was given; of a test in which ours is of no interest."""
    torch.set_default_dtype(torch.float32)
    yield {}
    pyro.clear_param_store()


def test_the_semi_supervised_example_gets_its_hundred_labels_and_all_other_digits(seen, zoo_data):

    class SSVAE(torch.nn.Module):
        def __init__(self, **settings):
            super().__init__()
            seen.update(settings)
            self.classifier = torch.nn.Linear(784, 10)

        def model(self, xs, ys=None):
            raise AssertionError("the loop of the example calls it")

        guide = model_classify = guide_classify = model

    def epoch(loaders, losses, period):
        seen.setdefault("epochs", []).append((loaders, len(losses), period))

    file = {"SSVAE": SSVAE, "run_inference_for_epoch": epoch}
    task = Task(epochs=1, rows=1000)
    plain, pyros, ours = pyro_latent.ssvae(Checkout(ss_vae_M2=file), task)
    ((loaders, losses, period),) = seen["epochs"]
    ((known, labels),) = loaders["sup"]
    others = torch.cat([x for x, _ in loaders["unsup"]])
    assert known.shape == (100, 784)
    assert labels.sum(1).tolist() == [1.0] * 100
    assert all(y.eq(0).all() for _, y in loaders["unsup"])
    train = datasets.load("mnist10k-binary-labelled").train.rows(slice(0, 1000)).x.flatten(1)
    assert torch.equal(torch.cat([known, others]).sum(0), train.sum(0).float())
    assert (losses, period, seen["z_dim"]) == (2, 5 + 1, 50)
    assert [row.side for row in (plain, pyros, ours)] == ["labels alone", "Pyro", "zoo"]
    assert plain.score > 0.6 > 0.2 > pyros.score  # which was not trained
    assert ours.score > 0.2


def test_the_chorales_example_gets_every_piece_in_every_epoch_and_a_growing_kl(seen, zoo_data):

    class DMM(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = torch.nn.Dropout()

        def model(self, x, index, weight=1.0):
            seen.setdefault("steps", []).append((index, weight))
            with pyro.plate("pieces", len(index)):
                z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

        def guide(self, x, index, weight=1.0):
            loc = pyro.param("loc", torch.zeros(()))
            with pyro.plate("pieces", len(index)):
                pyro.sample("z", dist.Normal(loc, 1.0))

    def batch(index, x, lengths):
        return x[index].flatten(1).sum(1), index

    file = {"DMM": DMM, "poly": SimpleNamespace(get_mini_batch=batch)}
    pyros, ours = pyro_latent.dmm(Checkout(dmm=file), Task(epochs=2, rows=30, draws=1))
    training = seen["steps"][:4]
    for epoch in (training[:2], training[2:]):
        assert sorted(torch.cat([index for index, _ in epoch]).tolist()) == list(range(30))
        assert [len(index) for index, _ in epoch] == [20, 10]
    assert [weight for _, weight in training] == [1.0] * 4  # a fifth of four steps is none
    assert (pyros.side, ours.side) == ("Pyro", "zoo")
    assert -88 < ours.score < -1
    assert pyros.parameters == 0
