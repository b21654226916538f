"""A small classifier of the data's own classes, whose features and guesses judge samples; trained here, not downloaded.

A Fréchet distance needs a network that sees what matters. On digits a network for photographs does not, and one that is
downloaded cannot be made again; so this one is trained on the *training split* of the data at hand, in a minute, from a
seed. It has two convolutions with pooling and one hidden layer whose activations are the features, after LeCun et al.,
"Gradient-based learning applied to document recognition", Proc. IEEE 1998; trained with dropout on images that are
shifted, turned and scaled a little, by Adam with a cosine. Where slant and width are what tells the classes apart (a
card that says `rigid`), images are shifted by a pixel or two only.

Scores in the features of two networks do not compare, so every network has a `hash`, from the sha256 of its weights,
which every score repeats. The same seed on the same kind of machine with the same version of torch gives the same hash;
another processor or version may round otherwise and give another network, about as good.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.functional import affine_grid, cross_entropy, grid_sample

from inference.environment import seeded
from inference.method import Run
from inference.training.loop import Loop, Schedule
from inference.training.optimizers import descend, rate
from zoo import datasets
from zoo.datasets import Data, Dataset
from zoo.datasets.sources import cache_folder
from zoo.errors import OptionError, ShapeError
from zoo.nets import image_shape

__all__ = ["Classifier", "Training", "train_classifier"]

STEPS, LEARNING_RATE = 2000, 3e-3
FORM = 1
"""Of the network and its training; a change here retrains what lies in the cache."""


@dataclass(frozen=True)
class Training:
    """How a classifier came about and how good it is on data that it has not seen."""

    data: str
    data_sha256: str
    """Of the training images and labels."""
    seed: int
    steps: int
    train_size: int
    test_size: int
    test_accuracy: float
    seconds: float
    sha256: str
    """Of the weights."""


class Classifier(nn.Module):
    """Images -> classes, by two convolutions with pooling and a hidden layer whose activations are the features.

    Args:
        shape: Of one image, (height, width) or (channels, height, width).
        classes: How many.
        channels: Of the two convolutions.
        width: Number of features.
        dropout: Probability, before the hidden layer and before the last one.

    Shapes: (B, *shape) -> logits (B, classes). Images of any dtype and on any device are taken to the network's.
    """

    training_of: Training | None = None
    """None until `train_classifier` has trained it."""

    def __init__(
        self,
        shape: Sequence[int],
        classes: int = 10,
        channels: Sequence[int] = (16, 32),
        width: int = 64,
        dropout: float = 0.25,
    ):
        super().__init__()
        self.shape, self.classes = tuple(shape), classes
        depth, height, breadth = image_shape(shape)
        first, second = channels
        self.body = nn.Sequential(
            nn.Conv2d(depth, first, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2, ceil_mode=True),
            nn.Conv2d(first, second, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2, ceil_mode=True),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(second * -(-height // 4) * -(-breadth // 4), width),
            nn.ReLU(),
        )
        self.dropout, self.head = nn.Dropout(dropout), nn.Linear(width, classes)

    def features(self, x: Tensor) -> Tensor:
        """Activations of the hidden layer (B, width), not negative."""
        weight = self.head.weight
        if tuple(x.shape[1:]) != self.shape:
            raise ShapeError(
                f"The classifier wants images (B, {', '.join(map(str, self.shape))}), got {tuple(x.shape)}; "
                "train one on data of that shape."
            )
        return self.body(x.to(weight).reshape(len(x), *image_shape(self.shape)))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, classes)."""
        return self.head(self.dropout(self.features(x)))

    @torch.no_grad()
    def describe(self, x: Tensor, batch_size: int = 1000) -> Tensor:
        """`features` in eval mode, batch by batch, without gradients."""
        return self._batched(self.features, x, batch_size)

    @torch.no_grad()
    def classify(self, x: Tensor, batch_size: int = 1000) -> Tensor:
        """The likeliest class of each image, (B,) of integers, batch by batch."""
        return self._batched(lambda rows: self(rows).argmax(1), x, batch_size)

    @torch.no_grad()
    def log_probabilities(self, x: Tensor, batch_size: int = 1000) -> Tensor:
        """Of each class, (B, classes), batch by batch."""
        return self._batched(lambda rows: self(rows).log_softmax(1), x, batch_size)

    def _batched(self, function: Callable[[Tensor], Tensor], x: Tensor, batch_size: int) -> Tensor:
        before = self.training
        self.eval()
        try:
            return torch.cat([function(rows) for rows in x.split(batch_size)])
        finally:
            self.train(before)

    @property
    def hash(self) -> str:
        """The first 12 digits of `sha256`, for tables."""
        return self.sha256[:12]

    @property
    def sha256(self) -> str:
        """Of the weights as they are now, wherever they are."""
        return _sha256(*(self.state_dict()[name] for name in sorted(self.state_dict())))


