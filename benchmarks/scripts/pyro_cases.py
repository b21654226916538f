"""Which of Pyro's published examples are compared, and with what data: small, of the right shapes and types.

Each case makes a `Problem` ready: model and guide as Pyro's file has them, the ELBO that it hands to SVI, arguments.
Where a file samples by NUTS instead, an autoguide and the plain ELBO stand in, and the case says so. Data are drawn
from torch's global generator, which the caller has seeded, but for those in the checkout and for known numbers.
"""

from __future__ import annotations

import functools
from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from pyro import poutine
from pyro.infer import ELBO, Trace_ELBO, TraceEnum_ELBO, TraceMeanField_ELBO, config_enumerate
from pyro.infer.autoguide import AutoDelta, AutoDiagonalNormal, AutoNormal, init_to_feasible
from torch import Tensor

from benchmarks.scripts.pyro_checkout import Checkout

__all__ = ["CASES", "Case", "Problem"]

T = "tutorial/source/"


@dataclass(frozen=True)
class Problem:
    """What SVI would be given: a model and its guide, the loss, and what they are called with, by argument name."""

    model: Callable[..., Any]
    guide: Callable[..., Any]
    elbo: ELBO
    data: Mapping[str, Tensor] = field(default_factory=dict)
    static: Mapping[str, Any] = field(default_factory=dict)
    """Arguments that are no tensors."""
    validated: bool = True
    """False where Pyro's SVI refuses the model while it validates (dimensions that are in no plate)."""


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    source: str
    """The file, from the root of the checkout."""
    features: str
    """What of Pyro it uses."""
    build: Callable[[Checkout], Problem]
    """Makes everything anew; draws from torch's global generator."""


CASES: dict[str, Case] = {}
"""By name."""


def case(name: str, source: str, features: str, *given: Any) -> Callable[[Callable[..., Problem]], Any]:
    """Makes a case of a function of the checkout, the path of the source and whatever else is given."""

    def added(build: Callable[..., Problem]) -> Callable[..., Problem]:
        CASES[name] = Case(source, features, lambda checkout: build(checkout, source, *given))
        return build

    return added


def several(name: str, source: str, features: str, *choices: Any) -> Callable[[Callable[..., Problem]], Any]:
    """One case for each choice, which is part of its name."""

    def added(build: Callable[..., Problem]) -> Callable[..., Problem]:
        for choice in choices:
            case(name.format(choice), source, features, choice)(build)
        return build

    return added


# Hierarchies and regressions.


@several(
    "baseball: {}", "examples/baseball.py", "plate, AutoNormal for its NUTS",
    "fully_pooled", "not_pooled", "partially_pooled", "partially_pooled_with_logit",
)  # fmt: skip
def _baseball(pyro_: Checkout, source: str, which: str) -> Problem:
    model = getattr(pyro_.file(source), which)
    hits = torch.tensor([18, 17, 16, 15, 14, 14, 13, 12, 11, 11, 10, 10, 10, 10, 10, 9, 8, 7.0])  # Efron, Morris 1975
    return Problem(model, AutoNormal(model), Trace_ELBO(), data={"at_bats": torch.full((18,), 45.0), "hits": hits})


@case("eight schools: mcmc.py", "examples/eight_schools/mcmc.py", "condition, a model as argument, AutoNormal for NUTS")
def _eight_schools_mcmc(pyro_: Checkout, source: str) -> Problem:
    file = pyro_.file(source)
    data = {"sigma": file.data.sigma, "y": file.data.y}
    model, static = file.conditioned_model, {"model": file.model}
    return Problem(model, AutoNormal(model), Trace_ELBO(), data=data, static=static, validated=False)


@case("eight schools: svi.py", "examples/eight_schools/svi.py", "plate, pyro.param, transformed guide")
def _eight_schools_svi(pyro_: Checkout, source: str) -> Problem:
    file = pyro_.file(source)
    return Problem(file.model, file.guide, Trace_ELBO(), data={"data": file.data})


@case("LKJ", "examples/lkj.py", "LKJCholesky, plate, float64, AutoDiagonalNormal for NUTS")
def _lkj(pyro_: Checkout, source: str) -> Problem:
    model = pyro_.file(source).model
    return Problem(
        model, AutoDiagonalNormal(model), Trace_ELBO(), data={"y": torch.randn(500, 5).double()}, validated=False
    )


