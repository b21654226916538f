"""Several particles in one run: believed of a user's code only where it computes what each of them would alone."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import infer

import zoo
from inference import fit
from inference.methods.bounds import make_objective
from inference.vectorised import bears_particles

Y = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)


def broadcasts(y):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(w, 1.0), obs=y)


def sums_over_whatever_there_is(y):
    with pyro.plate("rows", len(y)):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Normal(w.sum(), 1.0), obs=y.sum())


def reads_a_shape(y):
    with pyro.plate("rows", len(y)):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Normal(torch.mm(w[None], y[:, None])[0, 0], 1.0), obs=y.sum())


def enumerates(y):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(y)):
        z = pyro.sample("z", dist.Bernoulli(0.3))
        pyro.sample("y", dist.Normal(w + z, 1.0), obs=y)


def indexes_the_first_dimension(y):
    with pyro.plate("parts", 2):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(y)):
        z = pyro.sample("z", dist.Bernoulli(0.3))
        pyro.sample("y", dist.Normal(w[z.long()], 1.0), obs=y)


def subsamples(y):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(y), 2) as rows:
        pyro.sample("y", dist.Normal(w, 1.0), obs=y[rows])


def guide(y):
    loc = pyro.param("loc", torch.tensor(0.5))
    pyro.sample("w", dist.Normal(loc, 0.5))


def of_each(y):
    with pyro.plate("rows", len(y)):
        guide(y)


def of_two(y):
    with pyro.plate("parts", 2):
        guide(y)


CODE = [
    (broadcasts, guide, infer.Trace_ELBO, True),
    (broadcasts, guide, infer.TraceMeanField_ELBO, True),
    (subsamples, guide, infer.Trace_ELBO, True),
    (enumerates, guide, infer.TraceEnum_ELBO, True),
    (sums_over_whatever_there_is, of_each, infer.Trace_ELBO, False),
    (reads_a_shape, of_each, infer.Trace_ELBO, False),
    (indexes_the_first_dimension, of_two, infer.TraceEnum_ELBO, False),
]


def adopted(model, guide):
    program = zoo.adopt(model, guide)
    batch = program.take({"y": Y})
    program.declare(*batch)
    return program, batch


@pytest.mark.parametrize(("model", "guide", "elbo", "bears"), CODE)
def test_each_particle_is_what_it_is_alone(model, guide, elbo, bears):
    program, batch = adopted(model, guide)
    code = infer.config_enumerate(program.model, "parallel") if elbo is infer.TraceEnum_ELBO else program.model
    state = torch.get_rng_state()
    assert bears_particles(elbo, code, program.guide, (*batch, 1), program.plate_nesting) is bears
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("model", "guide", "elbo", "bears"), CODE)
def test_the_bound_of_several_particles_is_pyros(model, guide, elbo, bears):
    """In one run where the code bears that; else one after the other, as Pyro's are when not told to vectorise."""
    name = {infer.Trace_ELBO: "trace", infer.TraceMeanField_ELBO: "mean_field", infer.TraceEnum_ELBO: "enum"}[elbo]
    program, batch = adopted(model, guide)
    objective = make_objective(name, particles=5)
    objective.prepare(program, program.guide, batch)
    torch.manual_seed(3)
    _, bound = objective(program, program.guide, batch, 1)
    code = infer.config_enumerate(model, "parallel") if elbo is infer.TraceEnum_ELBO else model
    theirs = elbo(num_particles=5, vectorize_particles=bears, max_plate_nesting=program.plate_nesting)
    with pyro.get_param_store().scope():
        guide(Y)
        torch.manual_seed(3)
        assert float(bound) == pytest.approx(-theirs.loss(code, guide, Y), rel=1e-12)


def test_a_fit_takes_them_in_one_run():
    """Each step runs the model once, not once for each of ten."""
    runs = []

    def counted(y):
        runs.append(len(runs))
        broadcasts(y)

    steps = []
    for n in (2, 12):
        runs.clear()
        fit(zoo.adopt(counted, guide), {"y": Y}, "svi", steps=n, particles=10, compile="never", patience=None)
        steps.append(len(runs))
    assert steps[1] - steps[0] == 10
