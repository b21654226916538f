"""Plain Pyro code of many kinds, as written by people who know nothing of programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import config_enumerate
from torch import Tensor, nn
from torch.distributions import constraints


@dataclass(frozen=True)
class Case:
    """A model and its guide, with data; `nesting` is how many dimensions its plates take."""

    model: Callable[..., object]
    guide: Callable[..., object]
    data: dict[str, Tensor]
    nesting: int
    elbo: str = "trace"
    static: dict[str, object] = field(default_factory=dict)


def normals(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def positive(name: str, *shape: int) -> Tensor:
    return pyro.param(name, 0.5 * torch.ones(shape, dtype=torch.float64), constraint=constraints.positive)


def free(name: str, *shape: int) -> Tensor:
    return pyro.param(name, 0.1 + torch.zeros(shape, dtype=torch.float64))


ZERO = torch.zeros((), dtype=torch.float64)


# Plates inside plates: schools with pupils, a slope each.


def nested(y, groups):
    mu = pyro.sample("mu", dist.Normal(ZERO, 3.0))
    with pyro.plate("groups", groups, dim=-2):
        theta = pyro.sample("theta", dist.Normal(mu, positive("tau")))
        with pyro.plate("items", y.shape[-1], dim=-1):
            b = pyro.sample("b", dist.Normal(theta, 0.5))
            pyro.sample("y", dist.Normal(b, 1.0), obs=y)


def nested_guide(y, groups):
    pyro.sample("mu", dist.Normal(free("mu_loc"), positive("mu_scale")))
    with pyro.plate("groups", groups, dim=-2):
        pyro.sample("theta", dist.Normal(free("theta_loc", groups, 1), positive("theta_scale", groups, 1)))
        with pyro.plate("items", y.shape[-1], dim=-1):
            pyro.sample("b", dist.Normal(free("b_loc", *y.shape), positive("b_scale", *y.shape)))


# Plates side by side and across: ratings of films by viewers, two observed sites.


def crossed(ratings, likes):
    people, films = pyro.plate("people", 4, dim=-2), pyro.plate("films", 3, dim=-1)
    with people:
        u = pyro.sample("u", dist.Normal(ZERO, 1.0))
    with films:
        v = pyro.sample("v", dist.Normal(ZERO, 1.0))
        pyro.sample("likes", dist.Poisson(v.exp()), obs=likes)
    with people, films:
        pyro.sample("ratings", dist.Normal(u + v, positive("noise")), obs=ratings)


def crossed_guide(ratings, likes):
    with pyro.plate("people", 4, dim=-2):
        pyro.sample("u", dist.Normal(free("u_loc", 4, 1), positive("u_scale", 4, 1)))
    with pyro.plate("films", 3, dim=-1):
        pyro.sample("v", dist.Normal(free("v_loc", 3), positive("v_scale", 3)))


# A mixture whose assignments are summed out, parameters without priors.


@config_enumerate
def mixture(x):
    weights = pyro.param("weights", torch.tensor([0.3, 0.7], dtype=torch.float64), constraint=constraints.simplex)
    with pyro.plate("components", 2):
        loc = pyro.sample("loc", dist.Normal(ZERO, 5.0))
    with pyro.plate("points", len(x)):
        z = pyro.sample("z", dist.Categorical(weights))
        pyro.sample("x", dist.Normal(loc[z], positive("scale")), obs=x)


def mixture_guide(x):
    with pyro.plate("components", 2):
        pyro.sample("loc", dist.Normal(free("loc_loc", 2) + torch.tensor([-1.0, 1.0]), positive("loc_scale", 2)))


# Several short hidden Markov chains, by pyro.markov.


@config_enumerate
def markov(sequences):
    with pyro.plate("states", 3):
        rows = pyro.sample("rows", dist.Dirichlet(torch.ones(3, dtype=torch.float64)))
    loc = free("loc", 3) + torch.tensor([-2.0, 0.0, 2.0])
    with pyro.plate("sequences", len(sequences), dim=-1):
        z = 0
        for t in pyro.markov(range(sequences.shape[1])):
            z = pyro.sample(f"z_{t}", dist.Categorical(rows[z]))
            pyro.sample(f"y_{t}", dist.Normal(loc[z], 1.0), obs=sequences[:, t])


def markov_guide(sequences):
    with pyro.plate("states", 3):
        pyro.sample("rows", dist.Dirichlet(positive("concentration", 3, 3) + 0.5))


# A plate that draws a subsample.


def subsampled(x):
    loc = pyro.sample("loc", dist.Normal(ZERO, 2.0))
    with pyro.plate("data", len(x), subsample_size=3) as index:
        pyro.sample("x", dist.Normal(loc, 1.0), obs=x[index])


def subsampled_guide(x):
    pyro.sample("loc", dist.Normal(free("m"), positive("s")))


# Factors and derived quantities, in model and guide.


def derived(x):
    a = pyro.sample("a", dist.LogNormal(ZERO, 1.0))
    pyro.deterministic("log_a", a.log())
    pyro.factor("soft", -((a - 1) ** 2) * positive("strength"))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Exponential(a), obs=x)
        pyro.factor("nudge", -0.1 * a * x)


def derived_guide(x):
    pyro.sample("a", dist.LogNormal(free("m"), positive("s")))


# Networks told by pyro.module: a small variational autoencoder.


def autoencoder() -> tuple[Callable[..., object], Callable[..., object]]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        decoder = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 3)).double()
        encoder = nn.Linear(3, 4).double()

    def model(x):
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2, dtype=torch.float64), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decoder(z), positive("noise")).to_event(1), obs=x)

    def guide(x):
        pyro.module("encoder", encoder)
        loc, scale = encoder(x).chunk(2, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, scale.exp()).to_event(1))

    return model, guide


# Discrete latents by the score function, a plate that is a loop, and a site whose existence depends on the data.


def looped(x):
    rate = free("logit")
    for i in pyro.plate("coins", 2):
        k = pyro.sample(f"k_{i}", dist.Bernoulli(logits=rate))
        pyro.sample(f"x_{i}", dist.Normal(2 * k, 1.0), obs=x[i])
    if x.mean() > 0:
        pyro.sample("extra", dist.Normal(ZERO, 1.0))


def looped_guide(x):
    for i in pyro.plate("coins", 2):
        pyro.sample(f"k_{i}", dist.Bernoulli(logits=free(f"q_{i}")))
    if x.mean() > 0:
        pyro.sample("extra", dist.Normal(free("e"), positive("e_scale")))


def cases() -> dict[str, Case]:
    """By name."""
    model, guide = autoencoder()
    x = normals(7)
    return {
        "nested": Case(nested, nested_guide, {"y": normals(2, 5)}, 2, static={"groups": 2}),
        "crossed": Case(crossed, crossed_guide, {"ratings": normals(4, 3), "likes": torch.tensor([0, 2, 1])}, 2),
        "mixture": Case(mixture, mixture_guide, {"x": x}, 1, "enum"),
        "markov": Case(markov, markov_guide, {"sequences": normals(4, 3)}, 1, "enum"),
        "subsampled": Case(subsampled, subsampled_guide, {"x": x}, 1),
        "derived": Case(derived, derived_guide, {"x": x.exp()}, 1),
        "autoencoder": Case(model, guide, {"x": normals(6, 3)}, 1),
        "looped": Case(looped, looped_guide, {"x": x.abs()}, 0),
    }
