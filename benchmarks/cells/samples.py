"""Cells of kind 'samples': a program fitted to data and judged by what it draws, whether it has a density or not.

Images are judged on equal terms whatever the program makes: samples and test images are thresholded at 0.5 (a binary
program's are draws, not means, and stay as they are), and looked at by one classifier, trained on the binarised
training split of the data at hand. Grey programs have a second Fréchet distance, of grey images. Points are compared
with the Gaussians that they come from, stacks of digits channel by channel. Program 'real-data' is the yardstick:
validation data in place of samples, or training data where modes are counted.

Options of the evaluation: `samples` (as many as test data); `ais_chains`, `ais_steps`, `ais_examples` and `particles`
(see `benchmarks.cells.likelihood`); `modes_samples` (10,000) where modes are counted; `classifier_steps` (2000) of the
network.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.cells import latents
from benchmarks.cells.likelihood import gan_ais, likelihood, parzen_score
from benchmarks.metrics import Measurement, how_the_game_ended
from benchmarks.suite import Cell, base_name, file_name
from inference import Fit, fit
from inference.environment import seeded
from inference.evaluation.annealing import ais
from inference.evaluation.samples.classifier import Classifier, train_classifier
from inference.evaluation.samples.codes import code_accuracy, guess_codes, match_codes
from inference.evaluation.samples.coverage import class_accuracy, gaussian_modes, stacked_modes
from inference.evaluation.samples.quality import frechet, manifold_scores, nearest_training
from inference.evaluation.two_samples import c2st, mmd
from inference.games.game import diversity
from inference.guides.named import guided_sites
from inference.particles import draw
from zoo import catalogue, datasets
from zoo.datasets import Data, Dataset, binarise
from zoo.datasets.modes import GAUSSIANS
from zoo.errors import CapabilityError, ImplicitDensityError, OptionError
from zoo.program import ImplicitProgram

__all__ = ["REAL_DATA", "measure"]

Array = np.ndarray[Any, Any]

REAL_DATA = "real-data"
"""Name of the program that is none: data, as if they were samples."""
SHOWN = 64
STACK = "stacked-"


def has_known_modes(dataset: str) -> bool:
    """Whether modes are counted, and not features compared."""
    return base_name(dataset) in GAUSSIANS or dataset.startswith(STACK)


@dataclass(frozen=True)
class Drawn:
    """Samples (n, *event_shape), the contexts they were asked for, and the fit behind them (None: real data)."""

    x: Tensor
    context: Tensor | None
    found: Fit | None


def measure(cell: Cell, artifacts: Path, device: str) -> list[Measurement]:
    """Fits, draws, judges; leaves samples, the game's history and pictures of the latents."""
    dataset = datasets.load(cell.dataset)
    drawn = make(cell, dataset, device)
    if base_name(cell.dataset) in GAUSSIANS:
        measured = of_points(cell, dataset, drawn)
    elif cell.dataset.startswith(STACK):
        measured = of_stacks(cell, drawn)
    else:
        measured = [*of_images(cell, dataset, drawn), *of_latents(cell, dataset, drawn)]
    measured += of_the_fit(drawn)
    save_artifact(artifacts / f"{file_name(cell.key)}.npz", cell, dataset, drawn)
    return [m for m in measured if m.metric in cell.metrics]


def make(cell: Cell, dataset: Dataset, device: str) -> Drawn:
    """Fits the program, and draws as many samples as there are data to compare with; contexts are the data's.

    Raises: OptionError when there are not so many real data.
    """
    real, counted = dataset.split(cell.split), has_known_modes(cell.dataset)
    n = int(cell.evaluation.get("modes_samples", 10_000) if counted else cell.evaluation.get("samples", real.size))
    if cell.program.name == REAL_DATA:
        # Where modes are counted nothing is compared with the training data, and there are more of them.
        kept = dataset.train if counted else dataset.valid
        if kept.size < n and not counted:
            raise OptionError(f"{dataset.name} has {kept.size} validation data, fewer than {n} samples.")
        return Drawn(*kept.rows(slice(0, n)), None)
    with seeded(cell.seed):
        program = catalogue.create_for(
            cell.program.name, dataset.train, **{**cell.program.options, **cell.method.program}
        )
    found = fit(program, dataset, cell.method.method, seed=cell.seed, device=device, **cell.method.options)
    context = None
    if real.context is not None:
        context = real.context[torch.arange(n) % real.size].to(found.device)
    with seeded(cell.seed + 1, found.device):
        x = found.program.generate(n, context)
    return Drawn(x.cpu(), None if context is None else context.cpu(), found)


