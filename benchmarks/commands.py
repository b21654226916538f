"""What the commands `zoo sample`, `score` and `features` do, as functions that return plain dictionaries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.asking import asked_context
from benchmarks.cells.asked import asked_scores
from benchmarks.encoding import write_rows
from benchmarks.predicting import QUANTITIES, draw_examples, score_examples
from inference.evaluation.samples.classifier import train_classifier
from inference.evaluation.samples.guide_judge import judge_guide
from inference.evaluation.samples.judge import (
    Score,
    classifiers_for,
    draw_samples,
    fair_size,
    has_known_modes,
    held_out,
    judge,
)
from inference.fitted import Fit
from zoo import catalogue, datasets
from zoo.adopted import Adopted
from zoo.datasets import Data, Dataset
from zoo.energy.base import EnergyProgram
from zoo.errors import OptionError, ZooError
from zoo.program import ImplicitProgram, MakesContexts, Program

__all__ = [
    "check_bench_options", "has_density", "judge_program", "sample_program", "score_program", "train_features",
]  # fmt: skip

CURVES = 6
"""Most real numbers a step of a sequence that is drawn as curves; wider ones are images."""


LEAST_SAMPLES, LEAST_DATA = 10, 6
"""To judge by: scores look at the five nearest of an example."""


def check_bench_options(suite: str | None, of_cells: Mapping[str, Any], of_speed: Mapping[str, Any]) -> str:
    """The suite; refuses the options of `zoo bench` that do nothing for it: 'speed' has its own, all others share.

    Raises: OptionError, without a suite too.
    """
    if suite is None:
        raise OptionError("Name a suite, such as main: zoo bench main --out FOLDER; see `zoo bench --help`.")
    useless, useful = (of_cells, of_speed) if suite == "speed" else (of_speed, of_cells)
    for option, value in useless.items():
        if value:
            raise OptionError(
                f"--{option} does nothing for the suite {suite!r}, which takes "
                f"{', '.join('--' + name for name in useful)}."
            )
    return suite


def sample_program(
    folder: Path,
    n: int,
    out: Path,
    seed: int = 0,
    data: str | None = None,
    trust_code: bool = False,
    *,
    prior: bool = False,
    context: str | None = None,
    keep: Sequence[str] = (),
) -> dict[str, Any]:
    """Draws n examples from a saved fit and writes them: a PNG sheet of images, of spectrograms of sounds, or of curves
    where a sequence has a few real numbers a step; a .wav file of sounds, one after the other; a .csv of rows of
    numbers, with what each was given beside it; or an .npz with the array `samples`.

    Args:
        folder: What `zoo fit` wrote.
        n: How many.
        out: A .png, .wav, .csv or .npz file.
        seed: Of the draws.
        data: Where a conditional program takes its context from; None is the data it was fitted on.
        trust_code: See `inference.fitted.Fit.load`.
        prior: See `benchmarks.predicting.draw_examples`.
        context, keep: What is asked for, in words; see `benchmarks.asking.asked_context`.

    Raises: OptionError for another suffix, a PNG of what are no images, a .csv of what are no rows of numbers.
    """
    if n < 1:
        raise OptionError(f"n must be at least 1, got {n}.")
    if out.suffix not in (".png", ".wav", ".csv", ".npz"):
        raise OptionError(
            f"Cannot write samples to {out.name!r}; give a .png (images), .wav (sounds), .csv (rows of numbers) or "
            ".npz file."
        )
    found = Fit.load(folder, trust_code=trust_code)
    program, shape = found.program, tuple(found.program.event_shape)
    is_image = len(shape) == 2 or (len(shape) == 3 and shape[0] in (1, 3))
    rate, levels = _sound(found.data)
    kinds = {".png": is_image or rate, ".wav": rate, ".csv": len(shape) <= 1}
    if not kinds.get(out.suffix, True):
        sounds = f"sounds at a rate that is known (fitted on {found.data})"
        what = {".png": "images", ".wav": sounds, ".csv": "rows of numbers"}[out.suffix]
        raise OptionError(f"Examples of shape {shape} are no {what}; write them to an .npz file.")
    asked = _context(found, n, data, context, keep)
    samples, where = draw_examples(found, n, asked, prior=prior, seed=seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".csv":
        write_rows(out, *_rows(found, samples, asked))
    elif out.suffix != ".npz":
        assert isinstance(samples, Tensor)
        _draw(out, samples, rate, levels, asked if getattr(program, "lengths", False) else None)
    else:
        arrays = samples if isinstance(samples, dict) else {"samples": samples}
        np.savez_compressed(out, **{name: value.cpu().numpy() for name, value in arrays.items()})  # type: ignore[arg-type]
    sizes: Any = list(shape)
    if isinstance(samples, dict):
        sizes = {name: list(value.shape[1:]) for name, value in samples.items()}
    return {"program": catalogue.name_of(program), "n": n, "shape": sizes, "from": where, "out": str(out)}


def _rows(found: Fit, samples: Tensor | dict[str, Tensor], context: Any) -> tuple[np.ndarray, list[str]]:
    """Rows (n, d) of what was drawn and, after it, of what it was given, where that is numbers; the names of columns.

    Raises: OptionError where a site of adopted code is more than numbers in a row.
    """
    parts = dict(samples) if isinstance(samples, dict) else {"x": samples}
    wide = [f"{name} {tuple(value.shape[1:])}" for name, value in parts.items() if value.ndim > 2]
    if wide:
        raise OptionError(f"What is drawn is no row of numbers ({', '.join(wide)}); write it to an .npz file.")
    if isinstance(context, Tensor) and context.ndim <= 2:
        parts["context"] = context
    names: list[str] = []
    for name, value in parts.items():
        known = () if isinstance(samples, dict) or name != "x" else _columns(found.data)
        count = value[0].numel()
        names += known if len(known) == count else [name] if value.ndim == 1 else [f"{name}{i}" for i in range(count)]
    return torch.cat([value.reshape(len(value), -1).cpu().double() for value in parts.values()], 1).numpy(), names


def _columns(data: str) -> tuple[str, ...]:
    """Names of the columns of data that load again; none of others."""
    try:
        return datasets.load(data).card.names
    except ZooError:
        return ()


def _draw(out: Path, samples: Tensor, rate: int, levels: int, lengths: Tensor | None) -> None:
    """As sounds, curves or images, whatever the samples are."""
    from benchmarks.report import plots, sounds  # matplotlib takes seconds to import

    if rate:
        sounds.write_sounds(out, samples, rate, levels)
    elif samples.ndim == 3 and samples.shape[2] <= CURVES and bool(((samples < 0) | (samples > 1)).any()):
        ends = [samples.shape[1]] * len(samples) if lengths is None else lengths.long().tolist()
        plots.curves(samples.numpy(), ends).savefig(out, dpi=100)
    else:
        plots.image_sheet(_unit(samples).numpy(), out)


def _context(found: Fit, n: int, data: str | None, words: str | None, keep: Sequence[str]) -> Tensor | None:
    """n rows of context: what was asked for in words, or those of data; None for a program without."""
    program = found.program
    if words is not None or keep:
        if words is None:
            raise OptionError("--keep says which patches are given; say of which image, by --context face.png.")
        if data is not None:
            raise OptionError("Say what is asked for by --context or by --data, not by both.")
        return asked_context(found, words, n, keep)
    if program.example_context(1) is None or isinstance(program, Adopted):
        return None
    rows = program.take(_data(found, data, "test")).context
    assert rows is not None
    return rows[torch.arange(n) % len(rows)]


def _samples(n: int | None, dataset: Dataset, split: str, size: int) -> int:
    """How many to draw: n, or as many as is fair.

    Raises: OptionError for fewer than say anything, or too few data to compare them with.
    """
    if size < LEAST_DATA:
        raise OptionError(
            f"The {split} split of {dataset.name} has {size} examples, fewer than the {LEAST_DATA} that samples can be "
            "compared with; name another (--split train)."
        )
    if n is not None and n < LEAST_SAMPLES:
        raise OptionError(f"n must be at least {LEAST_SAMPLES} to say anything of samples, got {n}.")
    return fair_size(dataset, split) if n is None else n


def _sound(data: str) -> tuple[int, int]:
    """Samples a second of a data set of sounds, and of how many levels they are; 0 for others."""
    if data not in datasets.names():
        return 0, 0
    card = datasets.card(data)
    return card.rate, card.levels


def has_density(folder: Path, trust_code: bool = False) -> bool:
    """Whether a saved program has one to score by; else only samples can be judged."""
    program = catalogue.load(folder, trust_code=trust_code)
    return isinstance(program, EnergyProgram) or not isinstance(program, ImplicitProgram)


def score_program(
    folder: Path,
    data: str | None = None,
    split: str = "test",
    how: str = "auto",
    particles: int = 1000,
    binarise: str | None = None,
    seed: int = 0,
    device: str = "cpu",
    trust_code: bool = False,
    *,
    evidence: bool = False,
) -> dict[str, Any]:
    """How well a saved fit predicts data, in nats per example, with its standard error and how it was estimated.

    Args:
        folder: What `zoo fit` wrote.
        data: A name or file; None is the data it was fitted on.
        split: 'train', 'valid' or 'test'.
        how, particles, seed: See `inference.evaluation.likelihood.log_likelihood`.
        binarise: 'threshold' or 'stochastic', for data in [0, 1].
        device: Where to compute.
        trust_code: See `inference.fitted.Fit.load`.
        evidence: See `benchmarks.predicting.score_examples`.
    """
    found = Fit.load(folder, device, trust_code=trust_code)
    chosen = _data(found, data, split, binarise)
    chosen = Data(*found.program.accept(*chosen))
    where = next((t.device for t in found.program.state_dict().values()), torch.device("cpu"))
    quantity, estimate = score_examples(
        found, chosen.to(where), evidence=evidence, how=how, particles=particles, seed=seed
    )
    numbers = max(found.program.event_shape.numel(), 1)
    adopted = isinstance(found.program, Adopted)
    size = len(estimate.values) if adopted and quantity == "log_predictive_density" else chosen.size
    per_unit = size / len(estimate.values)
    error = estimate.standard_error
    return {
        "program": catalogue.name_of(found.program),
        "data": found.data if data is None else data,
        "split": split if not adopted else "all of the fit" if data is None else None,
        "examples": size,
        "quantity": quantity,
        "what": QUANTITIES[quantity],
        quantity: estimate.mean / per_unit,
        "standard_error": None if error is None else error / per_unit,
        "monte_carlo_error": estimate.mean_error / per_unit,
        "bits_per_dim": estimate.bits_per_dim(numbers) / per_unit,
        "how": estimate.how,
        "bound": estimate.bound,
    }


def judge_program(
    folder: Path,
    data: str | None = None,
    split: str = "test",
    n: int | None = None,
    *,
    binarise: str | None = None,
    seed: int = 0,
    device: str = "cpu",
    progress: bool = False,
    trust_code: bool = False,
) -> dict[str, Any]:
    """Scores of what a saved fit draws, and of held-out real data in the same eyes; of its guide too, if it has one.

    Beside a translation stand the images that it was given, copied.

    Args:
        folder: What `zoo fit` wrote.
        data, binarise: What it is compared with; None is the data it was fitted on.
        split: 'train', 'valid' or 'test', to compare with.
        n: How many samples; None is as many as there are data, or 10,000 where modes are counted.
        seed, device: Of the samples and of what is random in the scores.
        progress: Shows a bar while a classifier is trained.
        trust_code: See `Fit.load`.
    """
    found = Fit.load(folder, device, trust_code=trust_code)
    dataset = _dataset(found, data, binarise)
    _check_contexts(found.program, dataset.split(split), dataset.name)
    real = found.program.take(dataset.split(split))
    n = _samples(n, dataset, split, real.size)
    networks = classifiers_for(dataset, train=partial(train_classifier, progress=progress))
    samples = draw_samples(found.program, real, n, seed)
    drawn = judge(samples, dataset, split=split, seed=seed, **networks)
    scores, notes = dict(drawn.scores), _remarks(found, dataset, bool(networks))
    for each in asked_scores(found, dataset, split, samples, seed):
        scores[each.metric] = Score(each.value, each.standard_error, how=each.how)
    if found.guide is not None:
        network = networks.get("classifier")
        scores |= judge_guide(found.program, found.guide, dataset, split=split, classifier=network, seed=seed)
    yardstick = "copying" if dataset.translates else "real_data"
    try:
        others = Data(real.context, real.context) if yardstick == "copying" else held_out(dataset, n, split)
        beside = judge(others, dataset, split=split, seed=seed, **networks).scores
    except OptionError as error:
        beside, notes = {}, [*notes, f"No real data beside these samples: {error}"]
    if has_known_modes(dataset):  # there these are training data, each of which is its own neighbour
        beside.pop("memorisation", None)
    return {
        "program": catalogue.name_of(found.program),
        "data": dataset.name,
        "split": split,
        "seed": seed,
        "samples": n,
        "how": drawn.how,
        "scores": {k: {**asdict(v), yardstick: beside[k].value if k in beside else None} for k, v in scores.items()},
        "class_shares": None if drawn.shares is None else drawn.shares.shares.tolist(),
        "notes": notes,
    }


def _check_examples(program: Program) -> None:
    """Raises OptionError for adopted code."""
    if isinstance(program, Adopted):
        raise OptionError(
            f"{catalogue.name_of(program)} is adopted code, whose draws are no examples to be judged as images or "
            "points: compare statistics of them (inference.evaluation.predictive_check)."
        )


def _remarks(found: Fit, dataset: Dataset, looked_at: bool) -> list[str]:
    """What a reader of the scores must know of the fit and of how it was judged."""
    ends = {"collapsed": "samples all alike", "saturated": "a critic that is sure of everything"}
    remarks = [f"The game of this fit ended with {how}." for what, how in ends.items() if found.info.get(what)]
    if not looked_at and len(dataset.card.shape) > 1:
        remarks.append(
            f"{dataset.name} has no class labels to train a classifier on, so these are distances of raw pixels, to "
            "which a shifted image is another one; compare them among generators of the same data only."
        )
    return remarks


def train_features(data: str, seed: int = 0, steps: int | None = None, progress: bool = False) -> dict[str, Any]:
    """Trains the classifier of a data set, or finds it in the cache, and says how good it is.

    Args:
        data: A name or file with images and labels.
        seed, steps, progress: See `inference.evaluation.samples.classifier.train_classifier`.
    """
    found = train_classifier(data, seed=seed, steps=steps, progress=progress)
    assert found.training_of is not None
    return {**asdict(found.training_of), "hash": found.hash}


def _data(found: Fit, data: str | None, split: str, binarise: str | None = None) -> Data:
    """A split of the data, in the program's dtype; adopted code has no splits, but files of its own."""
    if isinstance(found.program, Adopted):
        path = Path(found.data if data is None else data)
        return found.posterior.training() if data is None and not path.exists() else _arguments(found.program, path)
    return _dataset(found, data, binarise).split(split)


