"""The contract suite over the whole catalogue: a program cannot be added without being tested."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from zoo import catalogue, folders
from zoo.errors import BrokenProgramError, CheckpointError, OptionError, UnknownNameError
from zoo.latent.ppca import PPCA
from zoo.program import Program
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
    config = (folder / "config.json").read_text().replace(f'"version": {folders.FORMAT}', '"version": 99')
    (folder / "config.json").write_text(config)
    with pytest.raises(CheckpointError, match="format 99"):
        catalogue.load(folder)


def test_loads_through_the_hub_mixin_too(tmp_path):
    program = catalogue.create("ppca", latent_dim=3)
    catalogue.save(program, tmp_path)
    again = type(program).from_pretrained(tmp_path)
    assert again.latent_dim == 3
    assert all(torch.equal(a, b) for a, b in zip(program.parameters(), again.parameters(), strict=True))


class Mine(PPCA):
    """A class that no catalogue has."""


class Other(PPCA):
    """Another, whose tensors would fit."""


def test_a_class_that_is_not_in_the_catalogue_is_asked_for(tmp_path: Path) -> None:
    torch.manual_seed(0)
    program = Mine([3], 1)
    catalogue.save(program, tmp_path)
    with pytest.raises(CheckpointError, match=r"class Mine of tests\.zoo\.test_catalogue.*program=Mine.*--trust-code"):
        catalogue.load(tmp_path)
    for again in (catalogue.load(tmp_path, program=Mine), catalogue.load(tmp_path, trust_code=True)):
        assert type(again) is Mine
        assert torch.equal(next(again.parameters()), next(program.parameters()))
    with pytest.raises(CheckpointError, match="holds a Mine, not a Other"):
        catalogue.load(tmp_path, program=Other)
    for wrong in (program, "Mine", dict):
        with pytest.raises(OptionError, match="a subclass of Program"):
            catalogue.load(tmp_path, program=wrong)


def test_a_class_of_a_script_or_a_notebook_is_given(tmp_path: Path, monkeypatch) -> None:
    script = type("Typed", (PPCA,), {"__module__": "__main__"})
    catalogue.save(script([3], 1), tmp_path)
    with pytest.raises(CheckpointError, match=r"class Typed of __main__.*program=Typed"):
        catalogue.load(tmp_path)
    with pytest.raises(CheckpointError, match="cannot be imported from there: give the class"):
        catalogue.load(tmp_path, trust_code=True)
    assert type(catalogue.load(tmp_path, program=script)) is script


FILE = """
from pathlib import Path

from zoo.latent.ppca import PPCA

(Path(__file__).parent / "ran").write_text("")


class InAFile(PPCA):
    pass
"""


def test_a_file_is_executed_only_on_a_yes_and_found_where_the_folder_was_moved(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "side.py").write_text(FILE)
    program = catalogue.get(f"{tmp_path}/here/side.py:InAFile")([3], 1)
    catalogue.save(program, tmp_path / "here" / "runs" / "fit")
    moved = (tmp_path / "here").rename(tmp_path / "there")
    (moved / "ran").unlink()
    config = json.loads((moved / "runs" / "fit" / "config.json").read_text())
    assert config["zoo"]["program"] == "../../side.py:InAFile"
    with pytest.raises(CheckpointError, match="runs no code"):
        catalogue.load(moved / "runs" / "fit")
    assert not (moved / "ran").exists()
    assert type(catalogue.load(moved / "runs" / "fit", trust_code=True)).__name__ == "InAFile"
    assert (moved / "ran").exists()


def test_half_of_a_file_that_failed_is_not_kept(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("from zoo import Program\nclass A(Program): pass\nint('middle')\n")
    before = set(sys.modules)
    for _ in range(2):
        with pytest.raises(BrokenProgramError, match=r"ValueError.*middle"):
            catalogue.get(f"{tmp_path}/bad.py:A")
    assert not [name for name in set(sys.modules) - before if "bad" in name]


@pytest.mark.parametrize(
    "name", ["os:system", "subprocess:Popen", "zoo.latent.ppca:PPCA", "no-such-program", ":", "a:b:c"]
)
def test_no_name_in_a_folder_imports_anything(tmp_path: Path, name: str) -> None:
    program = catalogue.create("coin")
    folders.write(tmp_path, program.config(), name, {"model.safetensors": folders.pack(program.state_dict(), "it")})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogue.importlib, "import_module", lambda *given: pytest.fail("something was imported"))
        with pytest.raises(CheckpointError):
            catalogue.load(tmp_path)
    with pytest.raises(CheckpointError):
        catalogue.load(tmp_path, trust_code=name != "zoo.latent.ppca:PPCA")


@pytest.mark.parametrize(
    ("options", "says"),
    [({"alpha": 1.0, "gamma": 2.0}, "no option gamma"), ({"alpha": "x"}, "damaged or of another")],
)
def test_options_that_the_class_does_not_take_are_refused(tmp_path: Path, options: dict, says: str) -> None:
    tensors = folders.pack(catalogue.create("coin").state_dict(), "it")
    folders.write(tmp_path, options, "coin", {"model.safetensors": tensors})
    with pytest.raises(CheckpointError, match=says):
        catalogue.load(tmp_path)


def test_nan_in_the_weights_is_refused_when_saved_and_what_was_there_stays(tmp_path: Path) -> None:
    program = catalogue.create("ppca")
    catalogue.save(program, tmp_path)
    whole = [value.clone() for value in program.state_dict().values()]
    next(program.parameters()).data.view(-1)[0] = float("nan")
    with pytest.raises(CheckpointError, match="PPCA: NaN in"):
        catalogue.save(program, tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(catalogue.load(tmp_path).state_dict().values(), whole, strict=True))


@pytest.mark.parametrize("name", ["dcgan", "vae"])
def test_what_is_loaded_evaluates(tmp_path: Path, name: str) -> None:
    """Its draws are those of the fitted program, and drawing changes nothing in it."""
    program = catalogue.create(name)
    program.generate(8)  # batch statistics move where there are some
    program.eval()
    again = catalogue.load(catalogue.save(program, tmp_path))
    assert not any(module.training for module in again.modules())
    before = {key: value.clone() for key, value in again.state_dict().items()}
    draws = []
    for each in (program, again):
        torch.manual_seed(1)
        draws.append(each.generate(5))
    assert torch.equal(*draws)
    assert all(torch.equal(before[key], value) for key, value in again.state_dict().items())


def test_a_transposed_tensor_is_saved(tmp_path: Path) -> None:
    program = catalogue.create("ppca")
    parameter = next(p for p in program.parameters() if p.ndim == 2)
    parameter.data = parameter.data.T.contiguous().T
    again = catalogue.load(catalogue.save(program, tmp_path))
    assert all(torch.equal(a, b) for a, b in zip(program.parameters(), again.parameters(), strict=True))
    assert isinstance(again, Program)
