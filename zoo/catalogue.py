"""The catalogue: programs by name, built-in, from other packages (entry points `zoo.programs`) or from a file.

A new built-in program is one line in `BUILTIN`.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from zoo import folders
from zoo.adopted import Adopted, Code, adopted_class, is_code
from zoo.arrays import check_finite, check_rows
from zoo.datasets.data import Data
from zoo.errors import BrokenProgramError, CheckpointError, OptionError, UnknownNameError, ZooError
from zoo.folders import Saved
from zoo.hub import local
from zoo.options import check_options, check_value, plain
from zoo.plugins import plugins
from zoo.program import Program

__all__ = ["BUILTIN", "code_at", "create", "create_for", "get", "load", "name_of", "names", "restore", "save"]

BUILTIN: dict[str, str] = {
    "independent": "zoo.chains.independent:Independent",
    "full-joint": "zoo.chains.joint:FullJoint",
    "markov-chain": "zoo.chains.markov:MarkovChain",
    "chow-liu": "zoo.chains.chow_liu:ChowLiuTree",
    "ar-chain": "zoo.chains.ar:AutoregressiveChain",
    "hmm": "zoo.chains.hmm:HMM",
    "lda": "zoo.topics.lda:LDA",
    "prodlda": "zoo.topics.prodlda:ProdLDA",
    "lgssm": "zoo.sequential.linear_gaussian:LinearGaussian",
    "dmm": "zoo.sequential.dmm:DMM",
    "bernoulli-mixture": "zoo.mixtures.bernoulli:BernoulliMixture",
    "gaussian-mixture": "zoo.mixtures.gaussian:GaussianMixture",
    "bayesian-gaussian-mixture": "zoo.mixtures.bayesian_gaussian:BayesianGaussianMixture",
    "ppca": "zoo.latent.ppca:PPCA",
    "vae": "zoo.latent.vae:VAE",
    "hvae": "zoo.latent.hvae:HierarchicalVAE",
    "vq-vae": "zoo.latent.vq_vae:VQVAE",
    "aae": "zoo.latent.aae:AAE",
    "semi-supervised-vae": "zoo.latent.semi_supervised:SemiSupervisedVAE",
    "cvae": "zoo.latent.cvae:ConditionalVAE",
    "restoring-vae": "zoo.latent.cvae:RestoringVAE",
    "coin": "zoo.bayes.coin:BetaBernoulli",
    "dirichlet-categorical": "zoo.bayes.dirichlet_categorical:DirichletCategorical",
    "normal": "zoo.bayes.normal:NormalUnknown",
    "linear-regression": "zoo.bayes.regression:BayesianLinearRegression",
    "logistic-regression": "zoo.bayes.logistic:LogisticRegression",
    "hierarchical-regression": "zoo.bayes.hierarchical:HierarchicalRegression",
    "gp": "zoo.bayes.gp:GaussianProcess",
    "sparse-gp": "zoo.bayes.sparse_gp:SparseGaussianProcess",
    "bnn": "zoo.bayes.bnn:BayesianNeuralNetwork",
    "eight-schools": "zoo.bayes.eight_schools:EightSchools",
    "banana": "zoo.bayes.banana:Banana",
    "two-modes": "zoo.bayes.two_modes:TwoModes",
    "rbm": "zoo.energy.rbm:RBM",
    "dbm": "zoo.energy.dbm:DBM",
    "deep-energy": "zoo.energy.deep:DeepEnergy",
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
    "puzzle-gan": "zoo.implicit.puzzle:PuzzleGAN",
    "tag-gan": "zoo.implicit.tags:TagGAN",
    "stargan": "zoo.implicit.stargan:StarGAN",
    "progan": "zoo.implicit.progan:ProGAN",
    "pix2pix": "zoo.implicit.pix2pix:Pix2Pix",
    "cyclegan": "zoo.implicit.cyclegan:CycleGAN",
    "ali": "zoo.implicit.ali:ALI",
    "wavegan": "zoo.implicit.wavegan:WaveGAN",
    "text2image": "zoo.implicit.text2image:TextToImage",
    "made": "zoo.autoregressive.made:MADE",
    "eonade": "zoo.autoregressive.eonade:EoNADE",
    "wavenet": "zoo.autoregressive.wavenet:WaveNet",
    "ar-audio": "zoo.autoregressive.linear_prediction:LinearPrediction",
}
"""Name -> module:class."""

ENTRY_POINT_GROUP = "zoo.programs"


def _locations() -> dict[str, str]:
    return {**plugins(ENTRY_POINT_GROUP), **BUILTIN}


def names() -> list[str]:
    """All known names, sorted; those of other packages included."""
    return sorted(_locations())


def get(name: str) -> type[Program]:
    """The class behind a name, a 'package.module:Class' or a 'file.py:Class'.

    In the place of a class there may be Pyro code to adopt: 'file.py:model', 'file.py:model+guide', or the name of what
    `zoo.adopt` gave.

    Raises: UnknownNameError, naming the nearest; BrokenProgramError where there is such a file or package and its code
        fails.
    """
    check_value("program", name, str)
    location = BUILTIN.get(name) or _locations().get(name, name)
    if ":" not in location:
        raise UnknownNameError("program", name, names())
    module, class_name = code_at("program", name, location, BUILTIN if name in BUILTIN else names())
    code, _, guide = class_name.partition("+")
    found, beside = getattr(module, code, None), getattr(module, guide, None) if guide else None
    if found is None or (guide and beside is None):
        lacking = code if found is None else guide
        raise UnknownNameError("program", f"{name} ({location.rpartition(':')[0]} has no {lacking!r})", names())
    if isinstance(found, type) and issubclass(found, Program) and not guide:
        return found
    adopted = type(found) if isinstance(found, Adopted) else _adopted(found, beside) if is_code(found) else None
    if adopted is None:
        raise UnknownNameError("program", f"{name} (not a Program, nor a Pyro model to adopt)", names())
    module_name = location.rpartition(":")[0]
    adopted.found_at = f"{module.__file__ if module_name.endswith('.py') else module_name}:{class_name}"
    return adopted


def code_at(kind: str, name: str, location: str, known: Iterable[str]) -> tuple[ModuleType, str]:
    """The module of a 'package.module:NAME' or a 'file.py:NAME', and NAME.

    Args:
        kind: What is looked for, as errors call it.
        name: What the user wrote.
        location: Where that is.
        known: Names that need no place.

    Raises: UnknownNameError where there is no such file or package; BrokenProgramError where its code fails.
    """
    module_name, _, wanted = location.rpartition(":")
    is_file = module_name.endswith(".py")
    if is_file and not os.path.isfile(module_name):
        raise UnknownNameError(kind, f"{name} (no file {Path(module_name).resolve()})", known)
    try:
        module = _module_of_file(Path(module_name).resolve()) if is_file else importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # whatever the author's code may raise
        where = f" (line {error.lineno})" if isinstance(error, SyntaxError) else ""
        if isinstance(error, ModuleNotFoundError) and error.name == module_name and name == location:
            raise UnknownNameError(kind, f"{name} ({error})", known) from error
        raise BrokenProgramError(
            f"{module_name} cannot be imported for {name!r}: {type(error).__name__}: {error}{where}."
        ) from error
    return module, wanted


@cache
def _adopted(model: Callable[..., Any], guide: Callable[..., Any] | None) -> type[Adopted]:
    """The same class for the same code."""
    return adopted_class(Code(model, guide))


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
    found_at = getattr(cls, "found_at", None)  # of adopted code
    if found_at is not None:
        return str(found_at)
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
    cls, options = get(name), plain(options)
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
    check_finite(name, *data, missing=cls.takes_missing)
    merged = dict(cls.preset(preset).merged(plain(options)).program)
    return _built(name, cls, merged, lambda: cls.for_data(*data, **merged))


# Saving is huggingface_hub's form (config.json, model.safetensors), with the program's name and checksums added to the
# config, so that a folder can be loaded without knowing what is in it.

WEIGHTS = "model.safetensors"


def save(program: Program, folder: str | Path, beside: Mapping[str, bytes] | None = None) -> Path:
    """Writes config.json and model.safetensors; what was saved there before stays whole until this is.

    Args:
        program: The program.
        folder: Made if it is not there; files that are no save's stay as they are.
        beside: Further files of the save, content by name (out of `zoo.folders.NAMES`).

    Raises: CheckpointError for NaN in the tensors, options that are no JSON, or a folder that cannot be written.
    """
    folder, tensors = folders.as_path(folder), folders.pack(program.state_dict(), type(program).__name__)
    return folders.write(folder, program.config(), _address(program, folder), {WEIGHTS: tensors, **(beside or {})})


def _address(program: Program, folder: Path) -> str:
    """The name of a program's class; a file by its way from the folder, so that both can be moved together."""
    name = name_of(program)
    where, _, cls = name.rpartition(":")
    return f"{os.path.relpath(where, os.path.realpath(folder))}:{cls}" if where.endswith(".py") else name


