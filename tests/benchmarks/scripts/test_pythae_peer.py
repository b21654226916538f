"""The comparison with Pythae: the evaluator is that of the project, and who lacks Pythae is told what to do."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from benchmarks.scripts import pythae_peer
from inference.evaluation import elbo, log_likelihood
from zoo.errors import CapabilityError
from zoo.latent.vae import VAE

HERE = importlib.util.find_spec("pythae") is not None


@pytest.mark.parametrize("prior", ["gaussian", {"name": "vamp", "components": 3}])
def test_the_evaluator_agrees_with_the_projects(prior):
    x = (torch.rand(30, 12) < 0.4).double()
    program = VAE([12], 3, [8], prior=prior)
    coded = pythae_peer.Coded(
        program.encode, lambda z: program.decoder(z) + program.bias.flatten(), lambda z: program.prior().log_prob(z)
    )
    bound, tight, _ = pythae_peer.score(coded, x, particles=2000)
    assert bound == pytest.approx(elbo(program, None, x, 2000).mean, abs=0.02)
    assert tight == pytest.approx(log_likelihood(program, x, particles=2000).mean, abs=0.02)


def test_every_kind_of_ours_trains():
    x = (torch.rand(60, 12) < 0.4).float()
    torch.set_default_dtype(torch.float32)
    for kind in pythae_peer.KINDS:
        bound, tight, together = pythae_peer.score(pythae_peer.ours(kind, x, epochs=1, seed=0), x, particles=5)
        assert bound < tight < 0
        assert together > -1


@pytest.mark.skipif(HERE, reason="Pythae is installed")
def test_who_lacks_pythae_is_told():
    with pytest.raises(CapabilityError, match=r"pip install --no-deps pythae==0\.1\.2 imageio"):
        pythae_peer.theirs("vae", torch.zeros(4, 12), 1, 0)


@pytest.mark.skipif(not HERE, reason="needs Pythae")
@pytest.mark.parametrize("kind", pythae_peer.KINDS)
def test_the_evaluator_agrees_with_pythaes(kind):
    torch.set_default_dtype(torch.float32)
    x = (torch.rand(60, 12) < 0.4).float()
    bound, tight, _ = pythae_peer.score(pythae_peer.theirs(kind, x, 1, 0), x, particles=5)
    assert bound < tight < 0
