"""The metrics that suites may ask for: what each is called in a table, its unit, and which way is better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["METRICS", "Measurement", "Metric", "how_the_fit_ended"]


@dataclass(frozen=True)
class Metric:
    """The card of a metric; `digits` after the point in tables; `better` is 'higher', 'lower' or ''.

    `counts`: seeds are counted, not averaged: tables show of how many seeds it is true.
    """

    title: str
    meaning: str
    better: str = ""
    digits: int = 3
    counts: bool = False


@dataclass(frozen=True)
class Measurement:
    """One number of a cell. `value` None means that the metric does not apply, and `how` says why."""

    metric: str
    value: float | None
    standard_error: float | None = None
    how: str = ""


METRICS: dict[str, Metric] = {
    # Posterior: a method beside an exact answer.
    "log_evidence": Metric("log evidence", "exact log p(x), nats per unit", "", digits=3),
    "elbo": Metric("ELBO", "evidence lower bound of the guide, nats per unit", "higher", digits=3),
    "kl_reverse": Metric("KL(q‖p)", "reverse KL to the exact posterior, nats per unit", "lower", digits=3),
    "approximation": Metric(
        "approx.", "log p(x) less the ELBO of the family's best member, nats per unit", "lower", digits=3
    ),
    "gap_closed": Metric(
        "closed", "share of the full-rank Gaussian's approximation gap that is gone", "higher", digits=2
    ),
    "kl_forward": Metric("KL(p‖q)", "forward KL from the exact posterior, nats per unit", "lower", digits=3),
    "mean_error": Metric("mean err", "root mean square error of posterior means, in true sds", "lower", digits=2),
    "sd_error": Metric("sd err", "root mean square error of posterior sds, in true sds", "lower", digits=2),
    "mean_worst": Metric("worst mean", "largest error of a posterior mean, in true sds", "lower", digits=2),
    "sd_worst": Metric("worst sd", "largest ratio of a posterior sd to the true one or its inverse", "lower", digits=2),
    "marginal_error": Metric("TV", "mean total variation of the marginals of discrete latents", "lower", digits=2),
    "c2st": Metric("C2ST", "accuracy of a classifier telling draws from exact ones; 0.5 is perfect", "lower", digits=2),
    "sliced_wasserstein": Metric(
        "SW", "sliced Wasserstein distance of draws to true ones, in true sds", "lower", digits=3
    ),
    "k_hat": Metric(
        "k-hat", "Pareto shape of the importance weights; above 0.7 the guide misses mass", "lower", digits=2
    ),
    "under_way": Metric(
        "under way",
        "seeds whose bound still rose when the fit ended; not the family's best",
        "lower",
        digits=0,
        counts=True,
    ),
    # Density: a program fitted on a data set.
    "log_likelihood": Metric("log p(x)", "mean test log-likelihood per example, nats", "higher", digits=2),
    "bits_per_dim": Metric("bits/dim", "minus log2 p(x) per dimension", "lower", digits=3),
    "grid_log_likelihood": Metric("by grid", "log p(x), the latents summed out on a grid, nats", "higher", digits=2),
    "parzen": Metric(
        "Parzen", "kernel density of samples, nats; an estimate that favours memorisers", "higher", digits=2
    ),
    "ais": Metric(
        "AIS", "annealed importance sampling, Gaussian noise on the samples, nats; an estimate", "higher", digits=2
    ),
    "diversity": Metric(
        "diversity", "distance of samples over that of data; below 0.5 a GAN has collapsed", "", digits=2
    ),
    "parameters": Metric("parameters", "free numbers of the program, guide included", "", digits=0),
    # Samples: programs judged by what they draw, in the features of a classifier trained on the training split.
    "frechet": Metric("Fréchet", "squared Fréchet distance of samples to test images, in features", "lower", digits=2),
    "frechet_grey": Metric("grey", "Fréchet distance of grey images, in a network of grey images", "lower", digits=2),
    "precision": Metric("precision", "share of samples among the data", "higher", digits=2),
    "recall": Metric("recall", "share of test data among the samples", "higher", digits=2),
    "sample_density": Metric("density", "balls of data around a sample, over k; 1 for the truth", "", digits=2),
    "coverage": Metric(
        "coverage", "share of test data with a sample beside them; 0.97 for the truth", "higher", digits=2
    ),
    "mmd": Metric("MMD²", "squared kernel distance of samples to test data, in features", "lower", digits=4),
    "mmd_p": Metric("MMD p", "p-value of 'samples and test data are alike', by that distance", "higher", digits=3),
    "c2st_features": Metric(
        "C2ST", "accuracy of a classifier telling samples from test data; 0.5: it cannot", "lower", digits=2
    ),
    "inception": Metric(
        "inception", "e to the information of samples on their class, at most the classes", "higher", digits=2
    ),
    "class_accuracy": Metric("asked", "share of samples that show the class asked for", "higher", digits=3),
    "recognition": Metric(
        "recognised", "share of translations nearest to their own true answer, of all answers", "higher", digits=3
    ),
    "pixel_error": Metric("L1", "mean absolute error of a translation's pixels to the true answer", "lower", digits=4),
    "attribute_accuracy": Metric(
        "attributes", "share of samples that show an attribute asked for, of the worst one", "higher", digits=3
    ),
    # Completions, captions, tags: what was asked for, beside what was meant.
    "completion_rmse": Metric("RMSE", "error of the mean completion, over missing pixels", "lower", digits=4),
    "completion_crps": Metric(
        "CRPS",
        "ranked probability score of completions, over missing pixels; rewards the right spread",
        "lower",
        digits=4,
    ),
    "completion_spread": Metric("spread", "root mean variance of completions; near the RMSE if honest", "", digits=4),
    "completion_frechet": Metric(
        "Fréchet, completed",
        "Fréchet distance of completed images to whole ones, in principal components",
        "lower",
        digits=3,
    ),
    "hidden_log_likelihood": Metric(
        "log p(hidden)", "log p(hidden pixels | known pixels), nats per test example", "higher", digits=2
    ),
    "restoring_seconds": Metric("answer, s", "wall time of all answers", "lower", digits=1),
    "kept": Metric("kept", "largest change of a pixel that was given", "lower", digits=4),
    "retrieval": Metric("told", "share of images whose own caption fits best, of a hundred", "higher", digits=3),
    "tag_precision": Metric(
        "precision at 10", "share of right words among the ten that rank first", "higher", digits=3
    ),
    "tag_map": Metric("MAP", "mean average precision of the ranking of words", "higher", digits=3),
    "tag_lists": Metric("words", "different words that the draws for one image name", "", digits=1),
    "classes": Metric("classes", "classes with at least a tenth of their share of the data", "higher", digits=0),
    "class_difference": Metric("shares off", "share of samples in other classes than those of data", "lower", digits=3),
    "code_accuracy": Metric(
        "code", "share of test images whose class the code names, classes matched afterwards", "higher", digits=3
    ),
    "reconstruction": Metric(
        "rebuilt", "share of test images whose reconstruction shows their class", "higher", digits=3
    ),
    "prior_p": Metric("prior p", "p-value of 'codes of test data are draws of the prior', by MMD", "higher", digits=3),
    "memorisation": Metric(
        "nearest", "distance of samples to training data over that of test data; below 1: copies", "", digits=2
    ),
    "modes": Metric("modes", "modes covered, of those that there are", "higher", digits=0),
    "good": Metric("good", "share of samples within three standard deviations of a mode", "higher", digits=3),
    "mode_kl": Metric("KL of modes", "KL of the samples' modes to equal shares, nats", "lower", digits=3),
    "collapsed": Metric(
        "collapsed", "seeds whose game ended with samples all alike, marked by the fit", "lower", digits=0, counts=True
    ),
    "saturated": Metric(
        "saturated",
        "seeds whose critic ended sure of everything, so that it taught nothing",
        "lower",
        digits=0,
        counts=True,
    ),
    # Topics: held-out words of documents.
    "perplexity": Metric("perplexity", "of held-out words, given the others of their document", "lower", digits=1),
    "coherence": Metric("NPMI", "normalised mutual information of a topic's words in documents", "higher", digits=3),
    # Anomalies: a program fitted to normal examples.
    "auroc": Metric("AUROC", "how often an anomaly has less density than a normal example", "higher", digits=3),
    "bits_normal": Metric("bits/dim, normal", "minus log2 p(x) per dimension of normal test examples", "", digits=3),
    "bits_anomalous": Metric("bits/dim, other", "minus log2 p(x) per dimension of anomalies", "", digits=3),
    # Codes: what can be read from them afterwards.
    "linear_probe": Metric(
        "linear", "share of test codes whose class logistic regression tells, from all training codes", "higher"
    ),
    "few_label_probe": Metric("linear, few", "the same, from few training codes of each class", "higher"),
    "neighbour_probe": Metric("neighbours", "share of test codes whose class their neighbours have", "higher"),
    "mig": Metric(
        "MIG", "information on a factor that one number of a code has and no other, as a share of the factor", "higher"
    ),
    "mig_chance": Metric("MIG, chance", "the same of codes in another order"),
    "code_size": Metric("numbers", "numbers of a code", "", digits=0),
    # Cost.
    "seconds": Metric("sec", "wall time of the fit", "lower", digits=1),
    "sampling_seconds": Metric("sampling", "wall time of 64 draws, seconds", "lower", digits=3),
    "gradient_evaluations": Metric("gradients", "gradient evaluations of the fit", "lower", digits=0),
}
"""Name -> card."""


def how_the_fit_ended(info: Mapping[str, Any]) -> list[Measurement]:
    """How a game or a climb ended, 1 or 0: `collapsed`, `saturated`; `under_way` where a bound still rose.

    See `inference.games.game.Adversarial` and `inference.training.convergence`.
    """
    found = []
    for metric in ("collapsed", "saturated"):
        if metric in info:
            how = f"diversity {info['diversity']:.2f}, critic accuracy {info['critic_accuracy']:.2f}"
            found.append(Measurement(metric, float(info[metric]), how=how))
        else:
            found.append(Measurement(metric, None, how="n/a: no game"))
    verdict = info.get("convergence", {}).get("verdict", "no bound to climb")
    known = {"still improving": 1.0, "converged": 0.0}.get(verdict)
    found.append(Measurement("under_way", known, how="" if known is not None else f"n/a: {verdict}"))
    return found
