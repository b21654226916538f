"""Continuous latent variables: probabilistic PCA and the variational autoencoder."""