def load(folder: str | Path, *, program: type[Program] | Adopted | None = None, trust_code: bool = False) -> Program:
    """Reads what `save` wrote, on the CPU, in evaluation mode; bit for bit the same tensors.

    Only classes of the catalogue are looked up, its entry points of installed packages included.

    Args:
        folder: The folder; or 'user/repository' of the Hugging Face hub, see `zoo.hub.local`.
        program: The class, where the catalogue has none (it is yours, from a script, a file or a notebook).
        trust_code: True imports the module or file that the folder names, *which executes it*.

    Raises: CheckpointError when it is missing, damaged, of another version, or of a class that was not given;
        OptionError for a `program` that is no class of programs.
    """
    return restore(folders.read(local(folder)), program, trust_code)


def restore(saved: Saved, program: type[Program] | Adopted | None = None, trust_code: bool = False) -> Program:
    """The program of a folder that was read; see `load`."""
    folder, cls = saved.folder, _class_of(saved, program, trust_code)
    unknown = set(saved.options) - set(cls.option_names())
    if unknown:
        raise CheckpointError(f"{folder} is of another version: {cls.__name__} has no option {', '.join(unknown)}.")
    if WEIGHTS not in saved.files:
        raise CheckpointError(f"{folder} is damaged: it lists no {WEIGHTS}.")
    tensors = folders.unpack(saved.files[WEIGHTS], str(folder / WEIGHTS))
    try:
        made = cls(**saved.options)
        dtypes = {t.dtype for t in tensors.values() if t.is_floating_point()}
        if len(dtypes) == 1:
            made.to(dtypes.pop())
        made.load_state_dict(tensors)
    except Exception as error:  # whatever a constructor has against its options
        raise CheckpointError(f"{folder} is damaged or of another version: {error}") from error
    return made.eval()


