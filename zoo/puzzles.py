"""Contexts that are made of the examples themselves: some parts of an image, a coarser one, a noisy one.

A task says how, and which numbers of an example its contexts tell as they are. The quadrants are those of the MNIST
experiments of Sohn, Lee & Yan, "Learning structured output representation using deep conditional generative models",
NIPS 2015.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from zoo.acceptance import Acceptance
from zoo.arrays import as_tensor
from zoo.errors import OptionError, SupportError
from zoo.nets import image_shape
from zoo.options import Count, Counts, Fraction, Length, Natural, NonNegative, Range, Shape, check_value
from zoo.specs import Spec, make_part

__all__ = [
    "TASKS", "LowResolution", "Noisy", "Parts", "Patches", "Quadrants", "Solves", "Task", "Told", "make_task",
    "parts_of", "puzzle_from_boxes",
]  # fmt: skip


class Told(NamedTuple):
    """What contexts give away of their examples."""

    values: Tensor
    """(B, *event_shape), anything where nothing is told."""
    known: Tensor
    """Booleans (B, *event_shape)."""


class Task(nn.Module):
    """Makes contexts of images.

    Args:
        event_shape: (height, width) or (channels, height, width); given by the program.

    Raises: ShapeError for what are no images.
    """

    def __init__(self, event_shape: Shape):
        super().__init__()
        self.event_shape, self.shape = torch.Size(event_shape), image_shape(event_shape)

    @property
    def context_shape(self) -> torch.Size:
        """Of the context of one example."""
        raise NotImplementedError(f"{type(self).__name__} must define context_shape")

    def forward(self, x: Tensor, seed: int | None = None) -> Tensor:
        """Examples (B, *event_shape) to contexts (B, *context_shape); with a seed always the same."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(x, seed)")

    def told(self, context: Tensor) -> Told | None:
        """The numbers of the examples that contexts (B, *context_shape) hold as they are; None for none."""
        return None

    def check(self, context: Tensor) -> None:
        """Raises SupportError for what is no context of this task."""


class Parts(Task):
    """Some pixels: a context holds the image, 0 where it is not given, and a plane that is 1 where it is.

    Give `mask`.
    """

    @property
    def context_shape(self) -> torch.Size:
        """(channels + 1, height, width)."""
        channels, *size = self.shape
        return torch.Size([channels + 1, *size])

    def mask(self, x: Tensor, seed: int | None = None) -> Tensor:
        """Which pixels of examples (B, *event_shape) are given, booleans that broadcast with (B, 1, height, width)."""
        raise NotImplementedError(f"{type(self).__name__} must define mask(x, seed)")

    def forward(self, x: Tensor, seed: int | None = None) -> Tensor:
        """What is given, and where."""
        return parts_of(x.reshape(len(x), *self.shape), self.mask(x, seed))

    def told(self, context: Tensor) -> Told:
        """What is given."""
        shape = (len(context), *self.event_shape)
        known = (context[:, -1:] > 0.5).expand(-1, self.shape[0], -1, -1)
        return Told(context[:, :-1].reshape(shape), known.reshape(shape))

    def check(self, context: Tensor) -> None:
        """Each pixel is given or not.

        Raises: SupportError.
        """
        if bool(((context[:, -1] != 0) & (context[:, -1] != 1)).any()):
            raise SupportError(
                "The last plane of a puzzle must be 1 where a pixel is given and 0 elsewhere, got values in between; "
                "puzzle_from_boxes(x, boxes) makes one."
            )


class Quadrants(Parts):
    """One quarter of an image (bottom left), its left half, or all but the bottom right.

    Args:
        event_shape: Given by the program.
        given: How many quadrants are given: 1, 2 or 3.
    """

    where: Tensor

    def __init__(self, event_shape: Shape, given: Annotated[int, Range(least=1, most=3)] = 1):
        super().__init__(event_shape)
        check_value("given", given, Annotated[int, Range(least=1, most=3)])
        _, height, width = self.shape
        bottom, left = torch.arange(height) >= height // 2, torch.arange(width) < width // 2
        where = {1: bottom[:, None] & left, 2: left.expand(height, -1), 3: ~bottom[:, None] | left}[given]
        self.register_buffer("where", where.clone(), persistent=False)

    def mask(self, x: Tensor, seed: int | None = None) -> Tensor:
        """The same of every image."""
        return self.where


class Patches(Parts):
    """Some patches of a grid, any subset of a number as likely as another.

    Args:
        event_shape: Given by the program.
        grid: Rows and columns of patches.
        keep: Least and largest share of patches that are given, before it is rounded to whole patches.

    Raises: OptionError for a grid finer than the image or shares that are not in order.
    """

    patch: Tensor

    def __init__(
        self,
        event_shape: Shape,
        grid: Annotated[Counts, Length(2)] = (4, 4),
        keep: Annotated[Sequence[Fraction], Length(2)] = (0.2, 0.7),
    ):
        super().__init__(event_shape)
        if keep[0] > keep[1]:
            raise OptionError(f"keep must be the least share of given patches, then the largest; got {list(keep)}.")
        for patches, side in zip(grid, self.shape[1:], strict=True):
            if patches > side:
                raise OptionError(
                    f"A grid of {list(grid)} patches is finer than images of {self.shape[1:]} pixels; take fewer."
                )
        self.grid, self.keep = (grid[0], grid[1]), (keep[0], keep[1])
        # Which row and which column of the grid a pixel is in.
        rows, columns = (
            torch.arange(side) * patches // side for patches, side in zip(grid, self.shape[1:], strict=True)
        )
        self.register_buffer("patch", rows[:, None] * grid[1] + columns, persistent=False)

    def mask(self, x: Tensor, seed: int | None = None) -> Tensor:
        """Of each image others."""
        patches = self.grid[0] * self.grid[1]
        if seed is None:
            drawn = torch.rand(len(x), patches + 1, dtype=x.dtype, device=x.device)
        else:  # on the CPU, so that every device has the same puzzles
            drawn = torch.rand(len(x), patches + 1, generator=torch.Generator().manual_seed(seed)).to(x)
        least, most = (round(share * patches) for share in self.keep)
        count = (least + (most - least + 1) * drawn[:, -1:]).floor()
        kept = drawn[:, :-1].argsort(-1).argsort(-1) < count
        return kept[:, self.patch].unsqueeze(1)


