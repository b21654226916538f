"""What a fit is given: where it comes from, and what of it a method cannot take."""

import pyro
import pyro.distributions as dist
import pytest
import torch

import zoo
from inference import fit
from inference.intake import as_dataset
from zoo.bayes.coin import BetaBernoulli
from zoo.errors import CapabilityError, OptionError

X = torch.tensor([1.0, 0.0, 1.0])
TIMES = torch.tensor([3, 1, 2])


def test_data_come_from_the_program_from_a_name_or_from_memory():
    assert as_dataset(None, "coin")[0] == "coin"
    name, train, valid = as_dataset("iris")
    assert (name, train.size, valid.size) == ("iris", 90, 30)
    assert as_dataset(X)[2] is None
    with pytest.raises(OptionError, match="Give data"):
        as_dataset(None)


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
