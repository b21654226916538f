r"""Latent Dirichlet allocation: each document has its own mixture of topics, all documents the same topics.

Blei, Ng & Jordan, "Latent Dirichlet allocation", JMLR 3, 2003; the topics are latent too, as in section 5.4 and in
Hoffman, Blei & Bach, "Online learning for latent Dirichlet allocation", NIPS 2010.

    topics_k ~ Dirichlet(eta, ..., eta),   theta ~ Dirichlet(alpha, ..., alpha)
    n ~ Poisson(length),   each of the n words ~ Categorical(sum_k theta_k topics_k),   x = their counts

    topics --> x <-- theta      sites: topics (K, V) global; theta (K,) local; x (V,)

The topic of each word is summed out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroParam
from torch import Tensor
from torch.distributions import Dirichlet, constraints, kl_divergence
from torch.nn.functional import one_hot

from zoo.errors import CapabilityError
from zoo.options import Count, Positive, Shape
from zoo.program import Preset
from zoo.topics.base import TopicModel

__all__ = ["LDA"]

EVIDENCE_LIMIT = 2**20
"""Most assignments of words to topics that `log_evidence` enumerates."""
EVIDENCE_CHUNK = 2**12
HALVINGS = 4
"""How often a step that would lower the bound is halved before it is left out."""


class LDA(TopicModel):
    """Latent Dirichlet allocation; its guide is that of variational Bayes, found anew for each document.

    q(topics) is a product of Dirichlets, parameters of the program. q(theta) is the Dirichlet that coordinate ascent
    reaches from the same start for every document, so that new documents need no encoder and no fit. `cavi_step` has a
    factor for the topic of each word besides; its ELBO is therefore below that of SVI for the same guide.

    Args:
        event_shape: (V,), the size of the vocabulary.
        topics: Number K of topics.
        mixing: alpha; below 1 documents are of few topics. None is 1 / K.
        sparsity: eta; below 1 topics are of few words.
        rounds: Updates of q(theta) for each document.
    """

    paper = "Blei, Ng & Jordan, Latent Dirichlet allocation, 2003"
    prior_mixing: Tensor
    prior_words: Tensor
    q_topics: Tensor

    def __init__(
        self,
        event_shape: Shape = (12,),
        topics: Count = 3,
        mixing: Positive | None = None,
        sparsity: Positive = 0.1,
        rounds: Count = 20,
    ):
        super().__init__(event_shape, topics)
        (v,) = self.event_shape
        self.rounds = rounds
        self.register_buffer("prior_mixing", torch.full((topics,), 1 / topics if mixing is None else float(mixing)))
        self.register_buffer("prior_words", torch.full((v,), float(sparsity)))
        self.q_topics = PyroParam(self._start(), constraints.positive)
        # The documents, q(topics) and bound that the last step has ended with: the next one begins there.
        self._last: tuple[Tensor, Tensor, tuple[Tensor, Tensor]] | None = None

    def _start(self) -> Tensor:
        """Of q(topics): about one of each word, as in the code of Hoffman et al.; equal topics would stay equal."""
        ones = self.prior_words.new_ones(self.topics, len(self.prior_words))
        return dist.Gamma(100 * ones, 100.0).sample()

    @torch.no_grad()
    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        """Sets the mean length of a document, and draws the start of q(topics) anew."""
        super().initialise(x)
        self.q_topics = self._start()

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        """Topics, and documents that mix them."""
        topics = pyro.sample("topics", dist.Dirichlet(self.prior_words).expand([self.topics]).to_event(1))
        with self.plate(x, context, size):
            theta = pyro.sample("theta", dist.Dirichlet(self.prior_mixing))
            # Particles of the topics leave (S, 1, K, V); as (S, K, V) they meet theta (S, B, K) without a copy each.
            mixed = theta @ (topics.squeeze(-3) if topics.ndim > 2 else topics)
            return pyro.sample("x", self.counts(mixed), obs=x)

    def guide(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> None:
        """q(topics) q(theta | x)."""
        assert x is not None
        pyro.sample("topics", dist.Dirichlet(self.q_topics).to_event(1))
        with self.plate(x, context, size):
            pyro.sample("theta", dist.Dirichlet(self.mixtures(x)))

    @torch.no_grad()
    def mixtures(self, x: Tensor) -> Tensor:
        """The parameters (B, K) of q(theta) for documents (B, V), after `rounds` updates (Blei et al., figure 6)."""
        words = _scaled(_expected_log(self.q_topics), 0)
        gamma = self.prior_mixing + x.sum(-1, keepdim=True) / self.topics
        for _ in range(self.rounds):
            gamma = self._updated(gamma, words, x)[0]
        return gamma

    def _updated(self, gamma: Tensor, words: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """q(theta) after an update, and what each topic expects of each word, summed over documents (K, V)."""
        theta = _scaled(_expected_log(gamma), -1)
        ratio = x / (theta @ words).clamp(min=torch.finfo(x.dtype).tiny)
        return self.prior_mixing + theta * (ratio @ words.mT), words * (theta.mT @ ratio)

    @torch.no_grad()
    def cavi_step(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Updates q(theta) of all documents, then q(topics); returns the ELBO () (Hoffman et al. 2010, algorithm 1).

        As q(theta) is found from its own start each time, and not from where it was, a document may go to another
        mixture, and a step of the topics that should raise the bound lower it: such a step is halved, or left out.
        """
        self.length = self.mean_length(x)
        start = self.q_topics.clone()
        known = self._last is not None and self._last[0] is x and torch.equal(self._last[1], start)
        before, expected = self._last[2] if self._last is not None and known else self._bound(x)
        target = self.prior_words + expected
        for halving in range(HALVINGS):
            self.q_topics = start + (target - start) / 2**halving
            after, _ = found = self._bound(x)
            if bool(after >= before):
                self._last = x, self.q_topics.clone(), found
                return after
        self.q_topics = start
        return before

    @torch.no_grad()
    def _bound(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The ELBO () with a factor for the topic of each word, and the expected counts of topics and words (K, V)."""
        gamma = self.mixtures(x)
        log_theta, log_words = _expected_log(gamma), _expected_log(self.q_topics)
        theta, words = _scaled(log_theta, -1), _scaled(log_words, 0)
        top = log_theta.amax(-1, keepdim=True) + log_words.amax(0)
        log_mixed = (theta @ words).clamp(min=torch.finfo(x.dtype).tiny).log() + top
        length = self.length
        likelihood = (x * (log_mixed + length.log()) - (x + 1).lgamma()).sum() - len(x) * length
        local = kl_divergence(Dirichlet(gamma), Dirichlet(self.prior_mixing)).sum()
        shared = kl_divergence(Dirichlet(self.q_topics), Dirichlet(self.prior_words)).sum()
        return likelihood - local - shared, self._updated(gamma, words, x)[1]

    @torch.no_grad()
    def topic_words(self) -> Tensor:
        """The mean of q(topics), (K, V)."""
        return self.q_topics / self.q_topics.sum(-1, keepdim=True)

    @torch.no_grad()
    def next_word(self, x: Tensor) -> Tensor:
        """The means of q(theta) and q(topics), mixed: (B, V)."""
        gamma = self.mixtures(x)
        return gamma / gamma.sum(-1, keepdim=True) @ self.topic_words()

    @torch.no_grad()
    def log_evidence(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """log p(x_1, ..., x_N), (), by the sum over all K^n assignments of the n words of all documents to topics.

        Given an assignment both theta and topics are integrated out in closed form.

        Raises: CapabilityError when K^n exceeds 2^20.
        """
        k, n = self.topics, int(x.sum())
        if k > 1 and (n > 20 or k**n > EVIDENCE_LIMIT):
            raise CapabilityError(
                f"The exact evidence sums over K^n = {k}^{n} assignments of words to topics; at most {EVIDENCE_LIMIT} "
                "are enumerated. Use fewer words, or a bound: method 'cavi' or 'svi'."
            )
        if k == 1:
            joint = self._log_assigned(x.sum(-1)[:, None], x.sum(0)[None])
        else:
            joint = self._log_assignments(x, n).logsumexp(0)
        lengths = (x.sum(-1) * self.length.log() - self.length).sum() - (x + 1).lgamma().sum()
        return joint + lengths

    def _log_assignments(self, x: Tensor, n: int) -> Tensor:
        """log p(words and their topics) for each assignment of the n words of x to topics, (K^n,)."""
        k, (documents, words) = self.topics, x.shape
        token = torch.arange(x.numel(), device=x.device).repeat_interleave(x.long().reshape(-1))
        document, word = one_hot(token // words, documents).to(x), one_hot(token % words, words).to(x)
        powers, found = k ** torch.arange(n, device=x.device), []
        for numbers in torch.arange(k**n, device=x.device).split(EVIDENCE_CHUNK):
            topic = one_hot(numbers[:, None] // powers % k, k).to(x).mT
            found.append(self._log_assigned((topic @ document).mT, topic @ word))
        return torch.cat(found)

    def _log_assigned(self, of_documents: Tensor, of_topics: Tensor) -> Tensor:
        """log p(words and their topics), (*batch), by the counts of topics in each document (*batch, N, K) and of words
        in each topic (*batch, K, V)."""
        return _log_polya(of_documents, self.prior_mixing).sum(-1) + _log_polya(of_topics, self.prior_words).sum(-1)

    presets: ClassVar[Mapping[str, Preset]] = {
        "small": Preset({"topics": 20}, "cavi", {"iterations": 60, "restarts": 3}),
        "paper": Preset({"topics": 100, "rounds": 50}, "cavi", {"iterations": 1000}),
    }


def _expected_log(parameters: Tensor) -> Tensor:
    """E[log p] of Dirichlets (*batch, n), of the same shape."""
    return parameters.digamma() - parameters.sum(-1, keepdim=True).digamma()


def _scaled(logs: Tensor, dim: int) -> Tensor:
    """Exponentials, the largest along a dimension one: in ratios the scale cancels, and nothing underflows at once."""
    return (logs - logs.amax(dim, keepdim=True)).exp()


def _log_polya(counts: Tensor, prior: Tensor) -> Tensor:
    """log p(a sequence with these counts (*batch, n)), whose distribution has a Dirichlet prior: (*batch)."""
    total = prior.sum().lgamma() - (prior.sum() + counts.sum(-1)).lgamma()
    return total + ((prior + counts).lgamma() - prior.lgamma()).sum(-1)
