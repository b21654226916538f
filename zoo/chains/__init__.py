"""Chains: sites in order, from independent pixels to the full joint table, and the hidden Markov model."""
