"""The contract: a `Program` is a Pyro generative program with its guide.

Subclass `Program`, write `model` (and `guide`, if there are latents) as plain Pyro, and every method, query, benchmark
and command works on it. What else a program can promise, an exact density say, it promises by *having* the method:
see the protocols at the end. They are true or absent; methods ask for them with `isinstance`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

import pyro
import pyro.distributions as dist
import torch
from huggingface_hub import PyTorchModelHubMixin
from pyro import poutine
from pyro.nn import PyroModule
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn
from torch.distributions import constraints

from zoo.arrays import as_tensor, check_finite, check_rows
from zoo.errors import EmptyDataError, ImplicitDensityError, OptionError, SupportError, UnknownNameError
from zoo.guards import (
    check_context_shape,
    check_shape,
    guarded_density,
    guarded_evidence,
    one_hot_hint,
    same_support,
    words,
)  # fmt: skip

__all__ = [
    "ClosedFormEM",
    "CoordinateAscent",
    "ExactDensity",
    "ExactEvidence",
    "ExactPosterior",
    "Implicit",
    "ImplicitProgram",
    "Preset",
    "Program",
    "Site",
    "same_support",
]

# Parameters live in the module, never in Pyro's global store, so that two programs, or two guides of one program, can
# be fitted in one process (pyro#3209). PyroModule reads this setting; there is no per-module form of it.
pyro.settings.set(module_local_params=True)


@dataclass(frozen=True)
class Site:
    """One latent sample site: `event_shape` excludes plates; a global site lies outside the data plate."""

    name: str
    event_shape: torch.Size
    is_global: bool
    is_discrete: bool
    support: Any
    distribution: str


@dataclass(frozen=True)
class Preset:
    """A named configuration: constructor options, the method that fits it, that method's options, and the data.

    `data` is the name of the data set that the preset is for; None is the program's default.
    """

    program: Mapping[str, Any] = field(default_factory=dict)
    method: str = "svi"
    fit: Mapping[str, Any] = field(default_factory=dict)
    data: str | None = None

    def merged(
        self, program: Mapping[str, Any] | None = None, method: str | None = None, fit: Mapping[str, Any] | None = None
    ) -> Preset:
        """The preset under changes, which win: `steps` replaces `epochs` and vice versa; another method has none of
        the old one's options."""
        changes = dict(fit or {})
        kept = dict(self.fit) if method in (None, self.method) else {}
        for length, other in (("steps", "epochs"), ("epochs", "steps")):
            if length in changes:
                kept.pop(other, None)
        return Preset({**self.program, **(program or {})}, method or self.method, {**kept, **changes}, data=self.data)


