"""What a fit is given, as data: from names, files and memory, checked against program and method before any compute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from inference.method import Method
from zoo import catalogue, datasets
from zoo.adopted import Adopted
from zoo.arrays import count_gaps
from zoo.datasets import Data, Dataset
from zoo.datasets.tables import Address
from zoo.errors import CapabilityError, NonFiniteError, OptionError, ZooError
from zoo.implicit.translators import ImageTranslation, TranslatesBack
from zoo.program import Program
from zoo.weights import weighed

__all__ = ["accepted", "arguments_of", "as_dataset", "check_missing", "weighted"]


def as_dataset(data: Any, program: Program | str | None = None) -> tuple[str, Data, Data | None]:
    """(name, train, valid) from a name, a file, a Dataset or what `Data.of` takes; None is the program's default."""
    if data is None:
        if program is None:
            raise OptionError("Give data (a name, a file, a tensor or a Dataset).")
        data = (catalogue.get(program) if isinstance(program, str) else type(program)).dataset
    if isinstance(data, (str, Path)):
        data = datasets.load(data)
    if isinstance(data, Dataset):
        _check_pairs(data, program)
        return data.name, Data.of(data.train), _valid(data)
    return "tensor", Data.of(data), None


def _check_pairs(data: Dataset, program: Program | str | None) -> None:
    """Raises CapabilityError for a program of pairs where images of two kinds lie side by side by chance."""
    cls = catalogue.get(program) if isinstance(program, str) else type(program)  # of no program, NoneType
    if "train" in data.card.unpaired and issubclass(cls, ImageTranslation) and not issubclass(cls, TranslatesBack):
        raise CapabilityError(
            f"{cls.__name__} learns from pairs, and the images of {data.name!r} are answers to nothing: take "
            "'cyclegan', which learns from two kinds of images, or data whose images are paired."
        )


def arguments_of(data: Any, program: Adopted) -> tuple[str, Data, Data | None]:
    """(name, train, valid) for a program whose data are arguments: as `take` has them, or a file of arrays by name."""
    if isinstance(data, (str, Path)):
        path, form = Address.of(str(data))
        if form.fields:
            raise OptionError(
                f"The data of your own code are its arguments, and {path} is read by their names: leave target and "
                "context out."
            )
        return str(data), program.take(program.call.read(Path(data))), None
    if isinstance(data, Dataset):
        return data.name, program.take(data.train), _valid(data)
    return "tensor", program.take(data), None


def _valid(data: Dataset) -> Data | None:
    """None where a data set says that it has no validation split."""
    return None if data.card.splits.get("valid") == 0 else data.valid


def accepted(program: Program, valid: Data) -> Data:
    """Held-out data as the program takes them; errors say that it is they."""
    try:
        return program.take(valid)
    except ZooError as error:
        raise type(error)(f"The validation split cannot be used: {error}") from error


def check_missing(method: Method, *splits: Data | None) -> None:
    """Raises NonFiniteError for missing values, which the program takes and the method does not."""
    missing = sum(count_gaps(split.x)[0] for split in splits if split is not None)
    if missing and not method.takes_missing:
        raise NonFiniteError(
            f"Method {method.name!r} looks at whole examples, and {missing} values are missing (NaN): fill them in, or "
            "take a method that works by densities, 'svi' say."
        )


def weighted(method: Method, program: Program, train: Data, weights: Any) -> Data:
    """Training data with a weight for each row.

    Raises: CapabilityError for a method that cannot weigh, and for adopted code; what `zoo.weights.weighed` raises.
    """
    if not method.takes_weights:
        raise CapabilityError(f"Method {method.name!r} cannot weigh rows; 'svi' and 'nuts' can. Or repeat the rows.")
    if isinstance(program, Adopted):
        raise CapabilityError(f"{type(program).__name__} is adopted code: weigh its rows there, by poutine.scale.")
    return Data(train.x, weighed(weights, train.x, train.context))
