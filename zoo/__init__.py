"""Generative models as Pyro programs with matching guides."""

from importlib.metadata import PackageNotFoundError, version

from zoo.process import undisturbed

with undisturbed():
    from zoo import catalogue, datasets, errors
    from zoo.adopted import adopt
    from zoo.catalogue import create, load, names
    from zoo.program import Implicit, ImplicitProgram, Preset, Program, Site

__all__ = [
    "Implicit",
    "ImplicitProgram",
    "Preset",
    "Program",
    "Site",
    "__version__",
    "adopt",
    "catalogue",
    "create",
    "datasets",
    "errors",
    "load",
    "names",
]

try:
    __version__ = version("pyro-model-zoo")  # pyproject.toml says it, and nothing else does
except PackageNotFoundError:  # a checkout that is on the path, and not installed
    __version__ = "not installed"
