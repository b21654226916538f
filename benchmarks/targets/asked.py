"""The truth for a program that nobody has prepared: exact where there is a way, draws in a file, or long chains.

truth = from_draws("radon.py:model", datasets.read_reference("~/posteriordb", "radon_mn-radon_pooled"))
truth = by_nuts("eight-schools", {}, datasets.load("eight_schools").train)
truth = exactly("coin", {}, datasets.load("coin").train)
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from pyro import poutine
from torch import Tensor

from benchmarks.targets.target import Reference, Target, Truth
from inference import fit
from inference.checkpoint import source_of
from inference.environment import seeded
from inference.guides.exact import exact_guide, exact_log_evidence
from inference.guides.grid import GridGuide
from inference.particles import draw
from zoo import catalogue, datasets
from zoo.adopted import Adopted, Code, adopted_class
from zoo.datasets import Data, ReferencePosterior
from zoo.datasets.sources import cache_folder
from zoo.errors import CapabilityError, DatasetError, OptionError, ShapeError, UnknownNameError
from zoo.flat import FlatPriors
from zoo.program import ExactPosterior, Program

__all__ = ["WAYS", "by_nuts", "exact_target", "exactly", "from_draws", "truth"]

Asked = str | Callable[..., Any]
"""A program's name or 'file.py:name', a class of programs, or plain Pyro code."""

DRAWS = 10_000
"""Exact draws behind moments that have no closed form here; they bring an error of a hundredth sd."""
LONG: dict[str, Any] = {"warmup": 1000, "draws": 2500, "chains": 4}
"""Options of NUTS as the truth."""
WAYS = ("exact", "nuts", "draws")


def truth(program: Asked, options: Mapping[str, Any], data: Data | None, way: str | Mapping[str, Any]) -> Truth:
    """The truth as a suite asks for it.

    Args:
        program: As for the others.
        options: Of its constructor.
        data: What it is conditioned on; None where draws in a folder come with theirs.
        way: 'exact', 'nuts'; {'nuts': options of the sampler}; or {'draws': folder, 'name': posterior}.

    Raises: UnknownNameError for another way; what `exactly`, `by_nuts` and `from_draws` raise.
    """
    said: Mapping[str, Any] = {way: {}} if isinstance(way, str) else way
    if "exact" in said:
        return exactly(program, options, data)
    if "nuts" in said:
        return by_nuts(program, options, data, **said["nuts"])
    if set(said) == {"draws", "name"}:
        # Pyro code takes the data that lie beside the draws, by name; a class of programs those of the suite.
        own = None if issubclass(_class_of(program), Adopted) else data
        return from_draws(program, datasets.read_reference(said["draws"], said["name"]), own, options)
    raise UnknownNameError("truth", next(iter(said), ""), WAYS)


def from_draws(
    program: Asked, posterior: ReferencePosterior, data: Any = None, options: Mapping[str, Any] | None = None
) -> Reference:
    """A program beside draws of its posterior.

    Args:
        program: Pyro code takes the data by the names of its arguments, numbers among them as what they are. What the
            draws are of are its latent sites and its `pyro.deterministic` ones.
        posterior: Data and draws.
        data: What a class of programs takes, which has no names for data; None for Pyro code.
        options: Of its constructor; numbers of the data go without saying.

    Raises: OptionError for a class of programs without data; UnknownNameError, ShapeError for draws of what the program
        has not, or of another shape; CapabilityError for chains that have not mixed.
    """
    cls, options = _class_of(program), dict(options or {})
    if issubclass(cls, Adopted):
        given = {name: value for name, value in posterior.data.items() if name in cls.option_names()}
        numbers = {name: value for name, value in given.items() if not isinstance(value, np.ndarray)}
        options = {**numbers, **options}
        data = {name: value for name, value in given.items() if name not in options} if data is None else data
    elif data is None:
        raise OptionError(f"{cls.__name__} has no names for data; give them, data=(x, context), beside the draws.")
    build = partial(_built, program, cls, options)
    made = build()
    taken = made.take(data)
    chains = {name: torch.as_tensor(value).to(taken.x) for name, value in _arrays(posterior.draws).items()}
    _check_sites(made, taken, {name: value.shape[2:] for name, value in chains.items()})
    what = f"{posterior.name}: data and reference draws as in posteriordb (github.com/stan-dev/posteriordb)."
    count = next(iter(chains.values())).shape[:2]
    how = f"draws of {count[0]} chains, {count[1]} each"
    return Reference.of(chains, name=posterior.name, description=what, how=how, program=build, data=taken)