@case("Bayesian regression I", T + "bayesian_regression.ipynb", "PyroModule, PyroSample, AutoDiagonalNormal")
def _regression(pyro_: Checkout, source: str) -> Problem:
    model = pyro_.notebook(source, "class BayesianRegression")["BayesianRegression"](3, 1)
    return Problem(
        model, AutoDiagonalNormal(model), Trace_ELBO(), data={"x": torch.randn(170, 3), "y": torch.randn(170)}
    )


def _rugged() -> dict[str, Tensor]:
    africa, rugged = torch.bernoulli(torch.full((170,), 0.3)), torch.rand(170) * 6
    return {"is_cont_africa": africa, "ruggedness": rugged, "log_gdp": 9 + torch.randn(170)}


@case("Bayesian regression II", T + "bayesian_regression_ii.ipynb", "plate, pyro.param")
def _regression_ii(pyro_: Checkout, source: str) -> Problem:
    found = pyro_.notebook(source, "def model(", "def guide(")
    # The notebook starts sigma at 1 +- 0.05, so that no draw leaves its support.
    return Problem(found["model"], found["guide"], Trace_ELBO(), data=_rugged())


@several("introduction: {}", T + "intro_long.ipynb", "plate, optional data", "custom_guide", "auto_guide")
def _intro(pyro_: Checkout, source: str, which: str) -> Problem:
    found = pyro_.notebook(source, "def model(", "def custom_guide(", "auto_guide = ")
    return Problem(found["model"], found[which], Trace_ELBO(), data=_rugged())


@case("sparse regression", "examples/sparse_regression.py", "a dictionary as argument, AutoDelta")
def _sparse_regression(pyro_: Checkout, source: str) -> Problem:
    file = pyro_.file(source)
    hypers = {"expected_sparsity": 1.0, "alpha1": 3.0, "beta1": 1.0, "alpha2": 3.0, "beta2": 1.0, "alpha3": 1, "c": 1.0}
    x, y = torch.randn(20, 10), torch.randn(20)
    guide = AutoDelta(file.model, init_loc_fn=file.init_loc_fn)
    return Problem(file.model, guide, Trace_ELBO(), data={"X": x, "Y": y}, static={"hypers": hypers})


@case("SVI part I", T + "svi_part_i.ipynb", "a site for each observation, pyro.param")
def _coin(pyro_: Checkout, source: str) -> Problem:
    found = pyro_.notebook(source, "def model(", "def guide(")
    return Problem(found["model"], found["guide"], Trace_ELBO(), data={"data": torch.tensor([1.0] * 6 + [0.0] * 4)})


@several(
    "point estimates: {}", T + "mle_map.ipynb", "masked prior, AutoDelta, pyro.param", "mle", "map", "autoguide_mle"
)
def _points(pyro_: Checkout, source: str, which: str) -> Problem:
    names = ("data = ", "data[0:6] = ", "def original_model(", "def model_mle(", "def guide_mle(", "def guide_map(")
    found = pyro_.notebook(source, *names, "def masked_model(", "autoguide_mle = ")
    model, guide = {
        "mle": (found["model_mle"], found["guide_mle"]),
        "map": (found["original_model"], found["guide_map"]),
        "autoguide_mle": (found["masked_model"], found["autoguide_mle"]),
    }[which]
    return Problem(model, guide, Trace_ELBO(), data={"data": found["data"]})


@case("stochastic volatility", T + "stable.ipynb", "reparam, deterministic, AutoDiagonalNormal")
def _volatility(pyro_: Checkout, source: str) -> Problem:
    model = pyro_.notebook(source, "def model(data):", "reparam_model = ")["reparam_model"]
    return Problem(model, AutoDiagonalNormal(model), Trace_ELBO(), data={"data": 0.01 * torch.randn(100)})


@several("easy guide: {}", T + "easyguide.ipynb", "rows and indices as arguments, auxiliary site", "by hand", "group")
def _easy_guide(pyro_: Checkout, source: str, which: str) -> Problem:
    start = "def guide(batch," if which == "by hand" else "def guide(self,"
    found = pyro_.notebook(source, "def model(", "rank = ", start)
    rows = torch.arange(20)
    data = {"batch": torch.bernoulli(torch.full((7, 20), 0.5)), "subsample": rows}
    return Problem(found["model"], found["guide"], Trace_ELBO(), data=data, static={"full_size": 100})


# Discrete latents, summed out or drawn.


