"""PyMC's posteriors have the density of Pyro's, whose own is compared with Stan's elsewhere."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pyro
import pytest
import torch

from benchmarks.speed.workloads import nuts, pymc_posteriors

pytestmark = pytest.mark.skipif(find_spec("pymc") is None, reason="PyMC is not installed (extra `peers`)")


@pytest.mark.parametrize("model", nuts.MODELS)
def test_densities_differ_by_a_constant(model: str, zoo_data: Any) -> None:
    """At draws of the posterior: what a prior is normalised by, where it is restricted, does not depend on them."""
    problem = nuts.Problem(model, n=100, d=3, warmup=50, draws=4, chains=1)
    with nuts.precision(problem.dtype):
        made = problem.posterior()
        found = nuts.fit(made.program, made.data, "nuts", warmup=50, draws=4, chains=1, device="cpu", progress=False)
        given = {name: v.numpy() if torch.is_tensor(v) else v for name, v in made.given.items()}
        theirs, apart = made.pymcs(**given), []
        with theirs:
            density = theirs.compile_logp(jacobian=False)
        for i in range(4):
            at = {name: value[i] for name, value in found.samples.items()}
            trace = pyro.poutine.trace(pyro.poutine.condition(made.model, at)).get_trace(*made.given.values())
            inner = {}
            for site in theirs.free_RVs:
                way, variable = theirs.rvs_to_transforms[site], theirs.rvs_to_values[site]
                value = at[site.name].double().numpy()
                inner[variable.name] = value if way is None else way.forward(value, *site.owner.inputs).eval()
            apart.append(float(density(inner)) - float(trace.log_prob_sum()))
    tolerance = 1e-6 if problem.dtype == torch.float64 else 1e-3
    assert apart == pytest.approx([apart[0]] * 4, abs=tolerance)
    assert not (found.samples[next(iter(found.samples))][1:] == found.samples[next(iter(found.samples))][:1]).all()


def test_every_model_is_sampled() -> None:
    names = {name.split("-", 1)[1] for name in nuts.REFERENCES.values()}
    assert set(pymc_posteriors.__all__) == names | {"eight_schools", "logistic"}
