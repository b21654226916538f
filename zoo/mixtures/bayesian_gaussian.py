r"""Bayesian Gaussian mixture: conjugate priors on weights, means and precisions, and mean-field coordinate ascent.

Bishop, "Pattern Recognition and Machine Learning", section 10.2, 2006; Attias, "A variational Bayesian framework for
graphical models", 2000.

    weights ~ Dirichlet(alpha),   Lambda_k ~ Wishart(nu, Psi^-1)  [or its diagonal by Gamma(nu / 2, Psi_d / 2)],
    mu_k | Lambda_k ~ N(m, (kappa Lambda_k)^-1),   z ~ Categorical(weights),   x | z ~ N(mu_z, Lambda_z^-1)

    weights --> z --> x <-- means <-- precisions
    sites: weights (K,), precisions (K, D) or (K, D, D), means (K, D) global;
           z () local, discrete, summed out; x (*event)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Self, cast

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroParam
from pyro.ops.indexing import Vindex
from torch import Tensor, nn
from torch.distributions import constraints

from zoo.errors import CapabilityError, OptionError
from zoo.mixtures.moments import CHUNK, Moments, kmeans_labels, moments, normal
from zoo.options import Count, Positive, Shape
from zoo.program import Preset, Program
from zoo.units import Standard

__all__ = ["BayesianGaussianMixture", "Beliefs", "Wishart"]

EVIDENCE_LIMIT = 2**20
"""Most assignments of examples to components that `log_evidence` enumerates."""
EVIDENCE_CHUNK = 2**12
UNITS_OF = 2**20
"""Most rows that units are taken from."""


class BayesianGaussianMixture(Program):
    """Mixture of K Gaussians whose parameters are global latent sites; its guide is the mean-field family of CAVI.

    The guide leaves z out, so SVI sums it out exactly; `cavi_step` has a factor q(z) besides, the `responsibilities`,
    and its ELBO is therefore lower than that of SVI for the same guide.

    Args:
        event_shape: Shape of one example; flattened to D.
        components: Number K of components.
        covariance: 'diagonal' (Normal-Gamma prior) or 'full' (Normal-Wishart).
        concentration: Of the symmetric Dirichlet prior of the weights; well below 1 leaves spare components empty.
        mean_weight: kappa; a priori means have the variance of their component over kappa, about zero.
        shape: With `rate`, the prior of each variance, InverseGamma(shape, rate), for either covariance: nu is
            2 shape (diagonal) or 2 shape + D - 1 (full), and Psi is 2 rate I.
        rate: See `shape`.

    Built for a table (`for_data`, or by its name), the prior is in units of columns that are far from size one: zero is
    then their mean, and one their standard deviation (as scikit-learn has it for all columns).
    """

    family = "mixtures"
    paper = "Attias, A variational Bayesian framework for graphical models, 2000"
    dataset = "blobs"
    presets: ClassVar[Mapping[str, Preset]] = {
        "small": Preset({"components": 6, "concentration": 0.1}, "cavi", {"iterations": 1000})
    }
    prior_concentration: Tensor
    prior_location: Tensor
    prior_mean_weight: Tensor
    prior_dof: Tensor
    prior_scatter: Tensor

    def __init__(
        self,
        event_shape: Shape = (2,),
        components: Count = 3,
        covariance: str = "diagonal",
        concentration: Positive = 1.0,
        mean_weight: Positive = 0.1,
        shape: Positive = 2.0,
        rate: Positive = 1.0,
    ):
        super().__init__()
        if covariance not in ("diagonal", "full"):
            raise OptionError(f"covariance must be 'diagonal' or 'full', got {covariance!r}.")
        self.event_shape = torch.Size(event_shape)
        self.components, self.covariance = components, covariance
        k, d, full = components, self.event_shape.numel(), covariance == "full"
        least_dof = d - 1.0 if full else 0.0
        root = (2 * rate) ** 0.5
        prior = Beliefs(
            concentration=torch.full((k,), float(concentration)),
            location=torch.zeros(k, d),
            mean_weight=torch.full((k,), float(mean_weight)),
            dof=torch.full((k,), 2.0 * shape + least_dof),
            scatter=root * torch.eye(d).repeat(k, 1, 1) if full else torch.full((k, d), root),
        )
        for name, value in prior._asdict().items():
            self.register_buffer(f"prior_{name}", value, persistent=name in ("location", "scatter"))
        self.q_concentration = PyroParam(prior.concentration, constraints.positive)
        # Equal components would stay equal under any gradient.
        self.q_location = nn.Parameter(torch.randn(k, d))
        self.q_mean_weight = PyroParam(prior.mean_weight, constraints.positive)
        self.q_dof = PyroParam(prior.dof, constraints.greater_than(least_dof))
        support = constraints.lower_cholesky if full else constraints.positive
        self.q_scatter = PyroParam(prior.scatter, support, event_dim=2 if full else 0)

    @classmethod
    def for_data(cls, x: Tensor, context: Tensor | None = None, **options: Any) -> Self:
        """Takes the shape from the data, and the units of the prior from the columns of a table."""
        program = cast("Self", super().for_data(x, context, **options))
        if x.ndim == 2:
            rows, prior = x[:UNITS_OF], program.prior  # of data that stay in their file, the first ones
            standard = Standard(x.shape[1:]).to(rows).take(rows)
            size = standard.size.diag() if prior.full else standard.size
            prior.location.copy_(standard.centre.expand_as(prior.location))
            prior.scatter.copy_(prior.scatter @ size.to(prior.scatter) if prior.full else prior.scatter * size)
        return program

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        """The mixture with its parameters drawn from the prior."""
        weights, means, scale = self._sample_globals(self.prior)
        with self.plate(x, context, size):
            z = pyro.sample("z", dist.Categorical(weights), infer={"enumerate": "parallel"})
            chosen = Vindex(scale)[..., z, :, :] if self.prior.full else Vindex(scale)[..., z, :]
            return pyro.sample("x", normal(Vindex(means)[..., z, :], chosen, self.event_shape), obs=x)

    def guide(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> None:
        """q(weights) prod_k q(means_k, precisions_k), of the same form as the prior."""
        self._sample_globals(self.beliefs)

    def _sample_globals(self, beliefs: Beliefs) -> tuple[Tensor, Tensor, Tensor]:
        """Samples the three global sites; returns weights, means, and the scales that belong to the precisions."""
        concentration, location, mean_weight, dof, scatter = beliefs
        weights = pyro.sample("weights", dist.Dirichlet(concentration))
        if beliefs.full:
            precisions = pyro.sample("precisions", Wishart(dof, precision_matrix=scatter @ scatter.mT).to_event(1))
            scale = dist.MultivariateNormal(location, precision_matrix=precisions).scale_tril
            spread = dist.MultivariateNormal(location, scale_tril=scale / mean_weight.sqrt()[:, None, None])
            return weights, pyro.sample("means", spread.to_event(1)), scale
        precisions = pyro.sample("precisions", dist.Gamma(dof[:, None] / 2, scatter**2 / 2).to_event(2))
        scale = precisions.rsqrt()
        means = pyro.sample("means", dist.Normal(location, scale / mean_weight.sqrt()[:, None]).to_event(2))
        return weights, means, scale

    @property
    def prior(self) -> Beliefs:
        """Parameters of the prior."""
        return Beliefs(*(getattr(self, f"prior_{name}") for name in Beliefs._fields))

    @property
    def beliefs(self) -> Beliefs:
        """Parameters of the guide."""
        return Beliefs(*(getattr(self, f"q_{name}") for name in Beliefs._fields))

    def responsibilities(self, x: Tensor) -> Tensor:
        """The optimal q(z) given the guide, proportional to exp E_q[log p(z, x)]; (N, *event_shape) -> (N, K)."""
        q = self.beliefs
        d = q.location.shape[-1]
        # E_q[log N(x; mu, Lambda^-1)] = log N(x; m, Psi / nu) + (E_q[log |Lambda|] - log |nu Psi^-1| - D / kappa) / 2
        root_dof = q.dof.sqrt()[:, None, None] if q.full else q.dof.sqrt()[:, None]
        plug_in = normal(q.location, q.scatter / root_dof, torch.Size([d])).log_prob(x.reshape(len(x), 1, d))
        log_det_bias = q.half_dofs.digamma().sum(-1) - d * (q.dof / 2).log()
        expected = q.concentration.digamma() + plug_in + (log_det_bias - d / q.mean_weight) / 2
        return expected.softmax(-1)

    def codes_of(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The responsibilities, (B, K)."""
        return self.responsibilities(x)

    @torch.no_grad()
    def cavi_step(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Updates q(z), then q(weights, means, precisions); returns the ELBO () of the two (Bishop, eq. 10.70)."""
        entropy, parts = x.new_zeros(()), []
        for rows in x.split(CHUNK):
            q_z = self.responsibilities(rows)
            entropy = entropy + torch.special.entr(q_z).sum()
            parts.append(self._moments(rows, q_z))
        found = self._update(Moments(*(sum(part) for part in zip(*parts, strict=True))), self.beliefs.location)
        self._set(found)
        return self._log_joint(found, len(x)) + entropy

    @torch.no_grad()
    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        """The guide given hard k-means clusters."""
        one_hot = nn.functional.one_hot(kmeans_labels(x, self.components), self.components).to(x)
        self.q_location.copy_(x.reshape(len(x), -1).mean(0))  # moments are taken about it
        parts = [self._moments(*pair) for pair in zip(x.split(CHUNK), one_hot.split(CHUNK), strict=True)]
        self._set(self._update(Moments(*(sum(part) for part in zip(*parts, strict=True))), self.beliefs.location))

    @torch.no_grad()
    def log_evidence(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """log p(x_1, ..., x_N), (), by the sum over all K^N assignments of examples to components.

        Given an assignment everything is conjugate. The posterior behind it has K! equal modes, which no mean-field
        guide sees: expect `cavi_step` to stay about log K! below this when components are well apart.

        Raises: CapabilityError when K^N exceeds 2^20.
        """
        k, n = self.components, len(x)
        if k**n > EVIDENCE_LIMIT:
            raise CapabilityError(
                f"The exact evidence sums over K^N = {k}^{n} assignments; at most {EVIDENCE_LIMIT} are enumerated. Use "
                f"fewer examples, or bounds: method 'cavi', or 'svi' with elbo='enum'."
            )
        rows = x.reshape(n, -1)
        centre = rows.mean(0).expand(k, -1)
        powers = k ** torch.arange(n, device=x.device)
        components = torch.arange(k, device=x.device)

        def log_joint(number: Tensor) -> Tensor:
            one_hot = ((number // powers % k)[:, None] == components).to(x)
            return self._log_joint(self._update(moments(rows, one_hot, centre, self.prior.full), centre), n)

        numbers = torch.arange(k**n, device=x.device)
        return torch.vmap(log_joint, chunk_size=EVIDENCE_CHUNK)(numbers).logsumexp(0)

    # The prior is conjugate to the data given (soft) assignments: adding moments to it gives the posterior.

    def _moments(self, x: Tensor, weights: Tensor) -> Moments:
        return moments(x.reshape(len(x), -1), weights, self.beliefs.location, self.prior.full)

    def _update(self, found: Moments, centre: Tensor) -> Beliefs:
        """The posterior given moments about a centre (K, D) (Bishop, eq. 10.58 to 10.63)."""
        prior = self.prior
        count = found.counts[:, None]
        shift = found.first / count.clamp(min=torch.finfo(count.dtype).tiny)
        mean_weight = prior.mean_weight + found.counts
        distance = centre + shift - prior.location
        shrink = (prior.mean_weight * found.counts / mean_weight)[:, None]
        location = prior.location + count / mean_weight[:, None] * distance
        if prior.full:
            within = found.second - found.first[:, :, None] * shift[:, None, :]
            between = shrink[..., None] * distance[:, :, None] * distance[:, None, :]
            scatter = torch.linalg.cholesky(prior.scatter @ prior.scatter.mT + within + between)
        else:
            scatter = (prior.scatter**2 + found.second - found.first * shift + shrink * distance**2).sqrt()
        return Beliefs(
            concentration=prior.concentration + found.counts, location=location, mean_weight=mean_weight,
            dof=prior.dof + found.counts, scatter=scatter,
        )  # fmt: skip

    def _log_joint(self, posterior: Beliefs, n: int) -> Tensor:
        """log p(x, z) of n examples by the posterior given z; where z is soft (weights), the ELBO less H[q(z)]."""
        constant = n * posterior.location.shape[-1] / 2 * math.log(math.pi)
        return posterior.log_normaliser - self.prior.log_normaliser - constant

    def _set(self, beliefs: Beliefs) -> None:
        self.q_location.copy_(beliefs.location)
        for name in ("concentration", "mean_weight", "dof", "scatter"):
            setattr(self, f"q_{name}", getattr(beliefs, name))


class Beliefs(NamedTuple):
    """Parameters of Dirichlet x Normal-Wishart (Normal-Gamma when diagonal): the prior, and the guide."""

    concentration: Tensor
    """(K,)"""
    location: Tensor
    """m, (K, D)"""
    mean_weight: Tensor
    """kappa, (K,): how many observations the knowledge of the mean is worth."""
    dof: Tensor
    """nu, (K,)"""
    scatter: Tensor
    """Root of Psi: elementwise (K, D) when diagonal, Cholesky factor (K, D, D) when full."""

    @property
    def full(self) -> bool:
        """Whether precisions are matrices."""
        return self.scatter.ndim > self.location.ndim

    @property
    def log_det(self) -> Tensor:
        """log |Psi|, (K,)."""
        root = self.scatter.diagonal(dim1=-2, dim2=-1) if self.full else self.scatter
        return 2 * root.log().sum(-1)

    @property
    def half_dofs(self) -> Tensor:
        """Arguments of the (multivariate) gamma function, (K, D)."""
        d = self.location.shape[-1]
        each = torch.arange(d).to(self.dof) if self.full else self.dof.new_zeros(d)
        return (self.dof[..., None] - each) / 2

    @property
    def log_normaliser(self) -> Tensor:
        """Log of the integral of the unnormalised density, (), up to a constant that depends on K and D alone."""
        component = self.half_dofs.lgamma().sum(-1) - self.dof / 2 * self.log_det
        component = component - self.location.shape[-1] / 2 * self.mean_weight.log()
        return component.sum() + self.concentration.lgamma().sum() - self.concentration.sum().lgamma()


class Wishart(dist.Wishart):
    """torch's Wishart without its check for singular draws, whose sense is inverted (seen in torch 2.13).

    With it every proper draw warns and is drawn again.
    """

    def rsample(self, sample_shape: torch.Size = torch.Size(), max_try_correction: int | None = None) -> Tensor:
        """Bartlett's decomposition."""
        return self._bartlett_sampling(torch.Size(sample_shape))
