"""The posterior suite: every kind of inference beside posteriors that are known exactly.

A row is a problem of `benchmarks.targets` (or a VAE trained first, see `benchmarks.targets.trained`) and the methods
that can take it. To add a method, write its `MethodSpec` and name it in the rows where it belongs.
"""

from __future__ import annotations

from typing import Any

from benchmarks.suite import Grid, MethodSpec, ProgramSpec, Suite

__all__ = ["EXACT", "METRICS", "SUITE", "WITHOUT_C2ST", "WITH_GAP", "avb", "nuts", "row", "svi"]

METRICS = (
    "log_evidence", "elbo", "kl_reverse", "kl_forward", "mean_error", "sd_error", "marginal_error", "c2st", "k_hat",
    "under_way", "seconds", "gradient_evaluations",
)  # fmt: skip


def svi(label: str, guide: str = "own", program: dict[str, Any] | None = None, **options: Any) -> MethodSpec:
    """SVI with a guide: 'own', an autoguide's name, or 'categorical' (`benchmarks.cells.posterior`)."""
    return MethodSpec(label, "svi", {"guide": guide, **options}, program=program or {})


def nuts(warmup: int, draws: int, chains: int) -> MethodSpec:
    """The no-U-turn sampler."""
    return MethodSpec("NUTS", "nuts", {"warmup": warmup, "draws": draws, "chains": chains})


def avb(**options: Any) -> MethodSpec:
    """Adversarial variational Bayes: an implicit guide."""
    return MethodSpec("AVB, implicit", "avb", options)


def row(
    target: str,
    data: str,
    *methods: MethodSpec,
    split: str = "train",
    seeds: int = 3,
    options: dict[str, Any] | None = None,
    metrics: tuple[str, ...] = METRICS,
    **evaluation: Any,
) -> Grid:
    """One problem by several methods."""
    return Grid(
        "posterior",
        (ProgramSpec(target, options or {}),),
        methods,
        metrics=metrics,
        data=(data,),
        split=split,
        seeds=seeds,
        evaluation=evaluation,
    )


EXACT = MethodSpec("exact", "exact")
LONG: dict[str, Any] = {"steps": 5000, "lr": 0.02, "particles": 8}
FLOW: dict[str, Any] = {"steps": 5000, "lr": 0.005, "particles": 8}
FUNNEL: dict[str, Any] = {"steps": 10_000, "lr": 0.02, "particles": 8}  # a funnel's neck is found late
SCORE: dict[str, Any] = {"elbo": "score", "particles": 16, "steps": 3000, "lr": 0.02}
WITHOUT_C2ST = tuple(metric for metric in METRICS if metric != "c2st")  # for paths too long for the classifier
WITH_GAP = (*METRICS, "approximation")  # for rows that set flows beside Gaussians
AMORTISED: dict[str, Any] = {"epochs": 300, "batch_size": 64, "lr": 3e-3}

SUITE = Suite(
    "posterior",
    "Posteriors that are known exactly",
    "How far is each method from the true posterior, and what does it cost?",
    grids=(
        # One latent vector for all the data.
        row("coin", "coin", EXACT, svi("SVI, own guide", **LONG), svi("SVI, mean-field", "normal", **LONG),
            nuts(500, 1000, 4), avb(steps=4000)),
        row("diabetes", "diabetes", EXACT, svi("SVI, own guide", **LONG), svi("SVI, mean-field", "normal", **LONG),
            svi("SVI, full rank", "multivariate_normal", **LONG), svi("SVI, flow", "iaf", **FLOW), nuts(500, 1000, 4)),
        row("eight-schools", "eight_schools", EXACT, svi("SVI, own guide", **LONG),
            svi("SVI, mean-field", "normal", **LONG), svi("SVI, full rank", "multivariate_normal", **LONG),
            svi("SVI, flow", "iaf", **FLOW), nuts(500, 1000, 4), avb(steps=4000)),
        row("eight-schools-centered", "eight_schools", EXACT, svi("SVI, mean-field", "normal", **FUNNEL),
            svi("SVI, full rank", "multivariate_normal", **FUNNEL), svi("SVI, flow", "iaf", **FUNNEL),
            svi("SVI, spline flow", "spline", **FUNNEL), nuts(500, 1000, 4), metrics=WITH_GAP),
        row("old-faithful", "old-faithful", EXACT, svi("SVI, own guide", **SCORE), MethodSpec("CAVI", "cavi"),
            nuts(500, 1000, 4), picture="means"),
        # One latent for each example.
        row("iris-species", "iris", EXACT, svi("SVI, categorical", "categorical", **SCORE), split="test"),
        row("casino", "casino", EXACT, svi("SVI, mean-field", **SCORE), metrics=WITHOUT_C2ST),
        row("ppca-digits", "digits", EXACT, svi("SVI, own guide", **LONG), svi("SVI, mean-field", "normal", **LONG),
            nuts(500, 500, 4), avb(steps=6000), split="test"),
        *(
            row(target, target, EXACT, svi("SVI, own guide", **LONG), svi("SVI, mean-field", "normal", **LONG),
                nuts(500, 500, 4), avb(steps=6000), seeds=5)
            for target in ("banana", "two-modes")
        ),
        row("vae-digits", "digits-binary", EXACT, svi("SVI, diagonal", **AMORTISED),
            svi("SVI, full rank", program={"guide": "full"}, **AMORTISED),
            svi("SVI, flow", program={"guide": "iaf"}, **AMORTISED),
            svi("SVI, spline flow", program={"guide": "spline"}, **AMORTISED), nuts(500, 500, 4),
            avb(steps=10_000), split="test", metrics=WITH_GAP),
    ),
)  # fmt: skip
