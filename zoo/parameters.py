"""`pyro.param` inside models and guides: each statement becomes a parameter of the module that makes it.

Pyro keeps what such statements make in one global store, where two programs that both say `pyro.param("loc")` share it,
and where no optimizer, `.to(device)` or checkpoint of a module finds it.
"""

from __future__ import annotations

import copy
import functools
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import pyro
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.distributions import constraints, transform_to

from zoo.errors import CapabilityError, OptionError, SupportError, ZooError

__all__ = ["KEPT", "Stated", "keeps_statements", "make_stated", "state_parameters"]

KEPT = "pyro_params"
"""The submodule in which a module keeps them."""
NETWORK = "$$$"
"""What pyro.module puts between the name of a network and that of its parameter."""
FIRST_ROWS = 1024
"""Most examples that initial values are computed from, where a statement computes them from data."""


class Stated(nn.Module):
    """Parameters under the names of their statements, in unconstrained space."""

    def __init__(self) -> None:
        super().__init__()
        self.constraints: dict[str, constraints.Constraint] = {}
        self.borrowed: set[str] = set()
        """Names of those that belong to networks of somebody else."""

    def get(
        self,
        name: str,
        initial: Tensor | Callable[[], Tensor] | None = None,
        constraint: constraints.Constraint = constraints.real,
        event_dim: int | None = None,
    ) -> Tensor:
        """The value of a statement, made from its initial value at first sight.

        Raises: CapabilityError where there is neither value nor initial value; SupportError, OptionError for an
            initial value that the constraint excludes.
        """
        if isinstance(initial, nn.Parameter) and NETWORK in name:
            self._share(name, initial)
        if name not in self._parameters:
            if initial is None:
                raise CapabilityError(
                    f"pyro.param({name!r}) is read before it has a value: give the initial value in every statement "
                    "of that name (a model may run before its guide)."
                )
            # Not register_parameter, which refuses names with dots and those of methods.
            self._parameters[name] = _unconstrained(name, initial, constraint)
        if name not in self.constraints:
            if initial is None:
                raise CapabilityError(
                    f"pyro.param({name!r}) of a loaded program is read before the statement that says its constraint: "
                    "give initial value and constraint in every statement of that name."
                )
            self.constraints[name] = constraint
        parameter = self._parameters[name]
        assert parameter is not None
        value = transform_to(self.constraints[name])(parameter)
        value.unconstrained = weakref.ref(parameter)  # as Pyro's own have it
        return value

    def _share(self, name: str, told: nn.Parameter) -> None:
        """A parameter of a network that `pyro.module` tells of: the network computes with it, so it is the one kept."""
        mine = self._parameters.get(name)
        if mine is not None and mine is not told:
            with torch.no_grad():  # mine was loaded, before there was the network
                told.copy_(mine)
        self._parameters[name] = told
        self.borrowed.add(name)

    def refuse_borrowed(self) -> None:
        """Raises CapabilityError where a copy would not be one."""
        borrowed = sorted(name for name in self.borrowed if name in self._parameters)
        if borrowed:
            raise CapabilityError(
                f"The network of pyro.module({borrowed[0].partition(NETWORK)[0]!r}) is not the program's own, so a "
                "copy of the program would share it. Adopt a module that holds it, with the model as a method."
            )

    def __deepcopy__(self, memo: dict[int, Any]) -> Stated:
        self.refuse_borrowed()
        again = Stated()
        memo[id(self)] = again
        again.constraints = dict(self.constraints)
        for name, value in self._parameters.items():
            again._parameters[name] = copy.deepcopy(value, memo)
        return again

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Tensor], prefix: str, metadata: Any, strict: bool, missing: list[str],
        unexpected: list[str], errors: list[str],
    ) -> None:  # fmt: skip
        """Makes those that no statement has made yet; their constraints come with the statements."""
        given = {key.removeprefix(prefix): value for key, value in state_dict.items() if key.startswith(prefix)}
        missing += [prefix + name for name in self._parameters if name not in given]
        for name, value in given.items():
            mine = self._parameters.get(name)
            if mine is None:
                self._parameters[name] = nn.Parameter(value.detach().clone())
            elif mine.shape != value.shape:
                errors.append(f"{prefix}{name} has shape {tuple(value.shape)}, expected {tuple(mine.shape)}.")
            else:
                with torch.no_grad():
                    mine.copy_(value)


def _unconstrained(name: str, initial: Any, constraint: constraints.Constraint) -> nn.Parameter:
    if not isinstance(initial, Tensor):
        with torch.random.fork_rng(devices=[]):  # what is drawn after the first run is what is drawn after others
            initial = initial()
    if not initial.is_floating_point():
        raise OptionError(f"pyro.param({name!r}) must start from floating point, got {initial.dtype}.")
    try:
        free = transform_to(constraint).inv(initial.detach())
    except NotImplementedError as error:
        raise OptionError(f"pyro.param({name!r}): no map from all numbers to {constraint} is known.") from error
    # The map onto a simplex takes any positive numbers and makes them sum to one: models count on that.
    inside = initial > 0 if constraint is constraints.simplex else constraint.check(initial)
    if not bool(inside.all()) or not bool(torch.isfinite(free).all()):
        raise SupportError(
            f"pyro.param({name!r}) must start inside {constraint}, got values from {initial.min():g} to "
            f"{initial.max():g}."
        )
    return nn.Parameter(free.clone())