def _arguments(program: Adopted, path: Path) -> Data:
    return program.take(program.call.read(path))


def _dataset(found: Fit, data: str | None, binarise: str | None = None) -> Dataset:
    """The data, a .csv by the columns of the fit's own; or those that it was made on; in the program's dtype."""
    _check_examples(found.program)
    dtype = next((t.dtype for t in found.program.state_dict().values() if t.is_floating_point()), None)
    name = found.data if data is None else datasets.like(found.data, data)
    return datasets.load(name, binarise=binarise).to(dtype=dtype)


def _check_contexts(program: Program, data: Data, name: str) -> None:
    """Names the data to ask for, where a conditional program is given data without contexts or the other way round."""
    conditional = program.example_context(2) is not None
    if conditional == (data.context is not None) or isinstance(program, MakesContexts):
        return
    if conditional:
        other, what = f"{name}-labelled", f"is conditional, and {name} has no contexts"
    else:
        other, what = name.removesuffix("-labelled"), f"takes no contexts, and {name} has some"
    hint = f"; give --data {other}" if other in datasets.names() else ""
    raise OptionError(f"{catalogue.name_of(program)} {what}{hint}.")


def _unit(samples: Tensor) -> Tensor:
    """Grey values in [0, 1]; levels such as 0 to 255 are scaled down."""
    top = samples.max()
    return (samples / top if top > 1.5 else samples).clamp(0, 1)
