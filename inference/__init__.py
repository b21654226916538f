"""Exact, variational, sampling and adversarial inference for any program of the zoo."""

from inference.fit import METHODS, Fit, fit, fit_many, make_method, methods_for
from inference.svi import SVI

__all__ = ["METHODS", "SVI", "Fit", "fit", "fit_many", "make_method", "methods_for"]
