"""The same work done by others: Pyro's own SVI, hand-written PyTorch, NumPyro, scikit-learn, hmmlearn."""
