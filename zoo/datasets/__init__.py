"""Loaders of real data: `load(name_or_file)`, `names()`, `card(name)`, `binarise(x)`, `reference_posterior(name)`."""

from zoo.datasets.binary import binarise
from zoo.datasets.data import Card, Data, Dataset, File
from zoo.datasets.loader import base_name, card, like, load, named, names
from zoo.datasets.reference import ReferencePosterior, read_reference, reference_posterior

__all__ = [
    "Card",
    "Data",
    "Dataset",
    "File",
    "ReferencePosterior",
    "base_name",
    "binarise",
    "card",
    "like",
    "load",
    "named",
    "names",
    "read_reference",
    "reference_posterior",
]
