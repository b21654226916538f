"""Every public door with what should not come through it, and with the same numbers in other clothes."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from inference import evaluation, fit, make_method
from inference.evaluation.noisy_decoder import decoder_likelihood
from inference.evaluation.queries import anomalies, completion, compression
from inference.evaluation.samples.codes import aggregate_codes
from inference.fit import METHODS
from inference.fitted import Fit
from zoo import catalogue
from zoo.datasets import Card, Data, Dataset
from zoo.errors import CapabilityError, EmptyDataError, SupportError, ZooError
from zoo.program import MakesContexts, Program

ROWS = 6
SMALL: dict[str, dict[str, Any]] = {
    "full-joint": {"event_shape": [4]},
    "dequantised-flow": {"values": 4},
    "hmm": {"lengths": True},
    "gated-pixelcnn": {"classes": 3},
    "wavenet": {"event_shape": [16], "classes": 3, "layers": 2},
    "ar-audio": {"event_shape": [16]},
}
"""Options of programs that are otherwise large, or have no context unless asked."""


@dataclass(frozen=True)
class Given:
    """A program and data that it takes."""

    program: Program
    x: Tensor
    context: Tensor | None


@cache
def given(name: str) -> Given:
    """Built once; doors must leave it as it was."""
    torch.manual_seed(0)
    program = catalogue.create(name, **SMALL.get(name, {})).eval()
    context = program.example_context(ROWS)
    return Given(program, program.generate(ROWS, context), context)


# What is put through the doors


Pair = tuple[Any, Any]


def _with(x: Tensor, at: int, value: float) -> Tensor:
    x = x.clone()
    x.view(-1)[at % x.numel()] = value
    return x


def _outside(case: Given, at: int, amount: float) -> Pair | None:
    """One number outside the support; None where every number is inside."""
    x = _with(case.x, at, amount)
    return None if bool(case.program.support.check(x).all()) else (x, case.context)


def _context(case: Given, change: Callable[[Tensor], Any]) -> Pair | None:
    return None if case.context is None else (case.x, change(case.context))


def _unsound(case: Given, at: int, value: float) -> Pair | None:
    if case.context is None:
        return None
    context = _with(case.context, at, value)
    return None if bool(case.program.context_support.check(context).all()) else (case.x, context)


BAD: dict[str, Callable[[Given, int], Pair | None]] = {
    "nan": lambda c, at: None if c.program.takes_missing else (_with(c.x, at, torch.nan), c.context),
    "inf": lambda c, at: (_with(c.x, at, torch.inf), c.context),
    "-inf": lambda c, at: (_with(c.x, at, -torch.inf), c.context),
    # A column of single numbers is none: files have them so.
    "one more dimension": lambda c, at: (
        c.x.unsqueeze(1 + at % c.x.ndim) if c.x.ndim > 1 else c.x[:, None, None],
        c.context,
    ),
    "one number more": lambda c, at: (torch.cat([c.x, c.x], -1), c.context) if c.x.ndim > 1 else None,
    "one number": lambda c, at: (c.x.reshape(ROWS, -1)[:, :1], c.context) if c.x[0].numel() != 1 else None,
    "one example": lambda c, at: (c.x[0], c.context) if c.x.ndim > 1 else None,
    "a number": lambda c, at: (c.x.flatten()[0], c.context),
    "empty": lambda c, at: (c.x[:0], None if c.context is None else c.context[:0]),
    "complex": lambda c, at: (c.x.to(torch.complex64), c.context),
    "complex array": lambda c, at: (c.x.numpy().astype(complex), c.context),
    "text": lambda c, at: (c.x.numpy().astype(str), c.context),
    "objects": lambda c, at: (c.x.numpy().astype(object), c.context),
    "sparse": lambda c, at: (c.x.to_sparse(), c.context),
    "dates": lambda c, at: (np.zeros(c.x.shape, "datetime64[D]"), c.context),
    "a mapping": lambda c, at: ({"x": c.x}, c.context),
    "a word": lambda c, at: (b"data", c.context),
    "ragged": lambda c, at: ([[1.0], [2.0, 3.0]], c.context),
    "minus a half": lambda c, at: _outside(c, at, -0.5),
    "minus one": lambda c, at: _outside(c, at, -1.0),
    "seven": lambda c, at: _outside(c, at, 7.0),
    "255": lambda c, at: _outside(c, at, 255.0),
    "300,000": lambda c, at: _outside(c, at, 3e5),
    "a billion": lambda c, at: _outside(c, at, 1e9),
    "a context too many": lambda c, at: (c.x, torch.zeros(ROWS, 2)) if c.context is None else None,
    "no context": lambda c, at: None if isinstance(c.program, MakesContexts) else _context(c, lambda context: None),
    "fewer contexts": lambda c, at: _context(c, lambda context: context[:-1]),
    "wider contexts": lambda c, at: _context(c, lambda context: context.unsqueeze(-1)),
    "context nan": lambda c, at: _context(c, lambda context: _with(context, at, torch.nan)),
    "context inf": lambda c, at: _context(c, lambda context: _with(context, at, torch.inf)),
    "context text": lambda c, at: _context(c, lambda context: context.numpy().astype(str)),
    "context -3": lambda c, at: _unsound(c, at, -3.0),
    "context 0": lambda c, at: _unsound(c, at, 0.0),
    "context a half": lambda c, at: _unsound(c, at, 0.5),
    "context a million": lambda c, at: _unsound(c, at, 1e6),
}
"""What must be refused: (case, a random number) -> (x, context), or None where it is no fault for the program."""


def _cast(dtype: torch.dtype) -> Callable[[Given], Pair | None]:
    def made(case: Given) -> Pair | None:
        x = case.x.to(dtype)
        return (x, case.context) if torch.equal(x.to(case.x.dtype), case.x) else None

    return made


def _torch(case: Given) -> TensorDataset:
    return TensorDataset(case.x) if case.context is None else TensorDataset(case.x, case.context)


def _read_only(x: Tensor) -> np.ndarray:
    array = x.numpy().copy()
    array.flags.writeable = False
    return array


GOOD: dict[str, Callable[[Given], Pair | None]] = {
    **{str(d): _cast(d) for d in (torch.float64, torch.float32, torch.float16, torch.bool, torch.uint8, torch.int64)},
    "array": lambda c: (c.x.numpy(), None if c.context is None else c.context.numpy()),
    "big-endian": lambda c: (c.x.numpy().astype(">f8"), c.context),
    "backwards twice": lambda c: (c.x.numpy()[::-1].copy()[::-1], c.context),
    "read-only": lambda c: (_read_only(c.x), c.context),
    "lists": lambda c: (c.x.tolist(), None if c.context is None else c.context.tolist()),
    "columns first": lambda c: (np.asfortranarray(c.x.numpy()), c.context),
    "data frame": lambda c: (pd.DataFrame(c.x.numpy()), c.context) if c.x.ndim == 2 else None,
    "series": lambda c: (pd.Series(c.x.numpy()), c.context) if c.x.ndim == 1 else None,
    "data set of torch": lambda c: (_torch(c), None),
    "loader": lambda c: (DataLoader(_torch(c), batch_size=4), None),
}
"""The same numbers as something else, which must give the same answer."""


# The doors: (case, x, context) -> numbers


def cheapest(program: Program, seed: int = 0) -> tuple[str, dict[str, Any]]:
    """A method that takes the program, and options for as little work as it can do."""
    able = [name for name in METHODS if make_method(name).why_not(program) is None]
    name = able[seed % len(able)]
    options = {"steps": 1, "batch_size": 4, "compile": "never", "max_iterations": 1, "warmup": 4, "draws": 4}
    options |= {"particles": 8, "moves": 1, "leapfrog": 2, "paths": 2}
    known = make_method(name).option_names()
    return name, {option: value for option, value in options.items() if option in known}


def _fitted(case: Given, x: Any, context: Any, seed: int = 0) -> Tensor:
    method, options = cheapest(case.program, seed)
    found = fit(copy.deepcopy(case.program), _whole(context, x), method, initialise=False, **options)
    return torch.cat([p.detach().double().flatten() for p in found.program.parameters()] or [torch.zeros(1)])


def _fitted_by_name(case: Given, x: Any, context: Any) -> Tensor:
    name = catalogue.name_of(case.program)
    method, options = cheapest(case.program)
    scoped = {f"method.{option}": value for option, value in options.items()}
    found = fit(name, _whole(context, x), method, initialise=False, **scoped, **_sized(case))
    return torch.cat([p.detach().double().flatten() for p in found.program.parameters()] or [torch.zeros(1)])


def _sized(case: Given) -> dict[str, Any]:
    """Options that data do not say, so that by name the same program is built."""
    options = SMALL.get(catalogue.name_of(case.program), {})
    return {f"program.{k}": v for k, v in options.items() if k not in ("event_shape", "classes", "lengths")}


def _held_out(case: Given, x: Any, context: Any) -> Tensor:
    method, options = cheapest(case.program)
    train, valid = Data(case.x, case.context), Data(x, context)
    if isinstance(x, TensorDataset | DataLoader):
        valid = Data.of(x)
    card = Card("mine", "", shape=(), support="real", splits={}, source="", licence="")
    whole = Dataset(card, train=train, valid=valid, test=train)
    found = fit(copy.deepcopy(case.program), whole, method, initialise=False, **options)
    return torch.cat([p.detach().double().flatten() for p in found.program.parameters()] or [torch.zeros(1)])


def _drawn(case: Given, x: Any, context: Any) -> Tensor:
    if not case.program.sites():
        raise CapabilityError("no latents")
    found = _fit(case)
    if not found.draw(2, case.x, case.context):
        raise CapabilityError("the guide samples nothing")
    return torch.cat([value.double().flatten() for value in found.draw(2, x, context).values()])


def _fit(case: Given) -> Fit:
    train = Data(case.x, case.context)
    return Fit(program=case.program, method="svi", data="", seed=0, guide=case.program.guide, train=train)


def _predicted(case: Given, x: Any, context: Any) -> Tensor:
    return _fit(case).predict(2, x, context)["x"]


def _whole(context: Any, x: Any) -> Any:
    return x if context is None else (x, context)


def _inpainted(case: Given, x: Any, context: Any) -> Tensor:
    known = torch.ones(case.program.event_shape, dtype=torch.bool)
    return completion.inpaint(case.program, x, known, context, particles=2, steps=2).values


def _decoded(case: Given, x: Any, context: Any) -> Tensor:
    options: dict[str, Any] = {"sigma": 0.5, "chains": 1, "steps": 1, "leapfrog": 1}
    return decoder_likelihood(case.program, _whole(context, x), **options)[0].values


def _density(case: Given, x: Any, context: Any) -> Tensor:
    """The densities themselves: what they give for what cannot be is no number, or an error."""
    if isinstance(x, TensorDataset | DataLoader):
        raise CapabilityError("a density takes tensors")
    for promise in ("log_prob", "log_evidence"):
        if hasattr(case.program, promise):
            value = getattr(case.program, promise)(x, context).detach()
            if len(value.shape) and len(value) == 0:
                raise EmptyDataError("no densities of no examples")
            if bool((torch.isneginf(value) | torch.isnan(value)).any()) or (value.ndim == 0 and not len(x)):
                raise SupportError("minus infinity")
            return value
    raise CapabilityError("no density of its own")


DOORS: dict[str, Callable[[Given, Any, Any], Tensor]] = {
    "fit": _fitted,
    "fit by name": _fitted_by_name,
    "fit, held out": _held_out,
    "density": _density,
    "Fit.draw": _drawn,
    "Fit.predict": _predicted,
    "Fit.encode": lambda c, x, y: _fit(c).encode(x, y),
    "log_evidence": lambda c, x, y: evaluation.log_evidence(c.program, _whole(y, x), particles=2).values,
    "log_likelihood": lambda c, x, y: evaluation.log_likelihood(_fit(c), _whole(y, x), particles=2).values,
    "elbo": lambda c, x, y: evaluation.elbo(c.program, None, _whole(y, x), 2).values,
    "weights": lambda c, x, y: evaluation.importance_log_weights(c.program, None, _whole(y, x), 2),
    "ais": lambda c, x, y: evaluation.ais(c.program, x, y, chains=1, steps=1, leapfrog=1).values,
    "anomalies": lambda c, x, y: anomalies.anomaly_scores(c.program, x, y, particles=2),
    "code_length": lambda c, x, y: anomalies.code_length(c.program, _whole(y, x), particles=2),
    "inpaint": _inpainted,
    "encode": lambda c, x, y: torch.tensor(list(compression.encode(c.program, x, y))),
    "decoder": _decoded,
    "codes": lambda c, x, y: aggregate_codes(c.program, c.program.guide, _whole(y, x))[0],
}


SIZED = {"one more dimension", "one number more", "one number", "one example", "seven", "255"}
"""No faults where a program is given by name: it is then built for them."""
ANY_CONTEXT = {"cvae"}
"""Programs that are built for contexts of any shape likewise."""
NO_CONTEXT = {name for name, options in SMALL.items() if {"lengths", "classes"} & set(options)}
"""Programs that are built without one where data have none."""


def attempt(name: str, door: str, what: str, at: int) -> str:
    """Puts something bad through a door; the name of the error, 'not asked' or what went wrong ('RAW ...')."""
    case = given(name)
    made = BAD[what](case, at)
    sized = what in SIZED or (what == "wider contexts" and name in ANY_CONTEXT)
    sized = sized or (what == "no context" and name in NO_CONTEXT)
    if made is None or (door == "fit by name" and sized):
        return "no fault here"
    before = {key: value.clone() for key, value in case.program.state_dict().items()}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            DOORS[door](case, *made)
    except ZooError as error:
        changed = [k for k, v in case.program.state_dict().items() if not torch.equal(v, before[k])]
        return f"RAW changed {changed}" if changed else type(error).__name__
    except Exception as error:
        return f"RAW {type(error).__name__}: {error}"
    return "RAW accepted"


def same_answer(name: str, door: str, what: str) -> str:
    """The same numbers as something else: 'same', the name of the error where the door is not the program's, or what
    went wrong ('RAW ...')."""
    case = given(name)
    made = GOOD[what](case)
    if made is None:
        return "no such form"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = DOORS[door](case, case.x, case.context)
            found = DOORS[door](case, *made)
    except CapabilityError as error:
        return type(error).__name__
    except Exception as error:
        return f"RAW {type(error).__name__}: {error}"
    if not torch.equal(found, expected) and not torch.allclose(found, expected, equal_nan=True):
        return "RAW another answer"
    # A single chain may miss the cell in which a rounded image lies, and weigh nothing.
    return "same" if bool(torch.isfinite(found).all()) or door == "ais" else "RAW not finite"
