"""Density cells: a program fitted on the training split of a data set, its log-likelihood on the test split.

Programs without a density (GANs) get the two estimates of the literature, marked as such: Parzen windows, and annealed
importance sampling under Gaussian noise around the generator's output.

Options of the evaluation: `examples` (all) of the split; `particles` (5000) of IWAE; `ais_chains`, `ais_steps`,
`ais_examples` and `ais_sigmas` (to choose the noise from) for GANs.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.cells.fitting import fit_cell
from benchmarks.metrics import Measurement, how_the_fit_ended
from benchmarks.suite import Cell, file_name
from inference import Fit
from inference.environment import seeded
from inference.evaluation.annealing import ais
from inference.evaluation.estimates import Estimate
from inference.evaluation.likelihood import log_likelihood
from inference.evaluation.noisy_decoder import SIGMAS, decoder_likelihood
from inference.evaluation.parzen import parzen
from inference.guides.exact import exact_log_evidence
from zoo import datasets
from zoo.datasets import Data, Dataset
from zoo.energy.base import EnergyProgram
from zoo.errors import CapabilityError, ImplicitDensityError
from zoo.program import ImplicitProgram, Program

__all__ = ["densities", "measure"]

SAMPLES = 64
PARTICLES = 5000
PARZEN_SAMPLES = 10_000
GRID_LATENTS = 2


def measure(cell: Cell, artifacts: Path, device: str) -> list[Measurement]:
    """Fits, scores, and leaves samples beside real examples for a picture."""
    dataset = datasets.load(cell.dataset)
    found = fit_cell(cell, dataset, device)
    program, data = found.program, dataset.split(cell.split).to(found.device)
    data = data.rows(slice(0, cell.evaluation.get("examples")))
    numbers = program.event_shape.numel()
    measured = [
        Measurement("parameters", float(found.parameter_count())),
        Measurement("seconds", found.seconds, how="wall time of the fit"),
        Measurement("gradient_evaluations", float(found.gradient_evaluations)),
        *how_the_fit_ended(found.info),
    ]
    if isinstance(program, ImplicitProgram) and not isinstance(program, EnergyProgram):
        measured += [Measurement(m, None, how="n/a: implicit, no density") for m in ("log_likelihood", "bits_per_dim")]
        if "diversity" in found.info:
            measured.append(Measurement("diversity", float(found.info["diversity"]), how="up to 1,000 examples"))
        if "ais" in cell.metrics:
            measured.append(gan_ais(program, dataset.to(found.device), data, cell))
    else:
        if "log_likelihood" in cell.metrics:
            estimate = likelihood(found, data, cell)
            error = estimate.standard_error
            bits = None if error is None else error / (numbers * math.log(2))
            how = f"{estimate.how}{', a lower bound' if estimate.bound else ''}, {data.size} examples"
            measured.append(Measurement("log_likelihood", estimate.mean, error, how=how))
            measured.append(Measurement("bits_per_dim", estimate.bits_per_dim(numbers), bits, how=how))
        if "grid_log_likelihood" in cell.metrics:
            measured.append(grid(program, data))
    if "sampling_seconds" in cell.metrics:
        measured.append(sampling(program, data, cell.seed))
    if "parzen" in cell.metrics:
        measured.append(parzen_score(program, dataset.to(found.device), data, cell.seed))
    save_samples(artifacts / f"{file_name(cell.key)}.npz", program, data, cell.seed)
    return [m for m in measured if m.metric in cell.metrics]


def likelihood(found: Fit, data: Data, cell: Cell) -> Estimate:
    """Exact where the program can, else IWAE."""
    particles = int(cell.evaluation.get("particles", PARTICLES))
    return log_likelihood(found, data, particles=particles, seed=cell.seed)


def densities(cell: Cell, found: Fit, dataset: Dataset) -> list[Measurement]:
    """Of a sampler: its log-likelihood where it has a density, else its decoder's by annealing; Parzen windows."""
    program, binary = found.program, dataset.card.support == "binary"
    implicit = isinstance(program, ImplicitProgram) and not isinstance(program, EnergyProgram)
    data, moved = dataset.split(cell.split).to(found.device), dataset.to(found.device)
    measured = []
    if "log_likelihood" in cell.metrics:
        measured.append(
            Measurement("log_likelihood", None, how="n/a: implicit, no density")
            if implicit
            else best_likelihood(cell, found, data, "binary" if binary else "grey")
        )
    if "ais" in cell.metrics:
        measured.append(
            gan_ais(program, moved, data, cell) if implicit else Measurement("ais", None, how="n/a: it has a density")
        )
    if "parzen" in cell.metrics:
        measured.append(
            Measurement("parzen", None, how="n/a: windows around binary images are no density")
            if binary
            else parzen_score(program, moved, data, cell.seed)
        )
    return measured


