"""Callbacks that write a fit down where others look: TensorBoard, Weights & Biases, Trackio.

Each gets the options of method and program, every row of the history, and at the end a table of what came out and, of
programs over images, a sheet of samples. Their packages are imported when a logger is made.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from inference.callbacks import Callback, Start
from inference.environment import seeded
from zoo import catalogue
from zoo.adopted import Adopted
from zoo.errors import OptionError, UnknownNameError
from zoo.process import guest
from zoo.program import Program

__all__ = ["LOGGERS", "Logger", "TensorBoard", "Trackio", "WeightsAndBiases", "make_logger"]

SAMPLES = 16
SLOW = ("autoregressive", "energy")
"""Families whose samples are drawn number by number, or by a chain."""


class Logger(Callback):
    """What all loggers do; a subclass says where it is written."""

    def on_start(self, start: Start) -> None:
        """Opens the log, with all options."""
        program: Any = start.program
        self.last = 0
        options = {f"program.{name}": value for name, value in program.config().items()}
        options |= {f"method.{name}": value for name, value in start.options.items()}
        self.open(
            {
                "program": catalogue.name_of(program),
                "parameters": program.parameter_count(),
                "method": start.method,
                "data": start.data,
                "examples": start.examples,
                "seed": start.seed,
                "device": start.device,
                **{name: _simple(value) for name, value in options.items()},
            }
        )

    def on_report(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes a row."""
        self.last = step
        self.numbers(step, metrics)

    def on_end(self, found: Any) -> None:
        """Writes what came out, and closes."""
        table: dict[str, Any] = {name: found.history.last(name) for name in found.history.metrics}
        table |= {"seconds": found.seconds, "gradient_evaluations": found.gradient_evaluations}
        if verdict := found.info.get("convergence", {}).get("verdict"):
            table["verdict"] = verdict
        self.result(self.last, table, _samples(found.program, found.seed))
        self.close(True)

    def on_failure(self, error: BaseException) -> None:
        """Closes."""
        self.close(False)

    @abstractmethod
    def open(self, options: Mapping[str, Any]) -> None:
        """Begins a log; options are numbers and strings."""

    @abstractmethod
    def numbers(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes numbers of a step."""

    @abstractmethod
    def result(self, step: int, table: Mapping[str, Any], samples: np.ndarray[Any, Any] | None) -> None:
        """Writes the end: numbers and strings by name, and a sheet (height, width, 3) of bytes."""

    @abstractmethod
    def close(self, succeeded: bool) -> None:
        """Ends the log."""


class TensorBoard(Logger):
    """Event files, which `tensorboard --logdir FOLDER` shows; curves, options, and samples.

    Args:
        folder: Where they go.

    Raises: OptionError where the package tensorboard is missing (extra `tensorboard`).
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.package = _package("torch.utils.tensorboard", "TensorBoard", "tensorboard")
        self.writer: Any = None

    def open(self, options: Mapping[str, Any]) -> None:
        """Begins a file; curves that a killed fit left there are replaced by those that it reports again."""
        self.options = options
        self.writer = self.package.SummaryWriter(str(self.folder), purge_step=0)
        self.writer.add_text("options", _markdown(options), 0)

    def numbers(self, step: int, metrics: Mapping[str, float]) -> None:
        """A point of each curve."""
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, step)

    def result(self, step: int, table: Mapping[str, Any], samples: np.ndarray[Any, Any] | None) -> None:
        """A table, the options beside the numbers in it, and an image."""
        self.writer.add_text("result", _markdown(table), step)
        numbers = {f"result/{name}": value for name, value in table.items() if not isinstance(value, str)}
        self.writer.add_hparams(dict(self.options), numbers, run_name=".")
        if samples is not None:
            self.writer.add_image("samples", samples, step, dataformats="HWC")

    def close(self, succeeded: bool) -> None:
        """Writes what is buffered."""
        if self.writer is not None:
            self.writer.close()


