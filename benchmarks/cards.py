"""Model cards: what `zoo list` and `zoo show` know of programs and data sets, as plain dictionaries."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch

from inference.fit import methods_for
from zoo import catalogue, datasets, program
from zoo.adopted import Adopted
from zoo.datasets import Data
from zoo.energy.base import EnergyProgram
from zoo.errors import OptionError, ZooError

__all__ = ["dataset_list", "program_card", "program_list"]

CAPABILITIES: dict[type, str] = {
    program.ExactDensity: "exact density log p(x)",
    program.ExactEvidence: "exact evidence of all the data",
    program.ExactPosterior: "exact posterior",
    program.ClosedFormEM: "closed-form EM",
    program.CoordinateAscent: "coordinate ascent (CAVI)",
}


def program_list() -> list[dict[str, Any]]:
    """Name, family, what it is, default data and paper of every program of the catalogue."""
    found = []
    for name in catalogue.names():
        try:
            cls = catalogue.get(name)
        except ZooError as error:  # a package of somebody else's must not hide the rest
            found.append({"name": name, "family": "broken", "what": str(error), "data": "", "paper": ""})
            continue
        found.append(
            {"name": name, "family": cls.family, "what": _first_line(cls), "data": cls.dataset, "paper": cls.paper}
        )
    return sorted(found, key=lambda card: (card["family"], card["name"]))


def dataset_list() -> list[dict[str, Any]]:
    """Name, shape, support, split sizes, description, source and licence of every data set of the registry."""
    found = []
    for name in datasets.names():
        card = datasets.card(name)
        found.append(
            {
                "name": name,
                "shape": list(card.shape),
                "support": card.support,
                "splits": dict(card.splits),
                "description": card.description,
                "source": card.source,
                "licence": card.licence,
            }
        )
    return found


def program_card(name: str, data: str | None = None) -> dict[str, Any]:
    """The card of one program, built for a data set (its default one if None).

    Raises: UnknownNameError; DatasetError for data that were asked for and are not there.
    """
    cls = catalogue.get(name)
    if issubclass(cls, Adopted):
        built = _adopted(name, data)
    else:
        built = catalogue.create_for(name, datasets.load(data).train if data is not None else _example(cls.dataset))
    promises = [what for protocol, what in CAPABILITIES.items() if isinstance(built, protocol)]
    if isinstance(built, EnergyProgram):
        promises = ["density up to a constant (energy)"]
    elif isinstance(built, program.ImplicitProgram):
        promises = ["samples only: no density (implicit)"]
    return {
        "name": name,
        "what": _first_line(cls),
        "family": cls.family,
        "paper": cls.paper,
        "default_data": "yours: " + ", ".join(built.call.free) if isinstance(built, Adopted) else cls.dataset,
        "built_for": data or cls.dataset,
        "event_shape": list(built.event_shape),
        "support": _words(built.support),
        "sites": [
            {
                "name": site.name,
                "shape": list(site.event_shape),
                "distribution": site.distribution,
                "scope": "global" if site.is_global else "one for each example",
                "support": _words(site.support),
            }
            for site in built.sites().values()
        ],
        "parameters": built.parameter_count(),
        "capabilities": promises,
        "methods": methods_for(built),
        "presets": {
            preset: {"program": dict(p.program), "method": p.method, "fit": dict(p.fit), "data": p.data or cls.dataset}
            for preset, p in cls.presets.items()
        },
        "options": {option: _default(parameter) for option, parameter in _parameters(cls) if option != "self"},
    }


def _adopted(name: str, data: str | None) -> program.Program:
    """Adopted code that has met data.

    Raises: OptionError where there are none and it needs some.
    """
    built = catalogue.create(name)
    assert isinstance(built, Adopted)
    if data is None and built.call.needed:
        raise OptionError(
            f"What the sites of {name} are depends on its data: give them, --data f.csv, with "
            f"{', '.join(built.call.needed)} as columns."
        )
    built.take(None if data is None else built.call.read(Path(data)))
    return built


def _parameters(cls: type[program.Program]) -> list[tuple[str, inspect.Parameter]]:
    """Of the constructor, or of adopted code."""
    if issubclass(cls, Adopted):
        return [(parameter.name, parameter) for parameter in cls.code.parameters]
    return list(inspect.signature(cls.__init__).parameters.items())


def _example(name: str) -> Data:
    """Data of the right shape; a set that would have to be downloaded is stood in for by zeros."""
    card = datasets.card(name)
    if not card.files:
        return datasets.load(name).train
    return Data(torch.zeros(2, *card.shape))


def _first_line(cls: type) -> str:
    return (inspect.getdoc(cls) or "").split("\n", 1)[0]


def _words(support: Any) -> str:
    """A constraint without its class decoration: 'Boolean()', 'Real()', 'IntegerInterval(...)' in lower case."""
    return str(support).removesuffix("()").replace("IndependentConstraint", "").strip("()").lower()


def _default(parameter: inspect.Parameter) -> Any:
    return "(required)" if parameter.default is inspect.Parameter.empty else parameter.default
