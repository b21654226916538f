"""Autoregressive networks: p(x) = prod_i p(x_i | x_<i), every conditional from one network; exact densities."""