class _Online(Logger):
    """Weights & Biases and what has its interface.

    Args:
        project: The name of the project there.
        settings: Further arguments of the package's `init`, such as `name`.

    Raises: OptionError where the package is missing (the extra of its name).
    """

    module: str
    title: str

    def __init__(self, project: str = "pyro-model-zoo", **settings: Any):
        self.settings = {"project": project, **settings}
        self.package = _package(self.module, self.title, self.module)
        self.opened = False

    def open(self, options: Mapping[str, Any]) -> None:
        """Begins a run."""
        self.package.init(config=dict(options), **self.settings)
        self.opened = True

    def numbers(self, step: int, metrics: Mapping[str, float]) -> None:
        """A point of each curve."""
        self.package.log(dict(metrics), step=step)

    def result(self, step: int, table: Mapping[str, Any], samples: np.ndarray[Any, Any] | None) -> None:
        """Numbers and strings under 'result', and an image."""
        found = {f"result/{name}": value for name, value in table.items()}
        if samples is not None:
            found["samples"] = self.package.Image(samples)
        self.package.log(found, step=step)

    def close(self, succeeded: bool) -> None:
        """Ends the run."""
        if self.opened:
            self.finish(succeeded)

    def finish(self, succeeded: bool) -> None:
        """As the package does it."""
        self.package.finish()


class WeightsAndBiases(_Online):
    """A run of Weights & Biases (extra `wandb`); how to log in, and modes without a network, are its own."""

    module, title = "wandb", "Weights & Biases"

    def finish(self, succeeded: bool) -> None:
        """Says whether the fit has failed."""
        self.package.finish(exit_code=0 if succeeded else 1)


class Trackio(_Online):
    """A run of Trackio (extra `trackio`), which keeps it on this machine; `trackio show` is its page."""

    module, title = "trackio", "Trackio"


LOGGERS: dict[str, Any] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases, "trackio": Trackio}
"""By the name that `zoo fit --log` takes, which is that of the extra too."""


def make_logger(name: str, out: Path) -> Logger:
    """A logger for a fit with a folder: TensorBoard's files go into it, others call the run as the folder is called.

    Raises: UnknownNameError; OptionError where its package is missing.
    """
    if name not in LOGGERS:
        raise UnknownNameError("logger", name, LOGGERS)
    made: Logger = LOGGERS[name](out / name) if name == "tensorboard" else LOGGERS[name](name=out.resolve().name)
    return made


def _package(module: str, title: str, extra: str) -> Any:
    try:
        return guest(module)
    except ImportError as error:
        raise OptionError(
            f"{title} is not installed ({error}): pip install 'pyro-model-zoo[{extra}]', or log elsewhere "
            f"({', '.join(name for name in LOGGERS if name != extra)})."
        ) from error


def _simple(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str) else str(value)


def _markdown(table: Mapping[str, Any]) -> str:
    said = {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in table.items()}
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in said.items())])


def _samples(program: Program, seed: int) -> np.ndarray[Any, Any] | None:
    """A sheet (height, width, 3) of images that the program draws, as bytes; None where it draws none, or slowly."""
    if isinstance(program, Adopted):
        return None
    shape = tuple(program.event_shape)
    is_image = len(shape) == 2 or (len(shape) == 3 and shape[0] in (1, 3))
    if not is_image or min(shape[-2:]) < 4 or program.family in SLOW or program.example_context(1) is not None:
        return None
    if any(site.is_global for site in program.sites().values()):  # draws of the prior say nothing of a fit
        return None
    device = next((tensor.device for tensor in program.state_dict().values()), "cpu")
    with seeded(seed, device):
        images = program.eval().generate(SAMPLES).reshape(SAMPLES, -1, *shape[-2:]).cpu().double()
    images = (images / images.max() if images.max() > 1.5 else images).clamp(0, 1)  # levels, such as 0 to 255
    images = functional.pad(images.expand(-1, 3, -1, -1), (0, 1, 0, 1), value=0.5)  # a line between them
    side, (height, width) = round(SAMPLES**0.5), images.shape[-2:]
    grid = images.reshape(side, side, 3, height, width).permute(0, 3, 1, 4, 2)
    sheet = grid.reshape(side * height, side * width, 3)[:-1, :-1]
    return (255 * sheet).round().to(torch.uint8).numpy()
