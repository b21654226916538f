"""Cells of kind 'codes': a program is fitted, and its codes of held-out examples are asked for classes and factors.

Codes are those of `inference.encoding`. Programs that are none are yardsticks: 'raw-numbers', an example itself; 'pca',
scikit-learn's principal components of the training data; 'noise', which knows nothing; 'factors', what is to be told.

Options of the evaluation: `few` (10) labelled training examples of each class for the small probe; `labels`, how many
classes of training examples a semi-supervised program sees; `components` (16) of 'pca'; `map` ('pca' or 'tsne') of
`shown` (400) test codes, for a picture.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.cells.fitting import fit_cell
from benchmarks.cells.samples import of_the_fit
from benchmarks.metrics import Measurement
from benchmarks.suite import Cell, file_name
from inference import Fit
from inference.evaluation.samples.representation import (
    BINS,
    SHUFFLES,
    Probe,
    few_of_each,
    linear_probe,
    mutual_information_gap,
    neighbour_probe,
    plane,
)
from zoo import datasets
from zoo.datasets import Data, Dataset, glyphs
from zoo.latent.semi_supervised import SemiSupervisedVAE, hide_labels
from zoo.process import guest

__all__ = ["YARDSTICKS", "factors_of", "measure"]

SPLITS = ("train", "valid", "test")
Codes = Mapping[str, Tensor]


def measure(cell: Cell, artifacts: Path, device: str) -> list[Measurement]:
    """Fits, encodes all splits, asks; leaves a map of test codes."""
    dataset = datasets.load(cell.dataset)
    if cell.program.name in YARDSTICKS:
        codes, measured, note = YARDSTICKS[cell.program.name](cell, dataset), list[Measurement](), ""
    else:
        found = fit_cell(cell, _partly_labelled(cell, dataset), device)
        codes = {split: found.encode(*dataset.split(split).to(found.device)).cpu() for split in SPLITS}
        measured, note = of_the_fit(found), _seen(cell, found, dataset)
    measured.append(Measurement("code_size", float(codes["test"].shape[1])))
    measured += probes(cell, codes, dataset.labels, note) + gap(codes["test"], factors_of(dataset, "test"), cell.seed)
    shown = slice(0, int(cell.evaluation.get("shown", 400)))
    seen = plane(codes["test"][shown], how=cell.evaluation.get("map", "pca"), seed=cell.seed)
    labels = dataset.labels["test"][shown]
    np.savez_compressed(artifacts / f"{file_name(cell.key)}.npz", map=seen.numpy(), labels=labels.numpy())
    return [m for m in measured if m.metric in cell.metrics]


def probes(cell: Cell, codes: Codes, labels: Codes, note: str) -> list[Measurement]:
    """How well classes are told, by all training labels and by few."""
    rows = few_of_each(labels["train"], int(cell.evaluation.get("few", 10)), cell.seed)
    few = {**codes, "train": codes["train"][rows]}, {**labels, "train": labels["train"][rows]}
    asked: dict[str, tuple[Probe, str]] = {}
    if "linear_probe" in cell.metrics:
        asked["linear_probe"] = linear_probe(codes, labels), "weight"
    if "few_label_probe" in cell.metrics:
        asked["few_label_probe"] = linear_probe(*few), "weight"
    if "neighbour_probe" in cell.metrics:
        asked["neighbour_probe"] = neighbour_probe(codes, labels), "neighbours"
    return [
        Measurement(
            metric, probe.accuracy, probe.standard_error,
            how=f"{len(codes['test'])} test codes, learned from {probe.train} training codes, {what} "
            f"{probe.chosen:g} chosen on {len(codes['valid'])} validation codes{note}",
        )
        for metric, (probe, what) in asked.items()
    ]  # fmt: skip


def gap(codes: Tensor, factors: Codes, seed: int) -> list[Measurement]:
    """The mutual information gap and that by chance, where factors are known."""
    if not factors:
        return [Measurement(metric, None, how="n/a: no factors are known") for metric in ("mig", "mig_chance")]
    found = mutual_information_gap(codes, factors, seed=seed)
    each = ", ".join(f"{name} {value:.3f}" for name, value in found.of_factors.items())
    how = f"{found.examples} test codes, {BINS} bins"
    return [
        Measurement("mig", found.value, how=f"{how}; {each}"),
        Measurement("mig_chance", found.chance, how=f"{how}; the codes in {SHUFFLES} other orders"),
    ]


def factors_of(dataset: Dataset, split: str) -> dict[str, Tensor]:
    """What is known to differ between examples: of letters the face's looks, and whether they are capitals.

    Only `dataset.labels` say the face; other data have no factors.
    """
    if not dataset.name.startswith("glyphs") or split not in dataset.labels:
        return {}
    faces = [glyphs.FACES[i] for i in dataset.labels[split].tolist()]
    letters = glyphs.characters(dataset.name)[split]
    return {
        "family": torch.tensor([glyphs.FAMILIES.index(face.family) for face in faces]),
        "bold": torch.tensor([int(face.bold) for face in faces]),
        "oblique": torch.tensor([int(face.oblique) for face in faces]),
        "capital": torch.tensor([int(unicodedata.category(letter) == "Lu") for letter in letters]),
    }


def _partly_labelled(cell: Cell, dataset: Dataset) -> Dataset:
    """The data with as many known classes of training examples as the cell says; all others are hidden."""
    if "labels" not in cell.evaluation:
        return dataset
    known = hide_labels(dataset.train.context, int(cell.evaluation["labels"]), cell.seed)
    valid = Data(dataset.valid.x, hide_labels(dataset.valid.context, 0))
    return replace(dataset, train=Data(dataset.train.x, known), valid=valid)


def _seen(cell: Cell, found: Fit, dataset: Dataset) -> str:
    """What a code may know beside the example, for who reads its scores."""
    if dataset.train.context is None:
        return ""
    if isinstance(found.program, SemiSupervisedVAE):
        known = cell.evaluation.get("labels", dataset.train.size)
        return f"; the fit saw the classes of {known} training examples, the code sees none"
    return "; the code is read from the example and its context, which is the class"


# Yardsticks


def _raw(cell: Cell, dataset: Dataset) -> Codes:
    return {split: dataset.split(split).x.flatten(1) for split in SPLITS}


def _pca(cell: Cell, dataset: Dataset) -> Codes:
    raw = {split: x.numpy() for split, x in _raw(cell, dataset).items()}
    count = int(cell.evaluation.get("components", 16))
    model = guest("sklearn.decomposition").PCA(count, random_state=cell.seed).fit(raw["train"])
    return {split: torch.from_numpy(model.transform(x)) for split, x in raw.items()}


def _noise(cell: Cell, dataset: Dataset) -> Codes:
    generator = torch.Generator().manual_seed(cell.seed)
    return {split: torch.randn(dataset.split(split).size, 16, generator=generator) for split in SPLITS}


def _factors(cell: Cell, dataset: Dataset) -> Codes:
    return {split: torch.stack(list(factors_of(dataset, split).values()), 1).double() for split in SPLITS}


YARDSTICKS: dict[str, Callable[[Cell, Dataset], Codes]] = {
    "raw-numbers": _raw, "pca": _pca, "noise": _noise, "factors": _factors,
}  # fmt: skip
"""Names of programs that are none -> codes of the splits."""
