"""Seeds leave the caller's random state alone, devices that are not there are refused."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError

import pyro
import pytest
import torch

from inference import fit
from inference.environment import resolve_device, seeded, versions
from tests.inference.factors import data, ppca
from zoo import errors
from zoo.program import Program


def test_unavailable_device_is_refused():
    if torch.cuda.is_available():
        pytest.skip("CUDA is available here")
    with pytest.raises(errors.OptionError, match="not available"):
        fit(ppca(), data(20), device="cuda")


@pytest.mark.parametrize("device", ["nonsense", "cpu:7", "cuda:99", "meta", "", 3, None])
def test_what_is_no_device_here_is_refused(device):
    with pytest.raises(errors.OptionError, match="evice"):
        resolve_device(device)


@pytest.mark.parametrize("seed", [-1, 2**63, 10**30, 1.0, True, "0", None])
def test_what_is_no_seed_is_refused(seed):
    with pytest.raises(errors.OptionError, match="seed must be"), seeded(seed):
        pass
    with pytest.raises(errors.OptionError, match="seed must be"):
        fit(ppca(), data(20), seed=seed)


def test_fits_in_threads_give_what_they_give_alone():
    torch.set_default_dtype(torch.float64)
    x = data(20)

    def work(seed: int, program: Program) -> list[torch.Tensor]:
        found = fit(program, x, "svi", steps=15, seed=seed, compile="never")
        found.program.generate(3)  # from the process's own random numbers
        return [*found.program.state_dict().values(), *found.draw(5, x[:2]).values()]

    # What the caller draws before, from the one generator of the process, is not behind the lock.
    alone = [work(seed, ppca()) for seed in range(3)]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(work, range(3), [ppca() for _ in range(3)]))
    for a, b in zip(alone, together, strict=True):
        assert all(torch.equal(v, w) for v, w in zip(a, b, strict=True))


def test_a_seed_decides_the_draws_of_a_block_and_nothing_after_it():
    before = torch.get_rng_state()
    with seeded(3):
        first = torch.rand(4)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(7)
    with seeded(3):
        assert torch.equal(torch.rand(4), first)
    with seeded(4):
        assert not torch.equal(torch.rand(4), first)


def test_the_random_state_is_put_back_after_an_exception():
    before = torch.get_rng_state()
    with contextlib.suppress(ZeroDivisionError), seeded(3):
        torch.rand(4)
        raise ZeroDivisionError
    assert torch.equal(torch.get_rng_state(), before)


def test_auto_is_the_gpu_where_there_is_one(monkeypatch):
    for there, device in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert resolve_device("auto") == torch.device(device)
    with pytest.raises(errors.OptionError, match="'cuda:1' is not available"):
        resolve_device("cuda:1")
    assert resolve_device(torch.device("cpu")) == torch.device("cpu")


def test_versions_are_those_installed(monkeypatch):
    found = versions()
    assert found["torch"] == torch.__version__.split("+")[0] or found["torch"] == torch.__version__
    assert found["pyro-ppl"] == pyro.__version__

    def missing(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr("inference.environment.version", missing)
    assert set(versions()) == set(found)
    assert set(versions().values()) == {"not installed"}