@several(
    "capture-recapture: model_{}", "examples/capture_recapture/cjs.py",
    "enumeration, markov, mask, 20 vectorised particles, block, AutoDiagonalNormal", 1, 2, 3, 4, 5,
)  # fmt: skip
def _capture(pyro_: Checkout, source: str, which: int) -> Problem:
    model = pyro_.file(source).models[str(which)]
    folder = "examples/capture_recapture/"
    data = {"capture_history": _table(pyro_, folder + "dipper_capture_history.csv")[:, 1:]}
    static: dict[str, Any] = {}
    if which >= 4:
        data["sex"] = _table(pyro_, folder + "dipper_sex.csv")[:, 1]
    else:
        static["sex"] = None
    guide = AutoDiagonalNormal(poutine.block(model, expose_fn=lambda msg: msg["name"][:3] in ("phi", "rho")))
    elbo = TraceEnum_ELBO(max_plate_nesting=1, num_particles=20, vectorize_particles=True)
    return Problem(model, guide, elbo, data=data, static=static)


def _table(pyro_: Checkout, name: str) -> Tensor:
    lines = pyro_.path(name).read_text().split()
    return torch.tensor([[float(number) for number in line.split(",")] for line in lines])


@several(
    "HMM: model_{}", "examples/hmm.py", "enumeration, markov, mask, two plates, subsampling, block, AutoDelta",
    *range(8),
)  # fmt: skip
def _hmm(pyro_: Checkout, source: str, which: int) -> Problem:
    model = pyro_.file(source).models[str(which)]
    lengths = torch.tensor([6, 4, 5, 3])
    data = {"sequences": torch.bernoulli(torch.full((4, 6, 51), 0.1)), "lengths": lengths}
    args = Namespace(hidden_dim=16, nn_dim=48, nn_channels=2, jit=False, raftery_parameterization=False)
    guide = AutoDelta(poutine.block(model, expose_fn=lambda msg: msg["name"].startswith("probs_")))
    elbo = TraceEnum_ELBO(max_plate_nesting=1 if which == 0 else 2, strict_enumeration_warning=which != 7)
    return Problem(model, guide, elbo, data=data, static={"args": args, "batch_size": 3})


@several(
    "mixed HMM: {0[0]}, {0[1]}", "examples/mixed_hmm/model.py",
    "enumeration, markov, mask, two plates, MaskedMixture, all in a partial",
    ("discrete", "discrete"), ("continuous", "continuous"), (None, "discrete"),
)  # fmt: skip
def _mixed_hmm(pyro_: Checkout, source: str, effects: tuple[str | None, str | None]) -> Problem:
    file = pyro_.file(source)
    group, individual = effects
    seals, times, missing = 5, 6, 1e-6
    step, angle, omega = torch.rand(seals, 2, times) * 2, torch.randn(seals, 2, times), torch.rand(seals, 2, times)
    step[0, 0, :2] = omega[1, 1, 3] = missing
    present = torch.ones(seals, 2, dtype=torch.bool)
    present[-1, 0] = False
    config = {
        "MISSING": missing,
        "sizes": {"state": 3, "random": 4, "group": 2, "individual": seals, "timesteps": times},
        "group": {"random": group, "fixed": None},
        "individual": {"random": individual, "fixed": None, "mask": present},
        "timestep": {"random": None, "fixed": None, "mask": present[..., None].expand(seals, 2, times)},
        "observations": {"step": step, "angle": angle, "omega": omega.clamp(1e-3, 1 - 1e-3)},
    }
    config["observations"]["omega"][1, 1, 3] = missing  # type: ignore[index]
    model, guide = (functools.partial(fn, config) for fn in (file.model_generic, file.guide_generic))
    return Problem(model, guide, TraceEnum_ELBO(max_plate_nesting=2))


@case("LDA", "examples/lda.py", "enumeration, plates of topics, documents, words, subsampling, network in the guide")
def _lda(pyro_: Checkout, source: str) -> Problem:
    file = pyro_.file(source)
    args = Namespace(num_topics=8, num_words=256, num_docs=100, num_words_per_doc=64, layer_sizes="100-100")
    data = file.model(args=args)[-1]
    guide = functools.partial(file.parametrized_guide, file.make_predictor(args))
    static = {"args": args, "batch_size": 32}
    return Problem(file.model, guide, TraceEnum_ELBO(max_plate_nesting=2), data={"data": data}, static=static)


@case("Gaussian mixture", T + "gmm.ipynb", "enumeration, config_enumerate, plates, block, AutoDelta")
def _mixture(pyro_: Checkout, source: str) -> Problem:
    found = pyro_.notebook(source, "data = ", "K = ", "def model(", "def init_loc_fn(")
    model = found["model"]
    guide = AutoDelta(poutine.block(model, expose=["weights", "locs", "scale"]), init_loc_fn=found["init_loc_fn"])
    return Problem(model, guide, TraceEnum_ELBO(max_plate_nesting=1), data={"data": found["data"]})


