"""The posteriors that `nuts` samples, written in PyMC; arguments and sites are those of Pyro's code.

Each takes what is known, as arrays by name, and gives PyMC's model. Their densities are compared in
tests/benchmarks/speed/workloads/test_pymc_posteriors.py. PyMC has no positive ordered vectors; a chain of two of its
transforms makes them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["eight_schools", "hmm_example", "kidscore_interaction", "logistic", "logmesquite", "low_dim_gauss_mix"]


def eight_schools(x: Any, context: Any) -> Any:
    """Not centred: effects in units of their spread."""
    import pymc as pm

    with pm.Model() as model:
        mu, tau = pm.Normal("mu", 0.0, 5.0), pm.HalfCauchy("tau", 5.0)
        eta = pm.Normal("eta", 0.0, 1.0, shape=len(x))
        pm.Normal("y", mu + tau * eta, context, observed=x)
    return model


def logistic(x: Any, context: Any, bias_scale: float) -> Any:
    """Weights ~ N(0, 1), bias ~ N(0, bias_scale^2)."""
    import pymc as pm

    with pm.Model() as model:
        w, b = pm.Normal("w", 0.0, 1.0, shape=context.shape[1]), pm.Normal("b", 0.0, bias_scale)
        pm.Bernoulli("x", logit_p=context @ w + b, observed=x)
    return model


def low_dim_gauss_mix(y: Any) -> Any:
    """Two Gaussians, the component summed out."""
    import pymc as pm
    from pymc.distributions.transforms import ordered

    with pm.Model() as model:
        mu = pm.Normal("mu", 0.0, 2.0, shape=2, transform=ordered, initval=np.array([-1.0, 1.0]))
        sigma, theta = pm.HalfNormal("sigma", 2.0, shape=2), pm.Beta("theta", 5.0, 5.0)
        pm.NormalMixture("y", w=pm.math.stack([theta, 1 - theta]), mu=mu, sigma=sigma, observed=y)
    return model


def hmm_example(y: Any) -> Any:
    """Two states, the path summed out by a scan."""
    import pymc as pm
    import pytensor
    import pytensor.tensor as pt
    from pymc.distributions.transforms import Chain, log, ordered

    with pm.Model() as model:
        rows = [pm.Dirichlet(f"theta{k}", np.ones(2)) for k in (1, 2)]
        start = np.array([3.0, 10.0])
        mu = pm.Normal("mu", start, 1.0, transform=Chain([log, ordered]), initval=start)
        transition = pt.log(pt.stack(rows))
        emission = pm.logp(pm.Normal.dist(mu, 1.0), pt.as_tensor(y)[:, None])

        def step(now: Any, before: Any, transition: Any) -> Any:
            return pt.logsumexp(before[:, None] + transition, axis=0) + now

        first = emission[0] - np.log(2.0)
        paths = pytensor.scan(step, [emission[1:]], [first], [transition], return_updates=False)
        pm.Potential("path", pt.logsumexp(paths[-1]))
    return model


def kidscore_interaction(kid_score: Any, mom_hs: Any, mom_iq: Any) -> Any:
    """Test scores; flat weights, sigma ~ half-Cauchy(2.5)."""
    import pymc as pm

    design = _design(mom_hs, mom_iq, mom_hs * mom_iq)
    with pm.Model() as model:
        beta, sigma = pm.Flat("beta", shape=design.shape[1]), pm.HalfCauchy("sigma", 2.5)
        pm.Normal("kid_score", pm.math.dot(design, beta), sigma, observed=kid_score)
    return model


def logmesquite(
    weight: Any, diam1: Any, diam2: Any, canopy_height: Any, total_height: Any, density: Any, group: Any
) -> Any:
    """Logarithms of leaf weights; flat weights and a flat sigma."""
    import pymc as pm

    design = _design(*map(np.log, (diam1, diam2, canopy_height, total_height, density)), group)
    with pm.Model() as model:
        beta, sigma = pm.Flat("beta", shape=design.shape[1]), pm.HalfFlat("sigma")
        pm.Normal("log_weight", pm.math.dot(design, beta), sigma, observed=np.log(weight))
    return model


def _design(*columns: Any) -> Any:
    return np.stack([np.ones(len(columns[0])), *columns], -1)
