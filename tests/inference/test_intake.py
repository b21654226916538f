"""What a fit is given: where it comes from, and what of it a method cannot take."""

from dataclasses import replace

import pyro
import pyro.distributions as dist
import pytest
import torch

import zoo
from inference import fit
from inference.intake import as_dataset
from zoo.bayes.coin import BetaBernoulli
from zoo.datasets import Dataset
from zoo.errors import CapabilityError, OptionError
from zoo.implicit.cyclegan import CycleGAN
from zoo.implicit.pix2pix import Pix2Pix

X = torch.tensor([1.0, 0.0, 1.0])
TIMES = torch.tensor([3, 1, 2])


def test_data_come_from_the_program_from_a_name_or_from_memory():
    assert as_dataset(None, "coin")[0] == "coin"
    name, train, valid = as_dataset("iris")
    assert (name, train.size, valid.size) == ("iris", 90, 30)
    assert as_dataset(X)[2] is None
    with pytest.raises(OptionError, match="Give data"):
        as_dataset(None)


def test_what_learns_from_pairs_refuses_images_that_are_none():
    x = torch.rand(4, 8, 8)
    data = Dataset.of((x, x), (x, x), (x, x), name="both")
    torn = replace(data, card=replace(data.card, unpaired=("train",)))
    pairs, without = Pix2Pix([8, 8], [8, 8], channels=[2, 2]), CycleGAN([8, 8], [8, 8], channels=[2, 2], blocks=1)
    assert as_dataset(data, pairs)[0] == as_dataset(torn, without)[0] == "both"
    for program in (pairs, "pix2pix"):
        with pytest.raises(CapabilityError, match=r"'both' are answers to nothing.*'cyclegan'"):
            as_dataset(torn, program)


@pytest.mark.parametrize(
    ("method", "options"),
    [("exact", {}), ("avb", {"steps": 2}), ("svi", {"elbo": "iwae", "particles": 3, "guide": "normal", "steps": 2})],
)
def test_methods_that_cannot_weigh_say_so(method, options):
    with pytest.raises(CapabilityError, match=r"weigh|Row weights"):
        fit(BetaBernoulli(), X, method, weights=TIMES, **options)


def test_adopted_code_weighs_by_itself():
    def coin(y):
        p = pyro.sample("p", dist.Beta(1.0, 1.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Bernoulli(p), obs=y)

    with pytest.raises(CapabilityError, match=r"poutine\.scale"):
        fit(zoo.adopt(coin), X, "svi", weights=TIMES, steps=2)


def test_columns_of_adopted_code_are_its_arguments(tmp_path):
    """They have no target and no context; a file whose name says so was looked for and not found."""

    def model(x, y=None):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(x)):
            return pyro.sample("y", dist.Normal(mean + x, 1.0), obs=y)

    file = tmp_path / "rows.csv"
    file.write_text("x,y\n1,2\n2,3\n3,5\n")
    program = zoo.adopt(model)
    with pytest.raises(OptionError, match="read by their names: leave target and context out"):
        fit(program, f"{file}?target=y&context=x", steps=2)
    assert fit(program, str(file), steps=2).posterior.training().context["y"].tolist() == [[2, 3, 5]]
