"""The suite `speed`: the same training by this project, Pyro, hand-written PyTorch and NumPyro; names and sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.speed.contender import NUMPYRO, PYRO, ZOO
from zoo.errors import UnknownNameError

__all__ = ["DUELS", "QUESTION", "SWEEPS", "TITLE", "WORKLOADS", "Duel", "Sweep", "Workload", "chosen"]

TITLE = "The same training step by everyone"
QUESTION = (
    "How long does one training step take, compiled and not, beside Pyro's own SVI.step, hand-written PyTorch and "
    "NumPyro, on the same data, model, guide, batch, optimizer and threads?"
)


@dataclass(frozen=True)
class Workload:
    """One job.

    Args:
        name: On the command line and in file names.
        title: In tables.
        module: In `benchmarks.speed.workloads`; has `work(device, seed, **options)` and `contenders(work)`.
        options: Of `work`.
        target_steps: After how many of our eager steps the loss is what everyone has to reach; 0 where a loss is no
            goal, as in a game.
    """

    name: str
    title: str
    module: str
    options: Mapping[str, Any] = field(default_factory=dict)
    target_steps: int = 300
    contenders: tuple[str, ...] = ()
    """Who takes part; empty is everyone."""


@dataclass(frozen=True)
class Sweep:
    """One job at several sizes: how the cost of a step grows with `over`, an option of the workload's `work`."""

    name: str
    title: str
    module: str
    over: str
    values: tuple[int, ...]
    options: Mapping[str, Any] = field(default_factory=dict)

    def workload(self, value: int) -> Workload:
        """The job at one size."""
        name, options = f"{self.name}-{value}", {**self.options, self.over: value}
        return Workload(name, self.title, self.module, options=options, contenders=(*ZOO, PYRO, NUMPYRO))


@dataclass(frozen=True)
class Duel:
    """Work without gradient steps, ours beside another library's, or beside the plain way, on the CPU.

    Args:
        name: On the command line and in file names.
        title: In tables.
        module: In `benchmarks.speed.workloads`; has `Problem`, `SIDES`, `compare` and `warm_up`.
        problems: Options of `Problem` by label.
        quick: Options that win over those for a look.
        peer: What ours is compared with, in the head of the table.
        agreement: What the column of differences holds.
    """

    name: str
    title: str
    module: str
    problems: Mapping[str, Mapping[str, Any]]
    quick: Mapping[str, Any] = field(default_factory=dict)
    peer: str = "theirs"
    agreement: str = "log-likelihood differs by"
    memory: bool = True
    """Whether each side runs once more, in a process of its own, to have its memory measured."""


WORKLOADS: dict[str, Workload] = {
    w.name: w
    for w in (
        Workload("eight-schools", "Eight schools", "eight_schools", target_steps=1000),
        Workload(
            "logistic-10k", "Logistic regression, N = 10,000", "logistic", options={"n": 10_000}, target_steps=500
        ),
        Workload(
            "logistic-1m", "Logistic regression, N = 1,000,000", "logistic", options={"n": 1_000_000}, target_steps=500
        ),
        Workload("mixture", "Gaussian mixture, K = 8", "mixture", target_steps=200),
        Workload("hmm-chorales", "HMM on chorales, K = 16", "chorales", target_steps=40),
        Workload("vae-128", "VAE 784-400-20, batch 128", "vae", options={"batch_size": 128}, target_steps=200),
        Workload("vae-4096", "VAE 784-400-20, batch 4096", "vae", options={"batch_size": 4096}, target_steps=40),
        Workload(
            "vae-conv",
            "Convolutional VAE, batch 128",
            "vae",
            options={"batch_size": 128, "network": "conv"},
            target_steps=40,
        ),
        Workload("made", "MADE 784-500-784, batch 100", "autoregressive", target_steps=200),
        Workload(
            "gated-pixelcnn",
            "Gated PixelCNN, 6 layers of 24, batch 32",
            "autoregressive",
            options={"network": "gated-pixelcnn", "batch_size": 32, "lr": 3e-3},
            target_steps=20,
        ),
        Workload("dcgan", "DCGAN on digits, both players, batch 32", "gan", target_steps=0),
    )
}
"""Name -> job, in the order in which they are shown."""