def by_nuts(
    program: Asked, options: Mapping[str, Any], data: Any, *, folder: Path | None = None, **sampler: Any
) -> Reference:
    """A program beside long NUTS chains, which are run once and kept.

    Args:
        program: As for `from_draws`.
        options: Of its constructor.
        data: What it is conditioned on.
        folder: Where chains are kept; None is `references` in the cache of data sets. Other code, options or data of
            the program are other chains.
        sampler: Options of NUTS that win over 1000 steps of warm-up and 2500 draws of each of 4 chains.

    Raises: CapabilityError for chains that have not mixed, with what to do; nothing is kept then.
    """
    cls = _class_of(program)
    build = partial(_built, program, cls, dict(options))
    made, chosen = build(), {**LONG, **sampler}
    taken = made.take(data)
    kept = (cache_folder() / "references" if folder is None else folder) / f"{_key(made, taken, chosen)}.npz"
    kept.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{kept}.lock"):
        if not kept.exists():
            found = fit(made, taken, "nuts", seed=0, device="cpu", **chosen)
            if "warning" in found.info:
                raise CapabilityError(f"NUTS gives no truth for {cls.__name__}: {found.info['warning']}")
            assert found.samples is not None
            part = kept.with_name(f"{kept.stem}.part.npz")
            by_chain = {name: v.unflatten(0, (chosen["chains"], -1)) for name, v in found.samples.items()}
            np.savez_compressed(part, **{name: value.cpu().numpy() for name, value in by_chain.items()})
            part.replace(kept)
    with np.load(kept) as file:
        chains = {name: torch.as_tensor(file[name]).to(taken.x) for name in file.files}
    return Reference.of(
        chains, name=cls.__name__, description=f"{cls.__name__}, sampled.", how="draws of NUTS", program=build,
        data=taken,
    )  # fmt: skip


def exactly(program: Asked, options: Mapping[str, Any], data: Any) -> Target:
    """A program beside its exact posterior: its own, enumerated or on a grid.

    Args:
        program: As for `from_draws`.
        options: Of its constructor.
        data: What it is conditioned on.

    Raises: CapabilityError, saying why each way fails.
    """
    build = partial(_built, program, _class_of(program), dict(options))
    made = build()
    return exact_target(made, made.take(data), build)


@torch.no_grad()
def exact_target(made: Program, taken: Data, build: Callable[[], Program]) -> Target:
    """A program as it is, its parameters set, beside its exact posterior.

    Args:
        made: The program.
        taken: What it is conditioned on, as the program takes it.
        build: Builds it anew.

    Raises: CapabilityError, saying why each way fails.
    """
    guide, sites = exact_guide(made), made.sites()
    grid = guide.grid(*taken) if isinstance(guide, GridGuide) else None  # which takes its time: not twice
    evidence = exact_log_evidence(made, *taken) if grid is None else grid.log_evidence
    with seeded(0):
        values = draw(guide, DRAWS, *taken, density=False).values
    values = {name: v[:, 0] if sites[name].is_global else v for name, v in values.items() if name in sites}
    tied = any(site.is_global for site in sites.values())
    way = (
        "grid" if isinstance(guide, GridGuide) else "closed form" if isinstance(made, ExactPosterior) else "enumeration"
    )
    name = type(made).__name__
    return Target(
        name, f"{name}, exactly.", way, program=build, data=taken,
        mean={name: v.to(taken.x).mean(0) for name, v in values.items()},
        sd={name: v.to(taken.x).std(0) for name, v in values.items()},
        log_evidence=evidence.sum() if tied else evidence, posterior=guide,
    )  # fmt: skip