@case("Dirichlet process", T + "dirichlet_process_mixture.ipynb", "score function of a discrete site, three plates")
def _dirichlet_process(pyro_: Checkout, source: str) -> Problem:
    data = torch.randn(200, 2) + torch.tensor([-8.0, 8.0, 1.5, -0.5]).repeat_interleave(50)[:, None]
    given = {"T": 6, "alpha": 0.1, "N": len(data)}
    found = pyro_.notebook(source, "def mix_weights(", "def model(", "def guide(", given=given)
    return Problem(found["model"], found["guide"], Trace_ELBO(), data={"data": data})


@case("toy mixture", "examples/toy_mixture_model_discrete_enumeration.py", "enumeration, dictionaries as arguments")
def _toy_mixture(pyro_: Checkout, source: str) -> Problem:
    file = pyro_.file(source)
    prior, _, obs = file.generate_data(100)
    static = {"prior": prior, "obs": obs, "num_obs": 100}
    return Problem(file.model, file.guide, TraceEnum_ELBO(max_plate_nesting=1), data={}, static=static)


@case("tracking", T + "tracking_1d.ipynb", "enumeration in the guide, mask by a latent, crossed plates")
def _tracking(pyro_: Checkout, source: str) -> Problem:
    names = ("def get_dynamics(", "def generate_data(", "def model(", "def guide(", "args = type(")
    found = pyro_.notebook(source, *names)
    args = found["args"]
    args.num_frames, args.max_num_objects, args.expected_num_objects = 5, 3, 2.0
    args.expected_num_spurious, args.emission_prob, args.emission_noise_scale = 1.0, 0.8, 0.1
    data = {"observations": found["generate_data"](args)[2]}
    return Problem(
        found["model"], found["guide"], TraceEnum_ELBO(max_plate_nesting=2), data=data, static={"args": args}
    )


# Deep programs.


@several("sparse gamma DEF: {} guide", "examples/sparse_gamma_def.py", "analytic KL, plates", "custom", "auto", "easy")
def _sparse_gamma(pyro_: Checkout, source: str, which: str) -> Problem:
    file = pyro_.file(source)
    deep = file.SparseGammaDEF()
    guides = {
        "custom": lambda: deep.guide,
        "auto": lambda: AutoDiagonalNormal(deep.model, init_loc_fn=init_to_feasible),
        "easy": lambda: file.MyEasyGuide(deep.model),
    }
    faces = torch.poisson(torch.full((20, 4096), 5.0))
    return Problem(deep.model, guides[which](), TraceMeanField_ELBO(), data={"x": faces})


@case("VAE", "examples/vae/vae.py", "pyro.module, plate")
def _vae(pyro_: Checkout, source: str) -> Problem:
    vae = pyro_.file(source).VAE()
    return Problem(vae.model, vae.guide, Trace_ELBO(), data={"x": torch.rand(64, 1, 28, 28)})


@several("SS-VAE: {}", "examples/vae/ss_vae_M2.py", "enumeration in the guide, pyro.module, a plate without size",
         "unlabelled", "labelled")  # fmt: skip
def _ss_vae(pyro_: Checkout, source: str, which: str) -> Problem:
    vae = pyro_.file(source).SSVAE(z_dim=50, hidden_layers=[500], config_enum="parallel", aux_loss_multiplier=46)
    guide = config_enumerate(vae.guide, "parallel", expand=True)
    data = {"xs": torch.rand(50, 784)}
    if which == "labelled":
        data["ys"] = torch.nn.functional.one_hot(torch.arange(50) % 10, 10).float()
    return Problem(vae.model, guide, TraceEnum_ELBO(max_plate_nesting=1, strict_enumeration_warning=False), data=data)


@case("CVAE", "examples/cvae/cvae.py", "pyro.module, learnt prior, frozen network")
def _cvae(pyro_: Checkout, source: str) -> Problem:
    baseline = pyro_.file("examples/cvae/baseline.py").BaselineNet(500, 500)
    cvae = pyro_.file(source).CVAE(200, 500, 500, baseline)
    ys = torch.bernoulli(torch.full((32, 28, 28), 0.2))
    xs = torch.full_like(ys, -1.0)
    xs[:, 14:, :14] = ys[:, 14:, :14]  # one quadrant is seen
    return Problem(cvae.model, cvae.guide, Trace_ELBO(), data={"xs": xs, "ys": ys})


