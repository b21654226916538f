"""Nothing escapes the tests: every program is in the catalogue, every file says on its first line what it is for."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from pathlib import Path

import pytest

import benchmarks
import inference
import zoo
from zoo import catalogue
from zoo.adopted import Adopted
from zoo.program import ImplicitProgram, Program

ROOT = Path(__file__).parents[1]
MODULES = sorted(
    module.name
    for package in (zoo, inference, benchmarks)
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + ".")
)


def subclasses(cls: type) -> set[type]:
    return {cls}.union(*(subclasses(sub) for sub in cls.__subclasses__()))


def test_every_program_is_in_the_catalogue():
    for name in MODULES:
        importlib.import_module(name)
    known = {catalogue.get(name) for name in catalogue.BUILTIN}
    bases = {base for cls in known for base in cls.__mro__[1:]} | {Program, ImplicitProgram, Adopted}
    ours = {cls for cls in subclasses(Program) if cls.__module__.startswith("zoo.")}
    assert ours - known - bases == set()


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_it_is_for(name):
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    docstring = ast.get_docstring(ast.parse(Path(spec.origin).read_text()))
    assert docstring, f"{name} has no docstring"
    assert len(docstring.splitlines()[0]) > 15, f"{name}: {docstring.splitlines()[0]!r} says too little"


# Which test belongs to which module.

ROOMS = {
    "zoo/bayes": "one body runs over all conjugate and quadrature programs",
    "zoo/chains": "one body enumerates every chain; the larger ones have files of their own besides",
    "zoo/flows": "one body runs over all flows: inverse, log-determinant, mass",
    "zoo/latent": "PPCA is the closed form that the VAE is judged by; each has more in a file of its own",
    "zoo/mixtures": "one body runs over all mixtures and the moments that they share",
    "zoo/datasets": "one loader and one registry, tested on every data set",
    "benchmarks/targets/posteriordb": "one body sets every posterior beside its density written by hand",
    "benchmarks/suites": "pure declarations: one body runs over every suite",
    "benchmarks/speed/workloads": "one body runs over every workload; those without gradient steps have their own",
}
"""Folders whose modules are tested together: `tests/<folder>.py` with test_ before its name, or a file of that name
inside."""

TOGETHER = {
    "zoo/autoregressive/base.py": "zoo/autoregressive/test_nade.py",
    "zoo/autoregressive/ensemble.py": "zoo/autoregressive/test_made.py",
    "zoo/autoregressive/eonade.py": "zoo/autoregressive/test_made.py",
    "zoo/autoregressive/fvsbn.py": "zoo/autoregressive/test_nade.py",
    "zoo/autoregressive/gated_pixelcnn.py": "zoo/autoregressive/test_pixelcnn.py",
    "zoo/autoregressive/image_lstm.py": "zoo/autoregressive/test_pixelrnn.py",
    "zoo/autoregressive/incremental.py": "zoo/autoregressive/test_pixelcnn.py",
    "zoo/autoregressive/linear_prediction.py": "zoo/autoregressive/test_wavenet.py",
    "zoo/autoregressive/masked_conv.py": "zoo/autoregressive/test_pixelcnn.py",
    "zoo/autoregressive/pixelcnn_plus.py": "zoo/autoregressive/test_pixelcnn.py",
    "zoo/implicit/dcgan.py": "zoo/implicit/test_base.py",
    "zoo/implicit/networks.py": "zoo/implicit/test_base.py",
    "zoo/implicit/sngan.py": "zoo/implicit/test_base.py",
    "zoo/implicit/wgan.py": "zoo/implicit/test_base.py",
    "zoo/guide_flows.py": "inference/guides/test_named.py",
    "zoo/likelihoods.py": "zoo/test_latent.py",
    "zoo/topics/base.py": "zoo/topics/test_lda.py",
}
"""Modules of the zoo that share a test: variants of one program, and parts that are tested in what is made of them."""

THEMES = {
    "zoo/implicit/test_image_sizes.py": "faces, colour and other devices, over all generators of images",
    "zoo/test_meta_device.py": "tensors made on another device, over the whole catalogue, without a GPU",
    "inference/methods/test_steps_on_meta.py": "tensors made on another device, over the steps of all methods",
    "zoo/test_missing.py": "missing values, over all programs that take them",
    "test_options.py": "values that the options of programs and methods cannot have",
    "inference/test_regressions.py": "bugs of other libraries that must not come back",
    "inference/methods/test_bounds_equal_pyro.py": "our bounds beside Pyro's, over the whole catalogue",
    "inference/methods/test_adopted_equal_pyro.py": "adopted code beside Pyro's own classes, and beside the truth",
    "test_completeness.py": "what this file says",
    "test_doors.py": "bad data at every public door, over the whole catalogue",
    "test_docs.py": "the documents",
    "test_house.py": "rules that no linter knows",
    "test_gpu.py": "one pass over methods and densities on a GPU",
    "test_mutants.py": "the planter of random mistakes, tests/mutants.py",
    "test_security.py": "docs/security.md, sentence by sentence",
    "test_recipe.py": "docs/write-a-model.md, followed to the letter",
}
"""Test files that are of no one module."""


def modules() -> list[Path]:
    """Every module of the three packages, from the root; not what only makes a folder a package."""
    found = (path for folder in ("zoo", "inference", "benchmarks") for path in (ROOT / folder).rglob("*.py"))
    return sorted(path.relative_to(ROOT) for path in found if path.name != "__init__.py")


def place_of_the_test(module: Path) -> Path:
    """Where the test of a module lies, from tests/."""
    return module.with_name(f"test_{module.name}")


def together(room: str) -> list[Path]:
    """Where the test of a room may lie."""
    name = f"test_{Path(room).name}.py"
    return [Path(room).with_name(name), Path(room) / name]


def test_every_module_has_its_test():
    there = {path.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("test_*.py")}
    for room in ROOMS:
        assert there & {*together(room)}, f"the room {room} has no test"
    for module, test in TOGETHER.items():
        assert Path(test) in there, f"{test}, said to test {module}, is not there"
    without = [
        str(module)
        for module in modules()
        if place_of_the_test(module) not in there and str(module) not in TOGETHER and str(module.parent) not in ROOMS
    ]
    assert without == []


def test_every_test_file_is_of_a_module_or_a_theme():
    known = {place_of_the_test(module) for module in modules()} | {path for room in ROOMS for path in together(room)}
    there = {path.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("test_*.py")}
    assert sorted(map(str, there - known - {Path(theme) for theme in THEMES})) == []
    assert {theme for theme in THEMES if Path(theme) not in there} == set()


def test_no_list_names_what_is_gone_or_has_a_test_by_now():
    for module in TOGETHER:
        assert (ROOT / module).is_file(), f"{module} is gone"
        assert not (ROOT / "tests" / place_of_the_test(Path(module))).exists(), f"{module} has a test of its own"
    for room in ROOMS:
        assert (ROOT / room).is_dir(), f"{room} is gone"


def test_no_file_is_too_long_to_be_read():
    for folder in ("zoo", "inference", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            assert len(path.read_text().splitlines()) <= 450, f"{path.relative_to(ROOT)} should be split"
