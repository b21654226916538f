"""Exact, variational, sampling and adversarial inference for any program of the zoo."""

from zoo.process import undisturbed

with undisturbed():
    from inference.fit import METHODS, fit, fit_many, make_method, methods_for
    from inference.fitted import Fit
    from inference.methods.svi import SVI

__all__ = ["METHODS", "SVI", "Fit", "fit", "fit_many", "make_method", "methods_for"]
