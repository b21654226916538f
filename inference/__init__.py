"""Exact, variational, sampling and adversarial inference for any program of the zoo."""

from inference.fit import METHODS, Fit, fit, make_method, methods_for

__all__ = ["METHODS", "Fit", "fit", "make_method", "methods_for"]