@several("DMM: {} flows", "examples/dmm.py", "pyro.module, markov, mask, scale, a packed sequence as argument", 0, 2)
def _dmm(pyro_: Checkout, source: str, flows: int) -> Problem:
    file = pyro_.file(source)
    dmm = file.DMM(rnn_dropout_rate=0.1, num_iafs=flows, iaf_dim=100)
    sequences, lengths = torch.bernoulli(torch.full((5, 8, 88), 0.05)), torch.tensor([8, 3, 6, 7, 5])
    batch, backwards, mask, lengths = file.poly.get_mini_batch(torch.arange(5), sequences, lengths)
    data = {"mini_batch": batch, "mini_batch_mask": mask, "mini_batch_seq_lengths": lengths}
    static = {"mini_batch_reversed": backwards, "annealing_factor": 0.2}
    return Problem(dmm.model, dmm.guide, Trace_ELBO(), data=data, static=static)


@case("flow as guide", T + "svi_flow_guide.ipynb", "zuko, nested plates, 16 vectorised particles")
def _flow_guide(pyro_: Checkout, source: str) -> Problem:
    names = ("prior = ", "def likelihood(", "def model(", "flow = ", "flow.transform = ", "def guide(")
    found = pyro_.notebook(source, *names)
    elbo = Trace_ELBO(num_particles=16, vectorize_particles=True)
    return Problem(found["model"], found["guide"], elbo, data={"x": torch.randn(5, 64, 2)})


@case("ProdLDA", T + "prodlda.ipynb", "pyro.module, dropout, batch norm, analytic KL")
def _prodlda(pyro_: Checkout, source: str) -> Problem:
    found = pyro_.notebook(source, "class Encoder(", "class Decoder(", "class ProdLDA(")
    program = found["ProdLDA"](vocab_size=500, num_topics=20, hidden=100, dropout=0.2)
    docs = torch.poisson(torch.full((32, 500), 0.2))
    return Problem(program.model, program.guide, TraceMeanField_ELBO(), data={"docs": docs})


@several("scANVI: {}", "examples/scanvi/scanvi.py", "enumeration in the guide, batch norm, scale, factor, pyro.param",
         "unlabelled", "labelled")  # fmt: skip
def _scanvi(pyro_: Checkout, source: str, which: str) -> Problem:
    cells, genes = 20, 50
    net = pyro_.file(source).SCANVI(genes, 4, l_loc=5.0, l_scale=0.5, scale_factor=1.0 / (cells * genes))
    data = {"x": torch.poisson(torch.full((cells, genes), 3.0))}
    if which == "labelled":
        data["y"] = torch.nn.functional.one_hot(torch.arange(cells) % 4, 4).float()
    guide = config_enumerate(net.guide, "parallel", expand=True)
    return Problem(net.model, guide, TraceEnum_ELBO(strict_enumeration_warning=False), data=data)


# Gaussian processes.

RBF = "kernel = gp.kernels.RBF("
XY = ("N = 20", "X = dist.Uniform(", "y = 0.5 * torch.sin(")
PROCESSES: dict[str, tuple[str, tuple[str, ...]]] = {
    "exact": ("gpr", (*XY, RBF, "gpr = gp.models.GPRegression(")),
    "with priors": (
        "gpr",
        (*XY, RBF, "gpr = gp.models.GPRegression(X, y, kernel, noise=torch.tensor(1.0))", "gpr.kernel.lengthscale = ",
         "gpr.kernel.variance = "),
    ),
    "sparse": ("sgpr", (*XY, "Xu = torch.arange(20.0)", "kernel = gp.kernels.RBF(input_dim=1)", "sgpr = ")),
    "variational sparse": (
        "vsgp",
        (*XY, "Xu = torch.arange(10.0)", "kernel = gp.kernels.RBF(input_dim=1)", "likelihood = ", "vsgp = "),
    ),
}  # fmt: skip
"""Name -> the model, and the notebook's statements that make it with its data."""


@several("Gaussian process: {}", T + "gp.ipynb", "Parameterized modules that hold their data", *PROCESSES)
def _process(pyro_: Checkout, source: str, which: str) -> Problem:
    name, statements = PROCESSES[which]
    process = pyro_.notebook(source, *statements)[name]
    elbo = TraceMeanField_ELBO() if which == "variational sparse" else Trace_ELBO()  # the latter as gp.util.train takes
    return Problem(process.model, process.guide, elbo)
