"""The suite `speed`: the same training step by this project, Pyro, PyTorch and NumPyro."""
