"""`adopt(model, guide)`: plain Pyro code, written for nobody but Pyro, as a `Program`.

    program = zoo.adopt(model, guide)               # functions with any arguments, modules, bound methods
    found = fit(program, {"x": x, "y": y}, "svi")   # data by the names of the model's parameters, or in their order

Nothing is asked of the code: any plates, several observed sites, `pyro.param`, `pyro.module`, `pyro.deterministic`,
`pyro.factor`. What it makes in Pyro's parameter store is a parameter of the program instead. All data are one unit,
unless `examples` names the plate of examples.
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any, ClassVar

import torch
from pyro import poutine
from pyro.distributions import MaskedDistribution
from pyro.infer.autoguide import AutoGuide
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn
from torch.distributions import Independent, constraints

from zoo.arguments import AXES, Arguments
from zoo.calls import Call
from zoo.datasets.data import Data
from zoo.errors import (
    BrokenProgramError,
    CapabilityError,
    OptionError,
    ShapeError,
    SupportError,
    UnknownNameError,
    ZooError,
)
from zoo.flat import FlatPriors, drawing
from zoo.options import Count, check_value
from zoo.process import one_at_a_time
from zoo.program import Program, Site, site_of
from zoo.weights import PlateScale

__all__ = ["Adopted", "Code", "adopt", "adopted_class"]

FEW = 2
"""Examples that code whose examples lie in a plate is tried on."""
MODULES = ("own_model", "own_guide")
"""Names under which a program keeps the modules that its model and its guide are, or are methods of."""


@dataclass(frozen=True)
class Code:
    """What was adopted."""

    model: Callable[..., Any]
    guide: Callable[..., Any] | None = None
    examples: str | None = None
    static: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @functools.cached_property
    def parameters(self) -> list[inspect.Parameter]:
        """Of the model."""
        model = self.model.forward if isinstance(self.model, nn.Module) else self.model
        return list(inspect.signature(model).parameters.values())


def adopt(
    model: Callable[..., Any], /, guide: Callable[..., Any] | None = None, *, examples: str | None = None, **static: Any
) -> Adopted:
    """Plain Pyro code as a program: fitted, drawn from, evaluated and saved like those of the catalogue.

    Args:
        model: A function, a module or a method of one. It generates where an observed argument is left out, if it has
            a default (`y=None`).
        guide: What Pyro takes with it, called with the same arguments; None leaves it to autoguides and samplers.
        examples: The name of the plate that holds the examples, at dimension -1: then minibatches are scaled, bounds
            and densities are kept by example. None: all data are one unit.
        static: Arguments of the model (and guide) that are no data: numbers, flags, objects.

    Raises: OptionError for what is no code, or has no such argument; UnknownNameError.
    """
    for what, code in (("model", model), ("guide", guide)):
        if isinstance(code, type) or not (callable(code) or (code is None and what == "guide")):
            raise OptionError(f"The {what} to adopt must be a function, a module or a method, got {code!r}.")
    return adopted_class(Code(model, guide, examples, static=static))()


def adopted_class(code: Code) -> type[Adopted]:
    """The class of the programs that are this code; `__module__` and `__qualname__` say where it is to be found."""
    if any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in code.parameters):
        raise OptionError(
            f"{_name(code.model)} takes *arguments, which have no names for data: adopt a function of it."
        )
    known = [p.name for p in code.parameters]
    for name in code.static:
        if name not in known and not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in code.parameters):
            raise UnknownNameError(f"argument of {_name(code.model)}", name, known)
    names = [_name(code.model)] + ([] if code.guide is None else [_name(code.guide)])
    module = getattr(code.model, "__module__", None) or type(code.model).__module__
    return type(_name(code.model).rpartition(".")[2], (Adopted,), {
        "code": code, "examples": code.examples, "__module__": module, "__qualname__": "+".join(names),
        "__doc__": inspect.getdoc(code.model) or f"{names[0]}, adopted.",
    })  # fmt: skip


def _name(code: Callable[..., Any]) -> str:
    while isinstance(code, functools.partial):
        code = getattr(code, "__wrapped__", code.func)  # Pyro's decorators are partials of their own machinery
    return str(getattr(code, "__qualname__", type(code).__qualname__))


class Adopted(Program):
    """A program that is plain Pyro code; `adopt` makes one.

    Its data are `Arguments`, and its observed sites have names of their own. What it says of its sites depends on the
    data that it was fitted to or has met first.
    """

    family = "adopted"
    code: ClassVar[Code]
    found_at: ClassVar[str | None] = None
    """Its name in the catalogue's sense, where it was found by one."""
    examples = None
    presets = {}  # noqa: RUF012

    def __init__(self, **static: Any) -> None:
        super().__init__()
        unknown = [name for name in static if name not in self.option_names()]
        if unknown:
            raise UnknownNameError(f"argument of {type(self).__name__}", unknown[0], self.option_names())
        self.call = Call(type(self).__name__, self.code.parameters, {**self.code.static, **static})
        self._met: Data | None = None
        self._found: dict[str, Site] = {}
        self.plate_nesting = 0
        for name, code in zip(MODULES, (self.code.model, self.code.guide), strict=True):
            module = code if isinstance(code, nn.Module) else getattr(code, "__self__", None)
            if isinstance(module, nn.Module) and all(module is not m for m in self._modules.values()):
                nn.Module.add_module(self, name, module)  # that of a PyroModule would rename the sites inside

    @classmethod
    def option_names(cls) -> list[str]:
        """Any argument of the model may be given once and for all."""
        return [p.name for p in cls.code.parameters if p.kind is not inspect.Parameter.VAR_KEYWORD]

    def config(self) -> dict[str, Any]:
        """The arguments that are no data, as far as JSON can say them."""
        return {name: value for name, value in self.call.static.items() if _is_json(value)}

    def model(self, x: Tensor | None = None, context: Any = None, size: int | None = None) -> Any:
        """Runs the model on its arguments; without x, observed sites are drawn."""
        run = self._code("model", context)
        if x is None:
            run = poutine.uncondition(run)
        return self._scaled(run, x, size)

    def guide(self, x: Tensor | None = None, context: Any = None, size: int | None = None) -> Any:
        """Runs the guide on the same arguments."""
        return None if self.code.guide is None else self._scaled(self._code("guide", context), x, size)

    def _scaled(self, run: Callable[[], Any], x: Tensor | None, size: int | None) -> Any:
        if self.examples is None or size is None or x is None:
            return run()
        with PlateScale(self.examples, size / len(x)):
            return run()

    def _code(self, which: str, context: Any) -> Callable[[], Any]:
        """Model or guide with its arguments, of this program's own copy of the modules."""
        code: Any = getattr(self.code, which)
        module = code if isinstance(code, nn.Module) else getattr(code, "__self__", None)
        if isinstance(module, nn.Module):
            both = [self.code.model, self.code.guide]
            first = next(i for i, c in enumerate(both) if c is module or getattr(c, "__self__", None) is module)
            mine = self._modules[MODULES[first]]
            code = mine if isinstance(code, nn.Module) else code.__func__.__get__(mine)
        args, kwargs = self.call.bind((self.met().context if context is None else context).plain())
        return functools.partial(code, *args, **kwargs)

    # Data.

    def take(self, data: Any = None, context: Any = None) -> Data:
        """Arguments of the model as data.

        Args:
            data: A mapping by the names of the model's parameters; a tuple in their order; a data frame whose columns
                are named so; or the one argument there is. Tensors and arrays of numbers: floating point becomes the
                program's dtype, whole numbers and truth values stay what they are. None is no argument.
            context: A second argument, as for other programs.

        Raises: UnknownNameError, OptionError, ShapeError, EmptyDataError, NonFiniteError; BrokenProgramError for code
            that fails on these data, CapabilityError for a model that observes nothing.
        """
        if isinstance(context, Arguments):
            data, context = context, None
        if isinstance(data, Data):
            data, context = data.context if isinstance(data.context, Arguments) else data.x, None
        if isinstance(data, Arguments):
            return self._taken(data)
        if context is not None:
            data = (data, context)
        found = {name: value for name, value in self.call.named(data).items() if value is not None}
        given = {name: self.call.tensor(name, value, self._dtype_of(value)) for name, value in found.items()}
        arguments = Arguments({name: value[None] for name, value in given.items()})
        if self.examples is not None:
            arguments = self._by_examples(given, arguments)
        return self._taken(arguments)

    def _taken(self, arguments: Arguments) -> Data:
        """As data, which the program has met from now on if they are its first."""
        taken = Data(self._counted(arguments), arguments)
        if self._met is None:
            self._meet(taken)
        return taken

    def _dtype_of(self, value: Any) -> torch.dtype:
        """Before the code has run nobody knows in what it computes: its networks may be no part of the program."""
        mine = any(t.is_floating_point() for t in (*self.parameters(), *self.buffers()))
        return value.dtype if isinstance(value, Tensor) and not mine else self.computes_in()

    def _counted(self, arguments: Arguments) -> Tensor:
        rows = {len(value) for value in arguments.values()}
        if len(rows) > 1:
            raise ShapeError(f"{type(self).__name__}: the arguments have different numbers of rows, {sorted(rows)}.")
        device = next((value.device for value in arguments.values()), None)
        return torch.zeros(rows.pop() if rows else 1, dtype=self.computes_in(), device=device)

    def _by_examples(self, given: Mapping[str, Tensor], unit: Arguments) -> Arguments:
        """Rows first: the examples are the first dimension of an argument, or its last, as plates count."""
        trace = self._run(functools.partial(self.model, self._counted(unit), unit))
        frames = [
            frame for site in trace.nodes.values() if site["type"] == "sample"
            for frame in site["cond_indep_stack"] if frame.name == self.examples
        ]  # fmt: skip
        if not frames:
            raise CapabilityError(f"{type(self).__name__} has no plate {self.examples!r} (examples=).")
        if frames[0].dim != -1:
            raise CapabilityError(
                f"The plate {self.examples!r} of {type(self).__name__} is at dimension {frames[0].dim}; examples must "
                "be at -1, the innermost. Without examples= all data are one unit."
            )
        known = {} if self._met is None else self._met.context.axes
        n, axes, rows = frames[0].full_size or frames[0].size, dict[str, str](), dict[str, Tensor]()
        for name, value in given.items():
            sizes = value.shape or (0,)
            seen = "first" if sizes[0] == n else "last" if sizes[-1] == n else "none"
            axes[name] = known.get(name, seen)  # other data lie as those of the fit did, whatever else has N numbers
            if axes[name] != "none" and sizes[AXES[axes[name]] or 0] != n:
                raise ShapeError(
                    f"{type(self).__name__}: the {axes[name]} dimension of {name!r} has the rows of the plate "
                    f"{self.examples!r}, which are {n}; its shape is {tuple(sizes)}."
                )
            rows[name] = value.movedim(-1, 0) if axes[name] == "last" else value
            rows[name] = value.expand(n, *value.shape) if axes[name] == "none" else rows[name]
        if set(axes.values()) == {"none"}:
            raise ShapeError(f"{type(self).__name__}: no argument has the {n} rows of the plate {self.examples!r}.")
        return Arguments(rows, self.examples, axes)

    def accept(self, x: Any, context: Any = None) -> tuple[Tensor, Any]:
        """What `take` gives, as a pair."""
        taken = self.take(x, context) if not isinstance(context, Arguments) else self.take(context)
        return taken.x, taken.context

    def accept_context(self, context: Any) -> Any:
        """Arguments as they are taken; None is those that the program has met."""
        return self.met().context if context is None else self.take(context).context

    def check(self, x: Tensor, context: Any = None) -> None:
        """Raises what `take` raises."""
        self.accept(x, context)

    @property
    def has_guide(self) -> bool:
        """Whether a guide was adopted with the model."""
        return self.code.guide is not None

    def example_context(self, n: int) -> Any:
        """The first of the arguments that the program has met; None before."""
        return None if self._met is None else self._met.rows(slice(0, n)).context

    def met(self) -> Data:
        """The data that it was fitted to, or has met first.

        Raises: CapabilityError before there are any.
        """
        if self._met is None:
            if self.call.needed:
                raise CapabilityError(
                    f"{type(self).__name__} has met no data yet, and what its sites are depends on them: program.take("
                    "data), or a fit."
                )
            self.take(None)
        assert self._met is not None
        return self._met

    # What the code is, seen from a run of it.

    def declare(self, x: Tensor, context: Any = None) -> None:
        """Meets the data of a fit: finds the sites, and makes the `pyro.param` statements parameters."""
        self._meet(Data(x, context))

    def _meet(self, data: Data) -> None:
        before, self._met = self._met, data
        try:
            # In Pyro's order, which may matter to pyro.param statements that both have.
            self.call.bind(data.context.plain())  # says what is missing, where Pyro would add to it
            guided = self._run(functools.partial(self.guide, *data, None))
            trace = self._run(functools.partial(self.model, *data, None))
            sites = [site for site in trace.nodes.values() if site["type"] == "sample" and not site_is_subsample(site)]
            _check_model(type(self).__name__, sites)
            _check_guide(type(self).__name__, sites, guided)
            self._try_few(data)
        except BaseException:
            self._met = before
            raise
        frames = [
            frame for t in (trace, guided) for site in t.nodes.values() for frame in site.get("cond_indep_stack", ())
        ]
        self.plate_nesting = max((-frame.dim for frame in frames if frame.vectorized), default=0)
        self._found = {s["name"]: site_of(s, self.examples) for s in sites if not s["is_observed"]}
        drawn = [frame.name for frame in frames if frame.full_size not in (None, frame.size)]
        self.subsampled = drawn[0] if drawn else None
        like = data.x
        if any(p.device != like.device for p in self.parameters()):
            self.to(like.device)

    def _try_few(self, data: Data) -> None:
        """Minibatches have fewer examples than the data.

        Raises: CapabilityError where the code does not bear that.
        """
        if self.examples is None or data.size <= FEW:
            return
        few = data.rows(slice(0, FEW))
        try:
            for run in (self.guide, self.model):
                self._run(functools.partial(run, *few, None))
        except BrokenProgramError as error:
            raise CapabilityError(
                f"With examples={self.examples!r}, {type(self).__name__} must take any number of examples, and it "
                f"fails on {FEW} of {data.size}: a parameter of the guide for each example, or a size written out? "
                f"({str(error.__cause__).strip().splitlines()[0]})"
            ) from error

    @one_at_a_time
    def _run(self, run: Callable[[], Any]) -> poutine.Trace:
        """A trace that leaves the random state and what modules learn by running as they are.

        Raises: BrokenProgramError, from whatever the code raises.
        """
        training = [module for module in self.modules() if module.training]
        for module in training:
            module.training = False
        try:
            with torch.random.fork_rng(devices=range(torch.cuda.device_count())), torch.no_grad():
                return poutine.trace(FlatPriors()(run)).get_trace()
        except ZooError:
            raise
        except Exception as error:  # whatever the author's code may raise
            reason = str(error).strip().split("\n")[0]
            given = {} if self._met is None else self._met.context.plain()
            shown = ", ".join(f"{name} {tuple(v.shape)} of {str(v.dtype)[6:]}" for name, v in given.items())
            raise BrokenProgramError(
                f"{type(self).__name__} fails on these data ({shown}): {type(error).__name__}: {reason}"
            ) from error
        finally:
            for module in training:
                module.training = True

    def sites(self) -> dict[str, Site]:
        """The latent sites on the data it was fitted to; a global one has its plates as leading event dimensions."""
        self.met()
        return dict(self._found)

    @one_at_a_time
    @torch.no_grad()
    def generate(self, n: Count = 1, context: Any = None) -> Any:
        """n draws of every observed site from the prior predictive: name -> (n, *plates, *event_shape)."""
        check_value("n", n, Count)
        context = self.accept_context(context)
        observed = [
            name for name, site in self._run(functools.partial(self.model, self.met().x, context)).nodes.items()
            if site["type"] == "sample" and site["is_observed"] and type(site["fn"]).__name__ != "Unit"
        ]  # fmt: skip
        with drawing(type(self).__name__):
            traces = [poutine.trace(self.model).get_trace(None, context) for _ in range(n)]
        return {name: torch.stack([trace.nodes[name]["value"] for trace in traces]) for name in observed}

    @property
    def has_own_autoguide(self) -> bool:
        """Whether the guide is an autoguide, which cannot be built again from a checkpoint."""
        return isinstance(self.code.guide, AutoGuide)


