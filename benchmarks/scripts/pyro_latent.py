"""Pyro's own CVAE, semi-supervised VAE and deep Markov model beside ours: same data, networks and epochs, one judge.

    git clone --branch 1.9.1 https://github.com/pyro-ppl/pyro /tmp/pyro
    python -m benchmarks.scripts.pyro_latent /tmp/pyro > docs/results/pyro-latent-cpu.md
    python -m benchmarks.scripts.pyro_latent /tmp/pyro --only ssvae --epochs 50 > docs/results/pyro-ssvae-cpu.md

Pyro's side has the networks of its example files, and their optimizer, bound and settings; its CVAE trains a baseline
net first, for as many epochs. Ours has networks of the same widths and the options of its presets. Both sides are
scored by the same function: importance sampling from each side's own guide, as many draws, or the accuracy of q(y | x).

- cvae: binary digits of mnist10k, of which one to three quadrants are given: log p(the others | these), nats an image.
- ssvae: the same digits, a hundred of which have labels; a plain classifier of these hundred beside both.
- dmm: chorales, nats a time step.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyro
import pyro.optim
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO, TraceEnum_ELBO, config_enumerate
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from benchmarks.machine import hardware, in_words
from benchmarks.scripts.pyro_checkout import Checkout
from inference import fit
from inference.environment import seeded
from zoo import datasets
from zoo.datasets import Data
from zoo.errors import UnknownNameError
from zoo.latent.cvae import RestoringVAE
from zoo.latent.semi_supervised import hide_labels
from zoo.process import guest
from zoo.sequential.dmm import DMM

__all__ = ["TASKS", "Row", "Task", "importance", "record"]

LABELLED = 100


@dataclass(frozen=True)
class Task:
    """What both sides do: on `rows` training and test examples (None: all), for so many epochs, judged by draws."""

    epochs: int = 5
    draws: int = 100
    seed: int = 0
    rows: int | None = None


@dataclass(frozen=True)
class Row:
    """A side of a comparison."""

    task: str
    side: str
    score: float
    error: float
    seconds: float
    parameters: int


@torch.no_grad()
def importance(model: Callable[[], Any], guide: Callable[[], Any], draws: int) -> Tensor:
    """log p(x) of each example, (B,), by draws of the guide: for any model whose sites have a batch of examples."""
    weights = []
    for _ in range(draws):
        q = poutine.trace(guide).get_trace()
        p = poutine.trace(poutine.replay(model, trace=q)).get_trace()
        weights.append(_by_example(p) - _by_example(q))
    return torch.stack(weights).logsumexp(0) - math.log(draws)


def _by_example(trace: Any) -> Tensor:
    trace.compute_log_prob()
    sites = [site for site in trace.nodes.values() if site["type"] == "sample" and not site_is_subsample(site)]
    total: Tensor = sum(site["log_prob"] for site in sites)
    return total


def _scored(task: str, side: str, values: Tensor, seconds: float, net: Any) -> Row:
    """A row of the mean of values (N,) by example."""
    error = float(values.std()) / math.sqrt(len(values))
    count = sum(p.numel() for p in net.parameters())
    return Row(task, side, float(values.mean()), error=error, seconds=seconds, parameters=count)


def _shuffled(n: int, size: int) -> Iterator[Tensor]:
    yield from torch.randperm(n).split(size)


# Conditional VAE


def cvae(checkout: Checkout, task: Task, given: int) -> Iterator[Row]:
    """Three rows: Pyro's baseline net, Pyro's CVAE on it, ours."""
    data, name = datasets.load("mnist10k-binary"), f"cvae, {given} given"
    train, test = data.train.x[: task.rows], data.test.x[: task.rows]
    program = RestoringVAE([28, 28], {"name": "quadrants", "given": given})
    known = program.told(program.accept(test[:1])[1]).known[0]  # type: ignore[union-attr,arg-type]

    def masked(x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.where(known, x, -1.0), torch.where(known, -1.0, x)

    with seeded(task.seed), pyro.settings.context(module_local_params=False):
        pyro.clear_param_store()
        started = time.perf_counter()
        file = checkout.file("examples/cvae/baseline.py")
        baseline, loss = file.BaselineNet(500, 500), file.MaskedBCELoss()
        optimizer = torch.optim.Adam(baseline.parameters(), lr=1e-3)
        for index in (rows for _ in range(task.epochs) for rows in _shuffled(len(train), 128)):
            xs, ys = masked(train[index])
            optimizer.zero_grad()
            (loss(baseline(xs), ys) / len(xs)).backward()
            optimizer.step()
        xs, ys = masked(test)
        with torch.no_grad():
            p = baseline(xs).reshape(test.shape).clamp(1e-6, 1 - 1e-6)
            values = torch.where(known, 0.0, torch.where(test > 0.5, p, 1 - p).log()).flatten(1).sum(1)
        yield _scored(name, "Pyro's baseline net", values, time.perf_counter() - started, baseline)
        net = checkout.file("examples/cvae/cvae.py").CVAE(200, 500, 500, baseline)
        svi = SVI(net.model, net.guide, pyro.optim.Adam({"lr": 1e-3}), loss=Trace_ELBO())
        for index in (rows for _ in range(task.epochs) for rows in _shuffled(len(train), 128)):
            svi.step(*masked(train[index]))
        seconds = time.perf_counter() - started
        values = importance(partial(net.model, xs, ys), partial(net.guide, xs, ys), task.draws)
    yield _scored(name, "Pyro", values, seconds, net)
    preset = RestoringVAE.presets["paper"].merged(fit={"epochs": task.epochs, "patience": None})
    options = {**preset.program, **preset.fit, "task": {"name": "quadrants", "given": given}}
    found = fit("restoring-vae", train, preset.method, seed=task.seed, **options)
    batch = found.program.eval().accept(test)
    with seeded(task.seed):
        values = importance(partial(found.program.model, *batch), partial(found.program.guide, *batch), task.draws)
    yield _scored(name, "zoo", values, found.seconds, found.program)


# Semi-supervised VAE


def ssvae(checkout: Checkout, task: Task) -> Iterator[Row]:
    """Three rows: a plain classifier of the hundred labels, Pyro's, ours."""
    data, rows = datasets.load("mnist10k-binary-labelled"), task.rows
    train, test = data.train.rows(slice(0, rows)), data.test.rows(slice(0, rows))
    shown = hide_labels(train.context, LABELLED, task.seed)
    truth = test.context.argmax(1)
    few = shown.sum(1) > 0

    def scored(side: str, classes: Tensor, seconds: float, count: int) -> Row:
        right = (classes == truth).double()
        error = float(right.std()) / math.sqrt(len(right))
        return Row("ssvae, 100 labels", side, float(right.mean()), error=error, seconds=seconds, parameters=count)

    started = time.perf_counter()
    plain: Any = guest("sklearn.neural_network").MLPClassifier((500,), max_iter=500, random_state=task.seed)
    plain.fit(train.x[few].flatten(1).numpy(), shown[few].argmax(1).numpy())
    guessed = torch.tensor(plain.predict(test.x.flatten(1).numpy()))
    sizes = sum(w.size for w in (*plain.coefs_, *plain.intercepts_))
    yield scored("labels alone", guessed, time.perf_counter() - started, sizes)
    started = time.perf_counter()
    net = _pyros_ssvae(checkout, Data(train.x.flatten(1), shown), few, task)
    with torch.no_grad():
        guessed = net.classifier(test.x.flatten(1)).argmax(1)
    yield scored("Pyro", guessed, time.perf_counter() - started, sum(p.numel() for p in net.parameters()))
    widths: dict[str, Any] = {"latent_dim": 50, "hidden": [500], "classifier": [500]}
    options: dict[str, Any] = {"elbo": "enum", "batch_size": 200, "lr": 2e-3, "epochs": task.epochs, **widths}
    found = fit("semi-supervised-vae", Data(train.x, shown), "svi", seed=task.seed, **options)
    program: Any = found.program.eval()
    with torch.no_grad():
        guessed = program.log_classes(test.x).argmax(1)
    yield scored("zoo", guessed, found.seconds, program.parameter_count())


