"""Cells of kind 'caption': images drawn for captions, of which the right one is looked for among a hundred.

A joint embedding of another seed, trained on real training pairs alone, does the looking. Programs that are none are
yardsticks: 'real-images' of the captions, the most that the looker can see, and 'nearest-caption', a training image of
the caption that shares most words.

Options of the evaluation: `candidates` (100); `scorer_steps` (1000) of the embedding.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.cells import latents
from benchmarks.cells.fitting import fit_cell
from benchmarks.cells.samples import asked_arrays, of_the_fit
from benchmarks.metrics import Measurement
from benchmarks.suite import Cell, file_name
from inference.evaluation.samples.captions import caption_retrieval, caption_scorer, nearest_captions
from inference.evaluation.samples.judge import draw_samples
from inference.games.game import diversity
from zoo import datasets
from zoo.datasets import Data, Dataset
from zoo.implicit.joint_embedding import JointEmbedding

__all__ = ["YARDSTICKS", "measure", "retrieval"]

SHOWN = 64


def measure(cell: Cell, artifacts: Path, device: str) -> list[Measurement]:
    """Fits, draws an image for each held-out caption, looks it up; leaves images with their captions."""
    dataset = datasets.load(cell.dataset)
    held = dataset.split(cell.split)
    found = None if cell.program.name in YARDSTICKS else fit_cell(cell, dataset, device)
    if found is None:
        samples = YARDSTICKS[cell.program.name](held, dataset)
    else:
        samples = draw_samples(found.program, held, held.size, cell.seed + 1)
    options = {name: int(cell.evaluation[name]) for name in ("candidates", "scorer_steps") if name in cell.evaluation}
    measured = [
        retrieval(samples, dataset, seed=cell.seed, **options),
        Measurement("diversity", float(diversity(samples.x[:1000], held.x[:1000])), how="up to 1,000 of each"),
    ]
    # Held-out captions in turn, so that a picture shows as many different ones as it can.
    every = max(1, samples.size // SHOWN)
    few = Data(samples.x[::every], samples.context[::every])
    columns = {"samples": few.x[:SHOWN].numpy(), "data": held.x[::every][:SHOWN].numpy()}
    if found is not None:
        measured += of_the_fit(found)
        columns |= asked_arrays(dataset, few, found.program) | latents.history_arrays(found.history)
    np.savez_compressed(artifacts / f"{file_name(cell.key)}.npz", **columns)  # type: ignore[arg-type]
    return [m for m in measured if m.metric in cell.metrics]


def retrieval(
    samples: Data, dataset: Dataset, candidates: int = 100, scorer_steps: int = 1000, *, seed: int = 0
) -> Measurement:
    """How often the caption that an image was made for is found.

    Args:
        samples: Images with their captions.
        dataset: Whose training pairs the scorer learns from.
        candidates: Captions to choose from.
        scorer_steps: Of the scorer's training.
        seed: Of the choice of candidates.
    """
    told = caption_retrieval(samples, looker(dataset.name, scorer_steps).similarity, candidates, seed=seed)
    how = f"{told.samples} images of {len(told.captions)} captions, each among {told.candidates}"
    return Measurement("retrieval", told.accuracy, told.standard_error, how=f"{how}; chance {told.chance:.3f}")


@functools.cache
def looker(name: str, steps: int) -> JointEmbedding:
    """Who looks captions up: one for all rows of a data set."""
    return caption_scorer(datasets.load(name), steps=steps)


def _real(held: Data, dataset: Dataset) -> Data:
    return held


def _nearest(held: Data, dataset: Dataset) -> Data:
    return Data(dataset.train.x[nearest_captions(held.context, dataset.train.context)], held.context)


YARDSTICKS: dict[str, Callable[[Data, Dataset], Data]] = {"real-images": _real, "nearest-caption": _nearest}
"""Names of programs that are none -> what stands in place of their samples."""
