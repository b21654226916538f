"""Finite mixtures: Bernoullis, Gaussians by maximum likelihood, and the Bayesian Gaussian mixture."""
