"""Models that forget about particle dimensions are told which latent, at which site, and what to write instead."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.ops.indexing import Vindex

from tests.zoo.readings import Nudged, Pulled, TwoReadings
from zoo.broadcasting import check_particles
from zoo.program import Program
from zoo.rules import ContractError


class Groups(Program):
    """x ~ N(a[group] + b context, 1): the group and a covariate are the context."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("zero", torch.zeros(()))

    def example_context(self, n):
        return torch.stack([torch.arange(n) % 4, torch.linspace(-1, 1, n)], -1).to(self.zero)

    def model(self, x=None, context=None, size=None):
        scale = pyro.sample("scale", dist.LogNormal(self.zero, 1.0))
        a = pyro.sample("a", dist.Normal(self.zero.expand(4), self.spread(scale)).to_event(1))
        b = pyro.sample("b", dist.Normal(self.zero, 1.0))
        with self.plate(x, context, size):
            mean = self.take(a, context[:, 0].long()) + b * context[:, 1]
            return pyro.sample("x", dist.Normal(mean, 1.0), obs=x)

    def spread(self, scale):
        return scale[..., None]

    def take(self, a, group):
        return Vindex(a)[..., group]


class Indexed(Groups):
    """As everybody writes it."""

    def take(self, a, group):
        return a[group]


class Dots(Groups):
    """Half of the remedy: the dimension of the plate is doubled."""

    def take(self, a, group):
        return a[..., group]


class Flat(Groups):
    """A number that meets a vector."""

    def spread(self, scale):
        return scale


class Product(Groups):
    """No error and a wrong number: the sum runs over the particles too."""

    def take(self, a, group):
        return a.sum(0)[..., :1] if a.ndim > 1 else a[:1]


class Weights(Program):
    """x ~ N(context @ w, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("zero", torch.zeros(()))

    def example_context(self, n):
        return torch.linspace(-1, 1, 2 * n).reshape(n, 2).to(self.zero)

    def model(self, x=None, context=None, size=None):
        w = pyro.sample("w", dist.Normal(self.zero.expand(2), 1.0).to_event(1))
        with self.plate(x, context, size):
            return pyro.sample("x", dist.Normal(context @ w, 1.0), obs=x)


@pytest.mark.parametrize("program", [Groups, TwoReadings, Pulled, Nudged])
def test_broadcasting_models_pass(program):
    check_particles(program())


@pytest.mark.parametrize(
    ("program", "site", "latent", "shapes"),
    [
        (Indexed, r"line \d+\), after the site 'b' and before the site 'x'", "'a'", r"\(3, 1, 4\) .* \(4,\)"),
        (Dots, "at the site 'x'", "'a'", r"\(3, 1, 4\) .* \(4,\)"),
        (Flat, "at the site 'a'", "'scale'", r"\(3, 1\) .* \(\)"),
        (Product, "density of the site 'x'", "'a'", r"\(3, 1, 4\) .* \(4,\)"),
        (Weights, r"line \d+\), after the site 'w' and before the site 'x'", "'w'", r"\(3, 1, 2\) .* \(2,\)"),
    ],
)
def test_others_are_told_the_rule_the_site_the_latent_and_the_remedy(program, site, latent, shapes):
    with pytest.raises(ContractError, match=rf"^rule 3: .*{site}.* particles in {latent} of shape {shapes}.*Vindex"):
        check_particles(program())


@pytest.mark.parametrize(
    ("program", "line"),
    [
        (Indexed, r"return a\[group\]"),
        (Dots, r"return a\[\.\.\., group\]"),
        (Weights, r"return pyro.sample\(.x., dist.Normal\(context @ w, 1.0\), obs=x\)"),
    ],
)
def test_the_line_is_named_that_forgets_them(program, line):
    """Though what is wrong with its value is seen at a site, later."""
    with pytest.raises(ContractError, match=rf"as if it had none in test_broadcasting.py, line \d+: {line}\. This"):
        check_particles(program())


class NarrowGuide(Groups):
    """A guide that draws one vector for all particles: its dependence on `scale` forgets their dimension."""

    def guide(self, x=None, context=None, size=None):
        scale = pyro.sample("scale", dist.LogNormal(self.zero, 1.0))
        pyro.sample("b", dist.Normal(self.zero, 1.0))
        pyro.sample("a", dist.Normal(self.zero.expand(4), scale.reshape(-1, 1)).to_event(1))


def test_a_guide_has_particles_too():
    with pytest.raises(ContractError, match=r"^rule 3: guide site .a. draws .* as \(3, 3, 4\), expected \(3, 1, 4\)"):
        check_particles(NarrowGuide())