def train_classifier(
    data: str | Dataset, *, seed: int = 0, steps: int | None = None, cache: bool = True, progress: bool = False
) -> Classifier:
    """A classifier trained on the training split, in eval mode on the CPU; the same one each time.

    Trains in float32 on one thread, for seconds or a minute, with the images moved by up to a sixteenth of their size,
    turned by up to ten degrees and scaled by up to a tenth; those of a `rigid` card by up to a thirty-second, and no
    more. A colour image's channels are moved together.

    Args:
        data: A name of `zoo.datasets`, or a data set; it must have images and labels. For scores of binary images train
            on binary images ('digits-binary').
        seed: Of the weights, the order of the examples, their shifts and the dropout.
        steps: Of 128 images each; None is 2,000.
        cache: Looks for it, and leaves it, in the cache folder, under the sha256 of data and settings.
        progress: Shows a bar.

    Raises: OptionError for data without labels, ShapeError for what are no images.
    """
    steps = STEPS if steps is None else steps
    dataset = datasets.load(data) if isinstance(data, str) else data
    if not {"train", "test"} <= dataset.labels.keys():
        raise OptionError(f"The data set {dataset.name!r} has no class labels, so no classifier can be trained on it.")
    labels = {split: dataset.labels[split] for split in ("train", "test")}
    x = {split: dataset.split(split).x.to("cpu", torch.float32) for split in labels}
    classes = int(max(each.max() for each in labels.values())) + 1
    # Built before the cache is asked, so that what are no images fail at once.
    with _alike(seed):
        network = Classifier(x["train"].shape[1:], classes)
    data_sha256 = _sha256(x["train"], labels["train"])
    settings = {"form": FORM, "data_sha256": data_sha256, "classes": classes, "seed": seed, "steps": steps}
    settings |= {"rigid": True} if dataset.card.rigid else {}
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
    kept = cache_folder() / "classifiers" / f"{dataset.name.replace(os.sep, '_')}-{key}.safetensors"
    if cache and (found := _read(network, kept)) is not None:
        return found.eval()
    started = time.perf_counter()
    with _alike(seed + 1):
        label, move = f"classifier of {dataset.name}", _shifted if dataset.card.rigid else _moved
        run = Run(Data(x["train"], labels["train"]), seed=seed, progress=progress)
        _train(network, run, steps, move, label)
    network.eval()
    right = network.classify(x["test"]) == labels["test"]
    network.training_of = Training(
        data=dataset.name,
        data_sha256=data_sha256,
        seed=seed,
        steps=steps,
        train_size=len(x["train"]),
        test_size=len(x["test"]),
        test_accuracy=float(right.double().mean()),
        seconds=time.perf_counter() - started,
        sha256=network.sha256,
    )
    if cache:
        _write(network, kept)
    return network


@contextmanager
def _alike(seed: int) -> Iterator[None]:
    """From a seed, in float32 and on one thread: sums of several threads come in another order, and others out."""
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float32)
    try:
        with seeded(seed):
            yield
    finally:
        torch.set_num_threads(threads)
        torch.set_default_dtype(dtype)


def _train(network: Classifier, run: Run, steps: int, move: Callable[[Tensor], Tensor], label: str) -> None:
    optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE)

    def step(batch: Data, now: Mapping[str, Any]) -> Mapping[str, Tensor]:
        assert batch.context is not None
        loss = cross_entropy(network(move(batch.x)), batch.context)
        descend(optimizer, loss, now["lr"])
        return {"loss": loss.detach()}

    parts = {"network": network, "optimizer": optimizer}
    scalars = {"lr": rate("cosine", LEARNING_RATE, steps)}
    network.train()
    Loop(run, Schedule(steps=steps), parts, label=label, step=step, scalars=scalars).train()


def _moved(x: Tensor) -> Tensor:
    """The images after a random affine map each."""
    turn, scale, *shift = (2 * torch.rand(len(x), dtype=x.dtype) - 1 for _ in range(4))
    turn, scale = math.radians(10) * turn, 1 + 0.1 * scale
    # The grid goes from -1 to 1: an eighth of a unit is a sixteenth of the size.
    return _mapped(x, scale * turn.cos(), scale * turn.sin(), *(each / 8 for each in shift))


def _shifted(x: Tensor) -> Tensor:
    """The images after a random shift each."""
    right, down = (torch.rand(len(x), dtype=x.dtype) / 8 - 1 / 16 for _ in range(2))
    return _mapped(x, torch.ones_like(right), torch.zeros_like(right), right, down)


def _mapped(x: Tensor, cos: Tensor, sin: Tensor, right: Tensor, down: Tensor) -> Tensor:
    """The images after an affine map each, zero outside."""
    n = len(x)
    maps = torch.stack([torch.stack([cos, -sin, right], 1), torch.stack([sin, cos, down], 1)], 1)
    images = x.reshape(n, *image_shape(x.shape[1:]))
    grid = affine_grid(maps, list(images.shape), align_corners=False)
    return grid_sample(images, grid, align_corners=False).reshape(x.shape)


def _sha256(*tensors: Tensor) -> str:
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def _read(network: Classifier, path: Path) -> Classifier | None:
    """The network with the weights in the cache; None where there are none, or damaged ones."""
    filled = copy.deepcopy(network)
    try:
        with safe_open(path, "pt") as kept:
            filled.load_state_dict({name: kept.get_tensor(name) for name in kept.keys()})  # noqa: SIM118
            filled.training_of = Training(**json.loads(kept.metadata()["training"]))
    except (OSError, SafetensorError, RuntimeError, KeyError, TypeError, ValueError):
        return None
    return filled if filled.training_of.sha256 == filled.sha256 else None


def _write(network: Classifier, path: Path) -> None:
    assert network.training_of is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    # Written aside and renamed, so that a reader in another process finds a whole file or none.
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    # Not `save_file`, which lets nobody else read it, whatever the umask says.
    temporary.write_bytes(save(network.state_dict(), {"training": json.dumps(asdict(network.training_of))}))
    os.replace(temporary, path)
