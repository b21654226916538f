"""Small Bayesian programs whose posterior and evidence are known, and two whose posterior no Gaussian fits."""
