"""The implicit site and the GAN generator: samples, gradients, and no density for anyone who asks."""

from __future__ import annotations

import pyro
import pytest
import torch
from pyro import poutine
from torch.distributions import constraints

from inference import fit
from zoo.errors import CapabilityError, ImplicitDensityError, OptionError, SupportError
from zoo.implicit.gan import GAN
from zoo.implicit.networks import Maxout, MaxoutCritic
from zoo.program import Implicit, ImplicitProgram
from zoo.testing import check_program


@pytest.fixture
def small() -> GAN:
    return GAN(event_shape=[3, 2], latent_dim=4, hidden=[16], critic_hidden=[8])


@pytest.mark.parametrize("name", GAN.presets)
def test_presets_build_and_fit(name: str) -> None:
    preset = GAN.presets[name]
    program, x = GAN(**preset.program), torch.rand(10, 8, 8)
    found = fit(program, x, preset.method, **{**preset.fit, "steps": 1, "epochs": None})
    assert found.program.generate(2).shape == (2, 8, 8)


def test_contract(small: GAN) -> None:
    check_program(small)


def test_density_of_an_implicit_site_is_an_error_that_names_the_estimators() -> None:
    with pytest.raises(ImplicitDensityError, match=r"'gan'.*'avb'"):
        Implicit(torch.zeros(3)).log_prob(torch.zeros(3))


def test_density_of_an_implicit_program_is_an_error(small: GAN) -> None:
    trace = poutine.trace(small.model).get_trace(torch.full((5, 3, 2), 0.5))
    with pytest.raises(ImplicitDensityError):
        trace.log_prob_sum()


@pytest.mark.parametrize("method", ["svi", "exact", "nuts", "avb", "em"])
def test_methods_that_need_a_density_refuse_and_name_the_one_that_does_not(small: GAN, method: str) -> None:
    with pytest.raises(CapabilityError, match=r"GAN: .*Methods that can: gan\."):
        fit(small, torch.full((5, 3, 2), 0.5), method)


def test_implicit_site_carries_its_value_and_expands() -> None:
    value = torch.randn(4, 3, requires_grad=True)
    site = Implicit(value, event_dim=1)
    assert site.batch_shape == (4,)
    assert site.event_shape == (3,)
    drawn = site.expand(torch.Size([2, 4])).rsample()
    assert torch.equal(drawn, value.expand(2, 4, 3))
    drawn.sum().backward()
    assert torch.equal(value.grad, torch.full((4, 3), 2.0))


def test_samples_take_particle_dimensions(small: GAN) -> None:
    with pyro.plate("particles", 7, dim=-2):
        trace = poutine.trace(small.model).get_trace(None, None, 5)
    z, x = (trace.nodes[name]["value"] for name in "zx")
    assert z.shape == (7, 5, 4)
    assert x.shape == (7, 5, 3, 2)
    assert torch.equal(x, small.net(z).reshape(7, 5, 3, 2))


@pytest.mark.parametrize(("support", "inside"), [("unit", constraints.unit_interval), ("real", constraints.real)])
def test_output_follows_the_support(support: str, inside: constraints.Constraint) -> None:
    program = GAN(event_shape=[2], support=support)
    with torch.no_grad():
        program.last.weight.mul_(1000)
    x = program.generate(200)
    assert bool(inside.check(x).all())
    assert (float(x.abs().max()) > 1) == (support == "real")


def test_unknown_support_and_data_outside_it(small: GAN) -> None:
    with pytest.raises(OptionError, match=r"'unit'.*'real'.*'pixels'"):
        GAN(support="pixels")
    with pytest.raises(SupportError):
        small.check(torch.full((2, 3, 2), 255.0))


@pytest.mark.parametrize("support", ["unit", "real"])
def test_starts_from_the_mean_of_the_data(support: str) -> None:
    program = GAN(event_shape=[3], support=support)
    x = torch.tensor([[0.2, 0.5, 0.9], [0.4, 0.5, 0.7]])
    with torch.no_grad():
        program.initialise(x)
        program.last.weight.zero_()
    assert torch.allclose(program.generate(1)[0], torch.tensor([0.3, 0.5, 0.8]))


def test_gradients_reach_every_parameter(small: GAN) -> None:
    critic = small.critic().eval()
    critic(small.model(None, None, 64)).sum().backward()
    for name, parameter in [*small.named_parameters(), *critic.named_parameters()]:
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().sum()) > 0, name


def test_maxout_is_the_largest_of_linear_pieces() -> None:
    layer = Maxout(3, 2, pieces=4)
    x = torch.randn(5, 7, 3)
    pieces = torch.einsum("opi,nbi->nbop", layer.linear.weight.reshape(2, 4, 3), x) + layer.linear.bias.reshape(2, 4)
    assert torch.allclose(layer(x), pieces.max(-1).values)


@pytest.mark.parametrize("event_shape", [(), (3,), (2, 4, 4)])
def test_critic_gives_one_logit_an_example_and_drops_units_only_in_training(event_shape: tuple[int, ...]) -> None:
    critic = MaxoutCritic(torch.Size(event_shape), [8])
    x = torch.randn(6, *event_shape)
    assert critic(x).shape == (6,)
    assert not torch.equal(critic(x), critic(x))
    critic.eval()
    assert torch.equal(critic(x), critic(x))


def test_an_implicit_program_without_a_critic_says_so() -> None:
    class Bare(ImplicitProgram):
        event_shape = torch.Size()

        def __init__(self) -> None:
            super().__init__()
            self.loc = torch.nn.Parameter(torch.zeros(()))

        def model(self, x=None, context=None, size=None):
            with self.plate(x, context, size):
                z = pyro.sample("z", pyro.distributions.Normal(0.0, 1.0))
                return pyro.sample("x", Implicit(self.loc + z), obs=x)

    with pytest.raises(CapabilityError, match="critic="):
        fit(Bare(), torch.randn(10), "gan")
    with pytest.raises(NotImplementedError, match="critic"):
        Bare().critic()
