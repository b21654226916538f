"""Data sets."""
from zoo.datasets.data import Card, Data, Dataset
__all__ = ["Card", "Data", "Dataset"]
