"""The main job: a three-minute selection of the posterior and density suites, with smaller budgets."""

from __future__ import annotations

from typing import Any

from benchmarks.suite import MethodSpec, Suite
from benchmarks.suites import density, posterior
from benchmarks.suites.posterior import EXACT, avb, nuts, svi

__all__ = ["SUITE"]

SHORT: dict[str, Any] = {"steps": 1500, "lr": 0.03, "particles": 4}
SCORE: dict[str, Any] = {"elbo": "score", "particles": 16, "steps": 600, "lr": 0.03}
AMORTISED: dict[str, Any] = {"epochs": 100, "batch_size": 64, "lr": 3e-3}

SUITE = Suite(
    "main",
    "Exact, variational and adversarial inference side by side",
    "How far is each method from the true posterior? How probable does each family find digits it has not seen?",
    grids=(
        # The longest cells first, so that no core waits for them at the end.
        density.row("digits", "gan", "GAN", "GAN", {"hidden": [128, 128], "dropout": 0.3}, 1,
                    {"ais_chains": 8, "ais_steps": 100, "ais_examples": 50}, steps=2000, batch_size=100, lr=1e-3),
        posterior.row("vae-digits", "digits-binary", EXACT, svi("SVI, diagonal", **AMORTISED),
                      svi("SVI, full rank", program={"guide": "full"}, **AMORTISED),
                      svi("SVI, flow", program={"guide": "iaf"}, **AMORTISED), avb(steps=1000, batch_size=64),
                      split="test", seeds=1, options={"epochs": 60}),
        posterior.row("banana", "banana", EXACT, svi("SVI, own guide", **SHORT), avb(steps=1500), seeds=1),
        posterior.row("eight-schools", "eight_schools", EXACT, svi("SVI, own guide", **SHORT),
                      svi("SVI, mean-field", "normal", **SHORT), svi("SVI, full rank", "multivariate_normal", **SHORT),
                      nuts(150, 250, 2), seeds=1, classifier="quadratic"),
        posterior.row("diabetes", "diabetes", EXACT, svi("SVI, mean-field", "normal", **SHORT),
                      svi("SVI, full rank", "multivariate_normal", **SHORT), classifier="quadratic"),
        posterior.row("coin", "coin", EXACT, svi("SVI, own guide", **SHORT), svi("SVI, mean-field", "normal", **SHORT),
                      nuts(200, 250, 2)),
        posterior.row("iris-species", "iris", EXACT, svi("SVI, categorical", "categorical", **SCORE), split="test"),
        posterior.row("old-faithful", "old-faithful", EXACT, MethodSpec("CAVI", "cavi"), picture="means",
                      classifier="quadratic"),
        posterior.row("casino", "casino", EXACT, svi("SVI, mean-field", elbo="score", particles=16, steps=500, lr=0.1),
                      metrics=posterior.WITHOUT_C2ST),
        posterior.row("ppca-digits", "digits", EXACT, svi("SVI, own guide", **SHORT), split="test", seeds=1),
        density.row("digits-binary", "vae", "VAE, 2 latents", "SVI", density.PLANE, 1, **AMORTISED),
        density.row("digits-binary", "ar-chain", "AR(8)", "SVI", {"order": 8}, 1, steps=1000),
        density.row("digits-binary", "bernoulli-mixture", "mixture of 40 Bernoullis", "EM", {"components": 40}),
        density.row("digits-binary", "independent", "independent pixels", "EM", {}),
        density.row("digits-binary", "markov-chain", "Markov chain", "EM", {}),
        density.row("digits", "ppca", "PPCA, 16 components", "SVI", {"latent_dim": 16}, 1, steps=1500),
    ),
)  # fmt: skip