class _Statements(Messenger):
    """While it lasts, `pyro.param` speaks of the parameters of a module.

    Args:
        owner: The module; its own `nn.Parameter`s, told by `pyro.module`, stay what they are.
        like: Where parameters that are made lie.
    """

    def __init__(self, owner: nn.Module, like: Tensor | None):
        super().__init__()
        self.owner, self.like = owner, like

    def __enter__(self) -> Any:
        # What poutine.block hides, of the model inside an autoguide say, goes past all handlers to Pyro's store.
        store = vars(pyro.get_param_store())
        self.before = store.get("setdefault")
        store["setdefault"] = self._hidden
        return super().__enter__()

    def __exit__(self, *raised: Any) -> Any:
        store = vars(pyro.get_param_store())
        del store["setdefault"]
        if self.before is not None:  # of a statement around this one
            store["setdefault"] = self.before
        return super().__exit__(*raised)

    def _hidden(self, name: str, initial: Any, constraint: constraints.Constraint = constraints.real) -> Tensor:
        return self._value({"cond_indep_stack": ()}, name, initial, constraint=constraint)

    def _pyro_param(self, msg: Any) -> None:
        # Pyro's modules tell of their attributes by messages of the same kind, which bring a function of their own.
        if msg["fn"] == pyro.get_param_store().get_param:
            msg["fn"] = functools.partial(self._value, msg)

    def _value(self, msg: Any, name: str, initial: Any = None, **how: Any) -> Tensor:
        if isinstance(initial, nn.Parameter) and any(initial is p for p in self.owner.parameters()):
            return initial
        kept = make_stated(self.owner)
        fresh = name not in kept._parameters
        value = kept.get(name, initial, **how)
        if fresh and self.like is not None and self.like.device != value.device:
            kept.to(self.like.device)
            value = kept.get(name, initial, **how)
        event_dim = how.get("event_dim")
        rows = any(frame.name == getattr(self.owner, "examples", "data") for frame in msg["cond_indep_stack"])
        if event_dim is not None and rows and value.ndim > event_dim and value.shape[-1 - event_dim] != 1:
            raise CapabilityError(_one_each([name]))
        return value


def _one_each(names: list[str]) -> str:
    return (
        f"pyro.param {', '.join(map(repr, names))} has a value for each example, which no minibatch and no other data "
        "can be told: compute it from x (a network), or take an autoguide (guide='normal'), which fits all data at "
        "once."
    )


def make_stated(owner: nn.Module) -> Stated:
    """Where a module keeps what its statements made; made at the first."""
    kept = owner._modules.get(KEPT)
    if kept is None:
        kept = Stated()
        owner.add_module(KEPT, kept)
    assert isinstance(kept, Stated)
    return kept


def keeps_statements(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Makes `pyro.param` in a method of a module speak of that module's parameters."""

    @functools.wraps(fn)
    def kept(self: nn.Module, x: Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
        like = x if isinstance(x, Tensor) else next(self.parameters(), None)
        with _Statements(self, like):
            return fn(self, x, *args, **kwargs)

    return kept


@torch.no_grad()
def state_parameters(owner: nn.Module, fns: list[Callable[..., Any]], x: Tensor, context: Tensor | None = None) -> None:
    """Runs model or guide so that all their `pyro.param` statements are parameters of `owner` before it is optimised.

    Initial values that are computed from data are computed from the first 1,024 examples. Leaves the random state.

    Raises: CapabilityError where a parameter has a value for each example.
    """
    cuda = [x.device] if x.is_cuda else []

    def run(n: int) -> None:
        with torch.random.fork_rng(devices=cuda), pyro.validation_enabled(False):
            for fn in fns:
                fn(x[:n], _first(context, n), None)

    before, training = _names(owner), [module for module in owner.modules() if module.training]
    for module in training:  # what a network learns by being run is learnt by training alone
        module.training = False
    try:
        failed = _tried(run, 2)
        names = _names(owner)
        if not names:
            return  # whatever failed has nothing to do with statements, and who needs this run will say it
        new = [name for name in names if name not in before]
        if new and failed is None:
            _forget(owner, new)
            run(FIRST_ROWS)
            failed = _tried(run, 2 if len(x) > 2 else 1)
        if failed is not None:
            _forget(owner, new)
        if isinstance(failed, (RuntimeError, ValueError)) and not isinstance(failed, ZooError):
            raise CapabilityError(f"{_one_each(names)} ({failed})") from failed
        if failed is not None:
            raise failed
    finally:
        for module in training:
            module.training = True


def _first(context: Any, n: int) -> Any:
    """Of a tensor, or of what has rows otherwise."""
    if context is None or isinstance(context, Tensor):
        return None if context is None else context[:n]
    return context.rows(slice(0, n))


def _tried(run: Callable[[int], None], n: int) -> Exception | None:
    try:
        run(n)
    except Exception as error:
        return error
    return None


def _forget(owner: nn.Module, names: list[str]) -> None:
    kept = make_stated(owner)
    for name in names:
        kept._parameters.pop(name, None)
        kept.constraints.pop(name, None)


def _names(owner: nn.Module) -> list[str]:
    kept = owner._modules.get(KEPT)
    return [] if kept is None else list(kept._parameters)
