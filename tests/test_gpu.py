"""CUDA: every method fits on the device, and what it fits equals the CPU's answer where that is not random."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch

import zoo
from inference import fit
from inference.evaluation.likelihood import log_likelihood
from inference.guides.exact import exact_log_evidence
from zoo import catalogue, datasets

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize(
    ("name", "data", "method", "options"),
    [
        ("vae", "digits-binary", "svi", {"steps": 20}),
        ("vae", "digits-binary", "wake-sleep", {"steps": 20}),
        ("vae", "digits-binary", "mcem", {"steps": 5}),
        ("vae", "digits-binary", "avb", {"steps": 5}),
        ("ppca", "digits", "em", {"iterations": 5}),
        ("gaussian-mixture", "iris", "em", {"iterations": 5}),
        ("bayesian-gaussian-mixture", "iris", "cavi", {"iterations": 5}),
        ("eight-schools", "eight_schools", "svi", {"steps": 20, "guide": "multivariate_normal"}),
        ("eight-schools", "eight_schools", "nuts", {"warmup": 20, "draws": 20}),
        ("eight-schools", "eight_schools", "laplace", {}),
        ("eight-schools", "eight_schools", "pathfinder", {"draws": 50}),
        ("eight-schools", "eight_schools", "smc", {"particles": 50}),
        ("eight-schools", "eight_schools", "svgd", {"particles": 10, "steps": 5}),
        ("gan", "digits", "gan", {"steps": 5}),
        ("banana", "moons", "exact", {}),
        ("ppca", "digits", "avb", {"steps": 5, "contrast": "prior"}),
        ("ppca", "digits", "avb", {"steps": 5, "contrast": "joint", "train_program": False}),
        ("ppca", "digits", "ali", {"steps": 5, "guide": "implicit", "regulariser": "r1"}),
        ("ppca", "digits", "aae", {"steps": 5}),
    ],
)
def test_every_method_runs_on_the_gpu(name, data, method, options):
    loaded = datasets.load(data)
    found = fit(catalogue.create_for(name, loaded.train), loaded, method, device="cuda", **options)
    assert found.device == "cuda"
    assert all(p.device.type == "cuda" for p in found.program.parameters())
    assert all(bool(torch.isfinite(p).all()) for p in found.program.parameters())


@pytest.mark.parametrize(("method", "options"), [("svi", {"steps": 20}), ("nuts", {"warmup": 10, "draws": 10})])
def test_adopted_code_runs_on_the_gpu(method, options):
    def grouped(group, y):
        mean = pyro.sample("mean", dist.Normal(y.new_zeros(()), 1.0))
        with pyro.plate("groups", 3):
            level = pyro.sample("level", dist.Normal(mean, 1.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(level[group], 0.5), obs=y)

    found = fit(zoo.adopt(grouped), (torch.tensor([0, 1, 2, 2]), torch.randn(4)), method, device="cuda", **options)
    drawn = found.draw(5)
    assert drawn["level"].is_cuda
    assert bool(torch.isfinite(drawn["level"]).all())
    assert found.predict(3)["y"].shape == (3, 4)


GAMES = ("gan", "dcgan", "cgan", "infogan", "wgan", "wgan-gp", "sngan", "ali", "aae")


GIVEN = ("pix2pix", "cyclegan", "stargan", "progan", "puzzle-gan", "text2image", "tag-gan", "wavegan")


@pytest.mark.parametrize("name", GIVEN)
def test_generators_that_are_given_something_run_on_the_gpu(name, zoo_data):
    program = catalogue.get(name)
    small = program.presets["small"]
    loaded = datasets.load(small.data or program.dataset)
    options = {key: value for key, value in small.fit.items() if key not in ("epochs", "steps")}
    found = fit(name, loaded, preset="small", device="cuda", steps=3, **options)
    assert all(bool(torch.isfinite(p).all()) for p in found.program.parameters())
    held = found.program.take(loaded.test.rows(slice(0, 4)).to("cuda"))
    assert found.program.generate(4, held.context).is_cuda


@pytest.mark.parametrize("preset", ["small", "paper"])
@pytest.mark.parametrize("name", GAMES)
def test_games_run_on_the_gpu_as_their_presets_say(name, preset, zoo_data):
    chosen = catalogue.get(name).presets[preset]
    loaded = datasets.load({"cgan": "mnist10k-labelled", "aae": "mnist10k-binary"}.get(name, "mnist10k"))
    options = {key: value for key, value in chosen.fit.items() if key != "epochs"}
    program = catalogue.create_for(name, loaded.train, preset)
    found = fit(program, loaded, chosen.method, device="cuda", **{**options, "steps": 5})
    assert all(bool(torch.isfinite(p).all()) for p in found.program.parameters())
    assert found.program.generate(4, None if loaded.test.context is None else loaded.test.context[:4].cuda()).is_cuda


@pytest.mark.parametrize(("name", "data"), [("ppca", "digits"), ("bernoulli-mixture", "digits-binary"), ("hmm", "jsb")])
def test_densities_agree_with_the_cpu(name, data, request):
    if data == "jsb":
        request.getfixturevalue("zoo_data")
    loaded = datasets.load(data)
    program = catalogue.create_for(name, loaded.train)
    few = loaded.test.rows(slice(0, 20))
    cpu = exact_log_evidence(program, *few)
    gpu = exact_log_evidence(program.to("cuda"), *few.to("cuda")).cpu()
    torch.testing.assert_close(cpu, gpu, rtol=1e-9, atol=1e-9)


def test_iwae_on_the_gpu_agrees_with_the_cpu_within_monte_carlo_error():
    loaded = datasets.load("digits-binary")
    program = catalogue.create_for("vae", loaded.train)
    few = loaded.test.rows(slice(0, 50))
    cpu = log_likelihood(program, few, particles=2000)
    gpu = log_likelihood(program.to("cuda"), few.to("cuda"), particles=2000)
    error = (cpu.mean_error**2 + gpu.mean_error**2) ** 0.5
    assert abs(cpu.mean - gpu.mean) < 5 * error