SWEEPS: dict[str, Sweep] = {
    s.name: s
    for s in (
        Sweep("growth-n", "Logistic regression, rows N", "logistic", over="n", values=(10_000, 100_000, 1_000_000)),
        Sweep("growth-d", "Logistic regression, features D", "logistic", over="d", values=(10, 50, 250, 1250)),
        Sweep("growth-k", "Gaussian mixture, components K", "mixture", over="k", values=(2, 8, 32)),
        Sweep("growth-d-mixture", "Gaussian mixture, dimensions D", "mixture", over="d", values=(4, 16, 64)),
    )
}
"""Name -> sizes."""


SAMPLING: dict[str, dict[str, Any]] = {
    "NADE, 784 bits": {"program": "nade", "options": {"event_shape": [28, 28], "hidden": 500}},
    "RNADE, 64 numbers": {"program": "rnade", "options": {"event_shape": [64], "hidden": 128}},
    "MADE, 784 bits": {"program": "made", "options": {"event_shape": [28, 28], "hidden": [500]}},
    "PixelCNN, 16 x 16": {"program": "pixelcnn", "options": {"event_shape": [16, 16]}},
    "gated PixelCNN, 16 x 16": {"program": "gated-pixelcnn", "options": {"event_shape": [16, 16]}},
    "Row LSTM, 16 x 16": {"program": "pixelrnn", "options": {"event_shape": [16, 16], "cell": "row"}},
    "WaveNet, 1,024 samples": {"program": "wavenet", "options": {"event_shape": [1024]}},
}

DUELS: dict[str, Duel] = {
    d.name: d
    for d in (
        Duel(
            "em",
            "EM of a Gaussian mixture beside scikit-learn: seconds an iteration",
            "em",
            problems={kind: {"covariance": kind} for kind in ("spherical", "diagonal", "full")},
            quick={"n": 50_000},
        ),
        Duel(
            "hmm",
            "HMM beside hmmlearn: seconds of all posteriors, or of an iteration",
            "hmm",
            problems={
                f"{task}, {emission}": {"task": task, "emission": emission}
                for task in ("posteriors", "baum-welch")
                for emission in ("categorical", "normal")
            },
            quick={"sequences": 100},
        ),
        Duel(
            "sampling",
            "Sampling autoregressive networks: seconds for a batch of 16",
            "sampling",
            problems=SAMPLING,
            quick={"n": 2},
            peer="a pass a site",
            agreement="draws differ by at most",
        ),
        Duel(
            "nuts",
            "NUTS beside Pyro's, NumPyro's, BlackJAX's and PyMC's: seconds for 1,000 effective draws (worst site)",
            "nuts",
            problems={
                "eight schools": {"model": "eight-schools"},
                "logistic regression, N = 10,000": {"model": "logistic"},
                "Gaussian mixture, posteriordb": {"model": "gaussian-mixture"},
                "HMM, posteriordb": {"model": "hmm"},
                "children's test scores, posteriordb": {"model": "test-scores"},
                "mesquite bushes, posteriordb": {"model": "mesquite"},
            },
            quick={"n": 500, "warmup": 50, "draws": 100, "chains": 1},
            agreement="means differ by at most, in sd",
            memory=False,
        ),
    )
}
"""Name -> what is computed by both sides."""


def chosen(only: str | None) -> list[str]:
    """Names of the workloads, duels and sweeps to run.

    Args:
        only: Names separated by commas; None is all.

    Raises: UnknownNameError.
    """
    known = [*WORKLOADS, *DUELS, *SWEEPS]
    if only is None:
        return known
    names = [name.strip() for name in only.split(",") if name.strip()]
    for name in names or [only]:
        if name not in known:
            raise UnknownNameError("workload of the suite speed", name, known)
    return [name for name in known if name in names]