def _pyros_ssvae(checkout: Checkout, train: Data, few: Tensor, task: Task) -> Any:
    """Pyro's network after its own loop over batches, with the example's settings."""
    with seeded(task.seed), pyro.settings.context(module_local_params=False):
        pyro.clear_param_store()
        file = checkout.file("examples/vae/ss_vae_M2.py")
        net = file.SSVAE(z_dim=50, hidden_layers=[500], config_enum="parallel", aux_loss_multiplier=46)
        adam = pyro.optim.Adam({"lr": 0.00042, "betas": (0.9, 0.999)})
        guide = config_enumerate(net.guide, "parallel", expand=True)
        elbo = TraceEnum_ELBO(max_plate_nesting=1, strict_enumeration_warning=False)
        losses = [SVI(net.model, guide, adam, loss=elbo)]
        losses.append(SVI(net.model_classify, net.guide_classify, adam, loss=Trace_ELBO()))
        known, open_ = train.rows(few), train.rows(~few)
        for _ in range(task.epochs):
            loaders = {
                "sup": [(known.x, known.context)],
                "unsup": [(open_.x[rows], open_.context[rows]) for rows in _shuffled(open_.size, 200)],
            }
            file.run_inference_for_epoch(loaders, losses, min(train.size // LABELLED, len(loaders["unsup"]) + 1))
    return net


# Deep Markov model


def dmm(checkout: Checkout, task: Task) -> Iterator[Row]:
    """Two rows, per time step."""
    data, rows, few = datasets.load("jsb"), task.rows, max(1, task.draws // 10)
    train, test = data.train.rows(slice(0, rows)), data.test.rows(slice(0, rows))
    steps = float(test.context.sum())

    def per_step(side: str, values: Tensor, seconds: float, net: Any) -> Row:
        return _scored("dmm", side, values * len(values) / steps, seconds, net)

    with seeded(task.seed), pyro.settings.context(module_local_params=False):
        pyro.clear_param_store()
        file = checkout.file("examples/dmm.py")
        net, started = file.DMM(), time.perf_counter()
        settings = {"lr": 3e-4, "betas": (0.96, 0.999), "clip_norm": 10.0, "lrd": 0.99996, "weight_decay": 2.0}
        svi = SVI(net.model, net.guide, pyro.optim.ClippedAdam(settings), loss=Trace_ELBO())

        def batch(part: Data, index: Tensor) -> tuple[Any, ...]:
            made: tuple[Any, ...] = file.poly.get_mini_batch(index, part.x, part.context.long())
            return made

        # The weight of the KL grows over the first fifth of all steps, by minibatch as in the example.
        order = [index for _ in range(task.epochs) for index in _shuffled(train.size, 20)]
        for step, index in enumerate(order, 1):
            svi.step(*batch(train, index), min(1.0, 0.2 + 0.8 * step / max(1, len(order) // 5)))
        seconds, given = time.perf_counter() - started, batch(test, torch.arange(test.size))
        net.rnn.eval()
        values = importance(partial(net.model, *given), partial(net.guide, *given), few)
    yield per_step("Pyro", values, seconds, net)
    preset = DMM.presets["paper"].merged(fit={"epochs": task.epochs})
    options = {**{f"program.{name}": value for name, value in preset.program.items()}, **preset.fit}
    found = fit("dmm", train, preset.method, seed=task.seed, **options)
    batch_ = found.program.eval().accept(*test)
    with seeded(task.seed):
        values = importance(partial(found.program.model, *batch_), partial(found.program.guide, *batch_), few)
    yield per_step("zoo", values, found.seconds, found.program)


TASKS: dict[str, Callable[[Checkout, Task], Iterator[Row]]] = {
    **{f"cvae-{given}": partial(cvae, given=given) for given in (1, 2, 3)}, "ssvae": ssvae, "dmm": dmm
}  # fmt: skip
"""By name."""


def record(rows: list[Row], task: Task, revision: str, only: str = "") -> str:
    """The page of the record, in Markdown; `only` as on the command line."""
    options = f"{f'--only {only} ' if only else ''}--epochs {task.epochs} --draws {task.draws}"
    lines = ["| task | side | score | ± | seconds | parameters |", "|---|---|---:|---:|---:|---:|"]
    for row in rows:
        lines.append(
            f"| {row.task} | {row.side} | {row.score:.3f} | {row.error:.3f} | {row.seconds:.0f} | {row.parameters:,} |"
        )
    table = "\n".join(lines)
    return f"""# Pyro's latent examples beside ours

The same data, networks of the same widths, {task.epochs} epochs, seed {task.seed}; each side has its own training
settings. Scores, higher is better: cvae log p(missing quadrants | given ones), nats an image ({task.draws} draws of
each side's guide); ssvae accuracy of q(y | x) on test digits; dmm nats a time step ({max(1, task.draws // 10)} draws).
A few epochs compare the speed of learning, not what either reaches in the end.

{table}

- Seconds are wall time of training, compiling and Pyro's baseline net included.
- Machine: {in_words(hardware("cpu"))}
- torch {torch.__version__}, Pyro {pyro.__version__}; Pyro's files {revision}
- `OMP_NUM_THREADS=1 python -m benchmarks.scripts.pyro_latent CHECKOUT {options}`"""


def main(arguments: list[str] | None = None) -> None:
    """Prints the record; progress goes to the error stream."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", help="folder of a checkout of Pyro")
    parser.add_argument("--only", default="", help="tasks whose name contains this")
    parser.add_argument("--epochs", type=int, default=5, help="of each side")
    parser.add_argument("--draws", type=int, default=100, help="of each side's guide; a tenth of it for chorales")
    parser.add_argument("--rows", type=int, default=None, help="training and test examples; all unless given")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    checkout, task = Checkout(given.checkout), Task(given.epochs, given.draws, given.seed, rows=given.rows)
    chosen = {name: each for name, each in TASKS.items() if given.only in name}
    if not chosen:
        raise UnknownNameError("task", given.only, TASKS)
    rows = []
    for each in chosen.values():
        for row in each(checkout, task):
            rows.append(row)
            print(row, file=sys.stderr, flush=True)
    print(record(rows, task, checkout.revision, only=given.only))


if __name__ == "__main__":
    main()