def best_likelihood(cell: Cell, found: Fit, data: Data, kind: str) -> Measurement:
    """The log-likelihood of images of a kind, exact or by IWAE; annealed from the prior if the guide only draws."""
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
    return Measurement("log_likelihood", estimate.mean, estimate.standard_error, how=how)


def grid(program: Program, data: Data) -> Measurement:
    """log p(x) by quadrature over one or two continuous latents; n/a for others."""
    sites = program.sites().values()
    latents = sum(site.event_shape.numel() for site in sites)
    if not sites or latents > GRID_LATENTS or any(site.is_global or site.is_discrete for site in sites):
        return Measurement("grid_log_likelihood", None, how="n/a: a grid needs one or two continuous local latents")
    values = torch.cat([exact_log_evidence(program, *batch) for batch in data.batches(50)]).detach()
    estimate = Estimate(values, "grid", False)
    how = f"grid, {data.size} examples"
    return Measurement("grid_log_likelihood", estimate.mean, estimate.standard_error, how=how)


def sampling(program: Program, data: Data, seed: int) -> Measurement:
    """Wall time of a batch of draws; the first batch, which may build things, is not counted."""
    few = data.rows(slice(0, 2))
    with seeded(seed, data.x.device):
        program.generate(2, few.context)
        started = time.perf_counter()
        drawn = program.generate(SAMPLES, data.rows(slice(0, SAMPLES)).context)
        float(drawn.sum())  # waits for the device
        return Measurement("sampling_seconds", time.perf_counter() - started, how=f"wall time of {len(drawn)} draws")


def parzen_score(program: Program, dataset: Dataset, data: Data, seed: int) -> Measurement:
    """Parzen windows around samples, the bandwidth chosen on the validation split."""
    context = None if data.context is None else data.context[torch.arange(PARZEN_SAMPLES) % data.size]
    with seeded(seed, data.x.device):
        samples = program.generate(PARZEN_SAMPLES, context)
    estimate, sigma = parzen(samples, data.x, dataset.valid.x)
    how = f"{estimate.how}, bandwidth {sigma:.3g} from validation; an estimate that favours memorisers"
    return Measurement("parzen", estimate.mean, estimate.standard_error, how=how)


def gan_ais(program: Program, dataset: Dataset, data: Data, cell: Cell) -> Measurement:
    """log p(x) of the generator's output with Gaussian noise (`inference.evaluation.noisy_decoder`)."""
    options = cell.evaluation
    chains, steps = int(options.get("ais_chains", 16)), int(options.get("ais_steps", 500))
    rows, sigmas = data.rows(slice(0, options.get("ais_examples"))), options.get("ais_sigmas", SIGMAS)
    try:
        estimate, sigma = decoder_likelihood(
            program, rows, dataset.valid, sigmas=sigmas, seed=cell.seed, chains=chains, steps=steps
        )
    except CapabilityError as error:
        return Measurement("ais", None, how=f"n/a: {error}")
    how = f"{estimate.how}, {rows.size} examples, noise {sigma} from validation; the density of samples plus noise"
    return Measurement("ais", estimate.mean, estimate.standard_error, how=how)


def save_samples(path: Path, program: Program, data: Data, seed: int) -> None:
    """Samples and real examples, where they are images; samples given the contexts of these examples."""
    if len(program.event_shape) not in (2, 3):
        return
    shown = data.rows(slice(0, SAMPLES))
    with seeded(seed, data.x.device):
        samples = program.generate(SAMPLES, shown.context)
    np.savez_compressed(path, samples=samples.cpu().numpy(), data=shown.x.cpu().numpy())
