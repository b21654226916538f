"""Scores of topics, beside numbers worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from inference import fit
from inference.evaluation.topics import coherence, completed_perplexity, perplexity, thinned, top_words
from zoo import catalogue
from zoo.errors import CapabilityError, EmptyDataError, OptionError, ShapeError
from zoo.topics.lda import LDA


def test_words_go_to_either_half_by_the_toss_of_a_coin():
    x = torch.randint(0, 50, (400, 5)).double()
    known, hidden = thinned(x, seed=3)
    assert torch.equal(known + hidden, x)
    assert bool((known >= 0).all() and (hidden >= 0).all())
    assert abs(float(known.sum() - hidden.sum())) < 5 * math.sqrt(float(x.sum()))
    assert torch.equal(known, thinned(x, seed=3)[0])
    assert torch.equal(known.float(), thinned(x.float(), seed=3)[0])
    assert not torch.equal(known, thinned(x, seed=4)[0])


def test_perplexity_is_that_of_the_hidden_words():
    x = torch.randint(0, 5, (60, 4)).double()
    uniform = completed_perplexity(lambda known: torch.full_like(known, 0.25), x)
    assert uniform.value == pytest.approx(4.0)
    assert uniform.standard_error == pytest.approx(0.0, abs=1e-9)
    known, hidden = thinned(x)
    assert uniform.words == int(hidden.sum())
    p = torch.tensor([0.1, 0.2, 0.3, 0.4])
    seen = []

    def predict(given):
        seen.append(given)
        return p.expand_as(given)

    want = math.exp(-float((hidden.sum(0) * p.log()).sum() / hidden.sum()))
    assert completed_perplexity(predict, x).value == pytest.approx(want)
    assert torch.equal(seen[0], known)


def test_the_standard_error_is_the_spread_over_documents():
    p, values, errors = torch.tensor([0.1, 0.2, 0.7]), [], []
    for seed in range(200):
        torch.manual_seed(seed)
        x = torch.poisson(5 * torch.rand(40, 3))
        found = completed_perplexity(lambda known: p.expand_as(known), x, seed=seed)
        values.append(found.value)
        errors.append(found.standard_error)
    assert torch.tensor(errors).mean() == pytest.approx(float(torch.tensor(values).std()), rel=0.25)


def test_a_fit_predicts_by_its_own_guide_alone():
    x = LDA((6,), 2).generate(30)
    found = fit("lda", x, "cavi", topics=2, iterations=5)
    assert perplexity(found, x).value == perplexity(found.program, x).value
    assert 1 < perplexity(found, x).value < 6.5
    with pytest.raises(CapabilityError, match="own guide"):
        perplexity(replace(found, guide_spec={"kind": "auto"}), x)
    with pytest.raises(CapabilityError, match="topic models"):
        perplexity(catalogue.create("ppca", event_shape=[6], latent_dim=1), x)
    with pytest.raises(EmptyDataError, match="held out"):
        perplexity(found, torch.zeros(2, 6))


def test_coherence_by_hand():
    # a and b always together, in half of the documents; c in every other of these; d never with a.
    x = torch.tensor([[1, 2, 1, 0], [3, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 4]]).double()
    topics = torch.tensor([[0.4, 0.3, 0.2, 0.1], [0.5, 0.0, 0.1, 0.4]])
    assert coherence(topics[:1], x, top=2).tolist() == pytest.approx([1.0])  # a b
    assert coherence(topics[1:], x, top=2).tolist() == pytest.approx([-1.0])  # a d
    pair = math.log(0.25 / (0.5 * 0.25)) / -math.log(0.25)
    assert coherence(topics[:1], x, top=3).tolist() == pytest.approx([(1 + 2 * pair) / 3])
    assert coherence(topics, torch.ones(3, 4), top=4).tolist() == [1.0, 1.0]
    with pytest.raises(ShapeError, match="top=1"):
        coherence(topics, x, top=1)
    with pytest.raises(ShapeError):
        coherence(topics, x[:, :3])
    with pytest.raises(OptionError):
        coherence(topics, x, top=0)


def test_topics_are_named_by_their_words():
    topics = torch.tensor([[0.4, 0.3, 0.2, 0.1], [0.1, 0.0, 0.2, 0.7]])
    assert top_words(topics, ["a", "b", "c", "d"], 2) == [["a", "b"], ["d", "c"]]
    assert top_words(topics, top=9)[0] == ["word 0", "word 1", "word 2", "word 3"]
    with pytest.raises(ShapeError, match="3 names"):
        top_words(topics, ["a", "b", "c"])
