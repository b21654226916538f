"""Guides that no program brings along: autoguides by name, networks that only sample, grids, the exact posterior."""
