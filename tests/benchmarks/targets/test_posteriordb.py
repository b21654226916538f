"""posteriordb's posteriors as programs: each has the density of the Stan model, written out here once more in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from pyro import poutine
from scipy import stats
from scipy.integrate import solve_ivp
from scipy.special import logsumexp, xlogy

from benchmarks import targets
from benchmarks.targets import posteriordb
from inference import fit
from inference.evaluation.divergences import moment_errors
from inference.particles import log_joint
from inference.training.target import make_target
from zoo import datasets
from zoo.datasets.reference import POSTERIORS
from zoo.flat import FlatPriors

NAMES = sorted(posteriordb.PROGRAMS)
POINTS = 50
EASY = (
    "arK-arK", "eight_schools-eight_schools_noncentered", "garch-garch11", "hmm_example-hmm_example",
    "kidiq-kidscore_momhs", "low_dim_gauss_mix-low_dim_gauss_mix",
)  # fmt: skip
"""Whose geometry 500 steps of adaptation are enough for."""
Values = dict[str, Any]


def normal(x: Any, loc: Any, scale: Any) -> float:
    return float(stats.norm.logpdf(x, loc, scale).sum())


def regression(y: Any, columns: list[Any], z: Values, prior: float = 0.0) -> float:
    return normal(y, z["beta"][0] + sum(b * c for b, c in zip(z["beta"][1:], columns, strict=True)), z["sigma"]) + prior


def cauchy(scale: float, value: float) -> float:
    return float(stats.cauchy.logpdf(value, 0, scale))


def arK(d: Values, z: Values) -> float:
    y, found = d["y"], normal(z["alpha"], 0, 10) + normal(z["beta"], 0, 10) + cauchy(2.5, z["sigma"])
    for t in range(5, 200):
        found += normal(y[t], z["alpha"] + sum(z["beta"][k] * y[t - 1 - k] for k in range(5)), z["sigma"])
    return found


def arma11(d: Values, z: Values) -> float:
    y, mu, phi, theta = d["y"], z["mu"], z["phi"], z["theta"]
    errors = [y[0] - (mu + phi * mu)]
    for t in range(1, len(y)):
        errors.append(y[t] - (mu + phi * y[t - 1] + theta * errors[-1]))
    prior = normal(mu, 0, 10) + normal([phi, theta], 0, 2) + cauchy(2.5, z["sigma"])
    return prior + normal(errors, 0, z["sigma"])


def garch11(d: Values, z: Values) -> float:
    y, sigma = d["y"], [d["sigma1"]]
    for t in range(1, len(y)):
        sigma.append(np.sqrt(z["alpha0"] + z["alpha1"] * (y[t - 1] - z["mu"]) ** 2 + z["beta1"] * sigma[-1] ** 2))
    return normal(y, z["mu"], sigma)


def path(emission: Any, z: Values) -> float:
    gamma, transition = emission[0], np.log(np.stack([z["theta1"], z["theta2"]]))
    for each in emission[1:]:
        gamma = np.logaddexp(*(gamma[:, None] + transition)) + each
    return float(np.logaddexp(*gamma))


def hmm_example(d: Values, z: Values) -> float:
    return normal(z["mu"], [3, 10], 1) + path(stats.norm.logpdf(d["y"][:, None], z["mu"], 1), z)


def hmm_drive_1(d: Values, z: Values) -> float:
    emission = stats.norm.logpdf(d["u"][:, None], z["phi"], d["tau"])
    emission = emission + stats.norm.logpdf(d["v"][:, None], z["lambda"], d["rho"])
    prior = normal(z["phi"], [0, 3], 1) + normal(z["lambda"], [0, 3], 1)
    # Rounded draws do not sum to one, so the density of scipy's Dirichlet is of no use.
    prior += sum(float(xlogy(d["alpha"][k] - 1, z[f"theta{k + 1}"]).sum()) for k in range(2))
    return prior + path(emission, z)


def low_dim_gauss_mix(d: Values, z: Values) -> float:
    logs = stats.norm.logpdf(d["y"][:, None], z["mu"], z["sigma"]) + np.log([z["theta"], 1 - z["theta"]])
    prior = normal(z["mu"], 0, 2) + normal(z["sigma"], 0, 2) + float(stats.beta.logpdf(z["theta"], 5, 5))
    return prior + float(logsumexp(logs, axis=1).sum())


def covariance(d: Values, z: Values) -> Any:
    x = np.asarray(d["x"], float)
    return z["alpha"] ** 2 * np.exp(-((x[:, None] - x) ** 2) / (2 * z["rho"] ** 2)) + 1e-10 * np.eye(len(x))


def gp_pois_regr(d: Values, z: Values) -> float:
    f_tilde = np.linalg.solve(np.linalg.cholesky(covariance(d, z)), z["f"])
    prior = float(stats.gamma.logpdf(z["rho"], 25, scale=1 / 4)) + normal(z["alpha"], 0, 2) + normal(f_tilde, 0, 1)
    return prior + float(stats.poisson.logpmf(d["k"], np.exp(z["f"])).sum())


def lotka_volterra(d: Values, z: Values) -> float:
    alpha, beta, gamma, delta = z["theta"]

    def speed(_: float, state: Any) -> list[Any]:
        u, v = state
        return [(alpha - beta * v) * u, (-gamma + delta * u) * v]

    found = solve_ivp(speed, (0, 20), z["z_init"], t_eval=d["ts"], rtol=1e-10, atol=1e-10, method="DOP853").y.T

    def lognormal(y: Any, state: Any) -> float:
        return float(stats.lognorm.logpdf(y, z["sigma"], scale=state).sum())

    prior = normal(z["theta"], [1, 0.05, 1, 0.05], [0.5, 0.05, 0.5, 0.05])
    prior += float(stats.lognorm.logpdf(z["sigma"], 1, scale=np.exp(-1)).sum())
    prior += float(stats.lognorm.logpdf(z["z_init"], 1, scale=10).sum())
    return prior + lognormal(d["y_init"], z["z_init"]) + lognormal(d["y"], found)


def eight_schools_noncentered(d: Values, z: Values) -> float:
    theta_trans = (z["theta"] - z["mu"]) / z["tau"]
    return (
        normal(theta_trans, 0, 1) + normal(d["y"], z["theta"], d["sigma"]) + normal(z["mu"], 0, 5) + cauchy(5, z["tau"])
    )


def diamonds(d: Values, z: Values) -> float:
    X = d["X"][:, 1:] - d["X"][:, 1:].mean(0)
    t = float(stats.t.logpdf(z["Intercept"], 3, 8, 10) + stats.t.logpdf(z["sigma"], 3, 0, 10))
    return normal(z["b"], 0, 1) + t + normal(d["Y"], z["Intercept"] + X @ z["b"], z["sigma"])


def logearn_interaction_z(d: Values, z: Values) -> float:
    height = (d["height"] - np.mean(d["height"])) / np.std(d["height"], ddof=1)
    return regression(np.log(d["earn"]), [height, d["male"], height * d["male"]], z)


def kilpisjarvi(d: Values, z: Values) -> float:
    prior = normal(z["alpha"], d["pmualpha"], d["psalpha"]) + normal(z["beta"], d["pmubeta"], d["psbeta"])
    return prior + normal(d["y"], z["alpha"] + z["beta"] * d["x"], z["sigma"])


BUSH = ("diam1", "diam2", "canopy_height", "total_height", "density")
DENSITIES: dict[str, Callable[[Values, Values], float]] = {
    "arK": arK, "arma11": arma11, "garch11": garch11, "hmm_example": hmm_example, "hmm_drive_1": hmm_drive_1,
    "low_dim_gauss_mix": low_dim_gauss_mix, "gp_pois_regr": gp_pois_regr, "lotka_volterra": lotka_volterra,
    "eight_schools_noncentered": eight_schools_noncentered, "diamonds": diamonds, "kilpisjarvi": kilpisjarvi,
    "logearn_interaction_z": logearn_interaction_z,
    "kidscore_momhs": lambda d, z: regression(d["kid_score"], [d["mom_hs"]], z, cauchy(2.5, z["sigma"])),
    "kidscore_interaction": lambda d, z: regression(
        d["kid_score"], [d["mom_hs"], d["mom_iq"], d["mom_hs"] * d["mom_iq"]], z, cauchy(2.5, z["sigma"])
    ),
    "mesquite": lambda d, z: regression(d["weight"], [d[name] for name in (*BUSH, "group")], z),
    "logmesquite": lambda d, z: regression(
        np.log(d["weight"]), [*(np.log(d[name]) for name in BUSH), d["group"]], z
    ),
    "nes": lambda d, z: regression(
        d["partyid7"],
        [d["real_ideo"], d["race_adj"], *(d["age_discrete"] == k for k in (2, 3, 4)), d["educ1"], d["gender"],
         d["income"]], z
    ),
    "blr": lambda d, z: normal(z["beta"], 0, 10) + normal(z["sigma"], 0, 10) + normal(
        d["y"], d["X"] @ z["beta"], z["sigma"]
    ),
}  # fmt: skip
"""Stan model -> its log density at one draw, up to a constant."""


def latents(model: str, data: Values, z: Values) -> Values:
    """What the program samples, from what posteriordb has draws of."""
    if model == "eight_schools_noncentered":
        return {"mu": z["mu"], "tau": z["tau"], "theta_trans": (z["theta"] - z["mu"]) / z["tau"]}
    if model == "gp_pois_regr":
        f_tilde = np.linalg.solve(np.linalg.cholesky(covariance(data, z)), z["f"])
        return {"rho": z["rho"], "alpha": z["alpha"], "f_tilde": f_tilde}
    if model == "garch11":
        shares = np.array([z["alpha1"], z["beta1"], 1 - z["alpha1"] - z["beta1"]])
        return {"mu": z["mu"], "alpha0": z["alpha0"], "shares": shares}
    return z


@pytest.fixture
def reference(request: pytest.FixtureRequest, zoo_data: Any) -> targets.Reference:
    return targets.load(f"posteriordb/{request.param}")


every = pytest.mark.parametrize("reference", NAMES, indirect=True)


@every
def test_the_density_is_the_stan_models_up_to_a_constant(reference: targets.Reference) -> None:
    model = reference.name.partition("-")[2]
    data = dict(datasets.reference_posterior(reference.name).data)
    points = 20 if model == "lotka_volterra" else POINTS  # whose solver is the most of this file's time
    chosen = reference.draw(points)
    draws = [{site: value[i].numpy() for site, value in chosen.items()} for i in range(points)]
    hand = np.array([DENSITIES[model](data, z) for z in draws])
    values = [latents(model, data, z) for z in draws]
    stacked = {site: torch.as_tensor(np.stack([each[site] for each in values]))[:, None] for site in values[0]}
    program = reference.program()
    program.declare(*reference.data)
    found = log_joint(program, stacked, *reference.data).total.numpy()
    assert np.ptp(hand) > 1  # the draws say something about the density
    # Lotka-Volterra: of the solver's error.
    limit = 1e-6 if model == "lotka_volterra" else 1e-9
    assert np.ptp(found - hand) < limit * np.abs(hand).max()


@every
def test_parameters_have_the_names_shapes_and_moments_of_the_file(reference: targets.Reference) -> None:
    posterior = datasets.reference_posterior(reference.name)
    for scalar in posterior.parameters:
        site, _, index = scalar.rstrip("]").partition("[")
        place = tuple(int(i) - 1 for i in index.split(",")) if index else ()
        assert float(reference.mean[site][place]) == pytest.approx(
            posterior.mean[scalar], abs=1e-5 * posterior.sd[scalar] + 1e-6 * abs(posterior.mean[scalar])
        )
        assert float(reference.sd[site][place]) == pytest.approx(posterior.sd[scalar], rel=1e-4)
    assert sum(mean.numel() for mean in reference.mean.values()) == len(posterior.parameters)


@every
def test_particles_together_have_the_density_of_each_alone(reference: targets.Reference) -> None:
    program = reference.program()
    program.declare(*reference.data)
    with FlatPriors(2.0), pyro.plate("particles", 3, dim=-1):
        trace = poutine.trace(program.model).get_trace(*reference.data, None)
    values = {site: trace.nodes[site]["value"] for site in program.sites()}
    assert all(value.shape == (3, *program.sites()[site].event_shape) for site, value in values.items())
    alone = log_joint(program, {site: value[:, None] for site, value in values.items()}, *reference.data).total
    sites = [site for site in trace.nodes.values() if site["type"] == "sample"]
    together = sum(site["fn"].log_prob(site["value"]) for site in sites if site["name"] != "particles")
    torch.testing.assert_close(together, alone)


@pytest.mark.slow
@pytest.mark.parametrize("reference", EASY, indirect=True)
def test_nuts_agrees_with_the_reference_draws(reference: targets.Reference) -> None:
    found = fit(reference.program(), reference.data, "nuts", warmup=500, draws=500, chains=4, seed=0, device="cpu")
    draws = reference.of_answer(found.program, found.draw(2000, *reference.data))
    errors = moment_errors({site: draws[site] for site in reference.mean}, reference.draw(10_000))
    least = min(found.info["ess"].values())
    assert errors.mean_max < 5 * (1 / least + 1 / 5000) ** 0.5
    assert errors.sd_ratio < 1 + 5 * (1 / least) ** 0.5


@every
def test_a_run_of_the_program_takes_many_particles(reference: targets.Reference) -> None:
    """None for each: that is what most methods take most time for."""
    program = reference.program()
    target = make_target("laplace", program, program.take(reference.data))
    z = 0.1 * torch.randn(3, target.size)
    values, slopes = target.slope(z)
    assert not target.one_by_one()
    for at, value, slope in zip(z, values, slopes, strict=True):
        torch.testing.assert_close(target.slope(at[None]), (value[None], slope[None]))


def test_every_posterior_of_the_data_has_its_program() -> None:
    assert {source.name for source in POSTERIORS.values()} == set(posteriordb.PROGRAMS)
    assert set(targets.REFERENCES) == {f"posteriordb/{name}" for name in NAMES}