class Program(PyroModule, PyTorchModelHubMixin):
    """A generative program p(latents) p(x | latents) and its guide q(latents | x).

    The rules, all checked by `zoo.testing.check_program`:

    - `model(x, context, size)` and `guide(x, context, size)` take a batch `x` of shape `(B, *event_shape)`. `x=None`
      generates. `context` is what is conditioned on and never generated (covariates, labels, lengths), `(B, ...)`.
      `size` is how many examples the plate stands for: the size of the whole data set in a minibatch, the number to
      generate when `x` is None.
    - The examples lie in the one plate, `self.plate(x, context, size)`; everything else is an event dimension
      (`.to_event`). The observed site is called `"x"` and `model` returns its value.
    - Latent values may carry extra batch dimensions on the left (particles, grids, enumeration): index parameters
      with them and let them broadcast.
    - Constructor arguments are JSON-like and are all that is needed to build the program again.
    - Constants are buffers, so that `.to(device)` moves them.
    """

    family: ClassVar[str] = "other"
    """The room of the zoo: chains, mixtures, latent, bayes, implicit, ..."""
    paper: ClassVar[str] = ""
    """The source, authors and year."""
    dataset: ClassVar[str] = "digits"
    """Name of the data set used when none is given."""
    presets: ClassVar[Mapping[str, Preset]] = {"small": Preset()}
    """`small` trains on two CPU cores in a minute or two; `paper` is the paper's size."""

    support: constraints.Constraint = constraints.real
    """What one number of x may be, for instance `constraints.boolean`."""
    event_shape: torch.Size = torch.Size()
    """Shape of one example."""
    context_support: constraints.Constraint = constraints.real
    """What one number, or one row, of a context may be: `constraints.positive`, `constraints.one_hot`."""

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        for name, guard in (("log_prob", guarded_density), ("log_evidence", guarded_evidence)):
            if name in vars(cls):
                setattr(cls, name, guard(vars(cls)[name]))

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        """Generates (`x=None`) or conditions on a batch; returns x."""
        raise NotImplementedError(f"{type(self).__name__} must define model(x, context, size)")

    def guide(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> None:
        """The variational family over the same latent sites; empty when there are none."""

    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        """Sets parameters from training data before a fit (k-means centres, pixel means); by default does nothing.

        Draws only from torch's global generator, which the fit has seeded.
        """

    def example_context(self, n: int) -> Tensor | None:
        """A plausible `context` of n rows for tests and `zoo show`; None for unconditional programs."""
        return None

    # What follows is provided.

    def plate(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> pyro.plate:
        """The plate over examples, at dimension -1; scales a minibatch of B by size / B."""
        given = x if x is not None else context
        batch = len(given) if given is not None else (size or 1)
        full = batch if size is None or x is None else size
        # Explicit indices: the rows were chosen by the caller, for model and guide alike, and Pyro must not draw its
        # own (pyro#3468). Only their number matters here; it sets the scale full / batch.
        return pyro.plate("data", full, subsample=torch.arange(batch), dim=-1)

    @torch.no_grad()
    def generate(self, n: int = 1, context: Any = None) -> Tensor:
        """Draws n examples `(n, *event_shape)` from the prior predictive; with a context, one for each of its rows.

        Raises: OptionError for n < 1; what `check_context` raises.
        """
        if not isinstance(n, int) or isinstance(n, bool) or n < 1:
            raise OptionError(f"n, the number of examples to draw, must be a whole number of at least 1, got {n!r}.")
        context = self.accept_context(context)
        return self.model(None, context, n if context is None else len(context))

    @torch.no_grad()
    def sites(self) -> dict[str, Site]:
        """The latent sites in the order in which the model samples them."""
        with torch.random.fork_rng(devices=[]), pyro.validation_enabled(False):
            trace = poutine.trace(self.model).get_trace(None, self.example_context(2), 2)
        found = {}
        for name, site in trace.nodes.items():
            if site["type"] != "sample" or name == "x" or site["is_observed"] or site_is_subsample(site):
                continue
            fn, base = site["fn"], site["fn"]
            while isinstance(base, torch.distributions.Independent) or hasattr(base, "_base"):
                base = base.base_dist if hasattr(base, "base_dist") else base._base
            is_global = all(frame.name != "data" for frame in site["cond_indep_stack"])
            found[name] = Site(
                name,
                fn.event_shape,
                is_global,
                is_discrete=bool(fn.support.is_discrete),
                support=fn.support,
                distribution=type(base).__name__,
            )
        return found

    def check(self, x: Tensor, context: Tensor | None = None) -> None:
        """Raises the error that says what is wrong with a data set, or returns.

        Cheap (a few passes over the data), so that every public door asks it: fits, of both splits, `Fit.draw`, all of
        `inference.evaluation`.

        Raises: EmptyDataError, ShapeError, NonFiniteError, SupportError.
        """
        name = type(self).__name__
        x = as_tensor(x)
        if x.ndim == 0 or len(x) == 0:
            raise EmptyDataError(
                f"{name} got no examples (shape {tuple(x.shape)}); expected (N, *{tuple(self.event_shape)}) with "
                "N >= 1."
            )
        check_shape(self, x)
        check_context_shape(self, context, len(x))
        check_rows(x, name)
        check_finite(name, x)
        if not bool(self.support.check(x).all()):
            hint = ""
            if same_support(self.support, constraints.boolean):
                hint = " Binarise the data first (zoo.datasets.binarise, or the option --binarise)."
            raise SupportError(
                f"{name} needs values in {self.support}, got values from {x.min():g} to {x.max():g}.{hint}"
            )
        self.check_context(context)

    def check_context(self, context: Tensor | None) -> None:
        """Raises the error that says what is wrong with what a program is conditioned on, or returns.

        Raises: EmptyDataError, ShapeError, NonFiniteError, SupportError.
        """
        check_context_shape(self, context)
        if context is None:
            return
        name = type(self).__name__
        context = as_tensor(context, "context")
        if context.numel() == 0:
            raise EmptyDataError(f"{name} got a context without numbers, of shape {tuple(context.shape)}.")
        check_finite(name, context[:0], context)
        if not bool(self.context_support.check(context).all()):
            raise SupportError(
                f"{name} needs contexts in {words(self.context_support)}, got values from {context.min():g} to "
                f"{context.max():g}.{one_hot_hint(self.context_support)}"
            )

    def accept(self, x: Any, context: Any = None) -> tuple[Tensor, Tensor | None]:
        """Data of any kind as the program takes them: tensors of its dtype (`zoo.arrays.as_tensor`), checked.

        A program given by name is built in torch's default dtype, as files are read; for double precision set that, or
        hand over `program.double()`.

        Raises: what `as_tensor` and `check` raise.
        """
        dtype = self.computes_in()
        x = as_tensor(x, dtype=dtype)
        context = None if context is None else as_tensor(context, "context", dtype)
        self.check(x, context)
        return x, context

    def accept_context(self, context: Any) -> Tensor | None:
        """A context of any kind as a tensor of the program's dtype, checked.

        Raises: what `as_tensor` and `check_context` raise.
        """
        context = None if context is None else as_tensor(context, "context", self.computes_in())
        self.check_context(context)
        return context

    def computes_in(self) -> torch.dtype:
        """Of its parameters or buffers; torch's default where it has none."""
        for tensors in (self.parameters(), self.buffers()):
            for tensor in tensors:
                if tensor.is_floating_point():
                    return tensor.dtype
        return torch.get_default_dtype()

    def row_of_context(self) -> torch.Size | None:
        """Of one row of context, found once; None for programs that take none."""
        if "_row_of_context" not in self.__dict__:
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                example = self.example_context(2)
            self.__dict__["_row_of_context"] = None if example is None else example.shape[1:]
        return self.__dict__["_row_of_context"]

    @classmethod
    def for_data(cls, x: Tensor, context: Tensor | None = None, **options: Any) -> Program:
        """Builds a program of the right size for a data set; by default sets the option `event_shape`, if there is one.

        Args:
            x: Data of shape (N, *event_shape).
            context: What x is conditioned on, or None.
            options: Constructor options that win over what the data say.
        """
        accepted = cls.option_names()
        if "event_shape" in accepted:
            options.setdefault("event_shape", list(x.shape[1:]))
        if "context_shape" in accepted and context is not None:
            options.setdefault("context_shape", list(context.shape[1:]))
        return cls(**options)

    @classmethod
    def option_names(cls) -> list[str]:
        """Names of the constructor's options."""
        return [name for name in cls._hub_mixin_init_parameters if name != "self"]

    def config(self) -> dict[str, Any]:
        """The constructor's options as this program has them; `type(program)(**config)` builds one of its kind."""
        options: Any = self._hub_mixin_config or {}
        return dict(options)

    @classmethod
    def preset(cls, name: str | None) -> Preset:
        """A preset by name; None is none: the constructor's and the method's defaults.

        Raises: UnknownNameError.
        """
        if name is None:
            return Preset()
        if name not in cls.presets:
            raise UnknownNameError(f"preset of {cls.__name__}", name, cls.presets)
        return cls.presets[name]

    def parameter_count(self) -> int:
        """How many free numbers the program has (guide included, if it owns one)."""
        return sum(p.numel() for p in self.parameters())


class ImplicitProgram(Program):
    """A program that can be sampled but has no density: its image is an implicit site (GAN generators).

    Write `model` as any other, but end in `pyro.sample("x", Implicit(value, event_dim))`. Asking for its density raises
    `ImplicitDensityError`, never a silent number.
    """

    family = "implicit"

    def critic(self) -> nn.Module:
        """A fresh critic (B, *event_shape) -> (B,) logits: the architecture the paper pairs with this generator.

        It belongs to the adversarial method, as the estimator of a density ratio; the program only suggests it.
        """
        raise NotImplementedError(f"{type(self).__name__} must define critic()")


class Implicit(dist.TorchDistribution):
    """A point that a sampler produced, with no density to go with it.

    Args:
        value: The drawn value, of shape batch_shape + event_shape.
        event_dim: How many dimensions on the right are the event.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    has_rsample = True

    def __init__(self, value: Tensor, event_dim: int = 0, validate_args: bool | None = False):
        self.value = value
        cut = value.ndim - event_dim
        super().__init__(value.shape[:cut], value.shape[cut:], validate_args=validate_args)

    @property
    def support(self) -> constraints.Constraint:
        """Anywhere: nothing is known of the density."""
        return constraints.independent(constraints.real, len(self.event_shape))

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        """The value itself; differentiable with respect to what produced it."""
        return self.value.expand(torch.Size(sample_shape) + self.value.shape)

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> Implicit:
        """The same value over more batch dimensions."""
        return Implicit(self.value.expand(torch.Size(batch_shape) + self.event_shape), len(self.event_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """Raises ImplicitDensityError, always."""
        raise ImplicitDensityError(
            "An implicit site has samples but no density. Use an adversarial estimator: method 'gan' to fit an "
            "implicit model, method 'avb' for an implicit guide, and the sample-based scores (MMD, C2ST, Parzen, "
            "AIS under an observation noise) to judge it."
        )


# Capabilities: what a program can promise beyond the contract. Each is exact, or absent.


@runtime_checkable
class ExactDensity(Protocol):
    """log p(x), all latents summed or integrated out, of each example on its own (no global latents)."""

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """(B, *event_shape) -> (B,), differentiable in the parameters."""
        ...


@runtime_checkable
class ExactEvidence(Protocol):
    """log p(x_1, ..., x_N), global latents integrated out."""

    def log_evidence(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """(N, *event_shape) -> ().

        Raises: CapabilityError for data beyond what can be computed (the sum over all assignments of a mixture).
        """
        ...


@runtime_checkable
class ExactPosterior(Protocol):
    """The true p(latents | x) *as a guide*: the ELBO under it is the log evidence, without variance."""

    def posterior(self, x: Tensor, context: Tensor | None = None, size: int | None = None) -> None:
        """Samples the latent sites from their exact posterior."""
        ...


@runtime_checkable
class ClosedFormEM(Protocol):
    """Expectation-maximisation with both steps in closed form; statistics add over minibatches."""

    def e_step(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns (summed log-likelihood (), expected sufficient statistics) at the current parameters."""
        ...

    def m_step(self, statistics: Mapping[str, Tensor]) -> None:
        """Sets the parameters to the maximiser given the statistics."""
        ...


@runtime_checkable
class CoordinateAscent(Protocol):
    """Variational EM: closed-form coordinate updates of the program's own guide (CAVI)."""

    def cavi_step(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """One sweep over the factors of the guide; returns the ELBO (), which never decreases."""
        ...
