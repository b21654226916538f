"""Normalising flows: exact densities of continuous data, and of data on a grid by dequantisation."""
