"""The contract suite finds broken programs out: each rule by a program that breaks it."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch

from tests.zoo.readings import Nudged, Pulled, TwoReadings
from tests.zoo.test_broadcasting import Groups, Indexed
from zoo.program import Program
from zoo.testing import ContractError, check_program, checks


class Bare(Program):
    """Two numbers around a learnable centre, z ~ N(0, 1) between them."""

    event_shape = torch.Size([2])

    def __init__(self):
        super().__init__()
        self.centre = torch.nn.Parameter(torch.zeros(2))

    def model(self, x=None, context=None, size=None):
        with self.plate(x, context, size):
            z = pyro.sample("z", dist.Normal(self.centre.new_zeros(()), 1.0))
            return pyro.sample("x", dist.Normal(self.centre + z[..., None], 1.0).to_event(1), obs=x)


class Sound(Bare):
    """With a guide."""

    def guide(self, x=None, context=None, size=None):
        with self.plate(x, context, size):
            pyro.sample("z", dist.Normal(x.mean(-1) / 2, 1.0))


def test_a_sound_program_passes():
    check_program(Sound())


class Unobserved(Sound):
    """Ignores the data."""

    def model(self, x=None, context=None, size=None):
        with self.plate(x, context, size):
            z = pyro.sample("z", dist.Normal(self.centre.new_zeros(()), 1.0))
            return pyro.sample("x", dist.Normal(self.centre + z[..., None], 1.0).to_event(1))


class Strange(Sound):
    """Its guide samples what the model does not have."""

    def guide(self, x=None, context=None, size=None):
        with self.plate(x, context, size):
            pyro.sample("y", dist.Normal(x.mean(-1), 1.0))


class Wrong(Sound):
    """Its density is right, its posterior too wide: the variance is 1/3."""

    def log_prob(self, x, context=None):
        return dist.MultivariateNormal(self.centre, torch.eye(2) + 1).log_prob(x)

    def posterior(self, x=None, context=None, size=None):
        with self.plate(x, context, size):
            pyro.sample("z", dist.Normal((x - self.centre).sum(-1) / 3, 1.0))


class Deaf(Sound):
    """A parameter that nothing depends on."""

    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(3))


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (Unobserved, "check_shapes: rule 1: .* at a site named 'x'; given x it observes \\[\\]"),
        (Strange, "check_guide: rule 7: the guide samples 'y', which is not in the model"),
        (Wrong, "check_exactness: rule 9: the posterior is not exact"),
        (Deaf, "check_gradients: rule 8: no gradient reaches the parameter 'unused'"),
    ],
)
def test_a_broken_program_is_found_out(broken, message):
    with pytest.raises(ContractError, match=f"^{broken.__name__}: {message}"):
        check_program(broken())


# What is observed besides x, and programs without a guide.


@pytest.mark.parametrize("program", [TwoReadings, Pulled, Nudged, Groups, Bare])
def test_further_observations_and_missing_guides_pass(program):
    check_program(program())


class Misread(TwoReadings):
    """Its density forgets the second reading."""

    def log_prob(self, x, context=None):
        return dist.Normal(self.zero, 2**0.5).log_prob(x)


class Parts(Sound):
    """Observes x in two pieces, of which one is another site."""

    event_shape = torch.Size([2])

    def model(self, x=None, context=None, size=None):
        with self.plate(x, context, size):
            first = pyro.sample("first", dist.Normal(self.centre[0], 1.0), obs=None if x is None else x[..., 0])
            second = pyro.sample("x", dist.Normal(self.centre[1], 1.0), obs=None if x is None else x[..., 1])
            return torch.stack([first, second], -1)


class GuidesTheData(TwoReadings):
    """A guide over what the model observes."""

    def guide(self, x=None, context=None, size=None):
        with self.plate(x, context, size):
            pyro.sample("z", dist.Normal(self.slope * x, 0.5))
            pyro.sample("y", dist.Normal(self.slope * x, 0.5))


class Counted(Bare):
    """No guide, and a latent that nothing but a guide could take: any whole number."""

    def model(self, x=None, context=None, size=None):
        with self.plate(x, context, size):
            k = pyro.sample("k", dist.Poisson(self.centre.exp()[0]))
            return pyro.sample("x", dist.Normal(self.centre + k[..., None], 1.0).to_event(1), obs=x)


class Forgetful(Nudged):
    """A guide over one latent of two; the first that is left out is named, whatever the order of sets."""

    def guide(self, x=None, context=None, size=None):
        with self.plate(x, context, size):
            pyro.sample("z", dist.Normal(x / 2, 1.0))


class Unguided(Sound):
    """Its guide samples nothing: not the same as having none."""

    def model(self, x=None, context=None, size=None):
        with self.plate(x, context, size):
            z = pyro.sample("z", dist.Normal(self.centre.new_zeros(()), 1.0))
            a = pyro.sample("a", dist.Normal(self.centre.new_zeros(()), 1.0))
            return pyro.sample("x", dist.Normal(self.centre + (z + a)[..., None], 1.0).to_event(1), obs=x)

    def guide(self, x=None, context=None, size=None):
        pass


class Columns(Sound):
    """A second plate."""

    def model(self, x=None, context=None, size=None):
        with self.plate(x, context, size):
            with pyro.plate("columns", 1, dim=-2):
                z = pyro.sample("z", dist.Normal(self.centre.new_zeros(()), 1.0))
            return pyro.sample("x", dist.Normal(self.centre + z[0, :, None], 1.0).to_event(1), obs=x)


class Unscaled(Sound):
    """A guide that keeps the size to itself."""

    def guide(self, x=None, context=None, size=None):
        super().guide(x, context)


class Unsaved(Sound):
    """An argument that JSON has no word for."""

    def __init__(self, offset=1j):
        super().__init__()


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (Misread, "rule 9: log evidence .* differs from log p"),
        (Parts, "rule 1: site 'first' is observed when x is given, and drawn"),
        (GuidesTheData, "rule 7: the guide samples 'y', which the model observes"),
        (Counted, "rule 7: the program has no guide, and its latent 'k' .Poisson. can neither be enumerated nor"),
        (Forgetful, "rule 7: the guide leaves out 'm', which .* autoguide"),
        (Unguided, "rule 7: the guide leaves out 'z', "),
        (Columns, "rule 2: model site 'z' is in plates .*'columns'.*event dimensions"),
        (Unscaled, "rule 2: guide site 'z' has scale 1.0 in a minibatch of 1/5; expected 5.0: hand `size`"),
        (Indexed, "rule 3: .* 'a' of shape .*Vindex"),
        (Unsaved, "rule 4: the constructor's argument 'offset' is no number, string or list"),
    ],
)
def test_each_rule_names_what_breaks_it(broken, message):
    with pytest.raises(ContractError, match=f"^{broken.__name__}: check_[a-z_]+: {message}"):
        check_program(broken())


def test_no_guide_is_needed_where_discrete_latents_are_summed_out():
    class Mixture(Bare):
        def model(self, x=None, context=None, size=None):
            with self.plate(x, context, size):
                k = pyro.sample("k", dist.Bernoulli(self.centre[0].sigmoid()))
                s = pyro.sample("s", dist.LogNormal(self.centre[1], 1.0))
                mean = torch.stack(torch.broadcast_tensors(k, k + s), -1)
                return pyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=x)

    check_program(Mixture())


def test_every_check_says_its_rule_in_a_line():
    assert all((check.__doc__ or "").splitlines()[0].endswith((".", ",")) for check in checks())
    assert len({check.__name__ for check in checks()}) == len(checks())