# Images


@functools.cache
def judge(name: str, steps: int) -> Classifier:
    """The classifier of a data set, from seed 0 for all seeds of the cells; made once and kept in the cache folder."""
    return train_classifier(name, steps=steps)


def of_images(cell: Cell, dataset: Dataset, drawn: Drawn) -> list[Measurement]:
    """Scores of binarised images, and the Fréchet distance of grey ones."""
    wanted, seed = set(cell.metrics), cell.seed
    steps = int(cell.evaluation.get("classifier_steps", 2000))
    base = base_name(cell.dataset)
    network = judge(f"{base}-binary", steps)
    real, samples = black_and_white(dataset.split(cell.split).x), black_and_white(drawn.x)
    a, b = (network.describe(x) for x in (samples, real))
    grey = bool(((drawn.x != 0) & (drawn.x != 1)).any())
    sizes = f"{len(samples)} samples, {len(real)} {cell.split} images, {'grey, ' if grey else ''}thresholded at 0.5"
    how = f"{sizes}; {about(network)}"
    found: list[Measurement] = []

    def add(metric: str, value: float | None, text: str, error: float | None = None) -> None:
        found.append(Measurement(metric, value, error, text))

    if "frechet" in wanted:
        add("frechet", frechet(samples, real, network).value, how)
    if "frechet_grey" in wanted:
        if dataset.card.support == "binary" or not (grey or drawn.found is None):
            add("frechet_grey", None, "n/a: samples are binary")
        else:
            of_grey = judge(base, steps)
            value = frechet(drawn.x, dataset.split(cell.split).x, of_grey).value
            add("frechet_grey", value, f"{len(samples)} samples, {len(real)} {cell.split} images; {about(of_grey)}")
    if wanted & {"precision", "recall", "sample_density", "coverage"}:
        scores = manifold_scores(samples, real, network)
        text = f"{how}, {scores.k} neighbours"
        for metric, value in (
            ("precision", scores.precision), ("recall", scores.recall), ("sample_density", scores.density),
            ("coverage", scores.coverage),
        ):  # fmt: skip
            add(metric, value, text)
    if wanted & {"mmd", "mmd_p"}:
        test = mmd(a, b, seed=seed)
        add("mmd", test.value, f"{how}; bandwidth the median distance")
        add("mmd_p", test.p_value, f"{how}; 200 permutations")
    if "c2st_features" in wanted:
        test_of = c2st(b, a, classifier="quadratic", seed=seed)
        add("c2st_features", test_of.accuracy, f"{how}; quadratic classifier, 5 folds", test_of.standard_error)
    if "class_accuracy" in wanted:
        if drawn.context is None:
            add("class_accuracy", None, "n/a: not conditional on a class")
        else:
            asked = class_accuracy(samples, drawn.context, network)
            text = f"{how}; {100 * (asked.ceiling or 0):.1f}% of real test images are classified rightly"
            add("class_accuracy", asked.accuracy, text, asked.standard_error)
    if "memorisation" in wanted:
        near = nearest_training(samples, black_and_white(dataset.train.x), real)
        text = f"medians of distances of pixels, {sizes}, {near.train} training images; z = {near.z:.1f} (copies: < 0)"
        add("memorisation", near.ratio, text)
    if "diversity" in wanted:
        add("diversity", float(diversity(samples, real)), sizes)
    return found + of_densities(cell, dataset, drawn)


def of_densities(cell: Cell, dataset: Dataset, drawn: Drawn) -> list[Measurement]:
    """The program's own log-likelihood where it has a density, else its decoder's by annealing; Parzen windows."""
    if drawn.found is None:
        return []
    program = drawn.found.program
    implicit = isinstance(program, ImplicitProgram)
    data, moved = dataset.split(cell.split).to(drawn.found.device), dataset.to(drawn.found.device)
    found = []
    if "log_likelihood" in cell.metrics and implicit:
        found.append(Measurement("log_likelihood", None, how="n/a: implicit, no density"))
    elif "log_likelihood" in cell.metrics:
        found.append(of_density(cell, drawn.found, data, data_kind(dataset)))
    if "ais" in cell.metrics:
        found.append(
            gan_ais(program, moved, data, cell) if implicit else Measurement("ais", None, how="n/a: it has a density")
        )
    if "parzen" in cell.metrics:
        grey = dataset.card.support != "binary"
        found.append(
            parzen_score(program, moved, data, cell.seed)
            if grey
            else Measurement("parzen", None, how="n/a: windows around binary images are no density")
        )
    return found