class LowResolution(Task):
    """The means of square blocks.

    Args:
        event_shape: Given by the program.
        factor: Sides of a block in pixels; it divides those of the image.

    Raises: OptionError.
    """

    def __init__(self, event_shape: Shape, factor: Count = 4):
        super().__init__(event_shape)
        if any(side % factor for side in self.shape[1:]):
            raise OptionError(
                f"Images of {self.shape[1:]} pixels are not made of whole blocks of {factor} x {factor}; "
                "take a factor that divides both sides."
            )
        self.factor = factor

    @property
    def context_shape(self) -> torch.Size:
        """(channels, height / factor, width / factor)."""
        channels, height, width = self.shape
        return torch.Size([channels, height // self.factor, width // self.factor])

    def forward(self, x: Tensor, seed: int | None = None) -> Tensor:
        """Means."""
        return avg_pool2d(x.reshape(len(x), *self.shape), self.factor)


class Noisy(Task):
    """The image and normal noise.

    Args:
        event_shape: Given by the program.
        sd: The noise's standard deviation.
    """

    def __init__(self, event_shape: Shape, sd: NonNegative = 0.5):
        super().__init__(event_shape)
        self.sd = sd

    @property
    def context_shape(self) -> torch.Size:
        """(channels, height, width)."""
        return torch.Size(self.shape)

    def forward(self, x: Tensor, seed: int | None = None) -> Tensor:
        """The sum."""
        images = x.reshape(len(x), *self.shape)
        if seed is None:
            return images + self.sd * torch.randn_like(images)
        return images + self.sd * torch.randn(images.shape, generator=torch.Generator().manual_seed(seed)).to(images)


TASKS: dict[str, type[Task]] = {
    "quadrants": Quadrants, "patches": Patches, "low-resolution": LowResolution, "noisy": Noisy
}  # fmt: skip
"""Name -> class; its constructor's arguments are the options."""


def make_task(task: Spec, event_shape: Sequence[int]) -> Task:
    """A task by name, or by name and options ({"name": "quadrants", "given": 2}).

    Raises: UnknownNameError, OptionError, ShapeError.
    """
    return make_part("task", task, TASKS, event_shape=event_shape)


class Solves(Acceptance):
    """The part of a program that takes its contexts from a `task`: `zoo.program.MakesContexts`.

    Data need no contexts: `accept` makes those of the task, always the same of the same examples, and a fit makes new
    ones at every step.
    """

    task: Task

    def puzzles(self, x: Tensor, seed: int | None = None) -> Tensor:
        """Contexts (B, *context_shape) of examples (B, *event_shape).

        Args:
            x: Examples.
            seed: For the same contexts every time; None draws from torch's generator.
        """
        return self.task(x, seed)

    def accept(self, x: Any, context: Any = None) -> tuple[Tensor, Tensor | None]:
        """Examples without a context are accepted with one of the task, the same every time."""
        if context is not None:
            return super().accept(x, context)
        x = as_tensor(x, dtype=self.computes_in())
        return super().accept(x, self.puzzles(x, seed=0) if x.shape[1:] == self.event_shape else None)

    def example_context(self, n: int) -> Tensor:
        """Those of black images."""
        return self.puzzles(self.blank(n), seed=0)

    def blank(self, n: int) -> Tensor:
        """Examples of zeros (n, *event_shape), where the program is and in its dtype."""
        module: Any = self
        return next(module.parameters()).new_zeros(n, *self.event_shape)

    def check_context(self, context: Tensor | None) -> None:
        """As every program; and a context must be one of the task.

        Raises: SupportError; what `Program.check_context` raises.
        """
        super().check_context(context)
        if context is not None:
            self.task.check(context)


def parts_of(x: Tensor, mask: Tensor) -> Tensor:
    """Images (B, channels, height, width) under a mask of booleans that broadcasts with one channel of them, and the
    mask, (B, channels + 1, height, width)."""
    mask = mask.to(x).expand(len(x), 1, -1, -1)
    return torch.cat([x * mask, mask], 1)


def puzzle_from_boxes(x: Tensor, boxes: Sequence[Sequence[int]]) -> Tensor:
    """The puzzle of each image that gives what lies in some boxes: contexts (B, channels + 1, height, width).

    Args:
        x: Images (B, height, width) or (B, channels, height, width).
        boxes: Each [top, left, height, width] in pixels, wholly inside the image; none gives nothing.

    Raises: ShapeError for what are no images; OptionError for a box that is none or reaches outside.
    """
    shape = image_shape(x.shape[1:])
    mask = torch.zeros(1, 1, *shape[1:], dtype=torch.bool, device=x.device)
    for box in boxes:
        check_value("a box", box, Annotated[Sequence[Natural], Length(4)])
        top, left, height, width = box
        if min(height, width) < 1 or top + height > shape[1] or left + width > shape[2]:
            raise OptionError(
                f"The box {list(box)}, [top, left, height, width], must lie inside images of {shape[1:]} pixels and "
                "hold at least one."
            )
        mask[..., top : top + height, left : left + width] = True
    return parts_of(x.reshape(len(x), *shape), mask)
