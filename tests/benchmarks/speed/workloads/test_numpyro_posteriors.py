"""NumPyro's posteriors have the density of Pyro's, whose own is compared with Stan's elsewhere."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pyro
import pytest

from benchmarks.speed.workloads import numpyro_posteriors, nuts

pytestmark = pytest.mark.skipif(find_spec("numpyro") is None, reason="NumPyro is not installed (extra `peers`)")


@pytest.mark.parametrize("model", nuts.REFERENCES)
def test_densities_differ_by_a_constant(model: str, zoo_data: Any) -> None:
    """At draws of the posterior: what a prior is normalised by, where it is restricted, does not depend on them."""
    from numpyro.infer.util import log_density

    problem = nuts.Problem(model, warmup=50, draws=4, chains=1)
    with nuts.precision(problem.dtype):
        made = problem.posterior()
        found = nuts.fit(made.program, made.data, "nuts", warmup=50, draws=4, chains=1, device="cpu", progress=False)
        theirs, given, apart = made.theirs(), nuts._for_jax(made.given), []
        for i in range(4):
            at = {name: value[i] for name, value in found.samples.items()}
            trace = pyro.poutine.trace(pyro.poutine.condition(made.model, at)).get_trace(*made.given.values())
            other, _ = log_density(theirs, tuple(given.values()), {}, nuts._for_jax(at))
            apart.append(float(other) - float(trace.log_prob_sum()))
    assert apart == pytest.approx([apart[0]] * 4, abs=1e-6)
    assert not (found.samples[next(iter(found.samples))][1:] == found.samples[next(iter(found.samples))][:1]).all()


def test_every_model_is_sampled() -> None:
    names = {name.split("-", 1)[1] for name in nuts.REFERENCES.values()}
    assert set(numpyro_posteriors.__all__) == names