def of_density(cell: Cell, found: Fit, data: Data, kind: str) -> Measurement:
    """The log-likelihood, exact or by IWAE; annealed from the prior where the guide has draws alone."""
    try:
        estimate = likelihood(found, data, cell)
    except ImplicitDensityError:
        options = cell.evaluation
        chains, steps = int(options.get("ais_chains", 16)), int(options.get("ais_steps", 500))
        data = data.rows(slice(0, options.get("ais_examples")))
        try:
            estimate = ais(found.program, *data, chains=chains, steps=steps, seed=cell.seed)
        except CapabilityError as error:
            return Measurement("log_likelihood", None, how=f"n/a: {error}")
    how = f"{estimate.how}{', a lower bound' if estimate.bound else ''}, {data.size} {kind} images"
    return Measurement("log_likelihood", estimate.mean, estimate.standard_error, how)


def of_latents(cell: Cell, dataset: Dataset, drawn: Drawn) -> list[Measurement]:
    """What the guide knows: classes by a discrete code, classes of reconstructions, codes of data against the prior."""
    wanted = {"code_accuracy", "reconstruction", "prior_p"} & set(cell.metrics)
    found, guide = drawn.found, None if drawn.found is None else drawn.found.guide
    if not wanted or found is None or guide is None or not found.program.sites():
        return [Measurement(metric, None, how="n/a: no guide") for metric in sorted(wanted)]
    program, data = found.program, dataset.split(cell.split).to(found.device)
    labels = dataset.labels[cell.split]
    sites = program.sites()
    guided = guided_sites(guide, data)
    discrete = [name for name in sites if sites[name].is_discrete and name in guided]
    measured = []
    if "code_accuracy" in wanted:
        if len(discrete) == 1:
            valid = dataset.valid.to(found.device)
            guessed, others = (guess_codes(program, x, discrete[0]) for x in (data.x, valid.x))
            value = code_accuracy(guessed, labels, match_codes(others, dataset.labels["valid"]))
            how = f"{data.size} {cell.split} images, codes matched with classes one to one on {valid.size} others"
            measured.append(Measurement("code_accuracy", value, how=how))
        else:
            measured.append(Measurement("code_accuracy", None, how="n/a: no single discrete code"))
    if guided != set(sites) or discrete:
        why = "n/a: the guide leaves latents out, or has discrete ones"
        return measured + [Measurement(m, None, how=why) for m in sorted(wanted - {"code_accuracy"})]
    if "reconstruction" in wanted:
        network = judge(f"{base_name(cell.dataset)}-binary", int(cell.evaluation.get("classifier_steps", 2000)))
        with seeded(cell.seed + 2, found.device), torch.no_grad():
            codes = draw(guide, 1, *data, density=False).values
            found_codes = {name: value[0] for name, value in codes.items()}
            made = latents.decoded(program, found_codes, data.context)
        score = class_accuracy(black_and_white(made).cpu(), labels, network)
        how = f"one draw of each of {data.size} {cell.split} images, decoded, thresholded at 0.5; {about(network)}"
        measured.append(Measurement("reconstruction", score.accuracy, score.standard_error, how))
    if "prior_p" in wanted:
        codes_of, prior = latents.aggregate_codes(program, guide, data, cell.seed + 3)
        test = mmd(codes_of, prior, seed=cell.seed)
        how = f"codes of {len(codes_of)} {cell.split} images, {len(prior)} draws of the prior, 200 permutations"
        measured.append(Measurement("prior_p", test.p_value, how=f"{how}; MMD² {test.value:.2g}"))
    return measured


def black_and_white(x: Tensor) -> Tensor:
    """Thresholded at 0.5; what is binary stays as it is."""
    return binarise(x.clamp(0, 1), "threshold")


def about(network: Classifier) -> str:
    """Which network looked, in words for `how`."""
    training = network.training_of
    if training is None:
        return f"features {network.hash}"
    return f"features {network.hash} (classifier of {training.data}, {100 * training.test_accuracy:.1f}% on test)"


