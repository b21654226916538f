"""ProdLDA: its prior beside the Dirichlet's curvature, its likelihood beside a grid, what is dropped in training."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from inference import fit
from inference.evaluation.estimates import elbo
from inference.evaluation.likelihood import log_likelihood
from inference.guides.exact import exact_log_evidence
from zoo import datasets
from zoo.errors import OptionError
from zoo.testing import checks
from zoo.topics.prodlda import ProdLDA, laplace


@pytest.mark.parametrize("check", list(checks()), ids=lambda check: check.__name__)
@pytest.mark.parametrize("decoder", ["product", "mixture"])
def test_contract(decoder, check):
    """After training: in it documents of a batch are normalised together."""
    program = ProdLDA((7,), 3, decoder, hidden=(5,))
    program.norm(torch.randn(40, 7))
    check(program.eval())


def test_the_prior_has_mode_and_curvature_of_the_dirichlet():
    alpha = torch.tensor([0.7, 2.0, 0.3, 1.1])

    def log_density(h):  # of Dirichlet(alpha) as a density of h, where it is one
        return (alpha * h.log_softmax(-1)).sum()

    loc, scale = laplace(alpha)
    assert torch.autograd.functional.jacobian(log_density, loc).abs().max() < 1e-12
    equal, (loc, scale) = torch.full((4,), 0.3), laplace(torch.full((4,), 0.3))
    alpha = equal
    covariance = -torch.linalg.pinv(torch.autograd.functional.hessian(log_density, loc))
    assert torch.allclose(scale**2, covariance.diagonal())


@pytest.mark.parametrize("decoder", ["product", "mixture"])
def test_the_likelihood_is_that_of_a_grid(decoder):
    program = ProdLDA((5,), 2, decoder, mixing=1.0, hidden=(6,))
    program.norm(torch.randn(40, 5))
    program.body(torch.rand(10, 5))
    program.eval()
    x = program.generate(4)
    exact = exact_log_evidence(program, x).detach()
    found = log_likelihood(program, x, particles=20_000)
    assert torch.allclose(found.values, exact, atol=5 * float(found.monte_carlo_error.max()) + 1e-3)
    assert float(found.monte_carlo_error.max()) < 0.05
    assert bool((elbo(program, program.guide, x).values < exact + 1e-2).all())


def test_words_of_topics_are_what_documents_of_one_topic_say():
    for decoder in ("product", "mixture"):
        program = ProdLDA((6,), 3, decoder).eval()
        topics = program.topic_words()
        assert torch.allclose(topics.sum(-1), torch.ones(3))
        theta = torch.tensor([0.2, 0.5, 0.3])
        mixed = program.decode(theta).detach()
        geometric = (theta @ topics.log()).softmax(-1)
        assert torch.allclose(mixed, geometric if decoder == "product" else theta @ topics)
        assert torch.allclose(program.next_word(program.generate(4)).sum(-1), torch.ones(4))


def test_training_drops_topics_and_normalises_batches():
    program = ProdLDA((6,), 4, dropout=0.5)
    x = torch.randint(0, 4, (30, 6)).double()
    spread = program.loc(program.body(x))
    assert torch.allclose(spread.mean(0), torch.zeros(4), atol=1e-9)
    assert torch.allclose(spread.var(0, correction=0), torch.ones(4), atol=1e-2)
    share = (program.dropout(torch.ones(4000)) == 0).double().mean()
    assert share == pytest.approx(0.5, abs=0.05)
    program.eval()
    one, many = program.encode(x[:1]), program.encode(x)
    assert torch.allclose(one.loc[0], many.loc[0])
    assert torch.allclose(one.scale[0], many.scale[0])


def test_one_topic_is_none():
    with pytest.raises(OptionError, match="topics"):
        ProdLDA((6,), 1)


@pytest.mark.slow
def test_topics_hold_together_as_well_as_those_of_lda():
    """The claim of the paper: more coherent topics, though words are not predicted better."""
    from inference.evaluation.topics import coherence, perplexity

    data = datasets.load("unicode-names")
    scores: dict[str, list[float]] = {"lda": [], "prodlda": []}
    for seed in range(3):
        for name in scores:
            found = fit(name, data, preset="small", seed=seed)
            scores[name].append(float(coherence(found.program.topic_words(), data.train.x).mean()))
            assert perplexity(found, data.test).value < 173 / 1.5  # one distribution for all documents has 173
    assert np.mean(scores["prodlda"]) > np.mean(scores["lda"])
