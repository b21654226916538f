"""The arguments of a model of the user's own, as data: tensors by the names of the function's parameters.

Such a model may be any Pyro code, so nothing is known of how it uses batch dimensions: whoever meets `Arguments` in the
place of a context runs model and guide one particle at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

__all__ = ["Arguments"]


AXES = {"first": 0, "last": -1, "none": None}
"""Where an argument of the model has the examples."""


class Arguments(dict[str, Tensor]):
    """Tensors by name, rows first: (N, ...) where a plate holds N examples, else (1, ...), all data being one unit.

    Args:
        tensors: By name.
        examples: The plate that holds the examples; None where all data are one unit.
        axes: Where the model wants each argument to have them, a key of AXES; what has none is the same in all rows.
    """

    def __init__(
        self, tensors: Mapping[str, Tensor], examples: str | None = None, axes: Mapping[str, str] | None = None
    ):
        super().__init__(tensors)
        self.examples, self.axes = examples, dict(axes or {})

    def map(self, change: Callable[[Tensor], Tensor]) -> Arguments:
        """Each tensor changed."""
        return self.like([change(value) for value in self.values()])

    def like(self, tensors: Sequence[Tensor]) -> Arguments:
        """The same with other tensors, in the same order."""
        return Arguments(dict(zip(self, tensors, strict=True)), self.examples, self.axes)

    def rows(self, index: Any) -> Arguments:
        """The chosen rows of each."""
        return self.map(lambda value: value[index])

    def plain(self) -> dict[str, Tensor]:
        """As the model takes them."""
        if self.examples is None:
            return {name: value[0] for name, value in self.items()}
        where = {name: AXES[self.axes[name]] for name in self}
        return {n: v[0] if where[n] is None else v.movedim(0, where[n] or 0) for n, v in self.items()}

    def to(self, *args: Any, **kwargs: Any) -> Arguments:
        """As `Tensor.to`; whole numbers and truth values keep their dtype."""

        def moved(value: Tensor) -> Tensor:
            there = value.to(*args, **kwargs)
            return there if value.is_floating_point() else value.to(there.device)

        return self.map(moved)

    def named(self) -> dict[str, Tensor]:
        """Under the names that files give them, which say where the examples are."""
        return {f"{name}.{self.axes.get(name, 'first')}": value for name, value in self.items()}

    @classmethod
    def from_named(cls, tensors: Mapping[str, Tensor], examples: str | None) -> Arguments:
        """What `named` gave."""
        names = {key: key.rpartition(".") for key in tensors}
        axes = {name: axis for name, _, axis in names.values()} if examples is not None else None
        return cls({names[key][0]: value for key, value in tensors.items()}, examples, axes)