def data_kind(dataset: Dataset) -> str:
    """'binary' or 'grey'."""
    return "binary" if dataset.card.support == "binary" else "grey"


# Known modes


def of_points(cell: Cell, dataset: Dataset, drawn: Drawn) -> list[Measurement]:
    """Modes and good samples of Gaussians in the plane."""
    name = base_name(cell.dataset)
    least = max(1, len(drawn.x) // (10 * len(GAUSSIANS[name].centres)))
    modes = gaussian_modes(drawn.x, name, least=least)
    how = f"{modes.samples} samples, within {modes.reach:g} standard deviations of a centre"
    return [
        Measurement("modes", float(modes.covered), how=f"of {modes.of}, by at least {least} good samples each; {how}"),
        Measurement("good", modes.good, how=f"{how}; {modes.expected_good:.3f} for the truth"),
        Measurement("mode_kl", modes.kl, how=how),
        Measurement("diversity", float(diversity(drawn.x[:1000], dataset.test.x[:1000])), how="up to 1,000 of each"),
    ]


def of_stacks(cell: Cell, drawn: Drawn) -> list[Measurement]:
    """Modes of stacked digits, each channel by a classifier of single digits."""
    network = judge(cell.dataset.removeprefix(STACK), int(cell.evaluation.get("classifier_steps", 2000)))
    modes = stacked_modes(drawn.x, network)
    how = f"{modes.samples} grey samples, each channel by itself; {about(network)}"
    return [
        Measurement("modes", float(modes.covered), how=f"of {modes.of}, {how}; {modes.expected_covered:.0f} if even"),
        Measurement("mode_kl", modes.kl, how=f"{how}; {modes.expected_kl:.3f} if even"),
    ]


# What the fit says of itself


def of_the_fit(drawn: Drawn) -> list[Measurement]:
    """Cost and size, and whether the game ended badly."""
    found = drawn.found
    if found is None:
        return []
    return [
        *how_the_game_ended(found.info),
        Measurement("parameters", float(found.program.parameter_count()), how="of the program, its guide included"),
        Measurement("seconds", found.seconds, how="wall time of the fit"),
        Measurement("gradient_evaluations", float(found.gradient_evaluations)),
    ]


def save_artifact(path: Path, cell: Cell, dataset: Dataset, drawn: Drawn) -> None:
    """Samples beside data, the game's history, and what there is to see of the latents."""
    few = dataset.split(cell.split).rows(slice(0, SHOWN))
    if base_name(cell.dataset) in GAUSSIANS:
        columns: dict[str, Array] = {"points": drawn.x[:1000].numpy(), "data": dataset.test.x[:1000].numpy()}
    else:
        columns = {"samples": drawn.x[:SHOWN].numpy(), "data": few.x.numpy()}
    found = drawn.found
    if found is not None:
        columns |= latents.history_arrays(found.history)
    if found is not None and "samples" in columns and found.program.sites():
        columns |= _latent_arrays(cell, dataset, found)
    np.savez_compressed(path, **columns)  # type: ignore[arg-type]


def _latent_arrays(cell: Cell, dataset: Dataset, found: Fit) -> dict[str, Array]:
    """Paths for every generator; classes, codes and the aggregate posterior where there are such."""
    program = found.program
    arrays = {"interpolation": latents.interpolation(program, seed=cell.seed)}
    if program.example_context(2) is not None:
        arrays["class_grid"] = latents.class_grid(program, seed=cell.seed)
    if found.guide is None:
        return {name: value.cpu().numpy() for name, value in arrays.items()}
    sites, data = program.sites(), dataset.split(cell.split).to(found.device)
    guided = guided_sites(found.guide, data)
    if guided < set(sites):  # some latents are codes that images give away
        for name in sorted(guided):
            for i in range(1 if sites[name].is_discrete else sites[name].event_shape.numel()):
                turned = latents.traversal(program, name, i, seed=cell.seed)
                arrays[f"traversal_{name}{'' if sites[name].is_discrete else i}"] = turned
    elif not any(site.is_discrete for site in sites.values()):
        codes, prior = latents.aggregate_codes(program, found.guide, data, cell.seed)
        arrays |= {"codes": codes, "prior": prior}
        if cell.split in dataset.labels:
            arrays["labels"] = dataset.labels[cell.split]
    return {name: value.cpu().numpy() for name, value in arrays.items()}