def _class_of(program: Asked) -> type[Program]:
    if isinstance(program, str):
        return catalogue.get(program)
    if isinstance(program, Adopted):
        return type(program)
    if isinstance(program, type) and issubclass(program, Program):
        return program
    if isinstance(program, type) or not callable(program):
        raise OptionError(f"A program is a name, a class of programs or Pyro code to adopt; got {program!r}.")
    return adopted_class(Code(program))


def _built(program: Asked, cls: type[Program], options: Mapping[str, Any]) -> Program:
    return catalogue.create(program, **options) if isinstance(program, str) else cls(**options)


def _arrays(draws: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers by Stan's names, 'theta[1]' (chains, draws), as arrays 'theta' (chains, draws, *shape).

    Raises: DatasetError for an array with holes, and for another form of name.
    """
    parts: dict[str, dict[tuple[int, ...], Any]] = {}
    for name, value in draws.items():
        parsed = re.fullmatch(r"([^\[]+)(?:\[([\d,]+)\])?", name)
        if parsed is None:
            raise DatasetError(
                f"The draws name a parameter {name!r}; expected 'theta' or 'theta[1,2]', as Stan has it."
            )
        base, index = parsed.groups()
        place = tuple(int(i) - 1 for i in index.split(",")) if index else ()
        parts.setdefault(base, {})[place] = value
    found = {}
    for base, each in parts.items():
        shape = tuple(max(place) + 1 for place in zip(*each, strict=True))
        if len(each) != int(np.prod(shape)):
            raise DatasetError(f"The draws of {base!r} are {len(each)} numbers, and its indices go to {shape}.")
        first = next(iter(each.values()))
        found[base] = np.empty((*np.shape(first), *shape))
        for place, value in each.items():
            at: Any = (..., *place)
            found[base][at] = value
    return found


@torch.no_grad()
def _check_sites(program: Program, data: Data, shapes: Mapping[str, Any]) -> None:
    """Draws must be of what the program samples or computes, in its shapes."""
    with torch.random.fork_rng(devices=[]):
        nodes = poutine.trace(FlatPriors()(program.model)).get_trace(*data, None).nodes
    name = type(program).__name__
    sites = {key: site for key, site in nodes.items() if site["type"] == "sample" and isinstance(site["value"], Tensor)}
    for site, shape in shapes.items():
        if site not in sites:
            raise UnknownNameError(f"site of {name} (neither sampled nor pyro.deterministic)", site, sites)
        if sites[site]["value"].shape != shape:
            raise ShapeError(
                f"The draws of {site!r} have shape {tuple(shape)}, and {name} has it of shape "
                f"{tuple(sites[site]['value'].shape)}."
            )


def _key(program: Program, data: Data, sampler: Mapping[str, Any]) -> str:
    """A name for chains: what the code says, and what the density is, wherever the code has its numbers from."""
    sums = hashlib.sha256(repr([source_of([type(program)]), program.config(), sorted(sampler.items())]).encode())
    for name, value in sorted({**program.state_dict(), **data.named()}.items()):
        sums.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        sums.update(value.detach().cpu().contiguous().numpy().tobytes())
    with torch.no_grad(), seeded(0):
        for spread in (0.0, 1.0):
            # Drawn from the prior, which shows scales; then, moved by as much, the density there.
            trace = poutine.trace(FlatPriors(spread)(program.model)).get_trace(*data, None)
            trace.compute_log_prob()
            for name, site in trace.nodes.items():
                if site["type"] == "sample" and "log_prob_sum" in site:
                    value = site["value"].double().sum() if isinstance(site["value"], Tensor) else 0.0
                    sums.update(f"{name} {float(site['log_prob_sum']):.9g} {float(value):.9g}".encode())
    return f"{type(program).__name__}-{sums.hexdigest()[:12]}"
