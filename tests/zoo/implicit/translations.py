"""Letters translated by the small presets, once for all tests that ask how well."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from inference import fit
from inference.evaluation.samples.translation import recognition
from zoo import catalogue, datasets
from zoo.datasets.data import Data

PAIRS = ("glyphs-sans-to-serif", "glyphs-sans-to-bold-serif")


def held_out(pairs: str) -> Data:
    """Letters that no training looks at, in single precision."""
    test = datasets.load(pairs).test
    assert test.context is not None
    return Data(test.x.float(), test.context.float())


@cache
def translated(name: str, pairs: str, adversarial: float | None = None, seed: int = 0) -> Tensor:
    """What a program makes of the test letters in the first face.

    Args:
        name: Of the program; 'cyclegan' learns from letters that are no pairs.
        pairs: The data set.
        adversarial: The option, where it is not the preset's.
        seed: Of everything random.
    """
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        data = datasets.load(f"{pairs}-unpaired" if name == "cyclegan" else pairs)
        small = catalogue.get(name).presets["small"]
        changes = {} if adversarial is None else {"adversarial": adversarial}
        torch.manual_seed(seed)
        program = catalogue.create_for(name, data.train, "small")
        fit(program, data, small.method, seed=seed, device="cpu", **{**small.fit, **changes})
        torch.manual_seed(seed)
        return program.translate(held_out(pairs).context)
    finally:
        torch.set_default_dtype(default)


def recognised(made: Tensor, pairs: str) -> float:
    """Share of letters that are nearest to their own true image, of all test letters."""
    return recognition(made, held_out(pairs).x).share
