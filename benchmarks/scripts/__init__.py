"""Experiments run by hand, `python -m benchmarks.scripts.NAME`, whose tables stand in the docs."""
