"""Sequences with continuous states: the linear Gaussian state space, whose answers are exact, and its deep kin."""
