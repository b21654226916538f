"""Cells of kind 'samples': a program fitted to data and judged by what it draws, whether it has a density or not.

How samples are looked at, `inference.evaluation.samples.judge` says; beside its scores stand the log-likelihood of what
has one. Programs that are none are yardsticks: 'real-data' is validation data in place of samples, or training data
where modes are counted; where a context is an image to be translated, 'copying' answers with the image itself and
'nearest-pair' with the answer of the training pair that looks most like it.

Options of the evaluation: `samples` (as many as test data); `ais_chains`, `ais_steps`, `ais_examples` and `particles`
(see `benchmarks.cells.likelihood`); `modes_samples` (10,000) where modes are counted; `classifier_steps` (2000) of the
network; `pairs`, the data set whose training pairs 'nearest-pair' remembers (the cell's own).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.cells import latents
from benchmarks.cells.fitting import fit_cell
from benchmarks.cells.likelihood import densities
from benchmarks.metrics import Measurement, how_the_fit_ended
from benchmarks.suite import Cell, file_name
from inference import Fit
from inference.environment import seeded
from inference.evaluation.samples.classifier import Classifier, train_classifier
from inference.evaluation.samples.codes import aggregate_codes
from inference.evaluation.samples.guide_judge import GUIDE_SCORES, judge_guide
from inference.evaluation.samples.judge import (
    SCORES,
    Score,
    classifiers_for,
    draw_samples,
    fair_size,
    has_known_modes,
    held_out,
    judge,
)
from inference.evaluation.samples.sounds import heard
from inference.evaluation.samples.translation import (
    absolute_error,
    counterparts,
    nearest_pair,
    recognition_by_class,
)
from inference.guides.named import guided_sites
from zoo import datasets
from zoo.datasets import Data, Dataset, glyphs
from zoo.datasets.asked import in_words
from zoo.datasets.data import Card
from zoo.datasets.modes import GAUSSIANS
from zoo.implicit.translators import Translates
from zoo.program import Grows, Program

__all__ = ["REAL_DATA", "YARDSTICKS", "measure"]

Array = np.ndarray[Any, Any]

REAL_DATA = "real-data"
"""Name of the program that is none: data, as if they were samples."""
SHOWN = 64


def measure(cell: Cell, artifacts: Path, device: str) -> list[Measurement]:
    """Fits, draws, judges; leaves samples, the game's history and pictures of the latents."""
    dataset = datasets.load(cell.dataset)
    counted = has_known_modes(dataset)
    n = int(cell.evaluation.get("modes_samples" if counted else "samples", fair_size(dataset, cell.split)))
    found = None if cell.program.name in YARDSTICKS else fit_cell(cell, dataset, device)
    if found is None:
        samples = YARDSTICKS[cell.program.name](cell, dataset, n)
    elif changes_letters(dataset, found.program):
        samples = changed(cell, dataset, found.program)
    else:
        samples = draw_samples(found.program, dataset.split(cell.split), n, cell.seed + 1)
    steps = int(cell.evaluation.get("classifier_steps", 2000))
    networks = classifiers_for(dataset, cell.metrics, functools.partial(classifier, steps=steps))
    scores = [name for name in SCORES if name in cell.metrics]
    judged = judge(samples, dataset, split=cell.split, scores=scores, seed=cell.seed, **networks)
    measured = as_measurements(judged.scores)
    if found is not None and changes_letters(dataset, found.program):
        measured += of_changed(cell, dataset, samples)
    if not counted:
        measured += of_the_guide(cell, dataset, found, networks.get("classifier"))
    if found is not None:
        measured += [] if counted else densities(cell, found, dataset)
        measured += of_the_fit(found)
    save_artifact(artifacts / f"{file_name(cell.key)}.npz", cell, dataset, samples, found)
    return [m for m in measured if m.metric in cell.metrics]


def _held_out(cell: Cell, dataset: Dataset, n: int) -> Data:
    return held_out(dataset, n, cell.split)


def _copied(cell: Cell, dataset: Dataset, n: int) -> Data:
    context = dataset.split(cell.split).context[:n]
    return Data(context, context)


def _remembered(cell: Cell, dataset: Dataset, n: int) -> Data:
    context = dataset.split(cell.split).context[:n]
    pairs = datasets.load(str(cell.evaluation.get("pairs", cell.dataset))).train
    return Data(nearest_pair(context, pairs.context, pairs.x), context)


YARDSTICKS: dict[str, Callable[[Cell, Dataset, int], Data]] = {
    REAL_DATA: _held_out, "copying": _copied, "nearest-pair": _remembered,
}  # fmt: skip
"""Names of programs that are none -> what stands in place of their samples."""


def classifier(data: str | Dataset, steps: int) -> Classifier:
    """The classifier of a data set, from seed 0 for all seeds of the cells; made once and kept in the cache folder."""
    return _of_name(data, steps) if isinstance(data, str) else train_classifier(data, steps=steps)


@functools.cache
def _of_name(name: str, steps: int) -> Classifier:
    return train_classifier(name, steps=steps)


def changes_letters(dataset: Dataset, program: Program) -> bool:
    """Whether images of test letters can be changed to what is known of them in other faces."""
    is_letters = dataset.name.startswith("glyphs") and dataset.card.context_kind == "attributes"
    return is_letters and isinstance(program, Translates)


def _counterparts(cell: Cell, dataset: Dataset) -> Tensor:
    """Another face for each letter, further on for another seed."""
    labels = dataset.labels[cell.split]
    step = 1 + cell.seed % int(labels.max())
    return counterparts(labels, glyphs.characters(dataset.name)[cell.split], step)


