"""How good is a fitted program, and how far is its guide from the truth? The door to all instruments.

log p(x) exactly, by importance sampling or by annealing; the ELBO; the gap and its parts; both directions of the
Kullback-Leibler divergence; distances between draws; calibration; export to ArviZ. Scores of samples are in
`inference.evaluation.samples`, questions to a density in `inference.evaluation.queries`.
"""

from inference.evaluation.annealing import ais, anneal, bidirectional
from inference.evaluation.arviz_export import summary, to_inference_data
from inference.evaluation.calibration import guide_sampler, psis_khat, sbc, vsbc
from inference.evaluation.checks import interval_coverage, predictive_check
from inference.evaluation.divergences import MomentErrors, kl_divergences, moment_errors
from inference.evaluation.estimates import Estimate, density, elbo, importance_log_weights
from inference.evaluation.gaps import Gap, posterior_gap
from inference.evaluation.likelihood import log_evidence, log_likelihood
from inference.evaluation.loo import LeaveOneOut, loo, waic
from inference.evaluation.predictive import log_predictive_density
from inference.evaluation.two_samples import c2st, gaussian_kl, mmd, sliced_wasserstein

__all__ = [
    "Estimate",
    "Gap",
    "LeaveOneOut",
    "MomentErrors",
    "ais",
    "anneal",
    "bidirectional",
    "c2st",
    "density",
    "elbo",
    "gaussian_kl",
    "guide_sampler",
    "importance_log_weights",
    "interval_coverage",
    "kl_divergences",
    "log_evidence",
    "log_likelihood",
    "log_predictive_density",
    "loo",
    "mmd",
    "moment_errors",
    "posterior_gap",
    "predictive_check",
    "psis_khat",
    "sbc",
    "sliced_wasserstein",
    "summary",
    "to_inference_data",
    "vsbc",
    "waic",
]
