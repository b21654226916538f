"""posteriordb's posteriors that `nuts` samples, written in NumPyro; arguments and sites are those of Pyro's code.

The Pyro programs are in `benchmarks.targets.posteriordb`. Their densities are compared in
tests/benchmarks/speed/workloads/test_numpyro_posteriors.py. A prior on an ordered vector is a factor here, as NumPyro
has no truncated joint distributions.
"""

from __future__ import annotations

from typing import Any

__all__ = ["hmm_example", "kidscore_interaction", "logmesquite", "low_dim_gauss_mix"]


def low_dim_gauss_mix(y: Any) -> None:
    """Two Gaussians, the component summed out."""
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as npd

    mu = _restricted("mu", npd.constraints.ordered_vector, jnp.zeros(2), 2.0)
    sigma = numpyro.sample("sigma", npd.HalfNormal(2 * jnp.ones(2)).to_event(1))
    theta = numpyro.sample("theta", npd.Beta(5.0, 5.0))
    weights = npd.Categorical(probs=jnp.stack([theta, 1 - theta]))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", npd.MixtureSameFamily(weights, npd.Normal(mu, sigma)), obs=y)


def hmm_example(y: Any) -> None:
    """Two states, the path summed out by a scan."""
    import jax
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as npd

    rows = [numpyro.sample(f"theta{k}", npd.Dirichlet(jnp.ones(2))) for k in (1, 2)]
    mu = _restricted("mu", npd.constraints.positive_ordered_vector, jnp.array([3.0, 10.0]), 1.0)
    transition = jnp.log(jnp.stack(rows))
    emission = npd.Normal(mu, 1.0).log_prob(y[:, None])

    def step(before: Any, now: Any) -> tuple[Any, None]:
        return jax.nn.logsumexp(before[:, None] + transition, axis=0) + now, None

    last, _ = jax.lax.scan(step, emission[0] - jnp.log(2.0), emission[1:])
    numpyro.factor("path", jax.nn.logsumexp(last))


def kidscore_interaction(kid_score: Any, mom_hs: Any, mom_iq: Any) -> None:
    """Test scores; flat weights, sigma ~ half-Cauchy(2.5)."""
    import numpyro
    import numpyro.distributions as npd

    design = _design(mom_hs, mom_iq, mom_hs * mom_iq)
    beta = numpyro.sample("beta", npd.ImproperUniform(npd.constraints.real_vector, (), design.shape[-1:]))
    sigma = numpyro.sample("sigma", npd.HalfCauchy(2.5))
    _observe("kid_score", kid_score, design @ beta, sigma)


def logmesquite(
    weight: Any, diam1: Any, diam2: Any, canopy_height: Any, total_height: Any, density: Any, group: Any
) -> None:
    """Logarithms of leaf weights; flat weights and a flat sigma."""
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as npd

    design = _design(*map(jnp.log, (diam1, diam2, canopy_height, total_height, density)), group)
    beta = numpyro.sample("beta", npd.ImproperUniform(npd.constraints.real_vector, (), design.shape[-1:]))
    sigma = numpyro.sample("sigma", npd.ImproperUniform(npd.constraints.positive, (), ()))
    _observe("log_weight", jnp.log(weight), design @ beta, sigma)


def _restricted(name: str, support: Any, loc: Any, scale: float) -> Any:
    """A site of independent normals, restricted to a support (2,)."""
    import numpyro
    import numpyro.distributions as npd

    value = numpyro.sample(name, npd.ImproperUniform(support, (), (2,)))
    numpyro.factor(f"prior of {name}", npd.Normal(loc, scale).log_prob(value).sum())
    return value


def _design(*columns: Any) -> Any:
    import jax.numpy as jnp

    return jnp.stack([jnp.ones(len(columns[0])), *columns], -1)


def _observe(name: str, y: Any, mean: Any, sigma: Any) -> None:
    import numpyro
    import numpyro.distributions as npd

    with numpyro.plate("rows", len(y)):
        numpyro.sample(name, npd.Normal(mean, sigma), obs=y)
