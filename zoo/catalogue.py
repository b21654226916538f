"""The catalogue: programs by name, built-in, from other packages (entry points `zoo.programs`) or from a file.

A new built-in program is one line in `BUILTIN`.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from zoo.arrays import check_finite, check_rows
from zoo.datasets.data import Data
from zoo.errors import BrokenProgramError, CheckpointError, OptionError, UnknownNameError, ZooError
from zoo.options import check_options, check_value
from zoo.program import Program

__all__ = ["BUILTIN", "create", "create_for", "get", "load", "name_of", "names", "save"]

BUILTIN: dict[str, str] = {
    "independent": "zoo.chains.independent:Independent",
    "full-joint": "zoo.chains.joint:FullJoint",
    "markov-chain": "zoo.chains.markov:MarkovChain",
    "chow-liu": "zoo.chains.chow_liu:ChowLiuTree",
    "ar-chain": "zoo.chains.ar:AutoregressiveChain",
    "hmm": "zoo.chains.hmm:HMM",
    "bernoulli-mixture": "zoo.mixtures.bernoulli:BernoulliMixture",
    "gaussian-mixture": "zoo.mixtures.gaussian:GaussianMixture",
    "bayesian-gaussian-mixture": "zoo.mixtures.bayesian_gaussian:BayesianGaussianMixture",
    "ppca": "zoo.latent.ppca:PPCA",
    "vae": "zoo.latent.vae:VAE",
    "aae": "zoo.latent.aae:AAE",
    "coin": "zoo.bayes.coin:BetaBernoulli",
    "dirichlet-categorical": "zoo.bayes.dirichlet_categorical:DirichletCategorical",
    "normal": "zoo.bayes.normal:NormalUnknown",
    "linear-regression": "zoo.bayes.regression:BayesianLinearRegression",
    "logistic-regression": "zoo.bayes.logistic:LogisticRegression",
    "eight-schools": "zoo.bayes.eight_schools:EightSchools",
    "banana": "zoo.bayes.banana:Banana",
    "two-modes": "zoo.bayes.two_modes:TwoModes",
    "nice": "zoo.flows.nice:NICE",
    "realnvp": "zoo.flows.realnvp:RealNVP",
    "maf": "zoo.flows.maf:MAF",
    "neural-spline": "zoo.flows.spline:NeuralSpline",
    "dequantised-flow": "zoo.flows.dequantised:DequantisedFlow",
    "fvsbn": "zoo.autoregressive.fvsbn:FVSBN",
    "nade": "zoo.autoregressive.nade:NADE",
    "rnade": "zoo.autoregressive.nade:RNADE",
    "pixelcnn": "zoo.autoregressive.pixelcnn:PixelCNN",
    "gated-pixelcnn": "zoo.autoregressive.gated_pixelcnn:GatedPixelCNN",
    "pixelcnn++": "zoo.autoregressive.pixelcnn_plus:PixelCNNPlusPlus",
    "pixelrnn": "zoo.autoregressive.pixelrnn:PixelRNN",
    "gan": "zoo.implicit.gan:GAN",
    "cgan": "zoo.implicit.cgan:ConditionalGAN",
    "infogan": "zoo.implicit.infogan:InfoGAN",
    "dcgan": "zoo.implicit.dcgan:DCGAN",
    "wgan": "zoo.implicit.wgan:WGAN",
    "wgan-gp": "zoo.implicit.wgan:WGANGP",
    "sngan": "zoo.implicit.sngan:SNGAN",
    "ali": "zoo.implicit.ali:ALI",
    "made": "zoo.autoregressive.made:MADE",
    "eonade": "zoo.autoregressive.eonade:EoNADE",
    "wavenet": "zoo.autoregressive.wavenet:WaveNet",
    "ar-audio": "zoo.autoregressive.linear_prediction:LinearPrediction",
}
"""Name -> module:class."""

ENTRY_POINT_GROUP = "zoo.programs"
CONFIG_VERSION = 2


def _locations() -> dict[str, str]:
    found = {point.name: point.value for point in entry_points(group=ENTRY_POINT_GROUP)}
    return {**found, **BUILTIN}


def names() -> list[str]:
    """All known names, sorted; those of other packages included."""
    return sorted(_locations())


def get(name: str) -> type[Program]:
    """The class behind a name, a 'package.module:Class' or a 'file.py:Class'.

    Raises: UnknownNameError, naming the nearest; BrokenProgramError where there is such a file or package and its code
        fails.
    """
    check_value("program", name, str)
    location = BUILTIN.get(name) or _locations().get(name, name)
    if ":" not in location:
        raise UnknownNameError("program", name, names())
    module_name, class_name = location.rsplit(":", 1)
    is_file = module_name.endswith(".py")
    if is_file and not Path(module_name).is_file():
        raise UnknownNameError("program", f"{name} (no file {Path(module_name).resolve()})", names())
    try:
        module = _module_of_file(Path(module_name).resolve()) if is_file else importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # whatever the author's code may raise
        where = f" (line {error.lineno})" if isinstance(error, SyntaxError) else ""
        if isinstance(error, ModuleNotFoundError) and error.name == module_name and name == location:
            raise UnknownNameError("program", f"{name} ({error})", names()) from error
        raise BrokenProgramError(
            f"{module_name} cannot be imported for {name!r}: {type(error).__name__}: {error}{where}."
        ) from error
    found = getattr(module, class_name, None)
    if found is None:
        raise UnknownNameError("program", f"{name} ({module_name} has no {class_name!r})", names())
    if not (isinstance(found, type) and issubclass(found, Program)):
        raise UnknownNameError("program", f"{name} (not a Program)", names())
    return found


def _module_of_file(path: Path) -> ModuleType:
    """The module of a file, which is run once; what failed is run again."""
    unique = f"_zoo_file_{path.stem}_{abs(hash(path))}"
    if unique not in sys.modules:
        spec = importlib.util.spec_from_file_location(unique, path)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[unique] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(sys.modules[unique])
        except BaseException:
            del sys.modules[unique]
            raise
    return sys.modules[unique]


def name_of(program: Program | type[Program]) -> str:
    """The shortest name under which `get` finds a class."""
    cls = program if isinstance(program, type) else type(program)
    for name, location in _locations().items():
        if location == f"{cls.__module__}:{cls.__qualname__}":
            return name
    module = sys.modules.get(cls.__module__)
    if cls.__module__.startswith("_zoo_file_") and module is not None and module.__file__:
        return f"{module.__file__}:{cls.__qualname__}"
    return f"{cls.__module__}:{cls.__qualname__}"


def create(name: str, **options: Any) -> Program:
    """Builds a program by name with constructor options.

    Raises: UnknownNameError for an option that there is not; OptionError for a value that the program cannot take.
    """
    cls = get(name)
    for option in options:
        if option not in cls.option_names():
            raise UnknownNameError(f"option of {name}", option, cls.option_names())
    return _built(name, cls, options, lambda: cls(**options))


def _built(name: str, cls: type[Program], options: Mapping[str, Any], build: Callable[[], Program]) -> Program:
    """What `build` gives. Annotations say most of what a program can take; the rest its constructor finds out.

    Raises: OptionError.
    """
    check_options(cls, options)
    try:
        return build()
    except ZooError:
        raise
    except Exception as error:
        given = ", ".join(f"{option}={value!r}" for option, value in options.items()) or "no options"
        reason = str(error).strip().split("\n")[0]
        raise OptionError(f"{name} cannot be built with {given}: {type(error).__name__}: {reason}") from error


def create_for(name: str, data: Data, preset: str | None = None, **options: Any) -> Program:
    """Builds a program of the right size for data, with a preset's options under the given ones.

    Raises: EmptyDataError, NonFiniteError, before anything is sized by what the data hold; OptionError for a value that
        the program cannot take.
    """
    cls = get(name)
    data = Data.of(data)
    check_rows(data.x, name)
    check_finite(name, *data)
    merged = dict(cls.preset(preset).merged(options).program)
    return _built(name, cls, merged, lambda: cls.for_data(*data, **merged))


# Saving is huggingface_hub's form (config.json, model.safetensors), with the program's name added to the config so that
# a folder can be loaded without knowing what is in it.


def save(program: Program, folder: str | Path) -> Path:
    """Writes config.json and model.safetensors."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = {"program": name_of(program), "version": CONFIG_VERSION, **program.config()}
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True))
    tensors = {k: v.detach().cpu().clone() for k, v in program.state_dict().items()}
    save_file(tensors, folder / "model.safetensors")
    return folder


def load(folder: str | Path) -> Program:
    """Reads what `save` wrote, on the CPU; bit for bit the same tensors.

    Raises: CheckpointError when it is missing, damaged or of another version.
    """
    folder = Path(folder)
    try:
        config = json.loads((folder / "config.json").read_text())
        name, found = config.pop("program"), config.pop("version")
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{folder} holds no saved program (config.json: {error}).") from error
    if found != CONFIG_VERSION:
        older = isinstance(found, int) and found < CONFIG_VERSION
        why = "in it likelihoods, guides and critics have options of their own; fit again" if older else "update it"
        raise CheckpointError(
            f"{folder} was written in format {found}; this version reads format {CONFIG_VERSION}: {why}."
        )
    try:
        program = create(name, **config)
        tensors = load_file(folder / "model.safetensors")
        dtypes = {t.dtype for t in tensors.values() if t.is_floating_point()}
        if len(dtypes) == 1:
            program.to(dtypes.pop())
        program.load_state_dict(tensors)
    except (OSError, SafetensorError, RuntimeError, TypeError, OptionError) as error:
        raise CheckpointError(f"{folder} is damaged or of another version: {error}") from error
    return program
