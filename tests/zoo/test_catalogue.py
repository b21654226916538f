"""The contract suite over the whole catalogue: a program cannot be added without being tested."""

from __future__ import annotations

import pytest
import torch

from zoo import catalogue
from zoo.errors import CheckpointError, UnknownNameError
from zoo.testing import checks


@pytest.mark.parametrize("check", checks(), ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", catalogue.names())
def test_contract(name, check):
    torch.manual_seed(0)
    check(catalogue.create(name))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", catalogue.names())
def test_runs_on_the_gpu(name):
    program = catalogue.create(name).to("cuda")
    context = program.example_context(4)
    context = None if context is None else context.to("cuda")
    x = program.generate(4, context)
    assert x.device.type == "cuda"
    program.guide(x, context, None)


def test_unknown_name_names_the_nearest():
    with pytest.raises(UnknownNameError, match="'ppca'"):
        catalogue.get("pcpa")


def test_unknown_option_names_the_nearest():
    with pytest.raises(UnknownNameError, match="latent_dim"):
        catalogue.create("ppca", latent_dims=3)


def test_every_builtin_has_a_card():
    for name in catalogue.names():
        cls = catalogue.get(name)
        assert cls.family != "other", name
        assert cls.paper, name
        assert "small" in cls.presets, name


def test_damaged_checkpoint_is_refused(tmp_path):
    folder = catalogue.save(catalogue.create("ppca"), tmp_path)
    with open(folder / "model.safetensors", "r+b") as file:
        file.truncate(100)
    with pytest.raises(CheckpointError, match="damaged"):
        catalogue.load(folder)


def test_checkpoint_of_another_version_is_refused(tmp_path):
    folder = catalogue.save(catalogue.create("ppca"), tmp_path)
    config = (folder / "config.json").read_text().replace(f'"version": {catalogue.CONFIG_VERSION}', '"version": 99')
    (folder / "config.json").write_text(config)
    with pytest.raises(CheckpointError, match="format 99"):
        catalogue.load(folder)


def test_loads_through_the_hub_mixin_too(tmp_path):
    program = catalogue.create("ppca", latent_dim=3)
    catalogue.save(program, tmp_path)
    again = type(program).from_pretrained(tmp_path)
    assert again.latent_dim == 3
    assert all(torch.equal(a, b) for a, b in zip(program.parameters(), again.parameters(), strict=True))
