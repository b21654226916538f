"""Exact, variational, sampling and adversarial inference for any program of the zoo."""

from inference.fit import METHODS, fit, fit_many, make_method, methods_for
from inference.fitted import Fit
from inference.methods.svi import SVI

__all__ = ["METHODS", "SVI", "Fit", "fit", "fit_many", "make_method", "methods_for"]
