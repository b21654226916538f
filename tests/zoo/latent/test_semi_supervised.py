"""M2: a linear one is a mixture with a closed form; known classes are certain, and others summed out."""

from __future__ import annotations

import math
from statistics import median

import pytest
import torch
from pyro import poutine
from torch.distributions import Categorical, LowRankMultivariateNormal, MixtureSameFamily
from torch.nn.functional import one_hot

from inference import fit
from inference.evaluation import log_likelihood
from inference.methods.bounds import make_objective
from inference.particles import draw
from zoo import datasets
from zoo.datasets import Data
from zoo.errors import OptionError, ShapeError, SupportError
from zoo.latent.semi_supervised import SemiSupervisedVAE, hide_labels
from zoo.testing import checks

PROGRAMS = {
    "bits": SemiSupervisedVAE,
    "numbers": lambda: SemiSupervisedVAE([5], [3], 2, [6], [], "normal"),
    "categories": lambda: SemiSupervisedVAE([2, 3], [2], 2, [], [4], {"name": "categorical", "values": 4}),
}


@pytest.mark.parametrize("check", list(checks()), ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", PROGRAMS)
def test_contract(name, check):
    check(PROGRAMS[name]())


def linear() -> SemiSupervisedVAE:
    """x = W (z, y) + b + noise, for which everything is known; four numbers, three classes, two codes."""
    program = SemiSupervisedVAE([4], [3], 2, [], [], "normal", alpha=2.0)
    with torch.no_grad():
        program.likelihood.scale = torch.tensor(0.8)
        program.bias.normal_()
        for net in (program.encoder, program.decoder):
            net[0].weight[:, -3:].normal_(std=0.3)  # else the class has no meaning yet
    return program


def exact(program: SemiSupervisedVAE) -> LowRankMultivariateNormal:
    """p(x | y) of all classes."""
    weight = program.decoder[0].weight.detach()
    factor, means = weight[:, :2], weight[:, 2:].T + program.bias.detach()[0]
    noise = torch.full((3, 4), 0.64)
    return LowRankMultivariateNormal(means, factor.expand(3, 4, 2), noise)


@torch.no_grad()
def test_the_likelihood_of_a_linear_one_is_that_of_a_mixture_of_gaussians():
    program = linear().eval()
    x = program.generate(4, torch.zeros(4, 3))
    known = one_hot(torch.tensor([0, 2, 1, 1]), 3).double()
    each = exact(program)
    cases = [
        (torch.zeros(4, 3), MixtureSameFamily(Categorical(torch.ones(3)), each).log_prob(x)),
        (known, (each.log_prob(x[:, None]) * known).sum(-1)),
    ]
    for context, want in cases:
        prior = poutine.block(program.model, expose=["y", "z"])  # a better proposal than an untrained guide
        got = log_likelihood(program, (x, context), guide=prior, particles=40_000)
        error = got.monte_carlo_error
        assert error.max() < 0.05
        assert bool(((got.values - want).abs() < 4.5 * error).all()), (got.values, want)


@torch.no_grad()
def test_the_bound_sums_the_classes_out_and_weighs_what_is_known():
    program = linear()
    x, context = torch.randn(4, 4), torch.zeros(4, 3)
    context[0, 2] = context[1, 0] = 1.0
    log_q = program.log_classes(x)
    want = torch.zeros(4)
    q_of = torch.where(context.sum(-1, keepdim=True) > 0, context, log_q.exp())
    for k in range(3):
        # Given the class all is Gaussian: E log p(x | y, z) and KL in closed form.
        both = torch.cat([x, one_hot(torch.full((4,), k), 3).double()], -1)
        loc, log_scale = program.encoder(both).chunk(2, -1)
        weight = program.decoder[0].weight
        mean = loc @ weight[:, :2].T + weight[:, 2 + k] + program.bias[0]
        spread = ((weight[:, :2] ** 2) @ (2 * log_scale).exp().T).T
        likelihood = -(((x - mean) ** 2 + spread) / 0.64 / 2 + math.log(0.8 * math.sqrt(2 * math.pi))).sum(-1)
        kl = ((loc**2 + (2 * log_scale).exp() - 1) / 2 - log_scale).sum(-1)
        open_prior = torch.where(context.sum(-1) > 0, 0.0, -math.log(3) - log_q[:, k])
        want += q_of[:, k] * (likelihood - kl + open_prior)
    for training, extra in ((False, 0.0), (True, 2.0 * float((context * log_q).sum()))):
        program.train(training)
        bounds = torch.stack(
            [make_objective("enum", 50)(program, program.guide, Data(x, context), 4)[1] for _ in range(100)]
        )
        error = float(bounds.std()) / 10
        assert error < 0.05
        assert float(bounds.mean()) == pytest.approx((float(want.sum()) + extra) / 4, abs=4.5 * error)


def test_known_classes_are_certain_and_open_ones_are_drawn():
    program = SemiSupervisedVAE()
    context = program.example_context(20)
    x = program.generate(20, context)
    with torch.no_grad():
        drawn = draw(program.guide, 200, x, context).values["y"]
    is_known = context.sum(-1) > 0
    assert bool((drawn[:, is_known] == context.argmax(-1)[is_known]).all())
    assert bool((drawn[:, ~is_known].double().std(0) > 0).all())


def test_labels_are_hidden_evenly():
    classes = one_hot(torch.arange(60) % 3, 3).double()
    shown = hide_labels(classes, 12, seed=1)
    assert shown.sum(0).tolist() == [4, 4, 4]
    assert bool(((shown == classes) | (shown == 0)).all())
    assert torch.equal(shown, hide_labels(classes, 12, seed=1))
    assert not torch.equal(shown, hide_labels(classes, 12, seed=2))
    for keep in (10, 63, -3):
        with pytest.raises(OptionError, match="multiple of the 3 classes, of which the rarest has 20"):
            hide_labels(classes, keep)


def test_what_is_no_class_is_refused():
    program = SemiSupervisedVAE()
    x = program.generate(3, program.example_context(3))
    for bad in (torch.ones(3, 10), torch.full((3, 10), 0.1), -torch.eye(10)[:3]):
        with pytest.raises(SupportError, match="one-hot rows, or zeros where the class is not known"):
            program.check(x, bad)
    with pytest.raises(ShapeError, match="classes one-hot"):
        SemiSupervisedVAE(context_shape=[2, 5])


@pytest.mark.slow
def test_with_100_labels_it_is_better_than_its_classifier_alone(zoo_data):
    """The same classifier, trained on the hundred labels alone, by the same optimizer; the median of three seeds."""
    torch.set_default_dtype(torch.float32)
    data = datasets.load("mnist10k-binary-labelled")
    context = hide_labels(data.train.context, 100)
    known = context.sum(-1) > 0
    truth = data.test.context.argmax(-1)
    chosen, alone, ours = SemiSupervisedVAE.preset("small"), [], []
    for seed in range(3):
        torch.manual_seed(seed)
        plain = SemiSupervisedVAE.for_data(*data.train)
        optimizer = torch.optim.Adam(plain.classifier.parameters(), lr=1e-3)
        for _ in range(500):
            optimizer.zero_grad()
            (-(context[known] * plain.log_classes(data.train.x[known])).sum(-1).mean()).backward()
            optimizer.step()
        program = SemiSupervisedVAE.for_data(*data.train, **chosen.program)
        fit(program, (data.train.x, context), "svi", seed=seed, **dict(chosen.fit))
        for each, shares in ((plain, alone), (program, ours)):
            with torch.no_grad():
                found = each.log_classes(data.test.x).argmax(-1)
            shares.append(float((found == truth).double().mean()))
    assert median(ours) > median(alone)
