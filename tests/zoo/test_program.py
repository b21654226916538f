"""What every program has from its base: the plate's scale, sites, generation, and errors that name what is wrong."""

from __future__ import annotations

import inspect

import pyro
import pytest
import torch

from tests.inference.toys import Pair, Rate, Sampler, linear
from zoo import catalogue, datasets
from zoo.errors import DatasetError, ImplicitDensityError
from zoo.program import Implicit, Preset


@pytest.mark.parametrize(("size", "scale"), [(None, 1.0), (4, 1.0), (12, 3.0)])
def test_a_minibatch_stands_for_all_of_the_data(size, scale):
    program, x = Pair(), torch.tensor([0.1, -0.4, 2.0, 0.0])
    trace = pyro.poutine.trace(program.model).get_trace(x, None, size)
    assert trace.nodes["z"]["scale"] == trace.nodes["x"]["scale"] == scale
    assert trace.nodes["scale"]["scale"] == 1.0
    assert trace.nodes["z"]["value"].shape == (4,)


def test_sites_are_those_of_the_model_and_x_is_none():
    sites = Pair().sites()
    assert list(sites) == ["scale", "z"]
    assert sites["scale"].is_global
    assert not sites["z"].is_global
    assert [site.distribution for site in sites.values()] == ["Gamma", "Normal"]
    assert not any(site.is_discrete for site in sites.values())
    (z,) = linear(5, 2).sites().values()
    assert (z.event_shape, z.distribution) == ((2,), "Normal")


def test_asking_for_sites_leaves_the_random_state_alone():
    program, before = linear(), torch.get_rng_state()
    program.sites()
    assert torch.equal(torch.get_rng_state(), before)


def test_as_many_examples_are_generated_as_asked():
    assert Rate().generate(7).shape == (7,)
    made = linear(5, 2).generate(3)
    assert made.shape == (3, 5)
    assert not made.requires_grad


def test_an_implicit_site_has_a_value_and_no_density():
    site = Implicit(torch.ones(4, 2), 1)
    assert (site.batch_shape, site.event_shape) == ((4,), (2,))
    assert torch.equal(site.rsample(), torch.ones(4, 2))
    with pytest.raises(ImplicitDensityError):
        site.log_prob(torch.ones(4, 2))
    assert Sampler().generate(3).shape == (3, 2)


def test_a_preset_gives_way_to_changes() -> None:
    preset = Preset({"hidden": [8], "latent_dim": 2}, "svi", {"epochs": 10, "lr": 0.1}, data="digits")
    shorter = preset.merged({"hidden": [4]}, fit={"steps": 7})
    assert (dict(shorter.program), dict(shorter.fit)) == ({"hidden": [4], "latent_dim": 2}, {"lr": 0.1, "steps": 7})
    assert dict(shorter.merged(fit={"epochs": 3}).fit) == {"lr": 0.1, "epochs": 3}
    # The options of another method are not those of the preset's.
    other = preset.merged(method="nuts", fit={"draws": 5})
    assert (other.method, dict(other.fit), other.data) == ("nuts", {"draws": 5}, "digits")
    assert dict(preset.fit) == {"epochs": 10, "lr": 0.1}


def test_options_and_config_are_those_of_the_constructor() -> None:
    cls = catalogue.get("vae")
    assert cls.option_names() == [name for name in inspect.signature(cls.__init__).parameters if name != "self"]
    program = catalogue.create("vae", latent_dim=3, hidden=[5])
    assert program.config()["latent_dim"] == 3
    again = type(program)(**program.config())
    assert [p.shape for p in again.parameters()] == [p.shape for p in program.parameters()]


@pytest.mark.parametrize("name", catalogue.names())
def test_no_preset_learns_at_a_rate_that_no_fit_bears(name: str) -> None:
    for preset in catalogue.get(name).presets.values():
        most = 0.1 if preset.fit.get("optimizer", "adam") == "adam" else 10.0  # others' steps are as small as the slope
        assert all(0 < rate <= most for option, rate in preset.fit.items() if option.endswith("lr"))


@pytest.mark.parametrize(
    ("name", "preset"),
    [(name, preset) for name in catalogue.BUILTIN for preset, p in catalogue.get(name).presets.items() if p.data],
)
def test_a_preset_suits_the_data_that_it_names(name: str, preset: str) -> None:
    try:
        data = datasets.load(str(catalogue.get(name).preset(preset).data))
    except DatasetError as error:
        pytest.skip(f"needs the data: {error}")
    few = data.train.rows(slice(0, 30))
    catalogue.create_for(name, few, preset).take(few)
