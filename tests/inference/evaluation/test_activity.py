"""Active units against a Gaussian whose posterior means are known."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from inference import fit
from inference.evaluation.activity import ACTIVE, activity
from zoo import Program, catalogue
from zoo.errors import CapabilityError, EmptyDataError, OptionError
from zoo.latent.ppca import PPCA


def test_it_is_the_variance_of_the_posterior_mean_and_a_unit_without_weight_has_none():
    program = PPCA([5], 3)
    with torch.no_grad():
        program.weight.normal_()
        program.weight[:, 1] = 0.0
    x = program.generate(600)
    means = program._posterior_mean(x - program.mean)
    found = activity(program, x, guide=program.posterior, particles=400)["z"]
    # The error of a mean of 200 draws, of variance at most one, in each of 600 examples.
    torch.testing.assert_close(found, means.var(0).detach(), atol=0.02, rtol=0)
    few = torch.stack([activity(program, x, guide=program.posterior, particles=2, seed=i)["z"] for i in range(40)])
    assert abs(float(few[:, 1].mean())) < 5 * float(few[:, 1].std()) / 40**0.5  # no bias, however few the draws
    assert (found > ACTIVE).tolist() == [True, False, True]


class Bare(Program):
    """Without a guide."""

    event_shape = torch.Size([2])

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        with self.plate(x, context, size):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            return pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


def test_what_has_no_such_units_is_refused():
    with pytest.raises(CapabilityError, match="discrete"):
        activity(catalogue.create("vq-vae"), torch.zeros(3, 8, 8))
    with pytest.raises(CapabilityError, match="has no guide"):
        activity(Bare(), torch.zeros(3, 2))
    found = fit(PPCA([5], 3), torch.randn(4, 5), "svi", guide="normal", steps=1)
    with pytest.raises(CapabilityError, match="factors of the examples that it was fitted to"):
        activity(found, torch.randn(4, 5))
    with pytest.raises(EmptyDataError, match="two of them"):
        activity(PPCA([5], 3), torch.zeros(1, 5))
    with pytest.raises(OptionError, match="particles must be at least 2"):
        activity(PPCA([5], 3), torch.zeros(3, 5), particles=1)