def _check_model(name: str, sites: Sequence[Any]) -> None:
    """Something is observed, and can be."""
    observed = [site for site in sites if site["is_observed"] and not site["infer"].get("_deterministic")]
    if not observed:
        raise CapabilityError(
            f"{name} observes nothing on these data, so there is nothing to learn from: give the observed argument "
            "(obs=...), condition the model, or state a pyro.factor."
        )
    for site in observed:
        base, value = site["fn"], site["value"]
        while isinstance(base, (Independent, MaskedDistribution)):
            base = base.base_dist
        # A support that depends on parameters may be another one under other latents.
        support = getattr(type(base), "support", None)
        if not isinstance(support, constraints.Constraint) or constraints.is_dependent(support):
            continue
        if isinstance(value, Tensor) and not bool(support.check(value).all()):
            raise SupportError(
                f"{name} observes values at {site['name']!r} outside the support of {type(base).__name__}, {support}: "
                f"they go from {value.min():g} to {value.max():g}."
            )


def _check_guide(name: str, sites: Sequence[Any], guide: poutine.Trace) -> None:
    """It samples latents of the model, as the model does."""
    latent = {site["name"]: site["fn"].event_shape for site in sites if not site["is_observed"]}
    for site in guide.nodes.values():
        kind = "observed" if site.get("is_observed") else site["type"]
        if kind != "sample" or site_is_subsample(site) or site["infer"].get("is_auxiliary"):
            continue
        if site["name"] not in latent:
            raise CapabilityError(
                f"The guide of {name} samples {site['name']!r}, which is no latent of its model ({', '.join(latent)}), "
                "so that its bound would be on something else: leave it out, or mark it infer={'is_auxiliary': True}."
            )
        got, want = tuple(site["fn"].event_shape), tuple(latent[site["name"]])
        if got != want:
            raise ShapeError(
                f"The guide of {name} samples {site['name']!r} with event_shape {got}, the model with {want}: make "
                "them alike (.to_event, or the same plates)."
            )


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True


def is_code(found: object) -> bool:
    """Whether something in a module can be adopted: a function, a module that has been built."""
    return isinstance(found, (FunctionType, functools.partial)) or (callable(found) and not isinstance(found, type))
