"""LDA: sums over all assignments of words to topics beside evidence, bound and importance weights; scikit-learn's."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from pyro.infer import Trace_ELBO
from scipy.special import gammaln, logsumexp
from scipy.stats import poisson

from inference import fit
from inference.evaluation.estimates import log_mean_exp
from inference.evaluation.predictive import pointwise
from inference.particles import draw, log_joint, prior_draws
from zoo import datasets
from zoo.errors import CapabilityError, ShapeError, SupportError
from zoo.program import CoordinateAscent, ExactDensity, ExactEvidence
from zoo.testing import checks
from zoo.topics.lda import LDA

PROGRAMS = {"three topics": lambda: LDA((7,), 3), "one topic": lambda: LDA((4,), 1, mixing=2.0)}


@pytest.mark.parametrize("check", list(checks()), ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", PROGRAMS)
def test_contract(name, check):
    check(PROGRAMS[name]())


def polya(counts: np.ndarray, prior: float) -> float:
    """log p(a sequence with these counts) under a symmetric Dirichlet."""
    n, k = counts.sum(), len(counts)
    return gammaln(k * prior) - gammaln(k * prior + n) + (gammaln(prior + counts) - gammaln(prior)).sum()


def coefficients(x: torch.Tensor, length: float) -> float:
    """log p(lengths), and in how many orders the words may stand."""
    n = x.sum(1).numpy()
    return poisson.logpmf(n, length).sum() + gammaln(n + 1).sum() - gammaln(x.numpy() + 1).sum()


DOCUMENTS = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 2.0], [0.0, 0.0, 1.0]]).double()


def test_the_evidence_is_the_sum_over_all_topics_of_all_words():
    program = LDA((3,), 2, mixing=0.7, sparsity=0.4)
    with torch.no_grad():
        program.initialise(DOCUMENTS)
    tokens = [(d, v) for d in range(3) for v in range(3) for _ in range(int(DOCUMENTS[d, v]))]
    terms = []
    for chosen in itertools.product(range(2), repeat=len(tokens)):
        of_documents, of_topics = np.zeros((3, 2)), np.zeros((2, 3))
        for (d, v), k in zip(tokens, chosen, strict=True):
            of_documents[d, k] += 1
            of_topics[k, v] += 1
        terms.append(sum(polya(row, 0.7) for row in of_documents) + sum(polya(row, 0.4) for row in of_topics))
    want = logsumexp(terms) + coefficients(DOCUMENTS, 7 / 3)
    assert float(program.log_evidence(DOCUMENTS)) == pytest.approx(want, abs=1e-10)


def test_one_topic_is_a_dirichlet_multinomial():
    program = LDA((3,), 1, sparsity=0.4)
    with torch.no_grad():
        program.initialise(DOCUMENTS)
    want = polya(DOCUMENTS.sum(0).numpy(), 0.4) + coefficients(DOCUMENTS, 7 / 3)
    assert float(program.log_evidence(DOCUMENTS)) == pytest.approx(want, abs=1e-10)
    # One step of coordinate ascent finds the posterior, and the bound is the evidence.
    assert float(program.cavi_step(DOCUMENTS)) == pytest.approx(want, abs=1e-9)
    assert torch.allclose(program.q_topics[0], 0.4 + DOCUMENTS.sum(0))


def test_of_many_words_only_bounds_are_left():
    assert isinstance(LDA(), ExactEvidence)
    assert isinstance(LDA(), CoordinateAscent)
    assert not isinstance(LDA(), ExactDensity)
    with pytest.raises(CapabilityError, match=r"3\^30 assignments"):
        LDA((3,), 3).log_evidence(torch.full((1, 3), 10.0))


def given_draws(program: LDA, x: torch.Tensor, **given: torch.Tensor) -> torch.Tensor:
    """log p(x_n | latents), (S, N), under 50,000 draws of the prior."""
    drawn = prior_draws(program.model, 50_000, x, None, given)
    return pointwise(program, {name: drawn[name] for name in ("topics", "theta")}, x)


def test_bounds_lie_below_the_evidence_and_the_mean_over_the_prior_on_it():
    """The evidence counts each way to number the topics; bounds see one of the two."""
    program = LDA((3,), 2, mixing=0.5, sparsity=0.5, rounds=100)
    found = fit(program, DOCUMENTS, "cavi", iterations=200, tolerance=1e-10, seed=1)
    exact = float(program.log_evidence(DOCUMENTS))
    with torch.no_grad():
        cavi = float(program.cavi_step(DOCUMENTS))
        drawn = draw(found.guide, 20_000, DOCUMENTS)
        bound = log_joint(program, drawn.values, DOCUMENTS).total - drawn.log_prob.total
        value, error = log_mean_exp(given_draws(program, DOCUMENTS).sum(1, keepdim=True))
    noise = float(bound.std()) / math.sqrt(len(bound))
    assert cavi < float(bound.mean()) + 5 * noise  # which sums the topics of words out
    assert exact - 3 < cavi < float(bound.mean()) < exact
    assert float(value) == pytest.approx(exact, abs=5 * float(error))
    assert float(error) < 0.02


def test_a_document_given_the_topics_by_the_sum_over_its_words():
    """The mean over draws of theta, the topics held, beside K^n terms."""
    program = LDA((4,), 3, mixing=0.6)
    topics = torch.distributions.Dirichlet(torch.ones(3, 4)).sample()
    x = torch.tensor([[2.0, 0.0, 1.0, 1.0]])
    words = [v for v in range(4) for _ in range(int(x[0, v]))]
    terms = [
        polya(np.bincount(z, minlength=3), 0.6) + sum(float(topics[k, v].log()) for k, v in zip(z, words, strict=True))
        for z in itertools.product(range(3), repeat=4)
    ]
    want = logsumexp(terms) + coefficients(x, program.length.item())
    with torch.no_grad():
        value, error = log_mean_exp(given_draws(program, x, topics=topics.expand(50_000, 1, 3, 4)))
    assert float(value) == pytest.approx(want, abs=5 * float(error))
    assert float(error) < 0.02


def test_coordinate_ascent_never_goes_down_and_its_bound_is_that_of_its_factors():
    torch.manual_seed(3)
    program = LDA((30,), 4, rounds=15)
    x = LDA((30,), 4).generate(50)
    with torch.no_grad():
        program.initialise(x)
        values = [float(program.cavi_step(x)) for _ in range(25)]
        assert all(b >= a for a, b in itertools.pairwise(values))
        assert values[-1] > values[0] + 1
        # Monte Carlo over theta and topics of what is left when the factor of each word's topic is optimal.
        drawn = draw(program.guide, 4000, x)
        theta, topics = drawn.values["theta"], drawn.values["topics"]
        gamma, q = program.mixtures(x), program.q_topics
        log_theta = gamma.digamma() - gamma.sum(-1, keepdim=True).digamma()
        log_topics = q.digamma() - q.sum(-1, keepdim=True).digamma()
        phi = (log_theta[:, :, None] + log_topics).softmax(1)  # (N, K, V)
        joint = torch.einsum("nv,nkv->nk", x, phi), torch.einsum("nv,nkv->kv", x, phi)
        fit_of_words = (theta.log() * joint[0]).sum((1, 2)) + (topics[:, 0].log() * joint[1]).sum((1, 2))
        entropy = (x[:, None] * torch.special.entr(phi)).sum()
        prior = torch.distributions.Dirichlet(program.prior_mixing).log_prob(theta).sum(1)
        prior = prior + torch.distributions.Dirichlet(program.prior_words).log_prob(topics).sum((1, 2))
        constant = (x.sum(-1) * program.length.log()).sum() - len(x) * program.length - (x + 1).lgamma().sum()
        terms = fit_of_words + prior - drawn.log_prob.total + entropy + constant
    noise = float(terms.std()) / math.sqrt(len(terms))
    assert float(terms.mean()) == pytest.approx(values[-1], abs=5 * noise)
    assert noise < 0.5


def test_a_step_begins_with_what_the_last_one_found(monkeypatch):
    """So that it infers the documents once; other documents, or topics that were set, are looked at anew."""
    program, other, seen = LDA((7,), 3), LDA((7,), 3), []
    x = LDA((7,), 3).generate(20)
    other.load_state_dict(program.state_dict())
    bound = LDA._bound
    monkeypatch.setattr(LDA, "_bound", lambda self, x: seen.append(self) or bound(self, x))
    ours = [float(program.cavi_step(x)) for _ in range(4)]
    theirs = [float(other.cavi_step(x.clone())) for _ in range(4)]  # other documents, for all it knows
    assert ours == theirs
    assert seen.count(program) == seen.count(other) - 3
    program.q_topics = program.q_topics + 1
    before = seen.count(program)
    program.cavi_step(x)
    assert seen.count(program) >= before + 2


def test_the_bound_of_svi_is_above_that_of_coordinate_ascent():
    x = LDA((20,), 3).generate(40)
    program = LDA((20,), 3)
    found = fit(program, x, "cavi", iterations=30)
    with torch.no_grad():
        cavi = float(program.cavi_step(x))
        loss = Trace_ELBO(num_particles=400, vectorize_particles=True, max_plate_nesting=1)
        assert -loss.loss(program.model, found.guide, x) > cavi


def test_empty_documents_and_words_that_never_occur_are_no_trouble():
    x = torch.tensor([[3.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
    for sparsity in (1e-3, 0.1):
        found = fit("lda", x.float(), "cavi", topics=2, sparsity=sparsity, iterations=20)
        program = found.program
        assert bool(program.topic_words().isfinite().all())
        assert torch.allclose(program.next_word(x.float()).sum(-1), torch.ones(3))
        assert torch.allclose(program.mixtures(x.float())[1], program.prior_mixing)


def test_what_is_no_row_of_counts_is_refused():
    with pytest.raises(ShapeError, match=r"rows of word counts \(N, vocabulary\), got examples of shape \(2, 2\)"):
        fit("lda", torch.ones(3, 2, 2), "cavi")
    for bad in (torch.tensor([[0.5, 1.0]]), torch.tensor([[-1.0, 1.0]])):
        with pytest.raises(SupportError):
            fit("lda", bad.repeat(3, 1), "cavi")


@pytest.mark.slow
def test_held_out_words_are_predicted_as_well_as_by_scikit_learn():
    """Names of characters, 20 topics, the same priors, as many rounds over the documents, three seeds."""
    from sklearn.decomposition import LatentDirichletAllocation

    from inference.evaluation.topics import completed_perplexity, perplexity

    data = datasets.load("unicode-names")
    x, held = data.train.x, data.test.x
    ours, theirs = [], []
    for seed in range(3):
        found = fit("lda", x, "cavi", topics=20, iterations=60, seed=seed)
        ours.append(perplexity(found, held).value)
        peer = LatentDirichletAllocation(20, topic_word_prior=0.1, max_iter=60, random_state=seed).fit(x.numpy())
        topics = torch.tensor(peer.components_ / peer.components_.sum(1, keepdims=True))

        def predict(known, peer=peer, topics=topics):
            return torch.tensor(peer.transform(known.numpy())) @ topics

        theirs.append(completed_perplexity(predict, held).value)
    assert np.mean(ours) < 1.02 * np.mean(theirs)
    assert max(ours) < 35  # one distribution for all documents has 173
