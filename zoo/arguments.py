"""The arguments of a model of the user's own, as data: tensors by the names of the function's parameters.

Such a model may be any Pyro code, so nothing is known of how it uses batch dimensions: whoever meets `Arguments` in the
place of a context runs model and guide one particle at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

__all__ = ["Arguments"]


class Arguments(dict[str, Tensor]):
    """Tensors by name, rows first: (N, ...) where a plate holds N examples, else (1, ...), all data being one unit.

    Args:
        tensors: By name.
        examples: The plate that holds the examples; None where all data are one unit.
    """

    def __init__(self, tensors: Mapping[str, Tensor], examples: str | None = None):
        super().__init__(tensors)
        self.examples = examples

    def map(self, change: Callable[[Tensor], Tensor]) -> Arguments:
        """Each tensor changed."""
        return Arguments({name: change(value) for name, value in self.items()}, self.examples)

    def rows(self, index: Any) -> Arguments:
        """The chosen rows of each."""
        return self.map(lambda value: value[index])

    def to(self, *args: Any, **kwargs: Any) -> Arguments:
        """As `Tensor.to`; whole numbers and truth values keep their dtype."""

        def moved(value: Tensor) -> Tensor:
            there = value.to(*args, **kwargs)
            return there if value.is_floating_point() else value.to(there.device)

        return self.map(moved)
