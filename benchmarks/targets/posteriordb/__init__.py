"""Posteriors of posteriordb as programs, whose truth is its reference draws.

Magnusson et al., "posteriordb: testing, benchmarking and developing Bayesian inference algorithms", 2025; data and
draws are read by `zoo.datasets.reference`.
"""

from __future__ import annotations

import torch

from benchmarks.targets.asked import from_draws
from benchmarks.targets.target import Reference
from zoo import datasets
from zoo.errors import OptionError

__all__ = ["PROGRAMS", "load"]

_REGRESSIONS, _SERIES, _NONLINEAR = (f"{__name__}.{kind}" for kind in ("regressions", "time_series", "nonlinear"))

PROGRAMS: dict[str, str] = {
    "arK-arK": f"{_SERIES}:arK",
    "arma-arma11": f"{_SERIES}:arma11",
    "bball_drive_event_1-hmm_drive_1": f"{_SERIES}:hmm_drive_1",
    "diamonds-diamonds": f"{_REGRESSIONS}:diamonds",
    "earnings-logearn_interaction_z": f"{_REGRESSIONS}:logearn_interaction_z",
    "eight_schools-eight_schools_noncentered": f"{_REGRESSIONS}:eight_schools_noncentered",
    "garch-garch11": f"{_SERIES}:garch11",
    "gp_pois_regr-gp_pois_regr": f"{_NONLINEAR}:gp_pois_regr",
    "hmm_example-hmm_example": f"{_SERIES}:hmm_example",
    "hudson_lynx_hare-lotka_volterra": f"{_NONLINEAR}:lotka_volterra",
    "kidiq-kidscore_interaction": f"{_REGRESSIONS}:kidscore_interaction",
    "kidiq-kidscore_momhs": f"{_REGRESSIONS}:kidscore_momhs",
    "kilpisjarvi_mod-kilpisjarvi": f"{_REGRESSIONS}:kilpisjarvi",
    "low_dim_gauss_mix-low_dim_gauss_mix": f"{_NONLINEAR}:low_dim_gauss_mix",
    "mesquite-logmesquite": f"{_REGRESSIONS}:logmesquite",
    "mesquite-mesquite": f"{_REGRESSIONS}:mesquite",
    "nes1972-nes": f"{_REGRESSIONS}:nes",
    "sblri-blr": f"{_REGRESSIONS}:blr",
}
"""posteriordb's name, DATA-MODEL -> the program, as the catalogue finds it."""


def load(name: str) -> Reference:
    """A posterior by posteriordb's name.

    Computed in double precision only, as the draws were: years and prices that are not centred cancel in single.

    Raises: DatasetError when its data cannot be read; OptionError in another default dtype.
    """
    if torch.get_default_dtype() != torch.float64:
        raise OptionError("posteriordb's posteriors need torch.set_default_dtype(torch.float64).")
    return from_draws(PROGRAMS[name], datasets.reference_posterior(name))