def changed(cell: Cell, dataset: Dataset, program: Any) -> Data:
    """Each letter of the split with the attributes of another face."""
    held, rows = dataset.split(cell.split), _counterparts(cell, dataset)
    asked = held.context[rows]
    return Data(program.translate(held.x, asked).cpu(), asked)


def of_changed(cell: Cell, dataset: Dataset, samples: Data) -> list[Measurement]:
    """Changed letters beside the true ones in the faces asked for."""
    held, rows = dataset.split(cell.split), _counterparts(cell, dataset)
    truth, faces = held.x[rows], dataset.labels[cell.split][rows]
    seen, error = recognition_by_class(samples.x, truth, faces), absolute_error(samples.x, truth)
    how = f"{seen.images} {cell.split} letters, each in another face; pixels"
    return [
        Measurement(
            "recognition", seen.share, seen.standard_error, how=f"{how}, all letters of the face as candidates"
        ),
        Measurement("pixel_error", float(error.mean()), float(error.std() / len(error) ** 0.5), how=how),
    ]


def as_measurements(scores: Mapping[str, Score]) -> list[Measurement]:
    """Scores under their own names, which are metrics."""
    return [Measurement(name, each.value, each.standard_error, how=each.how) for name, each in scores.items()]


def of_the_guide(cell: Cell, dataset: Dataset, found: Fit | None, network: Classifier | None) -> list[Measurement]:
    """What the guide knows; real data have none."""
    if found is None:
        return [Measurement(metric, None, how="n/a: no guide") for metric in GUIDE_SCORES]
    scores = judge_guide(
        found.program, found.guide, dataset,
        split=cell.split, classifier=network, scores=cell.metrics, seed=cell.seed,
    )  # fmt: skip
    return as_measurements(scores)


def of_the_fit(found: Fit) -> list[Measurement]:
    """Cost and size, and whether the game ended badly."""
    return [
        *how_the_fit_ended(found.info),
        Measurement("parameters", float(found.parameter_count()), how="of the program, its guide included"),
        Measurement("seconds", found.seconds, how="wall time of the fit"),
        Measurement("gradient_evaluations", float(found.gradient_evaluations)),
    ]


# What is left for pictures


def save_artifact(path: Path, cell: Cell, dataset: Dataset, samples: Data, found: Fit | None) -> None:
    """Samples beside data, the game's history, and what there is to see of the latents; sounds as spectrograms."""
    real = dataset.split(cell.split).x
    if dataset.name in GAUSSIANS:
        columns: dict[str, Array] = {"points": samples.x[:1000].numpy(), "data": real[:1000].numpy()}
    else:
        columns = {
            name: visible(x[:SHOWN], dataset.card).numpy() for name, x in (("samples", samples.x), ("data", real))
        }
    if dataset.translates:
        columns["given"] = samples.context[:SHOWN].numpy()
    if found is not None:
        columns |= latents.history_arrays(found.history)
        asked = asked_arrays(dataset, samples, found.program)
        if asked or dataset.card.context_kind not in ("", "class"):
            columns |= asked
        elif "samples" in columns and found.program.sites():
            shown = latent_arrays(cell, dataset, found)
            columns |= {name: visible(value, dataset.card).cpu().numpy() for name, value in shown.items()}
    np.savez_compressed(path, **columns)  # type: ignore[arg-type]


def asked_arrays(dataset: Dataset, samples: Data, program: Program) -> dict[str, Array]:
    """What was asked for, in words, beside the samples; images changed to each set of attributes that data have."""
    card = dataset.card
    if card.context_kind in ("attributes", "class") and isinstance(program, Translates):
        asked = dataset.train.context.unique(dim=0).flip(0)  # classes in their order
        source = dataset.test.x[:: max(1, dataset.test.size // 10)][:10]
        grid = latents.attribute_grid(program, source, asked)
        return {"attribute_grid": grid.numpy(), "attributes": np.array([in_words(card, row) for row in asked])}
    if card.context_kind == "caption":
        return {"captions": np.array([in_words(card, row) for row in samples.context[:SHOWN]])}
    return {}


def visible(examples: Tensor, card: Card) -> Tensor:
    """Spectrograms (*batch, bands, columns) of sounds (*batch, samples); anything else as it is."""
    if not card.rate or examples.shape[-1:] != torch.Size(card.shape):
        return examples
    return heard(Data(examples.flatten(0, -2)), card).x.unflatten(0, examples.shape[:-1])


def latent_arrays(cell: Cell, dataset: Dataset, found: Fit) -> dict[str, Tensor]:
    """Paths for every generator; classes, codes and the aggregate posterior where there are such."""
    program = found.program
    arrays = {"interpolation": latents.interpolation(program, seed=cell.seed)}
    if isinstance(program, Grows):
        with seeded(cell.seed):
            arrays["growth"] = latents.growth(program.stages(10), program.event_shape)
    if (asked := program.example_context(2)) is not None and asked.ndim == 2:
        arrays["class_grid"] = latents.class_grid(program, seed=cell.seed)
    if found.guide is None:
        return arrays
    sites, data = program.sites(), dataset.split(cell.split).to(found.device)
    guided = guided_sites(found.guide, data)
    if guided < set(sites):  # some latents are codes that images give away
        for name in sorted(guided):
            for i in range(1 if sites[name].is_discrete else sites[name].event_shape.numel()):
                turned = latents.traversal(program, name, i, seed=cell.seed)
                arrays[f"traversal_{name}{'' if sites[name].is_discrete else i}"] = turned
    elif not any(site.is_discrete for site in sites.values()):
        codes, prior = aggregate_codes(program, found.guide, data, cell.seed)
        arrays |= {"codes": codes, "prior": prior}
        if cell.split in dataset.labels:
            arrays["labels"] = dataset.labels[cell.split]
    return arrays
