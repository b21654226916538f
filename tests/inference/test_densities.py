"""Densities kept apart by example, and added up."""

import pyro.distributions as dist
import torch
from pyro import poutine

from inference.densities import LogDensity, NoneMasked, ZeroWeighed, has_path


def test_a_ratio_is_joint_where_either_part_is():
    p = LogDensity(torch.tensor([[1.0, 2.0]]), torch.tensor([0.5]), joint=True)
    q = LogDensity(torch.tensor([[0.25, 0.25]]), torch.tensor([0.0]), joint=False)
    ratio = p - q
    assert ratio.joint
    assert ratio.total.tolist() == [3.0]


def test_only_draws_without_gradients_lack_a_path():
    import pyro

    def code():
        pyro.sample("smooth", dist.Normal(0.0, 1.0))
        pyro.sample("rough", dist.Poisson(1.0))
        pyro.sample("seen", dist.Poisson(1.0), obs=torch.tensor(1.0))

    nodes = poutine.trace(code).get_trace().nodes
    assert [has_path(nodes[name]) for name in ("smooth", "rough", "seen")] == [True, False, True]


def test_nothing_counts_as_masked_meanwhile():
    with NoneMasked():
        assert torch.tensor([True, False]).all() is True
    assert not bool(torch.tensor([True, False]).all())


def test_what_has_probability_zero_counts_for_nothing_meanwhile():
    probabilities = torch.tensor([0.0, 1.0])
    terms = torch.tensor([-torch.inf, 2.0], requires_grad=True)
    with ZeroWeighed():
        total = torch.tensordot(probabilities, terms, dims=1)
        assert torch.tensor([True, False]).all() is True
    total.backward()
    assert total.item() == 2.0
    assert terms.grad.tolist() == [0.0, 1.0]