def _is_found_at(given: type[Program], name: str) -> bool:
    """Whether adopted code is that of a name in its module."""
    return issubclass(given, Adopted) and given.found_at is not None and given.found_at.rpartition(":")[2] == name


def _as_given(cls: str) -> str:
    """How the class of a record is written; of adopted functions, 'model' or 'model+guide', the call that adopts."""
    name = cls.rpartition(".")[2]
    return name if name[:1].isupper() else f"zoo.adopt({name.replace('+', ', ')})"


def _class_of(saved: Saved, given: type[Program] | Adopted | None, trust_code: bool) -> type[Program]:
    name, known = saved.record["program"], _locations()
    where, _, cls = known.get(name, name).rpartition(":")
    if given is not None:
        mine: Any = type(given) if isinstance(given, Adopted) else given
        if not (isinstance(mine, type) and issubclass(mine, Program)):
            raise OptionError(
                f"program is the class of the saved program, a subclass of Program, or what zoo.adopt makes of Pyro's "
                f"functions, zoo.adopt(model) or zoo.adopt(model, guide); got {given!r}."
            )
        if mine.__name__ != cls.partition("+")[0].rpartition(".")[2] and not _is_found_at(mine, cls):
            raise CheckpointError(f"{saved.folder} holds a {cls}, not a {mine.__name__}.")
        return mine
    if name in known:
        try:
            return get(name)
        except UnknownNameError as error:  # an installed package that does not import
            raise CheckpointError(f"{saved.folder} holds the program {name!r}: {error}") from error
    if not where:
        raise CheckpointError(
            f"{saved.folder} holds the program {name!r}, which no package that is installed here has: install its."
        )
    if not trust_code:
        raise CheckpointError(
            f"{saved.folder} holds a program of the class {cls} of {where}, which is not in the catalogue, and loading "
            f"runs no code. Give the class (program={_as_given(cls)}); or, if you trust {where}, "
            "trust_code=True (--trust-code on the command line) executes it."
        )
    path = str(saved.folder.resolve() / where) if where.endswith(".py") else where
    try:
        return get(f"{path}:{cls}")
    except Exception as error:  # whatever goes wrong in a file
        raise CheckpointError(
            f"{saved.folder} holds a program of the class {cls} of {where}, which cannot be imported from there: give "
            f"the class (program={cls.rpartition('.')[2]}). The error was {type(error).__name__}: {error}"
        ) from error
