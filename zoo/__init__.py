"""Generative models as Pyro programs with matching guides."""

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
    "adopt",
    "catalogue",
    "create",
    "datasets",
    "errors",
    "load",
    "names",
]
